"""`vild/starter`: things in real photos by any words, offline, from the three networks of the extra `detector`.

Boxes are those of Tiny YOLOv2, which was trained on 80 classes; what it takes the things for is not used. The encoder
is `asif/starter`, handed in by the catalogue. Settings were chosen on every second photo of `benchmarks/starter.py`.
"""

from typing import Any

from rebus.backbones.starter_networks import starter_detector
from rebus.codec.images import ImagePipeline
from rebus.codec.processor import Processor
from rebus.core.config import to_dict
from rebus.core.system import Assembled, Part
from rebus.models.distillation.crops import CropsConfig, image_spec

SOFTER = 3.0  # than of whole photos is the classifier's opinion of small, blurred regions


def assemble_starter(encoder: Any) -> Assembled:
    """Of `asif/starter`, as it was opened. Raises `MissingExtra` where the detector is not installed."""
    detector, tensors = starter_detector("vild/starter")
    seen: Processor = encoder.processor()
    assert seen.image is not None
    own = to_dict(encoder.config)
    for table in own["tables"]:
        table["temperature"] *= SOFTER
    cfg = CropsConfig(
        detector=detector,
        encoder=Part(system=encoder.system.name, config=own),
        mean=seen.image.spec.mean,
        std=seen.image.spec.std,
    )
    tensors = {
        **{f"detector.{name}": tensor for name, tensor in tensors.items()},
        **{f"encoder.{name}": tensor for name, tensor in encoder.tensors.items()},
    }
    return Assembled(cfg, tensors, Processor(ImagePipeline(image_spec(cfg)), seen.text, sources=seen.sources))
