"""Average precision of detection and instance segmentation, counted as COCO and LVIS count it.

Lin et al., "Microsoft COCO: Common Objects in Context", 2014. Gupta et al., "LVIS: A Dataset for Large Vocabulary
Instance Segmentation", 2019.

A score that has no truth to be measured on (no object of that class, or of that size) is NaN, where the official
tools print -1; means leave such classes out. Images are read one by one, so their masks need not fit in memory.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from rebus.core.errors import UsageError, unknown

By = Literal["boxes", "masks"]
Frequency = Literal["r", "c", "f"]

IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
# Square pixels, both ends included: all, small, medium, large.
AREAS = np.array([[0, 1e5**2], [0, 32**2], [32**2, 96**2], [96**2, 1e5**2]])
COCO_LIMITS = (1, 10, 100)
LVIS_LIMIT = 300


@dataclass(frozen=True, eq=False, kw_only=True)
class Truth:
    """The true objects of one image: a label each, and a box or a mask each, or both.

    boxes: (N, 4) xyxy in pixels. masks: bool (N, H, W). crowd: (N,), true for a region of many objects.
    areas: (N,) in square pixels decides who is small, medium or large; by default that of the box or mask. Give
    COCO's own areas to repeat its numbers: they are those of the masks, for boxes too.
    absent: classes that were looked for and are not there. incomplete: classes of which only some objects are marked.
    `lvis_scores` alone reads these two. Raises `UsageError` for shapes that do not fit.
    """

    labels: Sequence[str]
    boxes: np.ndarray | None = None
    masks: np.ndarray | None = None
    crowd: np.ndarray | Sequence[bool] | None = None
    areas: np.ndarray | Sequence[float] | None = None
    absent: Collection[str] = ()
    incomplete: Collection[str] = ()

    def __post_init__(self) -> None:
        _check_names(labels=self.labels, absent=self.absent, incomplete=self.incomplete)
        _check_shapes(len(self.labels), self.boxes, self.masks)
        if self.crowd is not None:
            _check_row("crowd", np.asarray(self.crowd), len(self.labels))
        if self.areas is not None:
            areas = np.asarray(self.areas, dtype=np.float64)
            _check_row("areas", areas, len(self.labels))
            if not (np.isfinite(areas) & (areas >= 0)).all():
                raise UsageError(f"areas expects finite numbers of at least 0; got {areas.tolist()}")


@dataclass(frozen=True, eq=False, kw_only=True)
class Detections:
    """What a model found in one image: a label and a score each, and a box or a mask each, or both.

    scores: (N,), higher is surer; of equal scores the earlier counts as the better. boxes: (N, 4) xyxy in pixels.
    masks: bool (N, H, W), the size of the true masks. Raises `UsageError` for shapes that do not fit.
    """

    labels: Sequence[str]
    scores: np.ndarray | Sequence[float]
    boxes: np.ndarray | None = None
    masks: np.ndarray | None = None

    def __post_init__(self) -> None:
        _check_names(labels=self.labels)
        scores = np.asarray(self.scores, dtype=np.float64)
        _check_row("scores", scores, len(self.labels))
        if not np.isfinite(scores).all():
            raise UsageError(f"scores expects finite numbers; got {scores.tolist()}")
        _check_shapes(len(self.labels), self.boxes, self.masks)


@dataclass(frozen=True, kw_only=True)
class DetectionScores:
    """What COCO and LVIS both give. All between 0 and 1; NaN where there is no truth.

    ap: mean over IoU 0.50, 0.55 ... 0.95. ar_small, ar_medium, ar_large: recall with all detections that are counted.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar_small: float
    ar_medium: float
    ar_large: float
    class_ap: dict[str, float]
    class_ap50: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class CocoScores(DetectionScores):
    """COCO's twelve numbers. ar1, ar10, ar100: recall with so many detections per image and class."""

    ar1: float
    ar10: float
    ar100: float


@dataclass(frozen=True, kw_only=True)
class LvisScores(DetectionScores):
    """LVIS's thirteen numbers. ar: recall with 300 detections an image. ap_rare and so on: over such classes."""

    ar: float
    ap_rare: float
    ap_common: float
    ap_frequent: float


@dataclass(frozen=True)
class GroupScores:
    """Mean AP and AP50 of some classes; NaN where none of them has truth."""

    ap: float
    ap50: float


