"""SimVLM: who sees whom, positions, and what is learned."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from rebus.core.errors import BadText, UsageError
from rebus.core.labels import IGNORED
from rebus.generation import generate
from rebus.models.prefix_lm import simvlm
from rebus.objectives import PrefixLMLoss
from rebus.objectives.prefix_lm import move_prefix


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = simvlm.SimVLM(simvlm.PRESETS["tiny"]).eval()
    for p in network.parameters():
        if p.ndim:
            torch.nn.init.normal_(p, std=0.4)
    return network


def batch(rows=3, prompt=5, answer=6, seed=0, size=64):
    random = torch.Generator().manual_seed(seed)
    tokens = torch.randint(3, 96, (rows, prompt + answer), generator=random)
    pixels = torch.randn(rows, 3, size, size, generator=random)
    return {"pixels": pixels, "tokens": tokens[:, :prompt], "targets": tokens[:, prompt:]}


def test_the_published_sizes():
    wanted = {"small": 103.6, "base": 251.8, "large": 767.5, "huge": 1555.7}  # the spec's counts, in millions
    for name, millions in wanted.items():
        with torch.device("meta"):
            network = simvlm.SimVLM(simvlm.PRESETS[name])
        assert round(sum(p.numel() for p in network.parameters()) / 1e6, 1) == millions
    assert sum(p.numel() for p in network.image.parameters()) == 43_179_072
    assert simvlm.PRESETS["base"].grid ** 2 == 196


def test_an_edit_of_an_answer_changes_nothing_before_it_and_one_of_the_prefix_everything(network):
    given = batch()
    with torch.no_grad():
        before = network(**given).logits
        other = given["targets"].clone()
        other[:, 2] += 1
        after = network(**{**given, "targets": other}).logits
        assert torch.equal(after[:, :3], before[:, :3])
        assert ((after - before)[:, 3:].abs().amax(dim=-1) > 1e-4).all()
        for changed in ({"tokens": given["tokens"].clone()}, {"pixels": given["pixels"].clone()}):
            next(iter(changed.values()))[:, -1] += 1  # the last word sees the first, and the first the last
            after = network(**{**given, **changed}).logits
            assert ((after - before).abs().amax(dim=-1) > 1e-4).all()
            tokens, pixels = (changed.get(name, given[name]) for name in ("tokens", "pixels"))
            real = torch.ones_like(tokens, dtype=torch.bool)
            states = network.encode(tokens, real, pixels)[0] - network.encode(given["tokens"], real, given["pixels"])[0]
            assert (states.abs().amax(dim=-1) > 1e-5).all()


def test_prefixes_of_other_lengths_in_a_batch_give_their_single_results(network):
    given = batch()
    lengths = torch.tensor([5, 0, 2])
    mask = torch.arange(5) < lengths[:, None]
    with torch.no_grad():
        together = network(**given, mask=mask).logits
        for row, length in enumerate(lengths.tolist()):
            alone = {name: value[row : row + 1] for name, value in given.items()}
            alone["tokens"] = alone["tokens"][:, :length]  # (1, 0): no prefix slots at all
            torch.testing.assert_close(network(**alone).logits[0], together[row], atol=1e-5, rtol=0)


def test_text_alone_goes_past_the_resnet(network, monkeypatch):
    given = batch()
    there = torch.tensor([[True], [False], [True]])
    rows = {**given, "pixels": given["pixels"][:, None], "image_mask": there}
    with torch.no_grad():
        mixed = network(**rows).logits
        text = network(tokens=given["tokens"][1:2], targets=given["targets"][1:2]).logits
        seen = []
        monkeypatch.setattr(
            network.image, "feature_map", lambda x, of=network.image.feature_map: seen.append(x) or of(x)
        )
        again = network(**rows).logits
        pairs = network(**{name: value[::2] for name, value in given.items()}).logits
    assert [len(x) for x in seen] == [2, 2]
    torch.testing.assert_close(mixed[1:2], text, atol=1e-5, rtol=0)
    torch.testing.assert_close(mixed[::2], pairs, atol=1e-5, rtol=0)
    assert torch.equal(mixed, again)
    with pytest.raises(UsageError, match="one image a row"):
        network(**{**given, "pixels": given["pixels"][:, None].repeat(1, 2, 1, 1, 1), "image_mask": there.repeat(1, 2)})


def test_relative_positions_by_hand(network):
    """A table entry for (Δrow, Δcol), words left alone."""
    encoder, grid = network.encoder, network.cfg.grid
    found = encoder._bias(1, (grid, grid), grid * grid + 3)
    assert found.shape == (1, 3, 19, 19)
    for query in (0, 5, 15):
        for key in (0, 6, 12):
            rows, cols = key // grid - query // grid, key % grid - query % grid
            wanted = encoder.relative[1, :, rows + grid - 1, cols + grid - 1]
            assert torch.equal(found[0, :, query, key], wanted)
    assert (found[..., 16:, :] == 0).all()
    assert (found[..., :, 16:] == 0).all()


def test_relative_positions_survive_another_resolution(network):
    """A table that is a plane stays that plane, in units of the image, whatever the grid."""
    plane = simvlm.SimVLM(network.cfg).eval()
    side = torch.arange(7.0) - 3
    with torch.no_grad():
        plane.encoder.relative.copy_((side[:, None] + 10 * side).expand_as(plane.encoder.relative))
        coarse, fine = plane.encoder._bias(0, (4, 4), 16)[0, 0], plane.encoder._bias(0, (8, 8), 64)[0, 0]
    at = torch.arange(8)
    inner = slice(2, 6)  # steps that no border is near
    for y in range(4):
        row = fine.view(8, 8, 8, 8)[2 + y % 2, 3, inner, 3]
        torch.testing.assert_close(row.diff(), torch.full((3,), 7 / 15), atol=1e-4, rtol=0)
    assert coarse.view(4, 4, 4, 4)[0, 0, 3, 2] == 3 + 20
    assert (fine.view(8, 8, 8, 8)[at, at, at, at] - 0).abs().max() < 1e-4  # a token and itself
    with torch.no_grad():
        assert network(**batch(size=96)).logits.isfinite().all()


def test_words_take_no_part_in_relative_positions(network):
    """Without text positions, words can change places without a trace."""
    blind = simvlm.SimVLM(network.cfg).eval()
    blind.load_state_dict(network.state_dict())
    torch.nn.init.zeros_(blind.positions.weight)
    given = batch()
    with torch.no_grad():
        one = blind(**given).logits
        other = blind(**{**given, "tokens": given["tokens"].flip(1)}).logits
        assert (
            network(**given).logits - network(**{**given, "tokens": given["tokens"].flip(1)}).logits
        ).abs().max() > 1e-3
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_what_was_read_moves_on_to_what_is_written(network):
    """The numbering goes on: the same words, split elsewhere, stand at the same positions."""
    given = batch(rows=1)
    text = torch.cat([given["tokens"], given["targets"]], dim=1)
    places = []
    hook = network.positions.register_forward_pre_hook(lambda _, at: places.append(at[0].tolist()[0]))
    for split in (0, 3):
        network(pixels=given["pixels"], tokens=text[:, :split], targets=text[:, split:])
    hook.remove()
    assert places == [[], list(range(11)), [0, 1, 2], list(range(3, 11))]


def test_beginnings_move_into_the_prefix():
    tokens = torch.tensor([[7, 8], [9, 0], [0, 6]])
    mask = torch.tensor([[True, True], [True, False], [False, True]])
    targets = torch.tensor([[1, 2, 3, 4], [5, 6, 2, IGNORED], [4, 2, IGNORED, IGNORED]])
    found, real, rest = move_prefix(tokens, mask, targets, torch.tensor([3, 0, 1]))
    assert [row[r].tolist() for row, r in zip(found, real)] == [[7, 8, 1, 2, 3], [9], [6, 4]]
    assert [row[row != IGNORED].tolist() for row in rest] == [[4], [5, 6, 2], [2]]
    assert (real[:, 1:] <= real[:, :-1]).all()  # padding comes last


def test_the_loss_by_hand(network):
    """eq. 3, one row at a time, with the lengths that were drawn."""
    given = batch(rows=4)
    given["targets"][1, 4:] = IGNORED
    loss = PrefixLMLoss()
    lengths = loss._draw(given["targets"]).tolist()
    assert len(set(lengths)) > 1
    total, number = 0.0, 0
    with torch.no_grad():
        for row, length in enumerate(lengths):
            answer = given["targets"][row][given["targets"][row] != IGNORED]
            prefix = torch.cat([given["tokens"][row], answer[:length]])[None]
            logits = network(pixels=given["pixels"][row : row + 1], tokens=prefix, targets=answer[None, length:]).logits
            total += float(F.cross_entropy(logits[0], answer[length:], reduction="sum"))
            number += len(answer) - length
        found = loss(network, given)
    assert abs(float(found.total) - total / number) < 1e-5
    assert loss.examples(given) == number
    every = [PrefixLMLoss()._draw(batch(rows=64, seed=s)["targets"]) for s in range(20)]
    share = torch.cat(every).bincount(minlength=6) / 1280
    assert (share - 1 / 6).abs().max() < 0.04  # even, from nothing to all but the last


def test_captions_stop_and_prefixes_are_not_repeated(network):
    given = batch(rows=2)
    tokens = generate(
        network, {"pixels": given["pixels"], "tokens": given["tokens"]}, eos_id=None, pad_id=0, max_new_tokens=5
    )
    with torch.no_grad():
        for step in range(5):
            logits = network(**{**given, "targets": torch.cat([tokens[:, :step], tokens[:, :1]], dim=1)}).logits
            assert torch.equal(logits[:, -1].argmax(-1), tokens[:, step])


def test_more_words_than_positions_are_refused(network):
    short = simvlm.SimVLM(replace(network.cfg, context=8)).eval()
    given = batch(rows=1)
    with pytest.raises(BadText, match="11 tokens of prefix and answer; the model has 8 positions"):
        short(**given)
    with pytest.raises(BadText, match="9 tokens"):
        short.start(room=4, pixels=given["pixels"], tokens=given["tokens"])
    mask = torch.tensor([[True, True, False, False, False]])
    short(**given, mask=mask)  # padding needs none


def test_a_text_of_which_nothing_is_read_yet_has_a_loss_in_bfloat16_too(network):
    """A row without image and prefix sees nothing at all, which must not make the batch no number."""
    given = batch(rows=2)
    rows = {**given, "pixels": given["pixels"][:, None], "image_mask": torch.tensor([[True], [False]])}
    rows["mask"] = torch.tensor([[True] * 5, [False] * 5])
    with torch.no_grad():
        exact = network(**rows).logits
        with torch.autocast("cpu", torch.bfloat16):
            half = network(**rows).logits
    assert exact.isfinite().all()
    assert half.isfinite().all()
    torch.testing.assert_close(half.float(), exact, atol=0.3, rtol=0.1)
