"""VisualBERT's published checkpoints, all from one repository under the MIT licence."""

from rebus.catalog.card_of import card_of
from rebus.core.card import ModelCard

_WANTS = "needs the features of the detector that it was trained with, and BERT's tokenizer (processor=)"
_COCO, _TASK = "pre-trained on captions of COCO", "pre-trained on captions, then on the task's own text"


def _card(variant: str, preset: str, parameters: int, tasks: set[str], note: str, repo: str | None = None) -> ModelCard:
    return card_of(
        "visualbert",
        variant,
        preset=preset,
        parameters=parameters,
        tasks=frozenset(tasks),
        license="MIT",
        released=repo is not None,
        repo=repo,
        instead=None if repo else "visualbert/vqa-coco-pre, to be fine-tuned",
        ready=False,  # none of them sees an image by itself
        note=f"{note}; {_WANTS}",
    )


def _released(variant: str, preset: str, parameters: int, tasks: set[str], note: str) -> ModelCard:
    return _card(variant, preset, parameters, tasks, note, f"uclanlp/visualbert-{variant}")


_CHOICES = "which of four answers fits; the detector that was fine-tuned with it was never converted"
CARDS = [
    _released("vqa-coco-pre", "vqa_pre", 112_074_812, {"match"}, f"{_COCO}, 2,048 numbers a region"),
    _released("vqa-pre", "vqa_pre", 112_074_812, {"match"}, f"{_TASK}, 2,048 numbers a region"),
    _released("vqa", "vqa", 113_856_825, {"ask"}, "3,129 answers, whose list (answers_vqa.txt) was released apart"),
    _released("nlvr2-coco-pre", "nlvr2_pre", 111_288_380, {"match"}, f"{_COCO}, 1,024 numbers a region"),
    _released("nlvr2-pre", "nlvr2_pre", 111_288_380, {"match"}, f"{_TASK}, 1,024 numbers a region"),
    _released("nlvr2", "nlvr2", 110_665_730, {"match"}, "whether a statement about two images is true"),
    _released("vcr-coco-pre", "vcr_pre", 110_895_164, {"match"}, f"{_COCO}, 512 numbers a region"),
    _released("vcr-pre", "vcr_pre", 110_895_164, {"match"}, f"{_TASK}, 512 numbers a region"),
    _released("vcr", "vcr", 110_271_745, set(), _CHOICES),
    _card("flickr", "flickr", 112_227_068, {"detect"}, "which region a phrase means"),
]