def coco_scores(images: Iterable[tuple[Truth, Detections]], classes: Sequence[str], *, by: By = "boxes") -> CocoScores:
    """AP and AR of boxes or masks, as COCO counts them.

    An image gives its 100 best detections of each class. Crowd regions count neither way: they are no truth to be
    found, any number of detections may fall on one, and the overlap is then the share of the detection that lies on
    it. Detections of equal score rank in the order of the images.

    Raises `UsageError` for an image that lacks boxes or masks, and `UnknownName` for a label not among the classes.
    """
    _check_names(classes=classes)
    if len(set(classes)) != len(classes):
        raise UsageError(f"classes expects each name once; got {list(classes)}")
    tallies = {name: _Tally() for name in classes}
    for _, true, seen in _read(images, tallies, by):
        for name in sorted({*true.labels, *seen.labels}):
            best = seen.take(seen.labels == name).best(COCO_LIMITS[-1])
            tallies[name].add(true.take(true.labels == name), best, forgive=False)
    ap, ar = _table(tallies, COCO_LIMITS)
    ar1, ar10, ar100 = (_mean(ar[:, m, 0]) for m in range(3))
    return CocoScores(**_shared_scores(tallies, ap, ar), ar1=ar1, ar10=ar10, ar100=ar100)


def lvis_scores(
    images: Iterable[tuple[Truth, Detections]], frequency: Mapping[str, Frequency], *, by: By = "masks"
) -> LvisScores:
    """AP and AR of boxes or masks, as LVIS counts them. frequency: every class with "r", "c" or "f".

    An image gives its 300 best detections of all classes together. Of these, only classes that are marked in the
    image or known to be absent from it are judged; where marking is incomplete, an unmatched detection counts neither
    way. Regions without area are passed over. Detections of equal score rank in the order of the images.

    Raises `UsageError` for an image that lacks boxes or masks or has crowd regions, which LVIS does not know, and
    `UnknownName` for a class without frequency.
    """
    if wrong := [name for name, group in frequency.items() if group not in ("r", "c", "f")]:
        raise UsageError(f'frequency expects "r", "c" or "f"; got "{frequency[wrong[0]]}" for "{wrong[0]}"')
    tallies = {name: _Tally() for name in frequency}
    for truth, true, seen in _read(images, tallies, by):
        _check_known(tallies, truth.absent, truth.incomplete)
        if true.crowd.any():
            raise UsageError(f"LVIS has no crowd regions; got crowd {true.crowd.tolist()}. Leave them out.")
        seen = seen.best(LVIS_LIMIT)
        # The official reader drops regions of no area, and does so after the limit.
        true, seen = true.take(true.areas > 0), seen.take(seen.areas > 0)
        for name in sorted({*true.labels, *({*seen.labels} & {*truth.absent})}):
            forgive = name in truth.incomplete
            tallies[name].add(true.take(true.labels == name), seen.take(seen.labels == name), forgive=forgive)
    ap, ar = _table(tallies, (LVIS_LIMIT,))
    groups = np.array(list(frequency.values()), dtype=str)
    rare, common, frequent = (_mean(ap[groups == group, 0]) for group in "rcf")
    shared = _shared_scores(tallies, ap, ar)
    return LvisScores(**shared, ar=_mean(ar[:, 0, 0]), ap_rare=rare, ap_common=common, ap_frequent=frequent)


def group_scores(scores: DetectionScores, groups: Mapping[str, Collection[str]]) -> dict[str, GroupScores]:
    """AP and AP50 over named sets of classes, such as "base" and "novel". Raises `UnknownName` for a strange class."""
    _check_names(**groups)
    _check_known(scores.class_ap, *groups.values())
    both = scores.class_ap, scores.class_ap50
    means = {group: [_mean(np.array([ap[name] for name in names])) for ap in both] for group, names in groups.items()}
    return {group: GroupScores(ap, ap50) for group, (ap, ap50) in means.items()}


@dataclass(frozen=True, eq=False)
class _Regions:
    """Boxes (N, 4) or masks (N, H, W), and a value each of the rest. areas: by which a region is small or large."""

    labels: np.ndarray
    shapes: np.ndarray
    areas: np.ndarray
    scores: np.ndarray
    crowd: np.ndarray

    def take(self, which: np.ndarray) -> "_Regions":
        return _Regions(*(getattr(self, name)[which] for name in self.__dataclass_fields__))

    def best(self, limit: int) -> "_Regions":
        return self.take(np.argsort(-self.scores, kind="stable")[:limit])


