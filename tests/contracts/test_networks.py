"""What every network owes, written once: each system at its tiny presets."""

import json

import pytest
import torch

import rebus
from rebus import catalog
from rebus.core.capabilities import (
    EmbedsImages,
    EmbedsText,
    FindsRegions,
    MatchesPairs,
    PicksAnswers,
    WritesText,
)
from rebus.core.config import from_dict, to_dict
from rebus.core.errors import BadConfig, UsageError
from rebus.core.labels import IGNORED
from rebus.nn.batch_norm import live_batch_norms
from rebus.objectives import Learner, backward, objective_of
from rebus.open_checkpoint import open_checkpoint
from rebus.plan.step import Step
from rebus.plan.trace import trace
from rebus.save_checkpoint import save_checkpoint

CASES = [(name, preset) for name in catalog.SYSTEMS for preset in catalog.system(name).presets if "tiny" in preset]


def able(*capabilities):
    """The cases whose networks have all of these capabilities."""
    return [(n, p) for n, p in CASES if all(issubclass(catalog.system(n).network, one) for one in capabilities)]


WRITERS, TOWERS, FINDERS = able(WritesText), able(EmbedsImages, EmbedsText), able(EmbedsText, FindsRegions)
READERS = able(PicksAnswers, MatchesPairs)
TRAINED = [(name, preset) for name, preset in CASES if catalog.system(name).objective is not None]
CATALOGUE = [card for card in catalog.ROWS.values() if card.parameters]


def test_every_system_has_a_case():
    assert {name for name, _ in CASES} == set(catalog.SYSTEMS)
    assert {name for name, _ in WRITERS + TOWERS + FINDERS + READERS} == set(catalog.SYSTEMS)


def build(name, preset, seed=0):
    system = catalog.system(name)
    torch.manual_seed(seed)
    network = system.build(system.presets[preset]).eval()
    for p in network.parameters():  # away from zeros and ones, so that every weight matters
        if p.ndim:
            torch.nn.init.normal_(p, std=0.2)
    for table in network.buffers():
        if table.ndim == 2 and table.is_floating_point():
            torch.nn.init.normal_(table)
    return system, network


def prompts(system, network, lengths=(4, 2, 3), side="right"):
    """A batch with its padding on one side, its targets, and each row of the prompts alone."""
    batch = system.example(network.cfg, len(lengths), prompt=max(lengths), answer=6)
    targets, whole = batch.pop("targets"), batch["tokens"].shape[1]
    rows = [row[: whole - max(lengths) + n] for row, n in zip(batch["tokens"], lengths)]
    tokens, mask = torch.zeros_like(batch["tokens"]), torch.zeros_like(batch["tokens"], dtype=torch.bool)
    for b, row in enumerate(rows):
        at = slice(whole - len(row), None) if side == "left" else slice(0, len(row))
        tokens[b, at], mask[b, at] = row, True
    return {**batch, "tokens": tokens, "mask": mask}, targets, [row[None] for row in rows]


def layouts(system, config):
    """Those that can hold a configuration, and all of its weights."""
    for layout in system.layouts.values():
        if not layout.whole:
            continue
        try:
            if layout.write_config is not None:
                layout.write_config(config)
            layout.keys(config)
        except BadConfig:
            continue
        yield layout


