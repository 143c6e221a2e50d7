"""How fast a model is on this machine: medians over repeated runs, after a warm-up."""

import io
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from rebus.core.capabilities import EmbedsImages, EmbedsText, WritesText
from rebus.core.errors import UsageError
from rebus.core.memory import peak_memory
from rebus.data.scenes import scene
from rebus.evaluate.reference import TEXTS, held_out_images, picks_answers, questions_batch

_NEW_TOKENS = 32


def threads_from() -> str:
    """Why PyTorch uses as many threads as it does, and whether others want the same cores."""
    named = next((name for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if os.environ.get(name)), None)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    why = f"{named}={os.environ[named]}" if named else f"PyTorch's default on {cores} cores"
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if torch.get_num_threads() > 1 and load > cores / 2:
        return f"{why}; others compute here, load {load:.1f} on {cores} cores: OMP_NUM_THREADS=1 may be faster"
    return why


def bench(model: Any, *, batch_size: int = 8, runs: int = 5) -> dict[str, Any]:
    """Medians by name: images, texts, answers and tokens a second, ms to the first token, peak bytes of memory.

    Raises `UsageError` for a model that neither embeds nor writes nor picks answers.
    """
    network = model.network
    found: dict[str, Any] = {
        "device": str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "threads_from": threads_from(),
        "batch_size": batch_size,
        "runs": runs,
        "parameters": model.num_parameters(),
    }
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.device)
    if model.processor.image is not None:
        photo = _photo()
        seconds = _median(lambda: model.processor(images=[photo] * batch_size), runs, model)
        found["prepared_images_per_second"] = batch_size / seconds
    can_measure = False
    if isinstance(network, EmbedsImages) and model.processor.image is not None:
        can_measure = True
        batch = _placed(model, model.processor(images=held_out_images(1) * batch_size))
        found["images_per_second"] = batch_size / _median(lambda: network.embed_image(**batch), runs, model)
        one = {name: tensor[:1] for name, tensor in batch.items()}
        found["one_image_ms"] = 1000 * _median(lambda: network.embed_image(**one), runs, model)
    if isinstance(network, EmbedsText) and model.processor.text is not None:
        can_measure = True
        words = _placed(model, model.processor(texts=[TEXTS[1]] * batch_size))
        found["texts_per_second"] = batch_size / _median(lambda: network.embed_text(**words), runs, model)
    if isinstance(network, WritesText) and model.processor.text is not None and model.processor.image is not None:
        can_measure = True
        found |= _writing(model, runs, batch_size)
    if picks_answers(model):
        can_measure = True
        asked = _placed(model, questions_batch(model, held_out_images(1) * batch_size))
        found["answers_per_second"] = batch_size / _median(lambda: network.answer_logits(**asked), runs, model)
    if not can_measure:
        raise UsageError(
            f"{model.card.name} can neither embed nor generate nor answer with the files it has: nothing to measure"
        )
    found["peak_memory_bytes"] = peak_memory(model.device)
    return found


def _writing(model: Any, runs: int, batch_size: int) -> dict[str, float]:
    """Tokens a second after the first, which is told apart: it waits for the whole prompt."""
    prompt = model.system.prompts.caption or ""
    found: dict[str, float] = {}
    for rows in (1, batch_size) if batch_size > 1 else (1,):
        batch = _placed(model, model.processor(images=held_out_images(1) * rows, texts=[prompt] * rows))

        def write(room: int, batch: dict[str, Any] = batch) -> None:
            # Rows that end early would make it look fast.
            model.generate(**batch, max_new_tokens=room, eos_id=None)

        first = _median(lambda: write(1), runs, model)
        whole = _median(lambda: write(1 + _NEW_TOKENS), runs, model)
        rate = rows * _NEW_TOKENS / max(whole - first, 1e-9)
        if rows == 1:
            found |= {"first_token_ms": 1000 * first, "tokens_per_second": rate}
        else:
            found["batch_tokens_per_second"] = rate
    return found


def _median(work: Callable[[], Any], runs: int, model: Any) -> float:
    """Seconds of one call; the first is not counted."""
    seconds = []
    with torch.inference_mode():
        for _ in range(runs + 1):
            began = time.perf_counter()
            work()
            if model.device.type == "cuda":
                torch.cuda.synchronize(model.device)
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def _placed(model: Any, batch: dict[str, Any]) -> dict[str, Any]:
    return {n: t.to(model.device, model.dtype if t.is_floating_point() else None) for n, t in batch.items()}


def _photo() -> bytes:
    buffer = io.BytesIO()
    scene(0, "test", 640).image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
