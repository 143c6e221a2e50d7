"""The process of one model: reads a job from stdin, writes a line of JSON for what it measured and for each answer.

{"ready": {…}} when the first image has been answered once, which is the warm-up; then {"image": i, "answer": …,
"seconds": …, "peak": bytes} or {"image": i, "error": …} for each image, in order; at last {"done": …}.
"""

import json
import os
import sys
import time
from typing import Any

from rebus.compare.question import Question
from rebus.core.errors import BadImage, LimitExceeded, MissingFile, RebusError
from rebus.core.memory import peak_memory
from rebus.core.strict_json import to_json


def main() -> int:
    """The exit code: 1 where the model cannot be used, with the reason as the last line of stderr."""
    job = json.loads(sys.stdin.read())
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer

    def tell(**message: Any) -> None:
        out.write(to_json(message) + "\n")
        out.flush()

    try:
        _work(job, tell)
    except (RebusError, MemoryError) as error:
        print(" ".join(str(error).split()) or "not enough memory", file=sys.stderr)
        return 1
    return 0


def _work(job: dict[str, Any], tell: Any) -> None:
    import torch

    from rebus.api import load

    question = Question(**{**job["question"], "labels": tuple(job["question"]["labels"])})
    began = time.perf_counter()
    dtype = job["dtype"]
    model = load(
        job["model"],
        device=job["device"],
        dtype=getattr(torch, dtype) if dtype else None,
        quantize=job["quantize"],
        pack=True,
    )
    loaded = time.perf_counter() - began
    _first_answer(model, question, job["images"])
    tell(
        ready={
            "load_seconds": loaded,
            "parameters": model.num_parameters(),
            "device": str(model.device),
            "dtype": str(model.dtype).removeprefix("torch."),
            "domain": model.card.domain,
        }
    )
    began = time.perf_counter()
    for number, image in enumerate(job["images"]):
        if job["budget"] is not None and time.perf_counter() - began > job["budget"]:
            break
        start = time.perf_counter()
        try:
            answer = question.answer(model, image)
        except (BadImage, LimitExceeded, MissingFile) as error:  # this image's fault
            tell(image=number, error=str(error))
            continue
        tell(image=number, answer=answer, seconds=time.perf_counter() - start, peak=peak_memory(model.device))
    tell(done=True)


def _first_answer(model: Any, question: Question, images: list[str]) -> None:
    """Warm up on the first image that can be answered, which is not counted."""
    for image in images:
        try:
            question.answer(model, image)
            return
        except (BadImage, LimitExceeded, MissingFile):
            continue


if __name__ == "__main__":
    sys.exit(main())
