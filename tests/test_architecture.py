"""Imports follow the layers: a folder imports only from layers above its own, and not from its neighbours."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from rebus import catalog

ROOT = Path(__file__).parents[1] / "rebus"
LAYERS = [
    {"core"},
    {"nn", "codec", "weights"},
    {"backbones", "generation"},
    {"models"},
    {"catalog", "objectives", "tasks", "data"},
    {"open_checkpoint", "save_checkpoint"},
    {"plan"},
    {"train", "evaluate"},
    {"api", "recipes", "reproduce"},
    {"compare", "index"},
    {"serve"},
    {"cli", "tour"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
MAY_START = {("cli", "tour")}
REFERENCES = {"transformers", "open_clip", "sentence_transformers", "big_vision"}
FILES = sorted(ROOT.rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            module = node.module or ""
            yield node.lineno, module
            if module == "rebus":
                yield from ((node.lineno, f"rebus.{alias.name}") for alias in node.names)


def place(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[0]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_upwards(path):
    here = place(path)
    if here == "__init__":
        return
    assert here in LEVEL, f"{here} has no layer: add it to LAYERS"
    for line, module in imports(path):
        assert module.split(".")[0] not in REFERENCES, f"{path}:{line} imports a reference implementation"
        if not module.startswith("rebus."):
            continue
        there = module.split(".")[1]
        if there == here or (here, there) in MAY_START or there not in LEVEL:
            continue
        assert LEVEL[there] < LEVEL[here], f"{path}:{line}: {here} may not import {there}"


@pytest.mark.parametrize("path", sorted((ROOT / "models").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_families_do_not_import_each_other(path):
    parts = path.relative_to(ROOT / "models").parts
    for line, module in imports(path):
        if module.startswith("rebus.models.") and len(parts) > 1:
            assert module.split(".")[2] == parts[0], f"{path}:{line} imports another family"


def test_tasks_and_objectives_know_no_model():
    for folder in ("tasks", "objectives"):
        for path in (ROOT / folder).rglob("*.py"):
            for line, module in imports(path):
                assert not module.startswith(("rebus.models", "rebus.backbones")), f"{path}:{line}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= 400


KNOW_SYSTEMS = {"models", "catalog", "recipes", "reproduce", "tour"}
SYSTEMS = frozenset(catalog.SYSTEMS)
OTHERS_WORDS = {
    ("codec/resize.py", "clip"),  # of NumPy: indices beyond the table are clipped
    ("cli/app.py", "asif"),  # the command, as the design names it
}


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """String constants that are not docstrings."""
    tree = ast.parse(path.read_text())
    docs = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            docs.add(id(node.body[0].value))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.lineno, node.value


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nobody_knows_a_system_by_name(path):
    """A system is its file, a catalogue row, recipes and claims: whatever else others need it says itself."""
    if place(path) in KNOW_SYSTEMS:
        return
    for line, module in imports(path):
        assert not module.startswith("rebus.models"), f"{path}:{line} imports a system"
    for line, text in strings(path):
        name = text.split("/")[0] if re.fullmatch(r"[\w./-]+", text) else ""
        known = name in SYSTEMS and (str(path.relative_to(ROOT)), text) not in OTHERS_WORDS
        assert not known, f'{path}:{line} knows the system "{text}"'


def test_importing_rebus_brings_no_torch():
    import subprocess
    import sys

    code = "import sys, rebus; sys.exit('torch' in sys.modules or 'numpy.random' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
