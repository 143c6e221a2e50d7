"""VisualGPT: its gates, what it sees, and what it refuses."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

import rebus
from rebus import catalog
from rebus.backbones.vision.resnet import ResNetConfig
from rebus.codec.region_files import save_regions
from rebus.core.errors import BadConfig, BadRegions, BadText
from rebus.data.scene_tokenizer import scenes_processor, scenes_tokenizer
from rebus.data.scenes import scene
from rebus.generation import generate, stream
from rebus.models.cross_attention.visualgpt import PRESETS, SYSTEM, VisualGPT, fused


def build(preset="tiny", **changes):
    torch.manual_seed(0)
    network = VisualGPT(replace(PRESETS[preset], **changes)).eval()
    for p in network.parameters():
        if p.ndim > 1:
            torch.nn.init.normal_(p, std=0.3)
    return network


def batch(rows=2, regions=5, length=6):
    random = torch.Generator().manual_seed(1)
    tokens = torch.randint(3, 96, (rows, length), generator=random)
    seen = torch.randn(rows, regions, 14, generator=random)
    return {"regions": seen, "tokens": tokens[:, :2], "targets": tokens[:, 2:]}


def test_a_coordinate_is_seen_mixed_or_remembered():
    """τ = 0.2: purely visual for α ≤ 0.2, mixed between, purely linguistic for α ≥ 0.8."""
    a, v = torch.tensor([10.0]), torch.tensor([1.0])
    for alpha, wanted in ((0.1, 0.9), (0.2, 0.8), (0.5, 5.5), (0.7, 7.3), (0.8, 8.0), (0.9, 9.0)):
        share = torch.tensor([alpha], dtype=torch.float64)
        found = fused(a.double(), [v.double()], [share], threshold=0.2)
        torch.testing.assert_close(found, torch.tensor([wanted]).double())
    for alpha in (0.25, 0.75):
        share = torch.tensor([alpha])
        torch.testing.assert_close(fused(a, [v], [share], threshold=0.0), share * a + (1 - share) * v)
        torch.testing.assert_close(fused(a, [v], [share], fusion="normalised gates"), share * a + (1 - share) * v)
    assert fused(a, [v], [torch.tensor([0.5])], threshold=0.5) == 0  # the dead zone of a high threshold
    assert fused(a, [v], [torch.tensor([0.5])], threshold=0.5, fusion="normalised gates") == 0
    torch.testing.assert_close(fused(a, [v, v], [], fusion="replaced"), v * 2**0.5)
    torch.testing.assert_close(fused(a, [v, v], [], fusion="residual"), a + v * 2**0.5)


def test_a_shut_gate_reopens_by_the_gradient_of_the_other():
    logit = torch.tensor([2.0], requires_grad=True)  # α = 0.88: nothing is seen
    fused(torch.tensor([3.0]), [torch.tensor([1.0])], [logit.sigmoid()], threshold=0.2).sum().backward()
    alpha = torch.tensor(2.0).sigmoid()
    torch.testing.assert_close(logit.grad, 3 * (alpha * (1 - alpha))[None])


def test_the_order_of_regions_and_their_boxes_change_nothing():
    network, given = build(), batch()
    with torch.no_grad():
        found = network(**given).logits
        turned = {**given, "regions": given["regions"][:, torch.randperm(5)], "boxes": torch.rand(2, 5, 4)}
        torch.testing.assert_close(network(**turned).logits, found, atol=1e-4, rtol=0)
        other = network(**{**given, "regions": given["regions"].flip(0)}).logits
    assert (other - found).abs().max() > 1e-2


def test_padding_of_regions_is_masked_unless_the_released_code_is_followed():
    given = batch()
    padded = {**given, "regions": torch.nn.functional.pad(given["regions"], (0, 0, 0, 3), value=7.0)}
    padded["region_mask"] = (torch.arange(8) < 5).expand(2, -1)
    with torch.no_grad():
        right, released = build(), build(filled_to=12)
        torch.testing.assert_close(right(**padded).logits, right(**given).logits, atol=1e-4, rtol=0)
        torch.testing.assert_close(released(**padded).logits, released(**given).logits, atol=1e-4, rtol=0)
        assert (released(**given).logits - right(**given).logits).abs().max() > 1e-2


@pytest.mark.parametrize("fusion", ["gates", "normalised gates", "replaced", "residual"])
def test_every_fusion_decodes_as_it_was_trained(fusion):
    network, given = build(fusion=fusion), batch()
    targets = given.pop("targets")
    with torch.no_grad():
        full = network(**given, targets=targets).logits
        step = network.start(room=4, **given)
        for s in range(4):
            torch.testing.assert_close(step.logits, full[:, s], atol=1e-4, rtol=0)
            step = network.step(targets[:, s], step.cache)
    assert len(network.looks[0].gates) == (2 if "gates" in fusion else 0)


def test_an_image_has_several_texts():
    network, given = build(), batch()
    owners = torch.tensor([1, 0])
    with torch.no_grad():
        each = network(**{**given, "regions": given["regions"].flip(0)}, owners=owners).logits
        torch.testing.assert_close(each, network(**given).logits)


@pytest.mark.parametrize("image", [None, ResNetConfig(variant="resnet18", num_classes=0)])
def test_images_are_regions_by_their_grid(image):
    network = build("tiny_grid") if image is None else build(image=image, region_width=512)
    pixels = torch.randn(2, 3, 24, 24) if image is None else torch.randn(2, 3, 64, 64)
    given = {**batch(), "pixels": pixels}
    del given["regions"]
    with torch.no_grad():
        cells = torch.stack([one.features for one in network.image.region_features(pixels)])
        wanted = network(**{**batch(), "regions": cells}).logits
        torch.testing.assert_close(network(**given).logits, wanted)


@pytest.mark.parametrize(
    "options",
    [{"strategy": "greedy"}, {"strategy": "sample", "seed": 1}, {"strategy": "beam", "num_beams": 3},
     {"strategy": "contrastive", "k": 3}],
)  # fmt: skip
def test_every_strategy_writes_and_rows_stay_alone(options):
    network, given = build(), batch()
    del given["targets"]
    written = generate(network, given, eos_id=2, pad_id=0, max_new_tokens=7, **options)
    for row in range(2):
        alone = generate(network, {n: v[row : row + 1] for n, v in given.items()}, eos_id=2, pad_id=0,
                         max_new_tokens=7, **options)  # fmt: skip
        assert written[row, : alone.shape[1]].tolist() == alone[0].tolist()
    if options["strategy"] != "beam":
        columns = list(stream(network, given, eos_id=2, pad_id=0, max_new_tokens=7, **options))
        assert torch.equal(torch.stack(columns, 1), written)


def test_what_cannot_be_is_said():
    given = batch()
    with pytest.raises(BadRegions, match="features of a region are 9 wide; this network was trained with 14"):
        build()(**{**given, "regions": torch.randn(2, 3, 9)})
    del given["regions"]
    with pytest.raises(BadRegions, match="has nothing that makes them of an image"):
        build()(**given, pixels=torch.randn(2, 3, 24, 24))
    with pytest.raises(BadText, match=r"70 tokens of caption.*positions for 64"):
        build().start(room=69, regions=torch.randn(1, 3, 14), tokens=torch.ones(1, 2, dtype=torch.int64))
    with pytest.raises(BadConfig, match="merge=2 does not divide a grid of 3 × 3 cells"):
        build("tiny_grid", merge=2)(**given, pixels=torch.randn(2, 3, 24, 24))
    with pytest.raises(BadConfig, match="threshold: expected a number from 0 to below 1; got 1"):
        replace(PRESETS["tiny"], threshold=1.0)


def make(width):
    """A network of region features, as `rebus.load` gives one."""
    text = replace(PRESETS["tiny"].text, vocab_size=scenes_tokenizer().vocab_size)
    sizes = {"region_width": width, "num_levels": 2, "mlp_width": 20}
    ids = {"start_id": 2, "pad_id": 0, "end_id": 1}
    model = rebus.create("visualgpt/base", text=asdict(text), punctuation=True, **sizes, **ids)
    model.processor.text = scenes_processor(SYSTEM.text_spec(model.config), 96).text
    return model


@pytest.fixture(scope="module")
def captioner():
    return make(14)


def test_captions_of_region_files(captioner, tmp_path):
    random = np.random.default_rng(0)
    boxes = np.array([[0, 0, 5, 5], [2, 2, 9, 9.0]])
    images = {"7": rebus.ImageRegions(random.normal(size=(2, 14)), boxes, (10, 10)),
              "8": rebus.ImageRegions(random.normal(size=(4, 14)))}  # fmt: skip
    files = rebus.RegionFiles(save_regions(tmp_path / "seen.npz", images))
    alone = [captioner.caption(files[name], max_new_tokens=5) for name in files]
    assert captioner.caption([files[name] for name in files], max_new_tokens=5) == alone


def test_captions_of_what_a_detector_of_ours_saw():
    image = scene(0, "test").image
    seen = rebus.load("vild/scenes", device="cpu").embed_regions(image)
    model = make(seen.features.shape[1])
    with torch.no_grad():
        for p in model.network.parameters():
            if p.ndim > 1:
                torch.nn.init.normal_(p, std=0.3)
    said = model.caption(seen, max_new_tokens=8)
    assert said == model.caption(replace(seen, features=seen.features[::-1].copy()), max_new_tokens=8)
    assert said != model.caption(replace(seen, features=-seen.features), max_new_tokens=8)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda f: f[:, :9], "features of a region are 9 wide; this network was trained with 14"),
        (lambda f: np.where(f > 1, np.nan, f), "numbers of the features are not finite"),
    ],
)
def test_features_of_another_width_or_not_finite_are_named(captioner, tmp_path, spoil, message):
    features = np.random.default_rng(0).normal(size=(6, 14))
    np.savez(tmp_path / "seen.npz", **{"7_features": spoil(features)})
    with pytest.raises(BadRegions, match=message):
        captioner.caption(rebus.RegionFiles(tmp_path / "seen.npz")["7"])


def test_missing_and_exchanged_images_are_named(captioner, tmp_path):
    features = np.zeros((3, 14), np.float32)
    np.savez(tmp_path / "seen.npz", **{"7_features": features})
    with pytest.raises(BadRegions, match="no regions of image 8 among 1"):
        captioner.caption(rebus.RegionFiles(tmp_path / "seen.npz")["8"])
    folder = tmp_path / "each"
    folder.mkdir()
    np.savez(folder / "7.npz", features=features, image_id=8)
    with pytest.raises(BadRegions, match="regions of image 8: ids were swapped"):
        captioner.caption(rebus.RegionFiles(folder)["7"])
    with pytest.raises(BadRegions, match="takes region features in place of images"):
        captioner.caption(scene(0, "test").image)


def test_gpt2_texts_begin_with_its_start_token_and_a_space():
    spec = SYSTEM.text_spec(PRESETS["base"])
    assert (spec.bos_id, spec.pad_id, spec.eos_id) == (47_934, 47_932, 50_256)
    assert all((spec.own_ids, spec.leading_space, spec.lower, spec.canonical))
    kept = SYSTEM.text_spec(replace(PRESETS["base"], punctuation=True))
    assert not any((kept.lower, kept.canonical))
    assert catalog.SYSTEMS["visualgpt"].tasks == {"caption", "stream"}
