import json
from dataclasses import replace

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
CLIP = ImageSpec(size=(224, 224), resize="shorter", mean=CLIP_MEAN, std=CLIP_STD)
SPECS = [
    CLIP,
    ImageSpec(size=(336, 300), resize="shorter", side=384, crop_offset="even", alpha="drop"),
    ImageSpec(size=(384, 256), resample="bilinear"),
    ImageSpec(size=(289, 280), side=346, rescale=2 / 255, mean=(1, 1, 1), std=(1, 1, 1)),
    ImageSpec(size=(90, 70), resize="longer", side=70, rounding="up", pad="end"),
    ImageSpec(size=(70, 70), resize="longer", rounding="even", pad="centre", pad_colour=(9, 8, 255)),
    ImageSpec(size=(70, 70), resize="longer", rounding="even", pad="end", resample="bilinear_tf1"),
    ImageSpec(size=(0, 0), resize="patches", resample="bilinear", patch_size=16, max_patches=256),
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
    assert (spec.resize, spec.max_patches, spec.patch_size, spec.resample) == ("patches", 64, 14, "bilinear")


def test_florence_squashes_with_the_clip_processor(shared):
    spec = image_spec_from_json(json.loads((shared / "tokenizers/florence2_preprocessor_config.json").read_text()))
    assert (spec.size, spec.resize) == ((768, 768), "exact")
    assert spec.mean == (0.485, 0.456, 0.406)


def test_open_clip():
    config = {
        "model_cfg": {"embed_dim": 512, "vision_cfg": {"image_size": 256, "patch_size": 16}},
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"},
    }
    assert image_spec_from_json(config) == ImageSpec(size=(256, 256), crop_offset="even", alpha="drop")
    spec = image_spec_from_json({"size": [224, 224], "mode": "RGB", "resize_mode": "shortest", "fill_color": 0})
    assert (spec.resize, spec.crop_offset, spec.mean) == ("shorter", "even", CLIP_MEAN)


OPEN_CLIP_LONGEST = ImageSpec(
    size=(224, 224),
    resize="longer",
    rounding="even",
    pad="centre",
    pad_colour=(127, 127, 127),
    crop_offset="even",
    alpha="drop",
    mean=CLIP_MEAN,
    std=CLIP_STD,
)


def test_open_clip_pads_to_a_square():
    assert image_spec_from_json({"size": 224, "resize_mode": "longest", "fill_color": 127}) == OPEN_CLIP_LONGEST
    black = image_spec_from_json({"size": 224, "resize_mode": "longest"})
    assert black.pad_colour == (0, 0, 0)


def test_align_cuts_the_centre_out_of_a_resized_square():
    """As released with kakaobrain/align-base: 0 to 255 become −1 to 1 by the offset, not by mean and deviation."""
    config = {
        "crop_size": {"height": 289, "width": 289},
        "do_center_crop": True,
        "do_normalize": False,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.0] * 3,
        "image_processor_type": "EfficientNetImageProcessor",
        "image_std": [1.0] * 3,
        "include_top": False,
        "processor_class": "ALIGNProcessor",
        "resample": 2,
        "rescale_factor": 0.00784313725490196,
        "rescale_offset": True,
        "size": {"height": 346, "width": 346},
    }
    spec = image_spec_from_json(config)
    assert (spec.size, spec.resize, spec.side, spec.resample) == ((289, 289), "exact", 346, "bilinear")
    assert (spec.rescale, spec.mean, spec.std) == (2 / 255, (1, 1, 1), (1, 1, 1))
    for change, said in (
        ({"include_top": True}, "include_top"),
        ({"include_top": None}, "include_top"),  # the class default
        ({"do_normalize": True}, "rescale_offset"),
        ({"size": {"height": 346, "width": 300}}, "must be equal"),
    ):
        with pytest.raises(BadConfig, match=said):
            image_spec_from_json(config | change)


def test_chameleon():
    spec = image_spec_from_json({"image_processor_type": "ChameleonImageProcessor"})
    assert (spec.size, spec.resize, spec.resample) == ((512, 512), "shorter", "lanczos")
    assert (spec.rescale, spec.mean, spec.std) == (0.0078, (1, 1, 1), (1, 1, 1))


def test_a_longer_side_is_padded():
    config = {
        "image_processor_type": "SamImageProcessor",
        "size": {"longest_edge": 100},
        "pad_size": {"height": 128, "width": 112},
    }
    spec = image_spec_from_json(config)
    assert (spec.size, spec.resize, spec.side, spec.pad, spec.pad_colour) == ((128, 112), "longer", 100, "end", None)
    for change, said in (
        ({"do_pad": False}, "do_pad is false"),
        ({"size": {"shortest_edge": 100}}, "expected longest_edge"),
        ({"pad_size": {"longest_edge": 100}}, "pad_size .*height and width"),
        ({"pad_colour": [0, 0]}, "pad_colour"),
        ({"pad": "start"}, "pad: expected one of end, centre"),
    ):
        with pytest.raises(BadConfig, match=said):
            image_spec_from_json(config | change)


