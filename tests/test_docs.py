"""What the README and the docs show is true: snippets run, commands parse, files exist, the table is that of today."""

import json
import re
import runpy
import shlex
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from rebus import catalog
from rebus.cli.app import parser_for
from rebus.core.extras import installed
from rebus.data.layouts import LAYOUTS
from rebus.data.scenes import scene
from rebus.evaluate.benchmarks import BENCHMARKS

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
TASKS = ("classify", "match", "caption", "ask", "detect", "segment")
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def blocks(language: str) -> list:
    found = []
    for page in PAGES:
        texts = re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.S)
        name = page.relative_to(ROOT)
        found += [pytest.param(text, id=f"{name}-{i}") for i, text in enumerate(texts)]
    return found


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder with cat.jpg and scene.png, in which snippets run."""
    monkeypatch.chdir(tmp_path)
    scene(1, "test").image.save("scene.png")
    spec = find_spec("skimage")
    cat = Path(spec.submodule_search_locations[0]) / "data" / "chelsea.png" if spec else Path("scene.png")
    with Image.open(cat) as picture:
        picture.convert("RGB").save("cat.jpg")
    return tmp_path


def need(code: str) -> None:
    """Skip what is not on this machine."""
    if "asif/starter" in code and not installed("starter"):
        pytest.skip('the extra "starter" is not installed')
    for name in re.findall(r"\"(\w+/scenes)\"", code):
        if name not in catalog.bundled():
            pytest.skip(f"{name} is not in this copy of the package")


@pytest.mark.parametrize("code", blocks("python"))
def test_snippets_run(code, here):
    need(code)
    exec(compile(code, "snippet", "exec"), {"__name__": "snippet"})


def test_snippets_are_typed(tmp_path):
    for number, block in enumerate(blocks("python")):
        (tmp_path / f"snippet_{number}.py").write_text(f"# {block.id}\n{block.values[0]}")
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(ROOT)]}))
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "-p", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("text", blocks("sh"))
def test_commands_parse(text):
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        if not words or words[0] == "make":
            continue
        assert words[0] == "rebus"
        _, parser, rest = parser_for(words[1:])
        parser.parse_intermixed_args(rest)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_and_named_files_exist(page):
    text = page.read_text()
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in link:
            assert (page.parent / link).exists(), link
    for path in re.findall(r"`((?:rebus|tests|docs)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path


def test_the_family_table_is_that_of_the_catalogue():
    systems = {card.system: card for card in catalog.ROWS.values()}
    rows = ["| family | system | " + " | ".join(TASKS) + " |", "| --- | --- |" + " --- |" * len(TASKS)]
    for name, card in sorted(systems.items(), key=lambda item: (item[1].family, item[0])):
        marks = " | ".join("●" if task in card.tasks else "" for task in TASKS)
        rows.append(f"| {card.family} | {name} | {marks} |")
    readme = (ROOT / "README.md").read_text()
    assert "\n".join(rows) in readme, "the table in README.md should read:\n" + "\n".join(rows)


def test_the_table_of_forms_is_that_of_the_readers():
    modules = {name: import_module(module) for name, module in LAYOUTS.items()}
    modules |= {f"eval {name}": import_module(BENCHMARKS[name]) for name in ("pope", "spatial")}
    rows = ["| reader | form | checked against |", "| --- | --- | --- |"]
    for name, module in modules.items():
        rows += [f"| `{name}` | {form} | {against} |" for form, against in module.CHECKED]
    page = (ROOT / "docs/tasks/data.md").read_text()
    assert "\n".join(rows) in page, "the table in docs/tasks/data.md should read:\n" + "\n".join(rows)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_examples_run(path, here, capsys):
    code = path.read_text()
    need(code)
    main = runpy.run_path(str(path))["main"]
    small = ["steps=2", "batch_size=4", "model.image.num_layers=1", "model.text.num_layers=1"]
    arguments = {
        "classify_photos": [str(here), "a cat", "a circle"],
        "draw_boxes": [str(here / "boxes.png")],
        "train_in_python": [str(here / "run"), *small],
    }
    main(*arguments.get(path.stem, []))
    assert capsys.readouterr().out.strip()
