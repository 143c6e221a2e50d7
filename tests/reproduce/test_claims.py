"""Each published claim with a budget of seconds: it runs, all its rules and plots find their figures, it prints."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from rebus.cli import main
from rebus.cli.verbs import reproduce as verb
from rebus.core.errors import UnknownName
from rebus.reproduce import (
    CLAIMS,
    align,
    asif,
    chameleon,
    clip,
    find,
    flamingo,
    florence2,
    magic,
    memory,
    pali3,
    paligemma,
    regions_world,
    siglip,
    simvlm,
    vild,
    virtex,
    visualbert,
    visualgpt,
)
from rebus.reproduce import captions_world as world
from rebus.reproduce import cells_world as cells
from rebus.reproduce import located_world as located
from rebus.reproduce import shapes_world as shapes
from tests.reproduce import made_up

SMALL = {
    "asif": lambda: asif.asif(
        asif.Budget(classes=5, queries=60, numbers=(10, 50, 80), dense=50, k=20, steps=3, batch_size=8, hidden=16)
    ),
    "chameleon": lambda: chameleon.chameleon(
        chameleon.Budget(
            steps=3, batch_size=2, width=16, images=40, code_steps=2, draw_steps=2, draw_batch=8, judge_steps=2, test=8
        )
    ),
    "clip": lambda: clip.clip(clip.Budget(steps=3, race=4, every=2, batch_size=8, train=64, test=80, width=8)),
    "align": lambda: align.align(
        align.Budget(steps=3, batch_size=8, few=16, more=(24, 32), test=40, width=8),
    ),
    "siglip": lambda: siglip.siglip(
        siglip.Budget(
            seen=256, test=100, width=8, scratch_seen=128, scratch_train=64, scratch_test=50, batches=(64, 128)
        )
    ),
    "vild": lambda: vild.vild(
        vild.Budget(teacher_scenes=400, teacher_steps=2, scenes=20, steps=2, test=20, embed=8, channels=8)
    ),
    "paligemma": lambda: paligemma.paligemma(
        paligemma.Budget(steps=4, batch_size=8, every=2, test=40, width=16, num_layers=1)
    ),
    "pali3": lambda: pali3.pali3(
        pali3.Budget(images=30, steps=2, tuning=2, batch_size=8, test=10, width=16, num_layers=1)
    ),
    "virtex": lambda: virtex.virtex(
        virtex.Budget(images=16, steps=2, batch_size=4, probe=40, test=40, width=16, channels=(4, 4, 8, 8))
    ),
    "visualbert": lambda: visualbert.visualbert(
        visualbert.Budget(
            scenes=20, caption_steps=2, statements=16, statement_steps=2, steps=2, batch_size=4, test=10, width=16
        )
    ),
    "visualgpt": lambda: visualgpt.visualgpt(
        visualgpt.Budget(texts=40, few=8, more=16, text_steps=2, steps=2, batch_size=4, test=5, width=8)
    ),
    "simvlm": lambda: simvlm.simvlm(
        simvlm.Budget(pairs=40, steps=2, questions=30, tuning=2, batch_size=8, test=40, width=16, num_layers=1)
    ),
    "florence2": lambda: florence2.florence2(florence2.Budget(steps=6, batch_size=6, images=40, test=10, width=16)),
    "flamingo": lambda: flamingo.flamingo(
        flamingo.Budget(text_steps=2, steps=2, early=1, batch_size=4, test=8, width=16)
    ),
    "magic": lambda: magic.magic(
        magic.Budget(clip_steps=2, text_steps=2, batch_size=8, train=64, test=3, bent=1, width=8, k=3)
    ),
}


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("REBUS_HOME", str(tmp_path / "home"))

    def command(*words):
        capsys.readouterr()
        code = main(["reproduce", *map(str, words)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


@pytest.mark.parametrize("name", CLAIMS)
def test_claims_run_and_print(name, run, tmp_path, monkeypatch):
    monkeypatch.setattr(siglip, "_megabytes", lambda loss, n, width, seed: n * (2.0 if loss == "softmax" else 1.0))
    small = replace(SMALL[name](), seeds=(1,) if name in ("align", "siglip") else (1, 2))
    monkeypatch.setattr(verb, "find", lambda _: small)
    code, out, err = run(name, "--out", tmp_path / "out", "--jobs", 1, "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told["claim"] == name
    assert len(told["cells"]) == len(small.seeds) * len(small.settings)
    assert {v["outcome"] for v in told["statements"]} <= {"holds", "unclear", "does not hold"}
    assert json.loads((tmp_path / "out" / "results.json").read_bytes()) == told
    code, out, err = run(name, "--out", tmp_path / "out", "--jobs", 1)
    assert code == 0
    assert "all measured already" in err
    assert f"{name}: {told['verdict']}" in out
    assert small.paper in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.parametrize("name", CLAIMS)
def test_published_settings(name):
    claim = find(name)
    assert claim.name == name
    assert len(claim.seeds) >= 3
    assert claim.minutes is None or 0 < claim.minutes <= 20  # of one core; two of them are used
    assert claim.budget == type(claim.budget)()


def test_claims_are_listed(run):
    code, out, _ = run()
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == list(CLAIMS)
    assert [row["name"] for row in json.loads(run("--list", "--json")[1])] == list(CLAIMS)
    assert f"one of {', '.join(CLAIMS)}" in " ".join(run("--help")[1].split())
    assert find("siglip").statements[0].says in run("siglip", "--help")[1]
    code, _, err = run("siglop")
    assert code == 2
    assert 'did you mean "siglip"' in err
    with pytest.raises(UnknownName):
        find("x")


def test_without_out_results_are_kept_in_the_cache_and_ctrl_c_says_so(run, monkeypatch):
    monkeypatch.setattr(verb, "find", lambda _: made_up.claim())
    measure, calls = made_up.measure, []

    def stops(budget, setting, seed):
        calls.append(setting)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return measure(budget, setting, seed)

    interrupted = replace(made_up.claim(), measure=stops)
    monkeypatch.setattr("rebus.reproduce.run_claim.stamp", lambda claim: "00000000")
    monkeypatch.setattr(verb, "find", lambda _: interrupted)
    code, out, err = run("made_up", "--jobs", 1)
    assert code == 130
    assert out == ""
    assert "2 of 6 cells are saved" in err
    code, out, err = run("made_up", "--jobs", 1)
    assert code == 0
    assert "resuming, 2 of 6" in err
    assert "made_up: holds" in out


def test_a_claim_that_does_not_hold_is_a_result(run, monkeypatch, tmp_path):
    monkeypatch.setattr(verb, "find", lambda _: made_up.claim(least=3.0))
    code, out, _ = run("made_up", "--jobs", 1, "--out", tmp_path / "out", "--json")
    assert code == 0
    assert not json.loads(out)["holds"]


def test_pairs_and_objective_are_what_differs_between_aligns_runs(monkeypatch):
    budget = align.Budget(few=40, more=(60, 200), test=20, width=8)
    made = {}

    def fit(network, objective, batch_at, optim, steps):
        rows = [align.shapes.tokens([c])[0] for c in align.shapes.images(2, len_of[name]).captions]
        texts = {tuple(row.tolist()) for row in rows}
        assert all(tuple(row.tolist()) in texts for row in batch_at(0)["tokens"])  # shuffled among themselves
        made[name] = (network, objective.label_smoothing, steps)

    monkeypatch.setattr(align, "fit", fit)
    len_of = {name: setting.pairs for name, setting in align.settings(budget).items()}
    for name in len_of:
        align.measure(budget, name, 1)
    assert {steps for _, _, steps in made.values()} == {budget.steps}
    assert [name for name, (_, smoothing, _) in made.items() if smoothing != 0.1] == [align.SHARP]
    still = [name for name, (network, _, _) in made.items() if not network.temperature.requires_grad]
    assert still == [align.FIXED, align.HIGHER]
    first, *others = (network.state_dict() for network, _, _ in made.values())
    for other in others:
        assert all(torch.equal(first[key], other[key]) for key in first if key != "temperature")


def test_the_share_of_wrong_texts_is_as_stated(monkeypatch):
    budget, wrong = align.Budget(few=1000, more=(1000,), test=20, width=8), {}

    def fit(network, objective, batch_at, optim, steps):
        train = shapes.images(2, 1000)
        texts = {pixels.numpy().tobytes(): row for pixels, row in zip(train.pixels, shapes.tokens(train.captions))}
        batches = [batch_at(index) for index in range(30)]
        rows = [pair for b in batches for pair in zip(b["pixels"], b["tokens"], strict=True)]
        wrong[name] = sum(not torch.equal(texts[p.numpy().tobytes()], t) for p, t in rows) / len(rows)

    monkeypatch.setattr(align, "fit", fit)
    for name in (align.clean(budget), align.noisy(1000)):
        align.measure(budget, name, 1)
    assert wrong[align.clean(budget)] == 0
    assert wrong[align.noisy(1000)] == pytest.approx(budget.wrong, abs=0.04)


def test_the_masks_differ_and_the_weights_do_not():
    budget = paligemma.Budget(width=16)
    networks = {}
    for mask in ("prefix", "causal"):
        torch.manual_seed(3)
        networks[mask] = paligemma.network(budget, mask).eval()
    ours, theirs = (network.state_dict() for network in networks.values())
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    batch = cells.batch(0, 0, 2)
    other = {**batch, "tokens": batch["tokens"].clone()}
    word = cells.GRID**2 + 1  # the first of the prompt
    other["tokens"][:, word] = (other["tokens"][:, word] == cells.IDS["count"]) + cells.IDS["count"]

    def seen(network, inputs):
        """The images' rows after the last layer."""
        hidden = []
        handle = network.text.norm.register_forward_hook(lambda _, __, out: hidden.append(out))
        with torch.no_grad():
            network(**inputs)
        handle.remove()
        return hidden[0][:, : cells.GRID**2]

    assert torch.equal(seen(networks["causal"], batch), seen(networks["causal"], other))
    assert not torch.allclose(seen(networks["prefix"], batch), seen(networks["prefix"], other))


