"""Scenes as records, the same that a data set on disk would give: endless, and a function of seed, number and split."""

from rebus.data.record import Phrase, Question, Record, Thing
from rebus.data.scenes.scene import Scene, scene

FIELDS = ("captions", "questions", "things", "phrases")
_SEEDS = 1_000_000_000  # scenes between the series of two seeds


def scene_at(seed: int, number: int, split: str, size: int, count: int | None = None) -> Scene:
    """The scene with that number in the endless series of a seed; `count` as of `scene`."""
    return scene(seed * _SEEDS + number, split, size, count)


def scene_record(s: Scene, fields: tuple[str, ...] = FIELDS) -> Record:
    """What can be said of a scene, in the given fields alone, since wording questions takes time. The scene itself is
    among the facts."""
    things = _things(s) if "things" in fields or "phrases" in fields else ()
    asked = s.questions_by_kind if "questions" in fields else ()
    return Record(
        key=f"scene {s.split}:{s.seed}",
        image=s.planes.transpose(1, 2, 0),
        captions=tuple(s.captions) if "captions" in fields else (),
        label=s.label,
        questions=tuple(Question(text=text, answers=(answer,), kind=kind) for (text, answer), kind in asked),
        things=things if "things" in fields else (),
        phrases=tuple(Phrase(text=text, thing=things[i]) for text, i in s.phrases) if "phrases" in fields else (),
        facts={"scene": s},
    )


def _things(s: Scene) -> tuple[Thing, ...]:
    parts = zip(s.labels, s.boxes, s.masks, strict=True)
    return tuple(
        Thing(label=label, box=box, area=float(mask.sum()), id=str(i)) for i, (label, box, mask) in enumerate(parts)
    )
