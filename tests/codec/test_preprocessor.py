import json

import pytest

from rebus.codec.preprocessor import CLIP_MEAN, CLIP_STD, image_spec_from_json, image_spec_to_json
from rebus.core.errors import BadConfig
from rebus.core.specs import ImageSpec

OPENAI_CLIP = {  # as released with ViT-B/32
    "crop_size": 224,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": list(CLIP_MEAN),
    "image_std": list(CLIP_STD),
    "resample": 3,
    "size": 224,
}
CLIP = ImageSpec(size=(224, 224), fit="crop", mean=CLIP_MEAN, std=CLIP_STD)
SPECS = [
    CLIP,
    ImageSpec(size=(336, 300), fit="crop", shorter_side=384, crop_offset="even", alpha="drop"),
    ImageSpec(size=(384, 256), resample="bilinear"),
    ImageSpec(size=(0, 0), fit="naflex", resample="bilinear", patch_size=16, max_patches=256),
]


def test_openai_clip():
    assert image_spec_from_json(OPENAI_CLIP) == CLIP
    named = OPENAI_CLIP | {"crop_size": {"height": 224, "width": 224}, "size": {"shortest_edge": 224}}
    assert image_spec_from_json(named) == CLIP
    assert image_spec_from_json({"image_processor_type": "CLIPImageProcessor"}) == CLIP


def test_siglip_and_paligemma():
    config = {
        "do_convert_rgb": None,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "image_processor_type": "SiglipImageProcessor",
        "image_seq_length": 1024,
        "processor_class": "PaliGemmaProcessor",
        "_valid_processor_keys": ["images", "do_resize"],
        "resample": 3,
        "rescale_factor": 0.00392156862745098,
        "size": {"height": 448, "width": 448},
    }
    assert image_spec_from_json(config) == ImageSpec(size=(448, 448))
    assert image_spec_from_json(config | {"image_processor_type": "SiglipImageProcessorFast"}).size == (448, 448)


def test_siglip2_naflex():
    config = {"image_processor_type": "Siglip2ImageProcessor", "max_num_patches": 64, "patch_size": 14, "resample": 2}
    spec = image_spec_from_json(config)
    assert (spec.fit, spec.max_patches, spec.patch_size, spec.resample) == ("naflex", 64, 14, "bilinear")


def test_florence_squashes_with_the_clip_processor(shared):
    spec = image_spec_from_json(json.loads((shared / "tokenizers/florence2_preprocessor_config.json").read_text()))
    assert (spec.size, spec.fit) == ((768, 768), "squash")
    assert spec.mean == (0.485, 0.456, 0.406)


def test_open_clip():
    config = {
        "model_cfg": {"embed_dim": 512, "vision_cfg": {"image_size": 256, "patch_size": 16}},
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"},
    }
    assert image_spec_from_json(config) == ImageSpec(size=(256, 256), crop_offset="even", alpha="drop")
    spec = image_spec_from_json({"size": [224, 224], "mode": "RGB", "resize_mode": "shortest", "fill_color": 0})
    assert (spec.fit, spec.crop_offset, spec.mean) == ("crop", "even", CLIP_MEAN)


def test_nested_processor_config():
    config = {"processor_class": "CLIPProcessor", "image_processor": OPENAI_CLIP | {"do_rescale": True}}
    assert image_spec_from_json(config) == CLIP


def test_normalisation_may_be_off():
    spec = image_spec_from_json(OPENAI_CLIP | {"do_normalize": False})
    assert (spec.mean, spec.std) == ((0, 0, 0), (1, 1, 1))


@pytest.mark.parametrize("spec", SPECS, ids=["clip", "crop", "squash", "naflex"])
def test_specs_survive_their_file(spec):
    written = json.loads(json.dumps(image_spec_to_json(spec, processor_class="CLIPProcessor")))
    assert written["processor_class"] == "CLIPProcessor"
    assert image_spec_from_json(written) == spec


def test_specs_survive_open_clip():
    for spec in (
        ImageSpec(size=(224, 224), fit="crop", crop_offset="even", alpha="drop", mean=CLIP_MEAN, std=CLIP_STD),
        ImageSpec(size=(256, 224), crop_offset="even", alpha="drop", resample="bilinear"),
    ):
        assert image_spec_from_json(image_spec_to_json(spec, processor_class="open_clip")) == spec
    for spec in (SPECS[1], SPECS[3]):
        with pytest.raises(BadConfig, match="open_clip"):
            image_spec_to_json(spec, processor_class="open_clip")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"do_sharpen": True}, "do_sharpen"),
        ({"do_resize": False}, "do_resize"),
        ({"rescale_factor": 1.0}, "rescale_factor 1.0"),
        ({"do_rescale": False}, "rescale_factor"),
        ({"size": {"longest_edge": 224}}, "shortest_edge"),
        ({"size": "224"}, "size: wants a whole number"),
        ({"size": -3}, "size"),
        ({"size": True}, "size"),
        ({"crop_size": {"shortest_edge": 224}}, "crop_size"),
        ({"do_center_crop": False}, "several shapes"),
        ({"resample": 5}, "resample"),
        ({"image_mean": [0.5]}, "image_mean: wants three numbers"),
        ({"image_std": "x"}, "image_std"),
        ({"feature_extractor_type": "FlavaImageProcessor"}, "FlavaImageProcessor: known are CLIPImageProcessor"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(change, said):
    with pytest.raises(BadConfig, match=said):
        image_spec_from_json(OPENAI_CLIP | change)


def test_open_clip_faults():
    for config, said in (
        ({"preprocess_cfg": {}}, "no size"),
        ({"size": 224, "resize_mode": "longest"}, "resize_mode: wants one of shortest, squash"),
        ({"size": [224, 200], "resize_mode": "shortest"}, "square"),
        ({"size": 224, "resize_mode": "squash", "blur": 1}, "unknown fields blur"),
        ({"preprocess_cfg": 3}, "preprocess_cfg must be an object"),
    ):
        with pytest.raises(BadConfig, match=said):
            image_spec_from_json(config)
    with pytest.raises(BadConfig, match="must hold an object"):
        image_spec_from_json([])


def test_fields_that_are_switched_off_are_passed_over():
    assert image_spec_from_json(OPENAI_CLIP | {"do_pad": False, "pad_size": None, "size_divisor": None}) == CLIP
