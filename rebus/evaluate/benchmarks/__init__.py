"""Benchmarks on data as it lies on disk, one file each.

A module here has `READS` (one line: what it expects to find), `TASKS` (it needs one of these; none: `run` says what it
needs), a frozen dataclass `Options`, and `run(model, source, options) -> Outcome`. It asks for task methods of the
model, never for a system. `HELD_OUT`, where there is one, makes a reader of held-out scenes for it, by their split.
"""

BENCHMARKS = {
    "zeroshot": "rebus.evaluate.benchmarks.zeroshot",
    "fewshot": "rebus.evaluate.benchmarks.fewshot",
    "linear_probe": "rebus.evaluate.benchmarks.linear_probe",
    "retrieval": "rebus.evaluate.benchmarks.retrieval",
    "captions": "rebus.evaluate.benchmarks.captions",
    "vqa": "rebus.evaluate.benchmarks.vqa",
    "detection": "rebus.evaluate.benchmarks.detection",
    "lvis": "rebus.evaluate.benchmarks.lvis",
    "referring": "rebus.evaluate.benchmarks.referring",
    "pope": "rebus.evaluate.benchmarks.pope",
    "chair": "rebus.evaluate.benchmarks.chair",
    "spatial": "rebus.evaluate.benchmarks.spatial",
}
