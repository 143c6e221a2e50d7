"""A stored trace is read without PyTorch; a damaged one is made again; another version of the code makes its own."""

import subprocess
import sys

import pytest

from rebus import catalog
from rebus.plan import trace_cache
from rebus.plan.step import Step
from rebus.plan.trace_cache import trace_by_name, trace_of

TINY = catalog.system("clip").presets["tiny"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("REBUS_HOME", str(tmp_path))
    return tmp_path / "plans"


def made(monkeypatch) -> list[str]:
    """Counts the traces that are made."""
    from rebus.plan import trace as module

    found, real = [], module.trace
    monkeypatch.setattr(module, "trace", lambda *words: found.append(words[0].name) or real(*words))
    return found


def ask(**changed):
    return trace_of(catalog.system("clip"), TINY, Step(**changed))


def test_a_trace_is_made_once(folder, monkeypatch):
    traces = made(monkeypatch)
    first = ask()
    assert ask() == first
    assert len(traces) == 1
    assert ask(bf16=False) != first
    assert len(traces) == 2
    assert len(list(folder.iterdir())) == 2  # and nothing beside them


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: b"", lambda data: data.replace(b"1", b"2")])
def test_a_damaged_one_is_made_again(folder, monkeypatch, damage):
    first = ask()
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    traces = made(monkeypatch)
    assert ask() == first
    assert len(traces) == 1
    assert file.read_bytes() == whole


def test_another_version_makes_its_own(folder, monkeypatch):
    ask()
    monkeypatch.setattr(trace_cache, "_versions", lambda: ["3.0"])
    traces = made(monkeypatch)
    ask()
    assert len(traces) == 1


def test_a_folder_that_cannot_be_written_costs_time_alone(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("REBUS_HOME", str(tmp_path / "file"))
    assert ask() == ask()


def test_a_second_plan_needs_no_pytorch(folder):
    trace_by_name("clip/b32", None, Step())
    script = (
        "import sys; from rebus.cli import main; "
        "code = main(['plan', 'clip/b32', '--data', 'coco', '--gpus', 'h100']); assert 'torch' not in sys.modules; "
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "151,277,313" in done.stdout
