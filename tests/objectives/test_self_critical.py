"""Self-critical training: its rewards are the metric, its gradient a plain policy gradient, and captions get better."""

from dataclasses import replace
from itertools import repeat

import numpy as np
import pytest
import torch

from rebus.codec.caption_words import words
from rebus.core.errors import UsageError
from rebus.core.labels import IGNORED
from rebus.data.scene_tokenizer import BOS, EOS, PAD, scenes_processor
from rebus.data.scenes import scene
from rebus.evaluate.caption_metrics import cider_d_scores
from rebus.models.cross_attention.visualgpt import PRESETS, SYSTEM, VisualGPT
from rebus.models.cross_attention.visualgpt_config import VisualGPTConfig
from rebus.objectives import SelfCriticalLoss, self_critical, split
from rebus.objectives.self_critical import SelfCritical, references_of

CFG = VisualGPTConfig(
    text=replace(PRESETS["tiny"].text, vocab_size=85), region_width=14, num_levels=2, mlp_width=20,
    start_id=BOS, pad_id=PAD, end_id=EOS, punctuation=True,
)  # fmt: skip
SETTINGS = SelfCriticalLoss(num_beams=4, max_new_tokens=8, corpus=6)


@pytest.fixture(scope="module")
def processor():
    return scenes_processor(SYSTEM.text_spec(CFG), 96)


@pytest.fixture
def batch(processor):
    """Six images with two captions each."""
    captions = [text for i in range(6) for text in scene(i, "train", count=1).captions[:2]]
    text = processor.text
    tokens, mask = text([""] * 12)
    regions = torch.randn(6, 4, 14, generator=torch.Generator().manual_seed(0))
    owners = torch.arange(6).repeat_interleave(2)
    return {"regions": regions, "tokens": tokens, "mask": mask, "targets": text.targets(captions), "owners": owners}


def network():
    torch.manual_seed(0)
    return VisualGPT(CFG)


def test_rewards_are_the_metric(processor, batch):
    loss, net = SETTINGS.prepared(processor, repeat(batch)), network()
    references = references_of(processor, batch)
    assert references == [[words(text) for text in scene(i, "train", count=1).captions[:2]] for i in range(6)]
    prompt = {"regions": batch["regions"], "tokens": batch["tokens"][::2]}
    written = loss.write(net, prompt)
    assert written.shape[:2] == (6, 4)
    metric = np.stack(
        [cider_d_scores([words(t) for t in processor.decode(written[:, beam])], references) for beam in range(4)]
    )
    losses = loss(net, batch)
    assert float(losses.parts["cider"]) == pytest.approx(metric[0].mean(), rel=1e-6)
    assert float(losses.parts["reward"]) == pytest.approx(metric.mean(), rel=1e-6)
    assert loss.examples(batch) == 6


def test_the_gradient_is_that_of_a_plain_transcription_in_float64(processor, batch):
    loss, net = SETTINGS.prepared(processor, repeat(batch)), network().double()
    batch["regions"] = batch["regions"].double()
    losses = loss(net, batch)
    losses.total.backward()
    found = {name: p.grad.clone() for name, p in net.named_parameters()}
    net.zero_grad()
    written = loss.write(net, {"regions": batch["regions"], "tokens": batch["tokens"][::2]})
    references, total = references_of(processor, batch), 0.0
    for image in range(6):
        said = [words(text) for text in processor.decode(written[image])]
        rewards = loss.cider.scores(said, [references[image]] * 4)
        for beam in range(4):
            text = written[image, beam][written[image, beam] != IGNORED]
            out = net(regions=batch["regions"][image : image + 1], tokens=torch.tensor([[BOS]]), targets=text[None])
            log_p = out.logits[0].log_softmax(-1).gather(1, text[:, None]).sum() / 8  # of at most 8 tokens
            total = total - float(np.float32(rewards[beam]) - np.float32(rewards).mean()) * log_p / 24
    torch.testing.assert_close(losses.total, total, atol=1e-6, rtol=0)
    total.backward()
    for name, p in net.named_parameters():
        torch.testing.assert_close(found[name], p.grad, atol=1e-6, rtol=1e-4, msg=name)


def test_better_captions_become_more_probable_and_equal_ones_teach_nothing():
    log_p = torch.zeros(1, 3, 2, requires_grad=True)
    self_critical(log_p, torch.tensor([[1.0, 2.0, 6.0]]), 2).backward()
    torch.testing.assert_close(log_p.grad[0, :, 0], torch.tensor([2.0, 1.0, -3.0]) / 2 / 3)
    assert self_critical(log_p, torch.full((1, 3), 4.0), 2) == 0


def test_steps_raise_the_reward(processor, batch):
    loss, net = SETTINGS.prepared(processor, repeat(batch)), network()
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0)
    for _ in range(20):  # a captioner that has seen some words
        optimiser.zero_grad()
        out = net(**{name: value for name, value in batch.items() if name != "mask"}).logits
        torch.nn.functional.cross_entropy(out.flatten(0, 1), batch["targets"].flatten()).backward()
        optimiser.step()
    rewards = []
    for _ in range(10):
        optimiser.zero_grad()
        losses = loss(net, batch)
        losses.total.backward()
        optimiser.step()
        rewards.append(float(losses.parts["reward"]))
    assert np.mean(rewards[-3:]) > 2 * rewards[0]


def test_parts_of_a_batch_give_its_loss(processor, batch):
    loss, net = SETTINGS.prepared(processor, repeat(batch)), network()
    parts = split(batch, 2)
    shares = [loss(net, part).total * loss.examples(part) / 6 for part in parts]
    torch.testing.assert_close(sum(shares), loss(net, batch).total)


def test_an_image_has_one_caption_where_nothing_else_is_said(processor, batch):
    single = {name: value[::2] if name != "regions" else value for name, value in batch.items() if name != "owners"}
    assert [len(texts) for texts in references_of(processor, single)] == [1] * 6
    loss = SETTINGS.prepared(processor, repeat(single))
    assert loss(network(), single).total.isfinite()


def test_what_cannot_be_is_said(processor, batch, monkeypatch):
    with pytest.raises(UsageError, match="num_beams=1: a caption is judged by the others"):
        SelfCriticalLoss(num_beams=1)
    with pytest.raises(UsageError, match="the data has none"):
        SETTINGS.prepared(processor, repeat({"pixels": batch["regions"]}))
    loss = SETTINGS.prepared(processor, repeat(batch))
    with pytest.raises(UsageError, match="an image has no caption"):
        loss(network(), {**batch, "owners": torch.zeros(12, dtype=torch.int64)})
    monkeypatch.setattr("rebus.objectives.ranks.world", lambda: (0, 2))
    with pytest.raises(UsageError, match="one process alone"):
        SETTINGS.prepared(processor, repeat(batch))
    assert isinstance(loss, SelfCritical)
    assert loss.kind == SETTINGS.kind
