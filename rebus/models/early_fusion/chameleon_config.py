"""Chameleon's configuration: a Llama, the tokenizer of images, and the tokens that stand for images in a text."""

from dataclasses import dataclass, field, replace

from rebus.backbones.text.llama import LlamaConfig
from rebus.backbones.vision.vqgan import TINY, VQGANConfig
from rebus.core.errors import BadConfig

SEPARATOR = "<reserved08706>"  # ends the turn of whoever asks

_7B = LlamaConfig(vocab_size=65_536, qk_norm=True)
_34B = replace(_7B, width=8192, num_layers=48, num_heads=64, num_kv_heads=8, mlp_width=22_016, norm_after=True)


@dataclass(frozen=True, kw_only=True)
class ChameleonConfig:
    text: LlamaConfig = field(default_factory=lambda: _7B)
    image: VQGANConfig = field(default_factory=VQGANConfig)
    draws: bool = True  # whether the decoder of the tokenizer of images is there
    pad_id: int = 1
    bos_id: int = 0
    eos_id: int = 2
    first_code: int = 4  # the token of code 0; the others follow
    end_id: int = 8196  # ends an image
    begin_id: int = 8197  # begins one
    image_id: int = 8711  # placeholder that the codes of an image replace

    def __post_init__(self) -> None:
        last = self.first_code + self.image.num_codes
        own = (self.pad_id, self.bos_id, self.eos_id, self.end_id, self.begin_id, self.image_id)
        if max(last, *(i + 1 for i in own)) > self.text.vocab_size:
            raise BadConfig(f"chameleon: tokens of images go beyond the vocabulary of {self.text.vocab_size:,}")
        if any(self.first_code <= i < last for i in own):
            raise BadConfig(f"chameleon: ids {self.first_code} to {last - 1} are codes of images, and nothing else")

    @property
    def num_image_tokens(self) -> int:
        """Codes of an image."""
        rows, columns = self.image.grid
        return rows * columns


_TINY = ChameleonConfig(
    text=LlamaConfig(
        width=24,
        num_layers=2,
        num_heads=4,
        num_kv_heads=4,
        head_width=6,
        mlp_width=48,
        vocab_size=96,
        context=64,
        qk_norm=True,
    ),
    image=TINY,
    end_id=20,
    begin_id=21,
    image_id=95,
)

PRESETS = {
    "tiny": _TINY,
    "tiny_swin": replace(_TINY, text=replace(_TINY.text, num_kv_heads=2, norm_after=True), draws=False),
    "7b": ChameleonConfig(draws=False),
    "34b": ChameleonConfig(text=_34B, draws=False),
    "anole_7b": ChameleonConfig(),
}
