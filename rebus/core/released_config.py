"""Reading released configurations: a closed schema over the reference library's `config.json`."""

import difflib
from collections.abc import Mapping
from typing import Any

from rebus.core.config import convert
from rebus.core.errors import BadConfig

# Fields that the reference library writes into every configuration and that change no number of a forward pass.
HARMLESS = frozenset(
    """_name_or_path _commit_hash _attn_implementation_autoset architectures transformers_version torch_dtype dtype
    model_type initializer_factor initializer_range attention_dropout dropout add_cross_attention bad_words_ids
    begin_suppress_tokens chunk_size_feed_forward cross_attention_hidden_size decoder_start_token_id diversity_penalty
    do_sample early_stopping encoder_no_repeat_ngram_size exponential_decay_length_penalty finetuning_task
    forced_bos_token_id forced_eos_token_id gradient_checkpointing id2label is_decoder is_encoder_decoder label2id
    length_penalty max_length min_length no_repeat_ngram_size num_beam_groups num_beams num_return_sequences
    output_attentions output_hidden_states output_scores prefix problem_type pruned_heads remove_invalid_values
    repetition_penalty return_dict return_dict_in_generate sep_token_id suppress_tokens task_specific_params
    temperature tf_legacy_loss tie_encoder_decoder tie_word_embeddings tokenizer_class top_k top_p torchscript
    typical_p use_bfloat16 use_cache""".split()
)

_REQUIRED = object()


class Released:
    """The fields of a released configuration, taken one by one; `finish` refuses whatever was not taken."""

    def __init__(self, data: Any, where: str = "config.json"):
        if not isinstance(data, Mapping):
            raise BadConfig(f"{where} must be an object; got {type(data).__name__}")
        self.data, self.where, self.known = data, where, set(HARMLESS)

    def take(self, name: str, kind: Any, default: Any = _REQUIRED) -> Any:
        """The value of `name` as the type `kind`; `default` where it is absent or null."""
        self.known.add(name)
        value = self.data.get(name)
        if value is None:
            if default is _REQUIRED:
                raise BadConfig(f"{self.where}.{name}: missing")
            return default
        return convert(value, kind, f"{self.where}.{name}")

    def part(self, name: str) -> "Released":
        """A nested configuration; an empty one where it is absent."""
        self.known.add(name)
        return Released(self.data.get(name) or {}, f"{self.where}.{name}")

    def skip(self, *names: str) -> None:
        """These are known and change nothing that we compute."""
        self.known.update(names)

    def demand(self, name: str, value: Any, default: Any = None) -> None:
        """Refuse any other value of `name`: the architecture behind it is not the one we have."""
        self.known.add(name)
        got = self.data.get(name, default)
        if got is not None and got != value:
            raise BadConfig(f"{self.where}.{name}: only {value!r} is supported; got {got!r}")

    def finish(self) -> None:
        """Raise `BadConfig` naming every field that nobody took."""
        problems = []
        for name in self.data:
            if name not in self.known:
                near = difflib.get_close_matches(name, self.known, n=1)
                problems.append(f"{self.where}.{name}: unknown field" + (f" (did you mean {near[0]}?)" if near else ""))
        if problems:
            raise BadConfig("; ".join(problems))


ACT_FROM_RELEASED = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
}
ACT_TO_RELEASED = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}


def read_act(fields: Released, name: str, default: str) -> str:
    """The activation under our name."""
    spelled = fields.take(name, str, default)
    if spelled not in ACT_FROM_RELEASED:
        raise BadConfig(f"{fields.where}.{name}: wants one of {', '.join(ACT_FROM_RELEASED)}; got {spelled!r}")
    return ACT_FROM_RELEASED[spelled]
