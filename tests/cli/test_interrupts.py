"""Ctrl-C at any moment of a command: one line and 130, never a traceback or an abort."""

import subprocess
import sys
from pathlib import Path

import pytest

SLOW = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nfor _ in range(10**9): pass\n"
COMMAND = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from rebus.cli import main; "


def ended(code: str, folder: Path) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", COMMAND + code], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
    return tmp_path


def test_while_a_library_is_imported(folder: Path) -> None:
    # As a C++ library does it, which lets no exception through, and as NumPy does it, which makes an ImportError of it.
    (folder / "torch.py").write_text(
        f"try:\n    exec({SLOW!r})\nexcept BaseException:\n    raise ImportError('damaged')\n"
    )
    (folder / "a.png").write_bytes(b"")
    code, out, err = ended(
        "import rebus.cli.verbs.models as m; m.run = lambda args: __import__('torch');"
        "sys.argv = ['rebus', 'models']; sys.exit(main())",
        folder,
    )
    assert (code, out, err) == (130, "", "rebus: interrupted\n")


def test_while_a_verb_works(folder: Path) -> None:
    code, out, err = ended(
        "import rebus.cli.verbs.models as m; m.run = lambda args: signal.raise_signal(2);"
        "sys.argv = ['rebus', 'models']; sys.exit(main())",
        folder,
    )
    assert (code, out, err) == (130, "", "rebus: interrupted\n")


def test_at_the_very_end(folder: Path) -> None:
    code, out, err = ended(
        "import atexit; atexit.register(signal.raise_signal, 2);sys.argv = ['rebus', '--version']; sys.exit(main())",
        folder,
    )
    assert code == 130
    assert out.startswith("rebus ")
    assert err == "rebus: interrupted\n"


def test_an_ignored_interrupt_stays_ignored(folder: Path) -> None:
    code, _, err = ended(
        "signal.signal(signal.SIGINT, signal.SIG_IGN);"
        "import rebus.cli.verbs.models as m; m.run = lambda args: signal.raise_signal(2) or 0;"
        "sys.argv = ['rebus', 'models']; sys.exit(main())",
        folder,
    )
    assert (code, err) == (0, "")
