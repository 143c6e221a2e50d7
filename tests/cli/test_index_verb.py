"""`rebus index` and `rebus search` as a person types them."""

import json
import os
from pathlib import Path

import pytest

pytest.importorskip("lancedb")

from rebus import catalog
from rebus.cli import main
from tests.index.conftest import MODEL, draw


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder of eight images with its index at `index` beside it."""
    if MODEL not in catalog.bundled():
        pytest.skip(f"{MODEL} is not in this copy of the package")
    folder = tmp_path_factory.mktemp("verbs") / "photos"
    for number in range(8):
        draw(folder / f"{number}.png", number)
    draw(folder / "copy of 3.png", 3)
    (folder.parent / "labels.txt").write_text("a red circle\na blue square\n")
    assert main([*index_of(folder), "--model", MODEL, "--labels", str(folder.parent / "labels.txt")]) == 0
    return folder


def index_of(folder: Path) -> list[str]:
    return ["index", str(folder), "--index", str(folder.parent / "index")]


def search(folder: Path, *words: str) -> list[str]:
    return ["search", str(folder), *words, "--index", str(folder.parent / "index")]


def document(capsys, command: list[str]) -> dict:
    capsys.readouterr()
    assert main([*command, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_second_run_says_what_it_found(folder, capsys):
    assert main(index_of(folder)) == 0
    assert "9 images" in capsys.readouterr().out
    found = document(capsys, index_of(folder))
    assert (found["unchanged"], found["embedded"], found["model"]) == (9, 0, MODEL)


def test_search_prints_best_first(folder, capsys):
    assert main(search(folder, "a red circle", "--top", "3")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert [float(line.split()[0]) for line in lines] == sorted(
        (float(line.split()[0]) for line in lines), reverse=True
    )
    found = document(capsys, search(folder, "a red circle", "--top", "3"))["results"]
    assert [line.split(maxsplit=1)[1] for line in lines] == [hit["path"] for hit in found]
    assert set(found[0]) == {"path", "score", "width", "height", "taken", "size", "id", "caption"}


def test_names_for_xargs(folder, capfdbinary):
    assert main(search(folder, "--image", str(folder / "3.png"), "--top", "2", "-0")) == 0
    found = capfdbinary.readouterr().out.split(b"\0")
    assert found[-1] == b""
    assert {os.path.basename(path) for path in found[:-1]} == {b"3.png", b"copy of 3.png"}


def test_a_page_shows_names_as_text(folder, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert main(search(folder, "<img src=x onerror=alert(1)>", "--top", "2", "--html", str(page))) == 0
    text = page.read_text()
    assert text.count("data:image/jpeg;base64,") == 2
    assert "<img src=x" not in text
    assert "&lt;img src=x" in text


def test_duplicates_clusters_tags_status(folder, capsys):
    groups = document(capsys, [*index_of(folder), "--duplicates", "exact"])["groups"]
    assert [{os.path.basename(path) for path in group} for group in groups] == [{"3.png", "copy of 3.png"}]
    assert document(capsys, [*index_of(folder), "--duplicates", "same"])["groups"] == groups
    found = document(capsys, [*index_of(folder), "--clusters", "3"])["clusters"]
    assert sorted(map(len, found), reverse=True) == [len(one) for one in found]
    assert sum(map(len, found)) == 9
    tags = document(capsys, [*index_of(folder), "--tags", str(folder.parent / "labels.txt")])["images"]
    assert len(tags) == 9
    sure = {row["image"] for row in tags if row["label"] == "a red circle" and row["probability"] > 0.6}
    filtered = document(capsys, search(folder, "--label", "a red circle>0.6", "--top", "20"))["results"]
    assert {hit["path"] for hit in filtered} == sure
    status = document(capsys, [*index_of(folder), "--status", "--verify"])
    assert (status["images"], status["missing"], status["model"], status["faults"]) == (9, 0, MODEL, [])


@pytest.mark.parametrize(
    "words, code, said",
    [
        (("--minus", "a dog"), 2, "give one of them too"),
        (("a dog", "--weight", "0"), 2, "above 0"),
        (("a dog", "--weight", "1", "--weight", "1"), 2, "2 weights for 1"),
        (("a dog", "--since", "soon"), 2, "a date is like"),
        (("a dog", "--larger", "huge"), 2, "1920x1080"),
        (("a dog", "--label", "a cat>0.5"), 2, "no label"),
        (("a dog", "-0", "--html", "x.html"), 2, "-0"),
        (("--image", "no.jpg"), 2, "no such file"),
    ],
)
def test_mistakes_are_told(folder, capsys, words, code, said):
    assert main(search(folder, *words)) == code
    assert said in capsys.readouterr().err


def test_a_folder_without_index_says_how_to_make_one(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("REBUS_HOME", str(tmp_path))
    assert main(["search", str(tmp_path), "a dog"]) == 1
    assert f"rebus index {tmp_path}" in capsys.readouterr().err
    assert main(["index", str(tmp_path / "away")]) == 1
    assert "Is its disk mounted?" in capsys.readouterr().err


def test_watching_waits_until_a_file_is_left_alone(folder, capsys, monkeypatch):
    from rebus.cli.verbs import index as index_verb

    sizes, steps = [], iter(["grows", "grows more", "rests", "rests", "stop"])

    def sleep(seconds):
        step = next(steps)
        if step.startswith("grows"):
            draw(folder / "late.png", len(step))
        elif step == "stop":
            raise KeyboardInterrupt

    update = index_verb._update

    def counted(root, args):
        report = update(root, args)
        sizes.append(report.rows)
        return report

    monkeypatch.setattr(index_verb.time, "sleep", sleep)
    monkeypatch.setattr(index_verb, "_update", counted)
    try:
        assert main([*index_of(folder), "--watch"]) == 130
    finally:
        (folder / "late.png").unlink(missing_ok=True)
    assert sizes == [9, 10]
    assert main([*index_of(folder), "--prune"]) == 0
    assert "1 pruned" in capsys.readouterr().out


def test_a_server_that_does_not_answer_is_passed_over(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("REBUS_HOME", str(tmp_path))
    (tmp_path / "servers").mkdir()
    for name, about in (
        (str(os.getpid()), {"url": "http://127.0.0.1:9", "indexes": {os.path.realpath(folder): "mine"}}),
        ("1", {"url": "http://example.org", "indexes": {}}),
        ("word", {}),
    ):
        (tmp_path / "servers" / f"{name}.json").write_text(json.dumps(about))
    assert main(["search", str(folder), "a dog"]) == 1  # in this cache there is no index of it either
    assert "there is no index" in capsys.readouterr().err