def test_both_arms_know_places_from_the_start_and_the_race_ends_at_the_goal(monkeypatch):
    budget = paligemma.Budget(steps=4, batch_size=8, every=1, test=10, width=16, num_layers=1)
    made = paligemma.network(budget, "prefix")
    assert made.image.positions.std() > 0.5
    weight = made.image_proj.weight.detach()
    assert torch.allclose(weight @ weight.T, torch.eye(16), atol=1e-4)
    shares = iter([0.5, 0.95, 0.8, 1.0])
    monkeypatch.setattr(paligemma, "_right", lambda made, test: torch.full((10,), next(shares)))
    assert paligemma.measure(budget, "causal", 1)["steps to 90%"] == 2
    monkeypatch.setattr(paligemma, "_right", lambda made, test: torch.zeros(10))
    assert paligemma.measure(budget, "causal", 1)["steps to 90%"] == budget.steps


def test_cells_answer_rightly():
    batch = cells.batch(5, 0, 60)
    words = list(cells.IDS)
    for row in range(60):
        prompt = [words[i] for i in batch["tokens"][row].tolist() if i > 3]
        answer = [words[i] for i in batch["targets"][row].tolist() if i > 1]
        assert prompt[0] == ("count" if row % 2 == 0 else "at")
        assert prompt[-1] == "\n"
        assert len(answer) == 1
        assert answer[0].isdigit() if row % 2 == 0 else answer[0] in ("none", *cells.COLOURS)
    again = cells.batch(5, 0, 60)
    assert all(torch.equal(batch[name], again[name]) for name in batch)


