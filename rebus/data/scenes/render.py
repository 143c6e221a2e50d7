"""Plans into pixels. Only +, ×, comparisons and square roots, so that a seed gives the same bytes on every machine."""

from functools import lru_cache

import numpy as np

from rebus.data.scenes.world import Plan, SceneObject

RGB = {
    "red": (226, 44, 44),
    "orange": (250, 140, 24),
    "yellow": (250, 224, 60),
    "green": (44, 176, 68),
    "cyan": (64, 214, 226),
    "blue": (46, 84, 240),
    "purple": (176, 64, 214),
    "white": (246, 246, 246),
}
_SUPERSAMPLE = 4
_STAR = (  # corners of a five-pointed star, clockwise from the top, y downwards
    (0.0, -1.08), (0.274, -0.3772), (1.0272, -0.3337), (0.4434, 0.144), (0.6348, 0.8737),
    (0.0, 0.4662), (-0.6348, 0.8737), (-0.4434, 0.144), (-1.0272, -0.3337), (-0.274, -0.3772),
)  # fmt: skip


def placed(plans: list[Plan], size: int) -> list[SceneObject]:
    """The objects with boxes and masks in the pixels of an image of that size."""
    objects = []
    for plan in plans:
        alpha, body = _stencil(plan.shape, plan.fill, plan.radius, size / 96)
        left, top, rows, columns = _where(plan, alpha, size / 96)
        mask = np.zeros((size, size), dtype=bool)
        mask[rows, columns] = body
        box = (float(left), float(top), float(left + alpha.shape[1]), float(top + alpha.shape[0]))
        centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        objects.append(SceneObject(plan.shape, plan.colour, plan.size, plan.fill, centre, box, mask))
    return objects


def draw(plans: list[Plan], rng: np.random.Generator, size: int) -> np.ndarray:
    """uint8 (3, size, size)."""
    canvas = _background(rng, size)
    jitter = rng.integers(-10, 11, size=(len(plans), 3))
    for plan, shift in zip(plans, jitter, strict=True):
        alpha, _ = _stencil(plan.shape, plan.fill, plan.radius, size / 96)
        _, _, rows, columns = _where(plan, alpha, size / 96)
        colour = np.clip(np.asarray(RGB[plan.colour]) + shift, 0, 255).astype(np.float32)
        patch = canvas[:, rows, columns]
        patch += alpha * (colour[:, None, None] - patch)
    return (canvas + np.float32(0.5)).astype(np.uint8)


def _where(plan: Plan, alpha: np.ndarray, scale: float) -> tuple[int, int, slice, slice]:
    """Left and top, rows and columns of an object's stencil in the image."""
    left, top = round(plan.x * scale) - alpha.shape[1] // 2, round(plan.y * scale) - alpha.shape[0] // 2
    return left, top, slice(top, top + alpha.shape[0]), slice(left, left + alpha.shape[1])


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Muted float32 (3, size, size): a gradient, soft blobs, faint lines and grain, far below an object's contrast."""
    step = np.arange(size, dtype=np.float32) / np.float32(size)
    x, y = step[None, :], step[:, None]
    base = rng.integers(58, 112)
    start, change = base + rng.integers(-9, 10, size=3), rng.integers(-14, 15, size=3)
    a, b = (rng.integers(-4, 5, size=2) / np.float32(8)).astype(np.float32)
    ramp = a * (x - 0.5) + b * (y - 0.5) + 0.5
    light = rng.integers(-5, 6, size=(size, size), dtype=np.int8).astype(np.float32)
    for centre_x, centre_y, reach, strength in rng.random((2, 4), dtype=np.float32):
        narrow = 1 / (np.float32(0.12) + np.float32(0.3) * reach)
        across, down = (x - centre_x) * narrow, (y - centre_y) * narrow
        light += np.maximum(1 - across * across - down * down, 0) * (24 * strength - 12)
    for where, slope, upright, strength in rng.random((2, 4), dtype=np.float32):
        along, across = (x, y) if upright < 0.5 else (y, x)
        distance = np.abs(across * size - ((2 * slope - 1) * along + (1.5 * where - np.float32(0.25))) * size)
        light += np.maximum(np.float32(1.2) - distance, 0) * (18 * strength - 9)
    return change.astype(np.float32)[:, None, None] * ramp + (light + start.astype(np.float32)[:, None, None])


@lru_cache(maxsize=4096)
def _stencil(shape: str, fill: str, radius: float, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Opacity float32 and body bool of one object, cut to the tight box of the body."""
    half = int(1.1 * radius * scale) + 2
    samples = (2 * half + 1) * _SUPERSAMPLE
    pixels = (np.arange(samples) + 0.5) / _SUPERSAMPLE - half - 0.5  # distance from the centre of the centre pixel
    x, y = pixels[None, :] / (radius * scale), pixels[:, None] / (radius * scale)
    whole = _inside(shape, x, y)
    ink = whole
    if fill == "outlined":
        ink = whole & ~_erode(whole, 2.6 * max(scale, 1.0))
    elif fill == "striped":
        period = 5.0 * scale
        stripes = np.floor((pixels[None, :] + pixels[:, None]) / (0.5 * period)) % 2 == 0
        ink = whole & (stripes | ~_erode(whole, 1.0 * max(scale, 1.0)))
    alpha, body = _average(ink), _average(whole) >= 0.5
    used_rows, used_columns = np.flatnonzero(body.any(axis=1)), np.flatnonzero(body.any(axis=0))
    rows, columns = slice(used_rows[0], used_rows[-1] + 1), slice(used_columns[0], used_columns[-1] + 1)
    return alpha[rows, columns].astype(np.float32), body[rows, columns]


def _average(samples: np.ndarray) -> np.ndarray:
    n = samples.shape[0] // _SUPERSAMPLE
    return samples.reshape(n, _SUPERSAMPLE, n, _SUPERSAMPLE).mean(axis=(1, 3))


def _inside(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Which samples belong to the shape of radius 1 around (0, 0)."""
    if shape == "circle":
        return x * x + y * y <= 1
    if shape == "square":
        return (np.abs(x) <= 0.88) & (np.abs(y) <= 0.88)
    if shape == "diamond":
        return np.abs(x) / 0.8 + np.abs(y) / 1.08 <= 1
    if shape == "cross":
        return ((np.abs(x) <= 0.36) & (np.abs(y) <= 1)) | ((np.abs(y) <= 0.36) & (np.abs(x) <= 1))
    if shape == "triangle":
        return (y <= 0.85) & (np.abs(x) <= (y + 1.0) * 0.55)
    if shape == "star":
        return _polygon(_STAR, x, y)
    up, side = 0.1 - 1.12 * y, 1.15 * x
    round_part = side * side + up * up - 1
    return round_part * round_part * round_part - side * side * up * up * up <= 0


def _polygon(corners: tuple[tuple[float, float], ...], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Even-odd rule."""
    inside = np.zeros(np.broadcast_shapes(x.shape, y.shape), dtype=bool)
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        if y0 != y1:
            crosses = (y0 > y) != (y1 > y)
            inside ^= crosses & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return inside


def _erode(whole: np.ndarray, pixels: float) -> np.ndarray:
    """The samples whose whole neighbourhood of that radius is inside."""
    reach = max(1, round(pixels * _SUPERSAMPLE))
    padded = np.pad(whole, reach)
    eroded = whole.copy()
    height, width = whole.shape
    for dy in range(-reach, reach + 1):
        dx = int((reach * reach - dy * dy) ** 0.5)
        for shift in (-dx, dx):
            eroded &= padded[reach + dy : reach + dy + height, reach + shift : reach + shift + width]
    return eroded
