"""Reading released configurations: a closed schema over the reference library's `config.json`."""

import difflib
from collections.abc import Mapping
from typing import Any, get_args

from rebus.core.config import convert
from rebus.core.errors import BadConfig
from rebus.core.limits import check

# Fields that the reference library writes into every configuration and that change nothing that we compute.
HARMLESS = frozenset(
    """_name_or_path _commit_hash _attn_implementation_autoset architectures transformers_version torch_dtype dtype
    model_type initializer_factor initializer_range attention_dropout dropout chunk_size_feed_forward finetuning_task
    gradient_checkpointing id2label label2id num_return_sequences output_attentions output_hidden_states output_scores
    problem_type remove_invalid_values return_dict return_dict_in_generate sep_token_id task_specific_params
    tf_legacy_loss tokenizer_class torchscript use_bfloat16 use_cache""".split()
)

# Fields of the network and of decoding that are written into every configuration too, and mean nothing at these
# values, which are the reference library's defaults. A reader takes them, demands a value, or they must be as here.
NEUTRAL: dict[str, Any] = {
    "add_cross_attention": False,
    "cross_attention_hidden_size": None,
    "is_decoder": False,
    "pruned_heads": {},
    "is_encoder_decoder": False,
    "tie_encoder_decoder": False,
    "tie_word_embeddings": True,
    "scale_embedding": False,
    "prefix": None,
    "decoder_start_token_id": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "bad_words_ids": None,
    "begin_suppress_tokens": None,
    "suppress_tokens": None,
    "max_length": 20,
    "min_length": 0,
    "early_stopping": False,
    "exponential_decay_length_penalty": None,
    "num_beams": 1,
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "length_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "repetition_penalty": 1.0,
    "do_sample": False,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "typical_p": 1.0,
}

_REQUIRED = object()


class Released:
    """The fields of a released configuration, taken one by one; `finish` refuses whatever was not taken."""

    def __init__(self, data: Any, where: str = "config.json"):
        if not isinstance(data, Mapping):
            raise BadConfig(f"{where} must be an object; got {type(data).__name__}")
        self.data, self.where, self.known = data, where, set(HARMLESS)

    def take(self, name: str, kind: Any, default: Any = _REQUIRED) -> Any:
        """The value of `name` as the type `kind`; `default` where it is absent.

        Null is a value where `kind` has a None (`float | None`); elsewhere it means that nothing is said.
        """
        self.known.add(name)
        value = self.data.get(name)
        if value is None:
            if name in self.data and type(None) in get_args(kind):
                return None
            if default is _REQUIRED:
                raise BadConfig(f"{self.where}.{name}: missing")
            return default
        return convert(value, kind, f"{self.where}.{name}")

    def size(self, name: str, default: Any = _REQUIRED) -> int:
        """A width, a height or a number of parts: at least 1."""
        found: int = self.take(name, int, default)
        if found < 1:
            raise BadConfig(f"{self.where}.{name}: expected at least 1; got {found}")
        return found

    def layers(self, name: str, default: Any = _REQUIRED) -> int:
        """A number of layers: each is built before any weight is read. Raises `LimitExceeded` too."""
        found = self.size(name, default)
        check("MAX_LAYERS", found, f"{self.where}.{name}")
        return found

    def positive(self, name: str, default: Any = _REQUIRED) -> float:
        """A finite number above 0."""
        found: float = self.take(name, float, default)
        if not found > 0:
            raise BadConfig(f"{self.where}.{name}: expected a number above 0; got {found}")
        return found

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
        """Raise `BadConfig` naming every field that nobody took and that says something."""
        problems = []
        for name, value in self.data.items():
            if name in self.known or value is None:
                continue
            if name in NEUTRAL:
                if value != NEUTRAL[name]:
                    problems.append(f"{self.where}.{name}: only {NEUTRAL[name]!r} is supported; got {value!r}")
            else:
                near = difflib.get_close_matches(name, self.known, n=1)
                problems.append(f"{self.where}.{name}: unknown field" + (f" (did you mean {near[0]}?)" if near else ""))
        if problems:
            raise BadConfig("; ".join(problems))


ACT_FROM_RELEASED = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "relu": "relu",
}
ACT_TO_RELEASED = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu": "relu"}


def read_act(fields: Released, name: str, default: str) -> str:
    """The activation under our name."""
    spelled = fields.take(name, str, default)
    if spelled not in ACT_FROM_RELEASED:
        raise BadConfig(f"{fields.where}.{name}: expected one of {', '.join(ACT_FROM_RELEASED)}; got {spelled!r}")
    return ACT_FROM_RELEASED[spelled]
