"""Ctrl-C at any moment of a command: one line and 130, never a traceback or an abort."""

import json
import os
import signal
import subprocess
import sys
import time
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


SMALL = [
    *("model.image.width=32", "model.image.num_layers=1", "model.image.mlp_width=32", "model.image.patch_size=24"),
    *("model.text.width=32", "model.text.num_layers=1", "model.text.mlp_width=32", "model.embed=32"),
    *("batch_size=8", "eval_every=0", "save_every=1000", "optim.warmup=2"),
]


def test_training_is_interrupted_at_a_terminal_and_goes_on(tmp_path: Path, folder: Path) -> None:
    """A terminal sends Ctrl-C to the whole process group, the processes that make batches included."""
    out, settings = tmp_path / "run", [*SMALL, "workers=2", "steps=100_000"]
    words = ["rebus", "train", "siglip_scenes", "--out", str(out), *(w for one in settings for w in ("--set", one))]
    command = [sys.executable, "-c", f"{COMMAND}sys.argv = {words!r}; sys.exit(main())"]
    metrics = out / "metrics.jsonl"

    def steps() -> list[int]:
        return [json.loads(line)["step"] for line in metrics.read_text().splitlines()] if metrics.exists() else []

    done = 0
    for _ in range(2):  # the same command goes on, and is interrupted once more
        until = time.monotonic() + 60
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        ) as process:
            while len(metrics.read_bytes().splitlines() if metrics.exists() else []) < done + 3:
                assert time.monotonic() < until
                assert process.poll() is None, process.communicate()
                time.sleep(0.01)
            os.killpg(process.pid, signal.SIGINT)
            said, err = process.communicate(timeout=60)
        lines = [line for line in err.splitlines() if line.startswith("rebus: ")]
        assert (process.returncode, said) == (130, ""), err
        assert "Traceback" not in err
        if done:
            assert lines.pop(0) == f"rebus: {out}: resuming after step {done:,} of 100,000"
        done = len(steps())
        assert lines == [
            f"rebus: interrupted at step {done}; the checkpoint of step {done} is saved. Run the same command to resume"
        ]
        assert steps() == list(range(1, done + 1))
