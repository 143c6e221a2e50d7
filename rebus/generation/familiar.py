"""Names of decoding options from elsewhere: taken where they can mean one thing only, else refused naming ours."""

from collections.abc import Mapping
from typing import Any

from rebus.core.errors import UsageError

_INSIDE = "none: model.network(**batch) gives logits, and its parts are modules to call or hook"
_OURS = {
    "max_length": "max_new_tokens, which leaves the prompt out",
    "min_length": "no such option; allowed= constrains the tokens",
    "repetition_penalty": "no_repeat_ngram_size",
    "penalty_alpha": 'alpha, with strategy="contrastive"',
    "num_return_sequences": 'a list with the same item several times, with strategy="sample" and a list of seeds',
    "eos_token_id": "eos_id",
    "pad_token_id": "pad_id",
    "stop_strings": "stop",
    "input_ids": "tokens",
    "attention_mask": "mask",
    "pixel_values": "pixels",
    "output_scores": "on_token=, which is called with the log-probability of each token",
    "output_hidden_states": _INSIDE,
    "output_attentions": _INSIDE,
    "return_dict_in_generate": "model.generate gives tokens alone",
    "generation_config": "the options themselves, by name",
}


def in_our_names(options: Mapping[str, Any]) -> dict[str, Any]:
    """The decoding options with `do_sample`, and `num_beams` without a strategy, as a strategy.

    Raises `UsageError` for options that contradict each other, and for names of other libraries, giving ours.
    """
    found = dict(options)
    for name, ours in _OURS.items():
        if name in found:
            raise UsageError(f"no option {name!r} here; ours is: {ours}")
    asked = []
    if found.pop("do_sample", False):
        asked.append(("do_sample=True", "sample"))
    beams = found.get("num_beams")
    if beams is not None and "strategy" not in found and beams != 1:
        asked.append((f"num_beams={beams}", "beam"))
    elif beams == 1 and found.get("strategy", "greedy") != "beam":
        del found["num_beams"]
        found.setdefault("strategy", asked[0][1] if asked else "greedy")
    for name, strategy in asked:
        if found.setdefault("strategy", strategy) != strategy:
            raise UsageError(f'{name} is strategy="{strategy}", and the other options say "{found["strategy"]}"')
    if options.get("do_sample") is False and found.setdefault("strategy", "greedy") == "sample":
        raise UsageError('do_sample=False contradicts strategy="sample"')
    return found