@pytest.mark.parametrize("name, preset", CASES)
def test_config_survives_json(name, preset):
    config = catalog.system(name).presets[preset]
    assert from_dict(type(config), json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize("name, preset", CASES)
def test_keys_cover_each_weight_once_and_return(name, preset):
    system, network = build(name, preset)
    state = network.state_dict()
    found = list(layouts(system, network.cfg))
    assert found
    for layout in found:
        if layout.name == "open_clip" and preset == "tiny_naflex":
            continue
        keys = layout.keys(network.cfg)
        theirs = keys.to_theirs(state)
        back = keys.to_ours(theirs)
        assert back.keys() == state.keys()
        for key, tensor in state.items():
            assert torch.equal(back[key].load(), tensor), (layout.name, key)


@pytest.mark.parametrize("name, preset", CASES)
def test_released_configuration_returns(name, preset):
    system, network = build(name, preset)
    for layout in layouts(system, network.cfg):
        if layout.write_config is not None and preset != "tiny_resnet":
            assert layout.read_config(layout.write_config(network.cfg)) == network.cfg


@pytest.mark.parametrize("name, preset", TOWERS)
def test_towers_give_unit_vectors_whatever_the_batch(name, preset):
    system, network = build(name, preset)
    assert isinstance(network, EmbedsImages)
    assert isinstance(network, EmbedsText)
    batch = system.example(network.cfg, 3)
    tokens = batch["tokens"]
    images = [{key: rows[b : b + 1] for key, rows in batch.items() if key != "tokens"} for b in range(3)]
    with torch.no_grad():
        out = network(**batch)
        image = torch.cat([network.embed_image(**alone) for alone in images])
        text = torch.cat([network.embed_text(t[None]) for t in tokens])
    torch.testing.assert_close(out.image, image, atol=1e-5, rtol=0)
    torch.testing.assert_close(out.text, text, atol=1e-5, rtol=0)
    torch.testing.assert_close(out.image.norm(dim=-1), torch.ones(3))
    assert out.logits.shape == (3, 3)


@pytest.mark.parametrize("name, preset", TOWERS)
def test_texts_padded_on_the_left_equal_those_padded_on_the_right(name, preset):
    system, network = build(name, preset)
    context, vocab = network.cfg.text.context, network.cfg.text.vocab_size
    pad, end = getattr(network.cfg, "pad_id", 0), vocab - 1
    left, right = torch.full((2, 3, context), pad)
    mask = torch.zeros(3, context, dtype=torch.bool)
    for b, n in enumerate((5, 3, context)):
        words = [*torch.randint(2, vocab - 1, (n - 1,), generator=torch.Generator().manual_seed(b)).tolist(), end]
        left[b, context - n :], right[b, :n] = torch.tensor(words), torch.tensor(words)
        mask[b, context - n :] = True
    with torch.no_grad():
        on_the_left = network.embed_text(left, mask)
        torch.testing.assert_close(on_the_left, network.embed_text(right, mask.flip(1)), atol=1e-5, rtol=0)
        if system.objective is not None:  # encoders that are handed to a system may need the mask
            torch.testing.assert_close(on_the_left, network.embed_text(right), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name, preset", FINDERS)
def test_regions_do_not_depend_on_the_batch(name, preset):
    system, network = build(name, preset)
    assert isinstance(network, FindsRegions)
    pixels = system.example(network.cfg, 3)["pixels"]
    labels = network.embed_text(torch.randint(3, 60, (4, 6), generator=torch.Generator().manual_seed(0)))
    together = network.find_regions(pixels, labels)
    for image, found in zip(pixels, together, strict=True):
        (alone,) = network.find_regions(image[None], labels)
        assert len(found.boxes) > 3
        assert torch.equal(found.labels, alone.labels)
        for one, other in zip(found, alone, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
        assert ((found.boxes >= 0) & (found.boxes <= 1)).all()
        assert ((found.scores > 0) & (found.scores <= 1)).all()
        assert (found.scores.diff() <= 0).all()


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name, preset", WRITERS)
def test_a_row_does_not_depend_on_its_batch_or_padding(name, preset, side):
    system, network = build(name, preset)
    batch, targets, alone = prompts(system, network, side=side)
    targets[1, 3:] = IGNORED
    with torch.no_grad():
        logits = network(**batch, targets=targets).logits
        for b, row in enumerate(alone):
            real = targets[b] != IGNORED
            image = {name: value[b : b + 1] for name, value in batch.items() if name not in ("tokens", "mask")}
            single = network(**image, tokens=row, targets=targets[b : b + 1, real]).logits
            torch.testing.assert_close(logits[b, real], single[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name, preset", WRITERS)
def test_cached_decoding_equals_the_full_forward(name, preset, side):
    system, network = build(name, preset)
    assert isinstance(network, WritesText)
    batch, targets, _ = prompts(system, network, side=side)
    with torch.no_grad():
        full = network(**batch, targets=targets).logits
        step = network.start(room=6, **batch)
        for s in range(6):
            torch.testing.assert_close(step.logits, full[:, s], atol=1e-4, rtol=0)
            step = network.step(targets[:, s], step.cache)


@pytest.mark.parametrize("name, preset", WRITERS)
def test_rows_join_and_leave_a_cache_between_steps(name, preset):
    """Three answers one token at a time, each begun at another moment, in the place of one that was left."""
    system, network = build(name, preset)
    batch, targets, alone = prompts(system, network)
    with torch.no_grad():
        full = network(**batch, targets=targets).logits

        def start(row, room):
            image = {key: value[row : row + 1] for key, value in batch.items() if key not in ("tokens", "mask")}
            return network.start(room=room, **image, tokens=alone[row])

        first = start(1, 4)
        cache, begun = first.cache.select(torch.tensor([0, 0, 0])).free(torch.tensor([1, 2])), {0: (1, 0)}
        logits = {0: first.logits[0]}
        joins = {2: (0, 2), 3: (2, 1), 5: (1, 0), 7: (2, 2)}  # at which step: row of the batch, place
        for at in range(13):
            if at in joins:
                row, place = joins[at]
                new = start(row, 6)
                cache = cache.put(torch.tensor([place]), new.cache, room=6)
                begun[place], logits[place] = (row, at), new.logits[0]
            tokens = torch.zeros(3, dtype=torch.int64)
            for place, (row, since) in begun.items():
                torch.testing.assert_close(logits[place], full[row, at - since], atol=1e-4, rtol=0)
                tokens[place] = targets[row, at - since]
            begun = {place: (row, since) for place, (row, since) in begun.items() if at - since < 5}
            idle = [place for place in range(3) if place not in begun]
            step = network.step(tokens, cache.free(torch.tensor(idle, dtype=torch.int64)))
            cache, logits = step.cache, {place: step.logits[place] for place in begun}
        assert not begun


@pytest.mark.parametrize("name, preset", WRITERS)
def test_a_later_target_changes_nothing_before_it(name, preset):
    system, network = build(name, preset)
    batch, targets, _ = prompts(system, network)
    other = targets.clone()
    other[:, 3] = (targets[:, 3] + 7) % 60
    with torch.no_grad():
        a = network(**batch, targets=targets).logits
        b = network(**batch, targets=other).logits
    torch.testing.assert_close(a[:, :4], b[:, :4], atol=0, rtol=0)
    assert (a[:, 4:] - b[:, 4:]).abs().max() > 1e-3


@pytest.mark.parametrize("name, preset", CASES)
def test_a_model_is_saved_and_loaded(name, preset, tmp_path):
    system, network = build(name, preset)
    batch = system.example(network.cfg, 2)
    layout = system.layout_for(network.cfg)
    folder = save_checkpoint(tmp_path / "saved", layout, network.cfg, network.state_dict())
    opened = open_checkpoint(folder)
    assert (opened.system.name, opened.layout.name, opened.config) == (name, layout.name, network.cfg)
    again = rebus.load(folder, device="cpu")
    tasks = catalog.tasks_of(system, network.cfg)
    assert again.tasks == tasks <= catalog.SYSTEMS[name].tasks
    with torch.no_grad():
        for one, other in zip(network(**batch), again(**batch), strict=True):
            if one is not None:  # mapped weights lie elsewhere in memory: a last bit may differ
                torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name, preset", TRAINED)
def test_a_step_down_the_gradient_lowers_the_loss(name, preset):
    system = catalog.system(name)
    torch.manual_seed(0)
    network = system.build(system.presets[preset]).train()
    batch = system.example(network.cfg, 4)
    norms = live_batch_norms(network).values()
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        network(**batch)
    for norm in norms:  # of the statistics that they have just seen
        norm.eval()
    learner = Learner(objective_of(system, network.cfg), network)
    before = backward(learner, [batch]).total
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained.values())
    with torch.no_grad():
        length = torch.stack([p.grad.norm() for p in trained.values()]).norm()
        for p in trained.values():
            p -= 1e-3 / length * p.grad
        assert learner(batch).total < before


@pytest.mark.parametrize("name, preset", CASES)
def test_a_step_is_planned(name, preset):
    system = catalog.system(name)
    config = system.presets[preset]
    if system.objective is None:
        with pytest.raises(UsageError, match="nothing to train"):
            trace(system, config, Step())
        return
    found = trace(system, config, Step(prompt=4, answer=4, bf16=False))
    network = system.build(config)
    assert found.params == sum(p.numel() for p in network.parameters())
    assert found.trained == sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert 0 < sum(part.forward for part in found.parts) < sum(part.backward for part in found.parts) * 1.01 + 1e9


@pytest.mark.parametrize("card", CATALOGUE, ids=lambda card: card.name)
def test_published_size(card):
    system = catalog.system(card.system)
    with torch.device("meta"):
        network = system.build(system.presets[card.preset])
    assert sum(p.numel() for p in network.parameters()) == card.parameters
