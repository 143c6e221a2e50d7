"""ViLD, and detectors of photos made of parts that packages ship."""

from rebus.catalog.card_of import card_of

_VILD = [
    card_of(
        "vild",
        f"{backbone}{kind}",
        preset=f"{backbone}{kind}".replace("-", "_"),
        parameters=parameters,
        license="Apache-2.0",
        released=True,
        ready=False,
        instead=f"the released archive {backbone}_vild{kind.replace('-', '_')}.tar.gz: unpack it, load its .index",
        note="for TensorFlow 1, without a text encoder: rebus.models.distillation.vild.take_text_encoder adds one",
    )
    for backbone, sizes in {"resnet50": (48_051_284, 64_838_228), "resnet152": (82_687_060, 99_474_004)}.items()
    for kind, parameters in zip(("", "-ensemble"), sizes, strict=True)
]
_CROPS_STARTER = card_of(
    "crops",
    "starter",
    name="vild/starter",
    preset="starter",
    parameters=0,
    license="MIT (Tiny YOLOv2), Apache-2.0 (EfficientNet-Lite0, all-MiniLM-L6-v2)",
    parts={"encoder": "asif/starter"},
    extra="detector",
    note='real photos, offline, with the extra "detector"; open-vocabulary boxes',
    scores={
        "command": "python benchmarks/starter.py FOLDER --only coco",
        "hardware": "any: what is found does not depend on it, but for the last digits",
        "scores": {
            "COCO, 127 photos, 80 names": {"AP50": 0.238, "AP": 0.128},
            "64 of them, on which settings were chosen": {"AP50": 0.274},
            "the other 63": {"AP50": 0.226},
        },
    },
)
CARDS = [*_VILD, _CROPS_STARTER]
