"""What the README and the docs show is true: snippets run, commands parse, files exist, the table is that of today."""

import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from PIL import Image

import rebus
from rebus import catalog
from rebus.cli.app import parser_for
from rebus.core.errors import RebusError
from rebus.core.extras import installed
from rebus.data.file_records import Files
from rebus.data.layouts import LAYOUTS
from rebus.data.scenes import scene
from rebus.evaluate.benchmarks import BENCHMARKS
from rebus.recipes import recipe
from rebus.train import override
from rebus.train.config import Devices, LoRA, Optim, TrainConfig, Watch
from tests.test_architecture import LAYERS

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
    for name in re.findall(r"\"(\w+/starter)\"", code):
        if not installed(catalog.info(name).extra):
            pytest.skip(f"the parts of {name} are not installed")
    for name in re.findall(r"\"(\w+/scenes)\"", code):
        if name not in catalog.bundled():
            pytest.skip(f"{name} is not in this copy of the package")


@pytest.mark.parametrize("code", blocks("python"))
def test_snippets_run(code, here):
    need(code)
    if ".compile(" in code:  # the hook that checks shapes breaks graphs: in a process of its own, as users run it
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
        assert done.returncode == 0, done.stderr
        return
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
    named = {card.name.split("/")[0] for card in catalog.cards()}  # what nobody can ask for by name is not listed
    systems = {name: row for name, row in catalog.SYSTEMS.items() if name in named}
    rows = ["| family | system | " + " | ".join(TASKS) + " |", "| --- | --- |" + " --- |" * len(TASKS)]
    for name, card in sorted(systems.items(), key=lambda item: (item[1].family, item[0])):
        marks = " | ".join("●" if task in catalog.SYSTEMS[name].tasks else "" for task in TASKS)
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


def test_the_settings_in_the_docs_of_training_exist():
    text = (ROOT / "docs/tasks/train.md").read_text()
    cells = [line.split(" | ")[0] for line in text.splitlines() if line.startswith(("| `", "| `'"))]
    named = {word for cell in cells for word in re.findall(r"`([^`]+)`", cell)}
    named |= {word for word in re.findall(r"`'?([a-z_.]+=[^`]+)`", text) if not word.startswith("steps=")}
    settings = [word.strip("'").replace(", …", "") for word in sorted(named) if "=" in word]
    assert len(settings) > 20
    for setting in settings:
        value = setting.replace("=…", "=there").replace("=NAME", "=siglip/scenes").replace("=DIR", "=there")
        refused = []
        for name in ("paligemma_lora", "clip_scenes"):
            try:
                override(recipe(name), [value])
            except RebusError as error:
                refused.append(str(error))
        assert len(refused) < 2, refused
    fields = {name for one in (TrainConfig, Files, Optim, LoRA, Watch) for name in one.__dataclass_fields__}
    options = set(re.findall(r"`(?:data|optim|lora|watch|devices)\.([a-z_]+)`", text))
    assert options - set(Devices.__dataclass_fields__) <= fields
    for kind in ("schedule", "kind"):
        for choice in get_args(get_type_hints(Optim)[kind]):
            assert choice in text.lower(), choice
    for choice in get_args(get_type_hints(TrainConfig)["batch_norm"]):
        assert f"`{choice}`" in text, choice


def test_the_layers_in_the_docs_are_those_that_are_held_to():
    text = " ".join((ROOT / "docs/architecture.md").read_text().split())
    said = re.search(r"\*\*Layers\.\*\* (.*?)\. A folder", text)[1].replace("`", "").split(" < ")
    there = {path.stem for path in (ROOT / "rebus").iterdir()}
    assert [set(layer.split(", ")) for layer in said] == [layer & there for layer in LAYERS]


def test_extras_and_names_in_the_docs_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for page in PAGES:
        text = page.read_text()
        for extra in re.findall(r"rebus-vlm\[(\w+)\]|extras? `(\w+)`", text):
            assert "".join(extra) in project["optional-dependencies"], (page, extra)
        for name in re.findall(r"(?<![/\w])((?:clip|siglip|asif|magic|lit|visualbert|paligemma|vild)/[\w-]+)", text):
            assert name in {card.name for card in catalog.cards()}, (page, name)
    told = " ".join([project["description"], *project["keywords"]]).lower()
    assert not {"serve", "search"} & set(re.findall(r"\w+", told)), "what is not there yet"


@pytest.mark.parametrize(
    "word",
    [
        *("model.logits", "model.probabilities", "--multi", "--probabilities", "counts", "ftfy", "--truncate"),
        *("data.truncate", "data.root", "data.most_damaged", "damaged_files", "data.val_split"),
        *("data.negatives", "on_error", "model.classifier", "card.json"),
    ],
)
def test_what_people_look_for_is_in_the_docs(word):
    assert any(word in page.read_text() for page in PAGES if "tasks" in page.parts)
    assert word in (ROOT / "CHANGELOG.md").read_text()


def test_sizes_of_bundled_models_are_those_of_their_networks():  # of the others: tests/contracts
    for card in catalog.bundled().values():
        assert rebus.load(card.name).num_parameters() == card.parameters, card.name


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
