"""`flamingo/starter`: SmolLM2-135M of the package index looks at photos through EfficientNet-Lite0, offline.

Both stay as they come; what was learned between them lies in this package.
"""

from importlib.resources import files
from pathlib import Path

from rebus.backbones.starter_networks import starter_encoder, starter_language_model
from rebus.core.config import from_dict, to_dict
from rebus.core.system import Assembled
from rebus.models.frozen_lm.flamingo_config import PRESETS, FlamingoConfig, part
from rebus.weights.checkpoint_files import open_weights

NEED = "flamingo/starter"


def learned() -> Path:
    """What was learned, in float16: resampler, cross-attention, and the vector that an image stands at."""
    return Path(str(files("rebus"))) / "checkpoints" / "flamingo_starter" / "learned.safetensors"


def assemble_starter() -> Assembled:
    """The model behind `flamingo/starter`. Raises `MissingExtra` where its packages are not installed."""
    from rebus.models.frozen_lm.flamingo_layouts import join  # which builds on this file

    text, image = starter_language_model(NEED), starter_encoder(NEED)
    own = to_dict(PRESETS["starter"]) | {
        "text": to_dict(part("llama", text.config)),
        "image": to_dict(part("efficientnet", image.config)),
    }
    cfg = from_dict(FlamingoConfig, own)
    tensors = {
        **{f"text.{name}": tensor for name, tensor in text.tensors.items()},
        **{f"image.{name}": tensor for name, tensor in image.tensors.items()},
        **open_weights(learned()),
    }
    return Assembled(cfg, tensors, join(cfg, text.processor, image.processor))
