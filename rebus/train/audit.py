"""The first batch, for the eye, and what must not be in it: the answer in the question, or the question in the answer.

A writer that is taught to repeat its prompt, or to predict image tokens, has a fine loss and is of no use.
"""

from pathlib import Path

from PIL import Image
from torch import Tensor

from rebus.core.errors import UsageError
from rebus.core.labels import IGNORED
from rebus.train.config import TrainConfig
from rebus.train.detokenize import Words

_LEAST = 3  # tokens in a row that are no coincidence
_SHOWN = 16


def audit(batch: dict[str, Tensor], config: TrainConfig) -> None:
    """Look for leaks in a batch with targets. Raises `UsageError` naming the row and what is wrong with it."""
    if "targets" not in batch or "tokens" not in batch:
        return
    picture, end = getattr(config.model, "image_id", None), Words(config).eos_id
    masks = batch["mask"] if "mask" in batch else batch["tokens"] >= 0
    for i, (tokens, mask, targets) in enumerate(zip(batch["tokens"], masks, batch["targets"], strict=True)):
        real = targets != IGNORED
        answer = targets[real].tolist()
        if not answer:
            raise _leak(i, "has no target: there is nothing to learn from it")
        if not bool(real[: len(answer)].all()):
            raise _leak(i, "has padding in the middle of its targets")
        if picture in answer:
            raise _leak(i, "has image tokens among its targets")
        prompt = [t for t in tokens[mask].tolist() if t != picture]
        body = answer[:-1] if answer[-1] == end else answer
        if len(body) >= _LEAST and _holds(prompt, body):
            raise _leak(i, "gives the whole answer in its prompt")
        words = prompt[1:] if len(prompt) > _LEAST else []  # without the first token, by which texts begin
        if len(words) >= _LEAST and _holds(answer, words):
            raise _leak(i, "repeats its prompt in the targets")


def show(batch: dict[str, Tensor], config: TrainConfig, folder: Path) -> Path:
    """Write the first rows of a batch as a page: images, prompts and answers as the network gets them."""
    words = Words(config)
    folder.mkdir(parents=True, exist_ok=True)
    rows = min(len(batch["tokens"]), _SHOWN)
    picture = getattr(config.model, "image_id", None)
    lines = ["# The first batch, as the network gets it", ""]
    each = max(1, len(batch["tokens"]) // max(1, len(batch.get("pixels", ()))))
    for i in range(rows):
        if "pixels" in batch and batch["pixels"].ndim == 4 and i % each == 0:
            name = f"{i // each:02d}.png"
            as_picture(batch["pixels"][i // each]).save(folder / name)
            lines.append(f"![{name}]({name})")
        shown = batch["tokens"][i]
        prompt = words.decode(shown[shown != picture][None])[0] if picture is not None else words.decode(shown[None])[0]
        lines.append(f"- text: {prompt!r}")
        if "targets" in batch:
            lines.append(f"- to be answered: {words.decode(batch['targets'][i][None])[0]!r}")
        lines.append("")
    page = folder / "index.md"
    page.write_text("\n".join(lines))
    return page


def as_picture(pixels: Tensor) -> Image.Image:
    """(3, H, W) as something to look at, whatever it was normalised by."""
    pixels = pixels.float().cpu()
    low, high = pixels.amin(), pixels.amax()
    return Image.fromarray(((pixels - low) / (high - low).clamp(min=1e-6) * 255).byte().permute(1, 2, 0).numpy())


def _holds(longer: list[int], shorter: list[int]) -> bool:
    return any(longer[i : i + len(shorter)] == shorter for i in range(len(longer) - len(shorter) + 1))


def _leak(row: int, what: str) -> UsageError:
    return UsageError(f"the first batch was looked through: row {row} {what}. See first_batch/index.md")