def test_shapes_hold_pairs_out():
    seen = tuple(pair for pair in shapes.PAIRS if pair not in shapes.HELD_OUT)
    assert len(shapes.HELD_OUT) == 16
    made = shapes.images(0, 500, seen)
    assert {shapes.PAIRS[i] for i in made.pairs.tolist()} <= set(seen)
    for text, pair in zip(made.captions, made.pairs.tolist(), strict=True):
        shape, colour = shapes.PAIRS[pair]
        assert shapes.COLOUR_NAMES[colour] in text.split()
        assert set(shapes.SHAPES[shape]) & set(text.split())
    assert made.pixels.shape == (500, 3, 16, 16)
    # Ink is where the colour is: the mean of reds is redder than that of blues.
    red, blue = (
        made.pixels[made.pairs % 8 == shapes.COLOUR_NAMES.index(c)].mean(dim=(0, 2, 3)) for c in ("red", "blue")
    )
    assert red[0] - red[2] > blue[0] - blue[2] + 0.2


@pytest.mark.skipif(not memory._STATUS.exists(), reason="no /proc/self/statm on this system")
def test_memory_grows_with_the_square_for_the_softmax():
    most = siglip._megabytes("softmax", 2048, 16, 0)
    assert most > 3 * 4 * 2048**2 / 2**20  # scores both ways, and their gradients


def test_regions_show_what_they_are_said_to_show():
    made = regions_world.scenes(0, 50)
    again = regions_world.scenes(0, 50)
    assert all(torch.equal(value, getattr(again, name)) for name, value in vars(made).items())
    assert int(regions_world.NOVEL.sum()) == 24
    for boxes, classes, proposals, shown, real in zip(
        made.boxes, made.classes, made.proposals, made.shown, made.real, strict=True
    ):
        there = classes != regions_world.ABSENT
        assert 2 <= int(there.sum()) <= 3
        overlaps = box_iou(proposals, boxes[there])
        assert (overlaps.amax(dim=1)[real & (shown == regions_world.ABSENT)] < 0.3).all()
        near = real & (shown != regions_world.ABSENT)
        assert near.sum() == 2 * there.sum()
        assert classes[there][overlaps[near].argmax(dim=1)].equal(shown[near])