def test_nested_processor_config():
    config = {"processor_class": "CLIPProcessor", "image_processor": OPENAI_CLIP | {"do_rescale": True}}
    assert image_spec_from_json(config) == CLIP


def test_normalisation_may_be_off():
    spec = image_spec_from_json(OPENAI_CLIP | {"do_normalize": False})
    assert (spec.mean, spec.std) == ((0, 0, 0), (1, 1, 1))


@pytest.mark.parametrize("spec", SPECS, ids=["clip", "crop", "exact", "align", "longer", "centred", "tf1", "patches"])
def test_specs_survive_their_file(spec):
    written = json.loads(json.dumps(image_spec_to_json(spec, processor_class="CLIPProcessor")))
    assert written["processor_class"] == "CLIPProcessor"
    assert image_spec_from_json(written) == spec


def test_specs_survive_open_clip():
    for spec in (
        ImageSpec(size=(224, 224), resize="shorter", crop_offset="even", alpha="drop", mean=CLIP_MEAN, std=CLIP_STD),
        ImageSpec(size=(256, 224), crop_offset="even", alpha="drop", resample="bilinear"),
        OPEN_CLIP_LONGEST,
    ):
        assert image_spec_from_json(image_spec_to_json(spec, processor_class="open_clip")) == spec
    for spec in [*SPECS[1:2], *SPECS[3:], replace(OPEN_CLIP_LONGEST, pad_colour=(1, 2, 3))]:
        with pytest.raises(BadConfig, match="open_clip"):
            image_spec_to_json(spec, processor_class="open_clip")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"do_sharpen": True}, "do_sharpen"),
        ({"do_resize": False}, "do_resize"),
        ({"rescale_factor": 1.0}, "rescale_factor 1.0"),
        ({"do_rescale": False}, "rescale_factor"),
        ({"size": {"longest_edge": 224}}, "shortest_edge; got longest_edge"),
        ({"size": {"longest_edge": 224, "shortest_edge": 112}}, "expected height and width"),
        ({"do_pad": True}, "do_pad"),
        ({"size": "224"}, "size: expected a whole number"),
        ({"size": -3}, "size"),
        ({"size": True}, "size"),
        ({"crop_size": {"shortest_edge": 224}}, "crop_size"),
        ({"do_center_crop": False}, "several shapes"),
        ({"resample": 5}, "resample"),
        ({"image_mean": [0.5]}, "image_mean: expected three numbers"),
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
        ({"size": 224, "resize_mode": "random"}, "resize_mode: expected one of shortest, longest, squash"),
        ({"size": [224, 200], "resize_mode": "shortest"}, "square"),
        ({"size": [224, 200], "resize_mode": "longest"}, "square"),
        ({"size": 224, "resize_mode": "longest", "fill_color": 300}, "fill_color: expected values of 0 to 255"),
        ({"size": 224, "resize_mode": "squash", "blur": 1}, "unknown fields blur"),
        ({"preprocess_cfg": 3}, "preprocess_cfg must be an object"),
    ):
        with pytest.raises(BadConfig, match=said):
            image_spec_from_json(config)
    with pytest.raises(BadConfig, match="must hold an object"):
        image_spec_from_json([])


def test_fields_that_are_switched_off_are_passed_over():
    assert image_spec_from_json(OPENAI_CLIP | {"do_pad": False, "pad_size": None, "size_divisor": None}) == CLIP


NAN = float("nan")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"image_std": [NAN] * 3}, "image_std"),
        ({"image_std": [0.5, 0, 0.5]}, "image_std"),
        ({"image_std": [0.5, -1, 0.5]}, "image_std"),
        ({"image_mean": [0.5, float("inf"), 0.5]}, "image_mean"),
        ({"rescale_factor": NAN}, "rescale_factor"),
        ({"rescale_factor": 0.0}, "rescale_factor"),
        ({"size": {"height": 20_000, "width": 224}}, "size.height"),
        ({"size": {"height": 1, "width": 224}}, "size.height"),
        ({"size": {"height": 224, "width": 0}}, "size.width"),
    ],
)
def test_fault_39_numbers_that_cannot_be_are_refused_by_field(change, field):
    good = {"image_processor_type": "SiglipImageProcessor", "size": {"height": 224, "width": 224}}
    assert image_spec_from_json(good).size == (224, 224)
    with pytest.raises(BadConfig, match=field):
        image_spec_from_json({**good, **change})


def test_fault_39_the_same_in_open_clips_file():
    for change, field in (({"std": [NAN] * 3}, "std"), ({"size": 20_000}, "size"), ({"size": 1}, "size")):
        with pytest.raises(BadConfig, match=field):
            image_spec_from_json({"preprocess_cfg": {"size": 224, **change}})
