"""LVIS: average precision over many labels, rare to frequent, and as open-vocabulary detectors count it.

Gupta et al., "LVIS: A Dataset for Large Vocabulary Instance Segmentation", 2019. Base labels are the common and
frequent ones, novel the rare ones, of which nothing was learnt: Gu et al., "Open-vocabulary Object Detection via Vision
and Language Knowledge Distillation" (ViLD), 2022, sec. 4.1.
"""

from dataclasses import asdict
from typing import Any

from rebus.core.errors import UsageError
from rebus.evaluate.benchmarks.detection import Options, Seen, images, plots
from rebus.evaluate.benchmarks.located import check_can
from rebus.evaluate.benchmarks.walk import Source
from rebus.evaluate.detection import group_scores, lvis_scores
from rebus.evaluate.outcome import Outcome, Worst, bars

READS = "LVIS: lvis_v1_*.json with the images of COCO (lvis)"
TASKS = ("detect", "segment")

__all__ = ["READS", "TASKS", "Options", "run"]


def run(model: Any, source: Source, options: Options) -> Outcome:
    check_can(model, options.by)
    records = source.records()
    frequency = getattr(records.reader, "frequencies", None)
    if not frequency:
        raise UsageError(f"the data set does not say which labels are rare; this benchmark reads {READS}")
    seen = Seen(Worst())
    found = lvis_scores(images(model, records, list(frequency), options, seen), frequency, by=options.by)
    sets = {
        "base": [name for name, often in frequency.items() if often != "r"],
        "novel": [name for name, often in frequency.items() if often == "r"],
    }
    scores = asdict(found)
    by_class = {name: scores.pop(f"class_{name}") for name in ("ap", "ap50")}
    groups = {name: asdict(group) for name, group in group_scores(found, sets).items()}
    often = {"rare": found.ap_rare, "common": found.ap_common, "frequent": found.ap_frequent}
    charts = [
        bars("frequency", "AP by frequency", {n: v for n, v in often.items() if v == v}, y="AP"),
        *plots(by_class["ap"], found),
    ]
    return Outcome(
        scores={**scores, **groups, "class_ap": by_class["ap"]},
        worst=[*seen.worst],
        plots=charts,
        notes=seen.notes(options.by),
    )