def test_the_ensemble_trusts_one_head_with_base_classes_and_the_other_with_novel_ones():
    texts = torch.nn.functional.normalize(torch.randn(65, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    regions = [texts[1:3] + 0.1, texts[3:5]]
    first = vild.region_scores(regions[0], texts, 0.1).softmax(dim=1)[:, 1:]
    second = vild.region_scores(regions[1], texts[1:], 0.1).softmax(dim=1)
    found = vild._probabilities(vild.ENSEMBLE, regions, texts, 0.1)
    base, novel = int((~regions_world.NOVEL).nonzero()[0]), int(regions_world.NOVEL.nonzero()[0])
    torch.testing.assert_close(found[:, base] ** 3, first[:, base] ** 2 * second[:, base])
    torch.testing.assert_close(found[:, novel] ** 3, first[:, novel] * second[:, novel] ** 2)
    assert vild._probabilities(vild.VILD, regions[:1], texts, 0.1).equal(first)


def test_simvlms_decoder_alone_sees_nothing_that_comes_after():
    torch.manual_seed(0)
    made = simvlm.network(simvlm.Budget(width=16, num_layers=1), simvlm.LM).eval()
    batch = simvlm._questions(1, 4)
    with torch.no_grad():
        before = made(**batch).logits
        targets = batch["targets"].clone()
        targets[:, 0] = world.IDS["small"]
        after = made(**{**batch, "targets": targets}).logits
        alone = made(**{**{n: v[2:3] for n, v in batch.items()}, **_short(batch, 2)}).logits
    assert torch.equal(after[:, 0], before[:, 0])
    assert (after[:, 1] - before[:, 1]).abs().max() > 1e-4
    torch.testing.assert_close(alone[0], before[2], atol=1e-5, rtol=0)


def _short(batch, row):
    real = batch["mask"][row]
    return {"tokens": batch["tokens"][row, real][None], "mask": real[real][None]}


def test_the_captions_world_says_what_is_there():
    found = regions_world.scenes(3, 60)
    things, words = world.things(found), {number: word for word, number in world.IDS.items()}
    texts = world.alt_texts(things, np.random.default_rng(0))
    said = [" ".join(words[t] for t in row if t in words) for row in texts.tolist()]
    whole = [" and ".join(map(" ".join, scene)) for scene in things]
    assert sum(text == full for text, full in zip(said, whole)) > 20
    assert all(full.startswith(text) for text, full in zip(said, whole) if "small" in text or "large" in text)
    asked, answers = world.questions(things, np.random.default_rng(1))
    for scene, question, answer in zip(things, asked.tolist(), answers.tolist()):
        text, found_answer = " ".join(words[t] for t in question if t), words[answer[0]]
        if text.startswith("what colour"):
            assert [colour for _, colour, shape in scene if shape == text.split()[-1]] == [found_answer]
        elif text.startswith("what shape"):
            assert [shape for _, colour, shape in scene if colour == text.split()[-1]] == [found_answer]
        else:
            assert ("two", "three").index(found_answer) == len(scene) - 2
    tokens, real, spans = world.corrupted(texts, np.random.default_rng(2))
    for row, is_real, span, text in zip(tokens, real, spans, texts):
        at = int((row == world.MASK).nonzero())
        hidden = span[(span != -100) & (span != world.END)].tolist()
        kept = row[is_real].tolist()
        assert kept[:at] + hidden + kept[at + 1 :] == [t for t in text.tolist() if t not in (-100, world.END)]


@pytest.mark.parametrize("task", located.TASKS)
def test_who_answers_the_truth_is_right_of_located_things(task: str) -> None:
    pixels, things = located.draw(3, 30)
    given, right = located.texts(things, [task] * 30, np.random.default_rng(0), num_image=2)
    assert pixels.shape == (30, 3, 32, 32)
    assert given["mask"].sum(dim=1).unique().numel() == 1  # every prompt of a task is as long
    answers = [[token for token in row if token >= 0] for row in given["targets"].tolist()]
    assert all(located.is_right(task, *pair) for pair in zip(answers, right, strict=True))
    others = [located.is_right(task, *pair) for pair in zip(answers, right[1:] + right[:1], strict=True)]
    assert sum(others) < 12
    assert not any(located.is_right(task, answer[:-2], truth) for answer, truth in zip(answers, right, strict=True))
