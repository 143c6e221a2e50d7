"""Draw boxes and masks on a copy of an image, with labels that are legible on any background."""

import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from rebus.core.answers import Box, Mask
from rebus.core.errors import UsageError
from rebus.core.fonts import font_for

# Okabe and Ito's colours, which stay apart for colour-blind eyes, each a little stronger.
COLOURS = ((230, 126, 0), (38, 132, 222), (0, 166, 112), (214, 62, 128), (146, 92, 214), (200, 160, 0), (70, 178, 196))
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_SMALLEST = 320  # pixels of the longer side: smaller images are enlarged, or a label would cover all of them


def draw_boxes(image: Image.Image, boxes: Sequence[Box], smallest: int = _SMALLEST) -> Image.Image:
    """A copy with each box outlined and labelled, one colour a label. Small images are enlarged to `smallest`."""
    canvas, scale = _canvas(image, smallest)
    pen = ImageDraw.Draw(canvas)
    colours = _colour_of([box.label for box in boxes])
    width = _line(canvas)
    for box in reversed(boxes):  # the surest on top
        edges = _inside(box.xyxy, scale, canvas)
        pen.rectangle(edges, outline=(255, 255, 255), width=width + 2)
        pen.rectangle(_grow(edges, -1), outline=colours[box.label], width=width)
    taken: list[tuple[float, float, float, float]] = []
    for box in boxes:
        _label(pen, canvas, _inside(box.xyxy, scale, canvas), _said(box.label, box.score), colours[box.label], taken)
    return canvas


def draw_masks(image: Image.Image, masks: Sequence[Mask], smallest: int = _SMALLEST) -> Image.Image:
    """A copy with each mask tinted, edged and labelled, one colour a mask."""
    canvas, scale = _canvas(image, smallest)
    pixels = np.asarray(canvas).astype(np.float32)
    insides = [_resized(mask.mask, canvas.size) for mask in masks]
    for number, inside in reversed(list(enumerate(insides))):
        colour = np.array(COLOURS[number % len(COLOURS)], np.float32)
        pixels[inside] = 0.5 * pixels[inside] + 0.5 * colour
        pixels[_edge(inside, _line(canvas) + 1)] = 255
        pixels[_edge(inside, _line(canvas))] = colour
    canvas = Image.fromarray(pixels.round().astype(np.uint8))
    pen = ImageDraw.Draw(canvas)
    taken: list[tuple[float, float, float, float]] = []
    for number, mask in enumerate(masks):
        colour_of = COLOURS[number % len(COLOURS)]
        _label(pen, canvas, _inside(mask.box, scale, canvas), _said(mask.label, mask.score), colour_of, taken)
    return canvas


def encoded(image: Image.Image, ending: str) -> bytes:
    """The bytes of an image file. `ending`: .png, .jpg, .jpeg or .webp; another raises `UsageError`."""
    form = _FORMATS.get(ending.lower())
    if form is None:
        raise UsageError(f"an image ends in {', '.join(_FORMATS)}; got {ending or 'nothing'}")
    buffer = io.BytesIO()
    image.save(buffer, form, **({} if form == "PNG" else {"quality": 90}))
    return buffer.getvalue()


def _canvas(image: Image.Image, smallest: int) -> tuple[Image.Image, float]:
    """A copy, enlarged by a whole number where it is small, and that number."""
    copy = image.convert("RGB")
    scale = max(1, -(-smallest // max(copy.size)))
    if scale == 1:
        return (copy.copy() if copy is image else copy), 1.0
    return copy.resize((copy.width * scale, copy.height * scale), Image.Resampling.NEAREST), float(scale)


def _inside(
    xyxy: tuple[float, float, float, float], scale: float, canvas: Image.Image
) -> tuple[float, float, float, float]:
    left, top, right, bottom = (value * scale for value in xyxy)
    left, right = sorted((min(max(left, 0), canvas.width - 1), min(max(right - 1, 0), canvas.width - 1)))
    top, bottom = sorted((min(max(top, 0), canvas.height - 1), min(max(bottom - 1, 0), canvas.height - 1)))
    return left, top, right, bottom


def _grow(edges: tuple[float, float, float, float], by: float) -> tuple[float, float, float, float]:
    left, top, right, bottom = edges[0] - by, edges[1] - by, edges[2] + by, edges[3] + by
    return (left, top, right, bottom) if left <= right and top <= bottom else edges


def _line(canvas: Image.Image) -> int:
    return max(3, round(max(canvas.size) / 260))


def _colour_of(labels: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    return {label: COLOURS[i % len(COLOURS)] for i, label in enumerate(dict.fromkeys(labels))}


def _said(label: str, score: float) -> str:
    short = label if len(label) <= 40 else label[:39] + "…"
    return short if math.isnan(score) else f"{short} {score:.0%}"  # what is true has no score


def _label(
    pen: ImageDraw.ImageDraw,
    canvas: Image.Image,
    edges: tuple[float, float, float, float],
    text: str,
    colour: tuple[int, int, int],
    taken: list[tuple[float, float, float, float]],
) -> None:
    """White on the colour: above the box, else below, else inside, wherever no other label stands."""
    font = font_for(text, max(12, round(max(canvas.size) / 32)))
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    pad = 3
    width, height = right - left + 2 * pad, bottom - top + 2 * pad
    x = min(max(edges[0], 0), max(0, canvas.width - width))
    places = [edges[1] - height, edges[3] + 1, edges[1] + 2, edges[3] - height - 1]
    fitting = [y for y in places if 0 <= y <= canvas.height - height] or [max(0.0, canvas.height - height)]
    free = [y for y in fitting if not any(_meet((x, y, x + width, y + height), other) for other in taken)]
    y = (free or fitting)[0]
    taken.append((x, y, x + width, y + height))
    pen.rounded_rectangle((x, y, x + width, y + height), radius=3, fill=colour)
    pen.text((x + pad - left, y + pad - top), text, font=font, fill=(255, 255, 255))


def _meet(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _resized(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    image = Image.fromarray(np.asarray(mask, np.uint8) * 255)
    return np.asarray(image.resize(size, Image.Resampling.NEAREST)) > 127


def _edge(inside: np.ndarray, width: int) -> np.ndarray:
    """Pixels of the mask that are at most `width` from its outside."""
    core = np.pad(inside, 1)
    for _ in range(width):
        core[1:-1, 1:-1] &= core[:-2, 1:-1] & core[2:, 1:-1] & core[1:-1, :-2] & core[1:-1, 2:]
    return inside & ~core[1:-1, 1:-1]