@dataclass(frozen=True, eq=False)
class _Tally:
    """What was counted of one class. A = area ranges, T = IoU thresholds, one array per image of N detections."""

    num_truth: np.ndarray = field(default_factory=lambda: np.zeros(len(AREAS), dtype=np.int64))
    scores: list[np.ndarray] = field(default_factory=list)  # (N,), best first
    right: list[np.ndarray] = field(default_factory=list)  # bool (A, T, N)
    wrong: list[np.ndarray] = field(default_factory=list)  # bool (A, T, N); neither right nor wrong: not counted

    def add(self, true: _Regions, found: _Regions, *, forgive: bool) -> None:
        """Count one image. forgive: an unmatched detection is not wrong."""
        ignored = true.crowd | _outside(true.areas)
        self.num_truth[:] += (~ignored).sum(axis=1)
        matched, on_ignored = _match(_overlaps(found.shapes, true.shapes, true.crowd), ignored, true.crowd)
        excused = _outside(found.areas) | forgive
        self.scores.append(found.scores)
        self.right.append(matched & ~on_ignored)
        self.wrong.append(~matched & ~excused[:, None])


def _outside(areas: np.ndarray) -> np.ndarray:
    """Bool (A, N): which regions are too small or too large for each range."""
    return (areas < AREAS[:, :1]) | (areas > AREAS[:, 1:])


