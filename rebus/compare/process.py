"""Run one model in a process of its own, and collect what it answers for as long as it lives."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from rebus.compare.question import Question
from rebus.core.strict_json import to_json

_PATIENCE = 30.0  # seconds beyond the budget that one answer may take before its process is ended
WORKER = (sys.executable, "-m", "rebus.compare.worker")


@dataclass(kw_only=True)
class ModelRun:
    """What came of one model. `answers`: by the image's number; `faults`: images that it could not answer."""

    model: str
    answers: dict[int, Any] = field(default_factory=dict)
    faults: dict[int, str] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)  # of each answer
    error: str | None = None  # why the model failed before it was through
    stopped: bool = False  # by the budget
    first_answer: float | None = None  # seconds from the start of the process
    peak: int = 0  # bytes
    ready: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """All but the answers."""
        spread = quantiles(self.seconds, n=20, method="inclusive") if len(self.seconds) > 1 else [*self.seconds]
        return {
            "model": self.model,
            "status": "failed" if self.error is not None else "stopped by the budget" if self.stopped else "complete",
            "error": self.error,
            "answered": len(self.answers),
            "images_failed": len(self.faults),
            "first_answer_seconds": self.first_answer,
            "seconds_per_image": median(self.seconds) if self.seconds else None,
            "seconds_per_image_p95": spread[-1] if spread else None,
            "peak_memory_bytes": self.peak or None,
            **{name: self.ready.get(name) for name in ("load_seconds", "parameters", "device", "dtype", "domain")},
        }


@dataclass(frozen=True, kw_only=True)
class How:
    """Where and how long models run. `budget`: seconds of answers for each, after which it stops."""

    device: str | None = None
    dtype: str | None = None
    quantize: str | None = None
    budget: float | None = None


def run_model(
    model: str,
    question: Question,
    images: Sequence[str],
    how: How,
    tell: Callable[[str], None] = lambda note: None,
    command: Sequence[str] | None = None,
) -> ModelRun:
    """Ask one model about all images. It never raises for what goes wrong inside: `error` says it, and the answers
    until then stay. `tell` is called for each image that is done."""
    found = ModelRun(model=model)
    job = {"model": model, "question": asdict(question), "images": list(images), **asdict(how)}
    package = str(Path(__file__).parents[2])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))}
    with tempfile.TemporaryFile() as log:
        began = time.perf_counter()
        process = subprocess.Popen(
            command or WORKER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=env
        )
        late = threading.Event()
        timer: threading.Timer | None = None
        done = False
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(to_json(job).encode())
                process.stdin.close()
            except BrokenPipeError:  # it died at once; its exit code says how
                pass
            for line in process.stdout:
                message = _read(line)
                if "ready" in message:
                    found.first_answer = time.perf_counter() - began
                    found.ready = message["ready"]
                    if how.budget is not None:
                        timer = threading.Timer(how.budget + _PATIENCE, _end, (process, late))
                        timer.start()
                elif "image" in message:
                    _take(found, message)
                    tell(model)
                done = done or "done" in message
            code = process.wait()
        finally:
            if timer is not None:
                timer.cancel()
            if process.poll() is None:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        log.seek(0)
        lines = log.read().decode("utf-8", "replace").strip().splitlines()
    if late.is_set():
        found.error = f"one answer took longer than the budget and {_PATIENCE:.0f} seconds more"
    elif code != 0 or not done:
        found.error = _reason(code, lines)
    found.stopped = found.error is None and len(found.answers) + len(found.faults) < len(images)
    return found


def _read(line: bytes) -> dict[str, Any]:
    """A line of the worker; what a killed one left unfinished is nothing."""
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


def _take(found: ModelRun, message: dict[str, Any]) -> None:
    if "error" in message:
        found.faults[message["image"]] = message["error"]
        return
    found.answers[message["image"]] = message["answer"]
    found.seconds.append(message["seconds"])
    found.peak = max(found.peak, message["peak"])


def _end(process: "subprocess.Popen[bytes]", late: threading.Event) -> None:
    late.set()
    process.kill()


def _reason(code: int, lines: Sequence[str]) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        hint = "; the system ends processes so when memory runs out" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{hint}"
    return lines[-1] if lines else f"its process ended with code {code}"
