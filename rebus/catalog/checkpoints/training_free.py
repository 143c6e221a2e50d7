"""MAGIC and ASIF, made of trained parts."""

from rebus.catalog.card_of import card_of
from rebus.core.card import ModelCard


def _magic(variant: str, parameters: int, text: str, note: str) -> ModelCard:
    parts, license = {"text": text, "guide": "clip/b32"}, "not stated (language model), MIT (guide)"
    own = {"preset": variant, "parameters": parameters, "license": license, "parts": parts, "note": note}
    return card_of("magic", variant, released=True, repo=text, **own)


_MAGIC = [
    _magic("coco", 275_718_657, "cambridgeltl/magic_mscoco", "a GPT-2 that read COCO's captions without images"),
    _magic("flickr30k", 275_718_657, "cambridgeltl/magic_flickr30k", "a GPT-2 that read Flickr30k's captions"),
    _magic("stories", 275_717_889, "cambridgeltl/simctg_rocstories", "a story after a title, guided by an image"),
]
_MAGIC_STARTER = card_of(
    "magic",
    "starter",
    preset="starter",
    parameters=0,
    license="Apache-2.0 (SmolLM2-135M, EfficientNet-Lite0, all-MiniLM-L6-v2)",
    extra="captions",
    note='real photos, offline, with the extra "captions"',
    scores={
        "command": "python benchmarks/magic.py photos flickr8k_1k",
        "hardware": "one core of an AMD EPYC, float32: 0.58 seconds of the processor a photo",
        "scores": {
            "Flickr8k, 100 held-out photos": {
                "guided": {"guide_score": 0.327, "CIDEr-D": 0.104, "ROUGE-L": 0.322, "BLEU-1": 0.431},
                "unguided": {"guide_score": 0.015, "CIDEr-D": 0.037, "ROUGE-L": 0.291, "BLEU-1": 0.401},
                "better by the guide": 0.98,
            },
        },
    },
)
_ASIF_STARTER = card_of(
    "asif",
    "starter",
    preset="starter",
    parameters=0,
    idea="no training: an image is represented by its similarities to ImageNet classes, a text by its similarities to "
    "their names, and the two representations are compared",
    license="Apache-2.0 (EfficientNet-Lite0, all-MiniLM-L6-v2)",
    extra="starter",
    note='real photos, offline, with the extra "starter"',
    scores={
        "command": "python benchmarks/starter.py FOLDER",
        "hardware": "any: what is found does not depend on it, but for the last digits",
        "scores": {
            "ImageNet, 750 photos, 1,000 names": {"top-1": 0.839},
            "CIFAR-10, 4,000 test images": {"top-1": 0.539},
            "Flickr8k, 100 photos by a caption": {
                "class pairs": {"R@1": 0.17, "R@5": 0.57, "R@10": 0.72},
                "700 captioned photos instead": {"R@1": 0.26, "R@5": 0.60, "R@10": 0.73},
                "both": {"R@1": 0.33, "R@5": 0.64, "R@10": 0.86},
            },
        },
    },
)
CARDS = [*_MAGIC, _MAGIC_STARTER, _ASIF_STARTER]
