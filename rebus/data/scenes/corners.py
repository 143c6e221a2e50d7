"""The outlines of objects as polygons, for models that state masks by their corners."""

from rebus.data.scenes.world import SceneObject

Point = tuple[float, float]

# Shares of the object's box, clockwise from the top. Curves lie partly outside: the areas are nearly theirs.
_CORNERS: dict[str, tuple[Point, ...]] = {
    "circle": ((0.3, 0.0), (0.7, 0.0), (1.0, 0.3), (1.0, 0.7), (0.7, 1.0), (0.3, 1.0), (0.0, 0.7), (0.0, 0.3)),
    "square": ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)),
    "triangle": ((0.5, 0.0), (1.0, 1.0), (0.0, 1.0)),
    "diamond": ((0.5, 0.0), (1.0, 0.5), (0.5, 1.0), (0.0, 0.5)),
    "cross": (
        (0.32, 0.0), (0.68, 0.0), (0.68, 0.32), (1.0, 0.32), (1.0, 0.68), (0.68, 0.68),
        (0.68, 1.0), (0.32, 1.0), (0.32, 0.68), (0.0, 0.68), (0.0, 0.32), (0.32, 0.32),
    ),
    "star": (
        (0.5, -0.02), (0.638, 0.354), (1.02, 0.377), (0.725, 0.632), (0.821, 1.02),
        (0.5, 0.803), (0.179, 1.02), (0.275, 0.632), (-0.02, 0.377), (0.362, 0.354),
    ),
    "heart": (
        (0.5, 0.084), (0.77, -0.026), (1.04, 0.234), (0.932, 0.629),
        (0.5, 1.014), (0.068, 0.629), (-0.04, 0.234), (0.23, -0.026),
    ),
}  # fmt: skip


def corners(one: SceneObject) -> list[Point]:
    """The polygon (x, y), in pixels, around an object's mask."""
    left, top, right, bottom = one.box
    return [(left + x * (right - left), top + y * (bottom - top)) for x, y in _CORNERS[one.shape]]
