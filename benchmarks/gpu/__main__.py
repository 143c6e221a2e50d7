"""python -m benchmarks.gpu --out DIR [--only part,part] [--minutes 7.5] [--wheels DIR] [--device cpu --tiny]"""

import argparse
import importlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.setting import Figures, Setting, reason, write_json, write_text
from benchmarks.gpu.table import table

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Part:
    """`run` is a function of a module of this package; `seconds` at most."""

    name: str
    module: str
    run: str
    seconds: int


PARTS = (
    Part("tests", "gpu_tests", "run", 115),
    Part("train", "train_clip", "run", 100),
    Part("decode", "decode", "run_alone", 115),
    Part("decode32", "decode", "run_together", 60),
    Part("memory", "peak_memory", "run", 45),
    Part("embed", "embed", "run", 35),
)
# Long batches would otherwise run out of memory for want of one piece, not of bytes; graphs are recorded in `decode`.
_PIECES = {"train", "memory"}


def main() -> int:
    chosen = _arguments()
    out = Path(chosen.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    if chosen.part is not None:
        return _one(next(part for part in PARTS if part.name == chosen.part), chosen, out)
    if chosen.device == "cuda" and not torch.cuda.is_available():
        print(
            "benchmarks.gpu needs a CUDA device, and PyTorch sees none; --device cpu --tiny rehearses", file=sys.stderr
        )
        return 1
    wanted = [part for part in PARTS if chosen.only is None or part.name in chosen.only]
    environment = _environment(chosen.wheels)
    result: dict[str, Any] = {**_about(chosen.device, environment), "tiny": chosen.tiny, "parts": []}
    deadline = time.monotonic() + 60 * chosen.minutes
    for number, part in enumerate(wanted, start=1):
        left = deadline - time.monotonic()
        print(f"[{number}/{len(wanted)}] {part.name}, at most {min(part.seconds, max(left, 0)):.0f} s", flush=True)
        found = _apart(part, chosen, out, environment, min(part.seconds, left))
        result["parts"].append(found)
        write_json(out / "gpu.json", result)
        write_text(out / "gpu.md", table(result))
        ended = "ok" if found["ok"] else found["error"]
        print(f"[{number}/{len(wanted)}] {part.name}: {ended}, {found['seconds']:.0f} s", flush=True)
    print(table(result))
    return 0 if all(part["ok"] for part in result["parts"]) else 1


def _arguments() -> argparse.Namespace:
    names = [part.name for part in PARTS]

    def some(text: str) -> list[str]:
        found = text.split(",")
        if unknown := set(found) - set(names):
            raise argparse.ArgumentTypeError(f"no part {', '.join(sorted(unknown))}; there are: {', '.join(names)}")
        return found

    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=sys.modules["benchmarks.gpu"].__doc__)
    parser.add_argument("--out", required=True, help="folder for gpu.json, gpu.md and the logs")
    parser.add_argument("--only", type=some, metavar="A,B", help=f"parts: {','.join(names)}")
    parser.add_argument("--minutes", type=float, default=7.5, help="for all parts together (%(default)s)")
    parser.add_argument("--wheels", type=Path, help="folder of wheels that are unpacked, not installed: open_clip")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="shapes of no interest: every line runs, no figure counts")
    parser.add_argument("--part", choices=names, help=argparse.SUPPRESS)  # in a process of its own,
    parser.add_argument("--seconds", type=float, default=600, help=argparse.SUPPRESS)  # which is ended after these
    chosen = parser.parse_args()
    if chosen.device == "cpu" and not chosen.tiny:
        parser.error("--device cpu wants --tiny")
    return chosen


def _one(part: Part, chosen: argparse.Namespace, out: Path) -> int:
    """A part, in this process; why it failed is written beside what it found."""
    torch.set_float32_matmul_precision("high")  # as a run on such a GPU would have it; the products are bfloat16
    torch.set_num_threads(min(8, os.cpu_count() or 1))
    figures = Figures(out / f"{part.name}.json")
    setting = Setting(torch.device(chosen.device), chosen.tiny, out, time.monotonic() + chosen.seconds)
    try:
        module = importlib.import_module(f"benchmarks.gpu.{part.module}")
        getattr(module, part.run)(setting, figures)
    except Exception as error:
        import traceback

        traceback.print_exc()
        write_text(out / f"{part.name}.error", reason(error))
        return 1
    return 0


def _apart(
    part: Part, chosen: argparse.Namespace, out: Path, environment: dict[str, str], limit: float
) -> dict[str, Any]:
    """A part in a process of its own: what it found, and what ended it."""
    figures, error = out / f"{part.name}.json", out / f"{part.name}.error"
    for left_over in (figures, error):
        left_over.unlink(missing_ok=True)
    if limit <= 5:
        return {"name": part.name, "ok": False, "seconds": 0.0, "figures": {}, "error": "no time left"}
    command = [sys.executable, "-u", "-m", "benchmarks.gpu", "--part", part.name, "--out", str(out)]
    command += ["--device", chosen.device, "--seconds", f"{limit:.0f}"] + (["--tiny"] if chosen.tiny else [])
    if chosen.tiny:  # what is compiled is tested elsewhere, and takes minutes on a processor
        environment = {**environment, "TORCH_COMPILE_DISABLE": "1"}
    if part.name in _PIECES:
        environment = {**environment, "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    began = time.monotonic()
    with (out / f"{part.name}.log").open("w") as log:
        # A session of its own, so that what the part started ends with it.
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, env=environment, start_new_session=True
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    found: dict[str, Any] = {"name": part.name, "ok": code == 0, "seconds": time.monotonic() - began}
    found["figures"] = json.loads(figures.read_text()) if figures.is_file() else {}
    if code is None:
        found["error"] = f"stopped after {limit:.0f} s"
    elif error.is_file():
        found["error"] = error.read_text()
    elif code:
        found["error"] = f"ended with {code}: {(out / f'{part.name}.log').read_text()[-600:]}"
    return found


def _environment(wheels: Path | None) -> dict[str, str]:
    """That of the parts: this checkout is found, behind it the unpacked wheels, and nothing is fetched."""
    paths = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    if wheels is not None:
        target = tempfile.mkdtemp(prefix="wheels-")
        for wheel in sorted(wheels.glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(target)
        paths.append(target)
    found = os.pathsep.join(path for path in paths if path)
    return {**os.environ, "PYTHONPATH": found, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def _about(device: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """Hardware, versions and, where git vouches for the files, the commit: without them a figure says nothing."""
    hardware: dict[str, Any] = {"processor": _processor(), "cores": os.cpu_count()}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        hardware |= {"gpu": properties.name, "gpu_bytes": properties.total_memory, "gpus": torch.cuda.device_count()}
        hardware["driver"] = _said(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"])
    versions = {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda}
    places = [*sys.path, *environment["PYTHONPATH"].split(os.pathsep)]
    for name in ("triton", "transformers", "timm", "open_clip_torch"):
        versions[name] = next((found.version for found in distributions(name=name, path=places)), None)
    about: dict[str, Any] = {"hardware": hardware, "versions": versions}
    git = ["git", "-C", str(ROOT)]
    if _said([*git, "status", "--porcelain"]) == "":
        about["commit"] = _said([*git, "rev-parse", "--short", "HEAD"])
    return about


def _said(command: list[str]) -> str | None:
    """What a command prints; None where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    sys.exit(main())
