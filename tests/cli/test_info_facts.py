"""The verdict of `rebus info`, the fields of every card, the filters of `rebus models`, and predicted memory."""

import dataclasses
import json

import pytest

from rebus import catalog
from rebus.catalog.terms import COMMERCIAL, source_of, terms_of
from rebus.cli import main, model_facts
from rebus.cli.model_facts import FIELDS, UNKNOWN, Here, facts, lines, measured_speed, predicted_memory
from rebus.cli.verdict import nearest, verdict

GB = 10**9


@pytest.mark.parametrize("card", list(catalog.cards()), ids=lambda card: card.name)
def test_every_card_has_every_field(card, monkeypatch):
    monkeypatch.setattr(model_facts, "_memory", lambda card: None)  # each builds a network: see the test below
    found = facts(card)
    assert tuple(found) == FIELDS
    assert all(value is not None and value != "" for value in found.values()), found
    assert found["verdict"] == "yes" or found["verdict"].startswith(("yes, if ", "no, because "))
    assert ("; nearest: " in found["verdict"]) == found["verdict"].startswith("no")
    assert found["commercial"] in COMMERCIAL
    assert all(text for _, text in lines(card, found, None))
    assert catalog.SYSTEMS[card.system].score
    assert catalog.SYSTEMS[card.system].limits


def of(name, **changes):
    return dataclasses.replace(catalog.info(name), **changes)


def test_verdicts():
    small = {"float32": GB, "bfloat16": GB // 2, "int8": GB // 4, "int4": GB // 8}
    assert verdict(of("siglip/b16-224"), "Hub", small, 16 * GB) == "yes"
    tight = verdict(of("siglip/b16-224"), "Hub", small, int(0.7 * GB))
    assert tight == "yes, if it is loaded with --dtype bfloat16, since float32 does not fit this machine"
    assert "--quantize int4" in verdict(of("siglip/b16-224"), "Hub", small, int(0.2 * GB))
    none = verdict(of("siglip/b16-224"), "Hub", small, int(0.1 * GB))
    assert none.startswith("no, because it takes 0.1 GB even in int4, and this machine has 0.1 GB; nearest: ")
    assert verdict(of("siglip/b16-224"), "Hub", None, None) == "yes"
    gated = verdict(of("paligemma/3b-mix-224"), "Hub", small, 16 * GB)
    assert "accept its terms at the Hub (google/paligemma-3b-mix-224); and if your use is within its terms" in gated
    assert "accept" not in verdict(of("paligemma/3b-mix-224"), "cached", small, 16 * GB)
    assert "fine-tune" in verdict(of("paligemma/3b-pt-224"), "cached", small, 16 * GB)
    assert "not commercial" in verdict(of("chameleon/7b"), "cached", small, 16 * GB)
    assert "synthetic shapes" in verdict(of("clip/scenes"), "bundled", small, 16 * GB)
    assert verdict(of("simvlm/base"), "not released", small, 16 * GB).startswith("no, because its weights were never")
    assert "by hand" in verdict(of("vild/resnet50"), "an archive of its authors", small, 16 * GB)


def test_nearest_can_do_the_same():
    for name in ("visualbert/vcr", "flamingo/idefics-80b", "clip/bigg14"):
        card = of(name, instead=None)
        other = catalog.info(nearest(card))
        wanted = card.tasks or catalog.SYSTEMS[card.system].tasks
        assert other.tasks & wanted
        assert other.ready
        assert other.name != name


def test_terms_and_where_they_are_said():
    assert terms_of(of("vild/starter")).commercial == "yes"  # MIT and Apache-2.0, each with what it is of
    assert terms_of(of("paligemma/3b-mix-224")).gated
    assert "openai/clip-vit-base-patch32" in source_of(of("clip/b32"))
    assert source_of(of("clip/scenes")) == "LICENSE of this package"
    with pytest.raises(KeyError):
        terms_of(of("clip/b32", license="a new one"))


def test_info_opens_with_the_verdict(capsys):
    assert main(["info", "clip/b32"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "clip/b32: yes"
    assert "605.1 MB float32, 302.6 MB bfloat16" in out
    assert "unknown; --here measures it" in out
    assert main(["info", "clip/b32", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(FIELDS) <= set(found)
    assert found["speed"] == UNKNOWN
    assert found["memory"]["float32"] == pytest.approx(4 * found["parameters"], rel=0.01)


def test_what_was_measured_here_is_shown():
    card = catalog.info("clip/scenes")
    bench = {"one_image_ms": 12.4, "device": "cpu", "dtype": "float32", "threads": 1, "peak_memory_bytes": 550 * 10**6}
    checks = {"checks": [{"name": "weights are finite", "passed": True}, {"name": "fast resize", "passed": False}]}
    here = Here(predicted=540 * 10**6, bench=bench, check=checks)
    said = dict(lines(card, facts(card, here), here))
    assert said["process"] == "540.0 MB predicted in float32, 550.0 MB measured"
    assert said["speed here"] == "12 ms an image (cpu, float32, 1 threads)"
    assert said["check"] == "1 of 2 passed; FAILED: fast resize"
    failed = Here(predicted=None, bench="unknown: nothing to measure", check="unknown: no")
    assert dict(lines(card, facts(card, failed), failed))["speed here"] == "unknown: nothing to measure"


@pytest.mark.parametrize(
    "words, kept",
    [
        (["--commercial", "no"], lambda c: terms_of(c).commercial == "no"),
        (["--open"], lambda c: not terms_of(c).gated),
        (["--license", "gemma"], lambda c: "Gemma" in c.license),
        (["--domain", "shapes"], lambda c: c.bundled),
        (["--largest", "300M", "--ready"], lambda c: c.parameters <= 300e6 and c.ready),
        (["--fits", "2"], lambda c: c.parameters * 4 <= 0.8 * 2e9),
    ],
)
def test_filters(words, kept, capsys):
    assert main(["models", *words, "--json"]) == 0
    names = {row["name"] for row in json.loads(capsys.readouterr().out)}
    assert names == {card.name for card in catalog.cards() if kept(card)}
    assert 0 < len(names) < len(list(catalog.cards()))


def test_here_keeps_what_needs_no_download(capsys):
    assert main(["models", "--here", "--json"]) == 0
    assert {row["weights"] for row in json.loads(capsys.readouterr().out)} <= {"bundled", "installed", "cached"}


@pytest.mark.parametrize("words", [["--largest", "many"], ["--fits", "0"], ["--commercial", "maybe"]])
def test_wrong_filters(words, capsys):
    assert main(["models", *words]) == 2
    assert words[0] in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(catalog.bundled()))
def test_predicted_memory_is_that_of_the_process(name):
    card = catalog.info(name)
    bench = measured_speed(card)
    if isinstance(bench, str):
        pytest.skip(bench)
    predicted = predicted_memory(card)
    measured = bench["peak_memory_bytes"]
    print(f"{name}: predicted {predicted / 1e6:.0f} MB, measured {measured / 1e6:.0f} MB, {predicted / measured:.3f}")
    assert predicted == pytest.approx(measured, rel=0.15)
