"""A LoRA run under bfloat16 holds frozen matrices in bfloat16: the same losses, and the same model at the end."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from rebus.recipes import recipe
from rebus.train import loop, train
from rebus.train.config import LoRA, Watch

RUN = replace(
    recipe("paligemma_scenes"),
    start_from="paligemma/scenes",
    lora=LoRA(),
    bf16=True,
    steps=2,
    batch_size=2,
    eval_every=2,
    eval_batches=1,
    save_every=2,
    workers=0,
    watch=Watch(gallery=2),
)


@pytest.mark.slow
def test_rounding_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "multiplies_bfloat16", lambda: True)
    found = []
    for name in ("rounded", "exact"):
        if name == "exact":
            monkeypatch.setattr(loop, "round_frozen", lambda network: None)
        final = train(RUN, tmp_path / name)
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        weights = load_file(final / "model.safetensors")
        found.append(([(line["loss"], line["norm"]) for line in lines], lines[-1]["val_loss"], weights))
    (losses, held_out, weights), (exact_losses, exact_held_out, exact_weights) = found
    assert losses == exact_losses
    assert held_out == exact_held_out
    assert weights.keys() == exact_weights.keys()
    assert all(torch.equal(weight, exact_weights[name]) for name, weight in weights.items())
