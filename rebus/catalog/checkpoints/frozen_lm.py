"""Flamingo's open reproductions."""

from rebus.catalog.card_of import card_of

_FLAMINGO = [
    card_of(
        "flamingo",
        f"open-{variant}",
        preset=f"open_{variant.removesuffix('-instruct').replace('-', '_')}",
        parameters=parameters,
        license="MIT; that of the language model applies too",
        released=True,
        parts={"trained": f"openflamingo/OpenFlamingo-{repo}", "text": text, "image": "clip/l14"},
        ready=variant != "9b-v1",
    )
    for variant, parameters, repo, text in (
        ("3b", 2_558_648_368, "3B-vitl-mpt1b", "anas-awadalla/mpt-1b-redpajama-200b"),
        ("3b-instruct", 2_558_648_368, "3B-vitl-mpt1b-langinstruct", "anas-awadalla/mpt-1b-redpajama-200b-dolly"),
        ("4b", 4_039_823_392, "4B-vitl-rpj3b", "togethercomputer/RedPajama-INCITE-Base-3B-v1"),
        (
            "4b-instruct",
            4_039_823_392,
            "4B-vitl-rpj3b-langinstruct",
            "togethercomputer/RedPajama-INCITE-Instruct-3B-v1",
        ),
        ("9b", 8_131_313_680, "9B-vitl-mpt7b", "anas-awadalla/mpt-7b"),
        ("9b-v1", 8_220_442_640, "9B-deprecated", "huggyllama/llama-7b"),
    )
]
_IDEFICS = [
    card_of(
        "flamingo",
        f"idefics-{size}{tuned}",
        preset=f"idefics_{size}",
        parameters=parameters,
        license="other: LLaMA's, not commercial",
        released=True,
        repo=f"HuggingFaceM4/idefics-{size}{tuned}",
    )
    for size, parameters in (("9b", 8_929_679_632), ("80b", 79_967_843_624))
    for tuned in ("", "-instruct")
]
_STARTER = card_of(
    "flamingo",
    "starter",
    preset="starter",
    parameters=145_148_016,
    license="Apache-2.0 (SmolLM2-135M, EfficientNet-Lite0)",
    extra="captions",
    ready=False,
    note="what `rebus train flamingo_photos` starts from: trained networks, and gates that are closed",
)
_PHOTOS = card_of(
    "flamingo",
    "photos",
    preset="photos",
    parameters=145_148_016,
    tasks=frozenset({"caption", "stream"}),
    license="Apache-2.0 (SmolLM2-135M, EfficientNet-Lite0); learned from photos of Flickr8k (research and education "
    "alone) and of COCO (Creative Commons)",
    extra="captions",
    note='real photos, offline, with the extra "captions"; trained on 859 photos: it often makes up what people do and '
    "wear",
    scores={
        "command": "python benchmarks/photo_captions.py flickr8k_1k coco_mini --only flamingo_photos --steps 480",
        "hardware": "one thread of an AMD EPYC of two busy cores, float32: 55 minutes",
        "scores": {
            "Flickr8k, 100 held-out photos": {"CIDEr-D": 0.276, "magic/starter": 0.104, "the next photo's": 0.097},
            "COCO, 32 held-out photos": {"CIDEr-D": 0.429, "magic/starter": 0.126, "the next photo's": 0.043},
        },
    },
)
CARDS = [*_FLAMINGO, *_IDEFICS, _PHOTOS, _STARTER]