def _match(overlaps: np.ndarray, ignored: np.ndarray, crowd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pair detections, best first, with truth, in every area range and at every IoU threshold.

    overlaps (N, M) of detections and truth; ignored (A, M); crowd (M,). Gives two of bool (A, T, N): matched, and
    matched with truth that is ignored.
    """
    least = IOUS[:, None]
    num_found, num_true = overlaps.shape
    taken = np.zeros((len(AREAS), len(IOUS), num_true), dtype=bool)
    matched = np.zeros((len(AREAS), len(IOUS), num_found), dtype=bool)
    on_ignored = matched.copy()
    for row in np.flatnonzero((overlaps >= least[0]).any(axis=1)):
        near = np.flatnonzero(overlaps[row] >= least[0])
        near = near[np.argsort(overlaps[row, near], kind="stable")]  # nearest last; of equals COCO takes the later
        free = (overlaps[row, near] >= least) & (~taken[:, :, near] | crowd[near])
        rank = 1 + np.arange(len(near)) + len(near) * ~ignored[:, near]  # truth that counts goes before the ignored
        choice = (free * rank[:, None]).argmax(axis=-1)
        area, iou = np.nonzero(free.any(axis=-1))
        chosen = near[choice[area, iou]]
        taken[area, iou, chosen] = True
        matched[area, iou, row] = True
        on_ignored[area, iou, row] = ignored[area, chosen]
    return matched, on_ignored


def _overlaps(found: np.ndarray, true: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """IoU (N, M) of boxes or masks; for a crowd, the share of the detection that lies on it."""
    if not len(found) or not len(true):
        return np.zeros((len(found), len(true)))
    if found.ndim == 2:
        corner = np.maximum(found[:, None, :2], true[:, :2])
        both = (np.minimum(found[:, None, 2:], true[:, 2:]) - corner).clip(min=0).prod(axis=-1)
    else:
        both = np.stack([_shared_pixels(found, mask) for mask in true], axis=1)
    own = _sizes(found)[:, None]
    union = np.where(crowd, own, own + _sizes(true) - both)
    return np.divide(both, union, out=np.zeros_like(both), where=both > 0)


def _shared_pixels(found: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Pixels that each mask (N, H, W) shares with one (H, W), looked for only in the rectangle that holds the one."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return np.zeros(len(found))
    part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return _sizes(found[:, part[0], part[1]] & mask[part])


def _sizes(shapes: np.ndarray) -> np.ndarray:
    """Square pixels (N,) of boxes or masks."""
    if shapes.ndim == 2:
        return (shapes[:, 2] - shapes[:, 0]) * (shapes[:, 3] - shapes[:, 1])
    return np.array([np.count_nonzero(mask) for mask in shapes], dtype=np.float64)  # faster than by axis


def _table(tallies: Mapping[str, _Tally], limits: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """AP (K, A, T) of every class, area range and threshold, and recall (K, limits, A, T); NaN without truth."""
    ap = np.full((len(tallies), len(AREAS), len(IOUS)), np.nan)
    recall = np.full((len(tallies), len(limits), len(AREAS), len(IOUS)), np.nan)
    for k, tally in enumerate(tallies.values()):
        if not tally.num_truth.any():
            continue
        right, wrong = np.concatenate(tally.right, axis=-1), np.concatenate(tally.wrong, axis=-1)
        place = np.concatenate([np.arange(len(row)) for row in tally.scores])
        order = np.argsort(-np.concatenate(tally.scores), kind="stable")
        for a in np.flatnonzero(tally.num_truth):
            total = tally.num_truth[a]
            for m, limit in enumerate(limits):
                recall[k, m, a] = (right[a] & (place < limit)).sum(axis=1) / total
            ap[k, a] = _area_under_curve(right[a][:, order], wrong[a][:, order], total)
    return ap, recall


def _shared_scores(classes: Iterable[str], ap: np.ndarray, ar: np.ndarray) -> dict[str, Any]:
    """The fields of `DetectionScores` from what `_table` gives."""
    sizes = ("small", "medium", "large")
    return {
        "ap": _mean(ap[:, 0]),
        "ap50": _mean(ap[:, 0, 0]),
        "ap75": _mean(ap[:, 0, 5]),
        **{f"ap_{size}": _mean(ap[:, a]) for a, size in enumerate(sizes, 1)},
        **{f"ar_{size}": _mean(ar[:, -1, a]) for a, size in enumerate(sizes, 1)},
        "class_ap": dict(zip(classes, ap[:, 0].mean(axis=1).tolist())),
        "class_ap50": dict(zip(classes, ap[:, 0, 0].tolist())),
    }


def _area_under_curve(right: np.ndarray, wrong: np.ndarray, total: int) -> np.ndarray:
    """Mean over 101 recalls of the best precision at that recall or beyond, (T,); 0 beyond the last recall reached."""
    hits = right.cumsum(axis=1)
    precision = hits / np.maximum(hits + wrong.cumsum(axis=1), 1)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    envelope = np.pad(envelope, ((0, 0), (0, 1)))
    return np.array([row[np.searchsorted(got, RECALLS)].mean() for row, got in zip(envelope, hits / total)])


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _read(
    images: Iterable[tuple[Truth, Detections]], known: Collection[str], by: By
) -> Iterator[tuple[Truth, _Regions, _Regions]]:
    """Each image's truth, as given and as regions, and its detections as regions, once they are known to fit."""
    if by not in ("boxes", "masks"):
        raise UsageError(f'by expects "boxes" or "masks"; got "{by}"')
    for number, (truth, found) in enumerate(images):
        _check_known(known, truth.labels, found.labels)
        true, seen = (_regions(side, by, number) for side in (truth, found))
        want, got = true.shapes.shape[1:], seen.shapes.shape[1:]
        if len(truth.labels) and len(found.labels) and want != got:
            raise UsageError(f"masks found in image {number} must have the shape {want} of the true ones; got {got}")
        yield truth, true, seen


def _regions(side: Truth | Detections, by: By, number: int) -> _Regions:
    given, count = side.boxes if by == "boxes" else side.masks, len(side.labels)
    if given is None and count:
        raise UsageError(f"scores by {by} need {by} in all images; {type(side).__name__} {number} has none")
    if given is None:
        given = np.zeros((0, 4) if by == "boxes" else (0, 0, 0), dtype=bool)
    shapes = np.asarray(given, dtype=np.float64 if by == "boxes" else bool)
    labels = np.array(list(side.labels), dtype=object)
    areas, scores, crowd = _sizes(shapes), np.zeros(count), np.zeros(count, dtype=bool)
    if isinstance(side, Detections):
        scores = np.asarray(side.scores, dtype=np.float64)
    else:
        areas = areas if side.areas is None else np.asarray(side.areas, dtype=np.float64)
        crowd = crowd if side.crowd is None else np.asarray(side.crowd, dtype=bool)
    return _Regions(labels, shapes, areas, scores, crowd)


def _check_names(**names: Collection[str]) -> None:
    for what, each in names.items():
        if isinstance(each, str):
            raise UsageError(f'{what} expects a list of names; got the one text "{each}"')


def _check_known(known: Collection[str], *names: Collection[str]) -> None:
    if strange := [name for each in names for name in each if name not in known]:
        raise unknown("class", strange[0], known)


def _check_row(what: str, values: np.ndarray, count: int) -> None:
    if values.shape != (count,):
        raise UsageError(f"{what} must have shape ({count},), one for each label; got {values.shape}")


def _check_shapes(count: int, boxes: np.ndarray | None, masks: np.ndarray | None) -> None:
    if boxes is not None:
        boxes = np.asarray(boxes, dtype=np.float64)
        if boxes.shape != (count, 4):
            raise UsageError(f"boxes must have shape ({count}, 4), one for each label; got {boxes.shape}")
        good = np.isfinite(boxes).all(axis=1) & (boxes[:, :2] <= boxes[:, 2:]).all(axis=1)
        if not good.all():
            valid = "finite left <= right and top <= bottom"
            raise UsageError(f"boxes must be {valid}, as xyxy; got {boxes[~good][0].tolist()}")
    if masks is not None:
        masks = np.asarray(masks)
        if masks.ndim != 3 or len(masks) != count or masks.dtype != bool:
            raise UsageError(f"masks expects bool ({count}, H, W), one for each label; got {masks.dtype} {masks.shape}")
