"""Features of layers, attention maps and explanations, for every image encoder; by hooks that leave nothing behind."""

import numpy as np
import pytest
import torch
from PIL import Image

import rebus
from rebus import catalog
from rebus.core.errors import RebusError, UnsupportedTask, UsageError
from rebus.data.scenes import scene
from rebus.nn.attention import Attention
from rebus.nn.blocks import blocks_of
from rebus.tasks.image_features import image_encoder
from tests import tiny

SCENES = sorted(card for card in catalog.bundled() if card != "vild/scenes")


@pytest.fixture(scope="module")
def photo():
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (40, 52, 3), dtype=np.uint8))


@pytest.mark.parametrize("name", ["clip", "siglip", "paligemma"])
def test_layers_are_those_of_the_network(name, photo):
    model = tiny.ALL[name]()
    images = [photo, photo.transpose(Image.Transpose.ROTATE_90), photo]
    found = model.features(images, layers=[0, -1], batch_size=2)
    pixels = model.processor(images=images)["pixels"]
    vit = model.network.image
    with torch.inference_mode():
        x = vit.embed(pixels)
        first = vit.blocks[0](x)
        last = vit.features(x)
    lead = int(vit.class_token is not None)
    assert list(found.patches) == [0, 1]
    for number, wanted in ((0, first), (1, last)):
        torch.testing.assert_close(found.patches[number], wanted[:, lead:].unflatten(1, (4, 4)))
        if lead:
            torch.testing.assert_close(found.class_token[number], wanted[:, 0])
    assert bool(found.class_token) == bool(lead)
    if name != "paligemma":
        torch.testing.assert_close(found.pooled, model.embed_images(images))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.network.modules())


@pytest.mark.parametrize("name", SCENES)
def test_every_bundled_encoder_can_be_looked_into(name):
    model = rebus.load(name)
    image = scene(1, "test").image
    if image_encoder(model.network) is None:
        with pytest.raises(UnsupportedTask, match="no image encoder"):
            model.features(image)
        with pytest.raises(UnsupportedTask, match="no image encoder"):
            model.explain(image, "a red circle")
        return
    if not hasattr(image_encoder(model.network), "blocks") and "imagine" in model.tasks:
        with pytest.raises(UnsupportedTask, match="there are no layers to look into"):
            model.features(image, layers=[0, -1])
        return
    found = model.features(image, layers=[0, -1])
    for patches in found.patches.values():
        assert patches.dim() == 4
        assert patches.shape[1] == patches.shape[2] > 1
        assert patches.isfinite().all()
    assert found.pooled.dim() == 2
    if name in ("magic/scenes", "visualbert/scenes"):
        with pytest.raises(UnsupportedTask):
            model.explain(image, "a red circle")
        return
    explained = model.explain(image, "a red circle")
    assert explained.heat.shape == image.size[::-1]
    assert 0 <= explained.heat.min() <= explained.heat.max() == 1
    assert explained.plot().size == image.size


@pytest.mark.parametrize("system, preset", [("clip", "tiny_resnet"), ("florence2", "tiny"), ("align", "tiny")])
def test_encoders_of_convolutions_and_windows(system, preset, photo):
    kind = catalog.system(system)
    torch.manual_seed(0)
    config = kind.presets[preset]
    from rebus.api import Model
    from rebus.codec.images import ImagePipeline
    from rebus.codec.processor import Processor

    processor = Processor(ImagePipeline(kind.image_spec(config)), None)
    card = next(card for card in catalog.cards() if card.system == system)
    model = Model(kind.build(config), processor, config=config, card=card, system=kind)
    found = model.features([photo, photo], layers=range(len(blocks_of(model.network.image))))
    assert all(patches.shape[0] == 2 for patches in found.patches.values())
    if system == "florence2":  # its last block is what the encoder gives, rows first
        pixels = model.processor(images=[photo])["pixels"]
        with torch.inference_mode():
            torch.testing.assert_close(list(found.patches.values())[-1][:1], model.network.image(pixels))
    if preset == "tiny_resnet":
        maps = model.attention(photo)
        assert list(maps.weights) == ["pool"]
        assert maps.on_grid().shape[2:] == maps.grid == (2, 2)
    else:
        with pytest.raises(UnsupportedTask, match="has no attention of all places"):
            model.attention(photo)


def test_attention_maps_mix_the_values(photo):
    """What the layer gives is its maps times its values: the maps are those that it uses."""
    model = tiny.clip()
    maps = model.attention([photo, photo], layers=[0, -1])
    assert list(maps.weights) == [0, 1]
    assert maps.weights[0].shape == (2, 4, 17, 17)
    assert (maps.lead, maps.grid) == (1, (4, 4))
    torch.testing.assert_close(maps.weights[0].sum(-1), torch.ones(2, 4, 17))
    assert maps.on_grid(0).shape == (2, 4, 4, 4)
    torch.testing.assert_close(maps.on_grid(1, query=3)[0, 0, 0], maps.weights[1][0, 0, 3, 1:5])
    block = model.network.image.blocks[0]
    with torch.inference_mode():
        x = block.norm1(model.network.image.embed(model.processor(images=[photo])["pixels"]))
        v = block.attn._heads(block.attn.v(x), 4)
        mixed = block.attn.out((maps.weights[0][:1] @ v).transpose(1, 2).flatten(2))
        torch.testing.assert_close(mixed, block.attn(x))


def test_the_pool_of_siglip(photo):
    maps = tiny.siglip().attention(photo, layers=["pool", 1])
    assert maps.weights["pool"].shape == (1, 4, 1, 16)
    assert maps.on_grid("pool").shape == (1, 4, 4, 4)


def test_weights_of_shared_keys_and_masks():
    torch.manual_seed(0)
    attn = Attention(16, 4, num_kv_heads=2)
    x, mask = torch.randn(2, 5, 16), torch.ones(2, 1, 1, 5, dtype=torch.bool)
    mask[1, ..., 3:] = False
    weights = attn.weights(x, mask=mask)
    assert weights[1, ..., 3:].max() == 0
    v = attn._heads(attn.v(x), 2).repeat_interleave(2, 1)
    torch.testing.assert_close(attn.out((weights @ v).transpose(1, 2).flatten(2)), attn(x, mask=mask))


def test_skipped_images_are_nan(photo, caplog):
    found = tiny.clip().features([photo, b""], on_error="skip")
    assert found.pooled.isnan().any(1).tolist() == [False, True]
    assert found.patches[1][1].isnan().all()


@pytest.mark.parametrize("layers", [[2], [-3], ["pool"], [True], [0.5]])
def test_layers_that_there_are_not(photo, layers):
    for task in ("features", "attention"):
        with pytest.raises(UsageError, match="from -2 to 1"):
            getattr(tiny.clip(), task)(photo, layers=layers)


def test_naflex_has_no_grid(photo):
    model = tiny.siglip()
    from dataclasses import replace

    spec = replace(model.processor.image.spec, resize="patches", patch_size=8, max_patches=16)
    model.processor.image = type(model.processor.image)(spec)
    with pytest.raises(UnsupportedTask, match="no one grid"):
        model.features(photo)


def test_the_heat_is_where_the_thing_is():
    """Of an encoder that averages its places, and a text that asks for one: all heat is in that half of the image."""
    model = tiny.with_words(tiny.siglip())
    image = Image.new("RGB", (64, 32), (120, 120, 120))
    image.paste((250, 10, 10), (0, 0, 32, 32))

    class Reds(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.cfg = model.network.image.cfg
            self.blocks = torch.nn.ModuleList([torch.nn.Identity()])

    encoder = Reds()
    model.network.image = encoder

    def embed(pixels):
        red = pixels[:, :1] - pixels[:, 1:2]
        grid = torch.nn.functional.avg_pool2d(red, 8).flatten(2).mT
        return encoder.blocks[0](grid).mean(1).expand(-1, 32)

    model.network.embed_image = embed
    model.network.embed_text = lambda tokens, mask=None: torch.ones(1, 32)
    explained = model.explain(image, "red")
    assert explained.heat[:, :24].min() > 0.9
    assert explained.heat[:, 40:].max() < 0.1
    drawn = np.asarray(explained.plot(), int)
    assert (drawn[:, :24, 0] - drawn[:, :24, 2]).min() > 90
    assert explained._repr_png_().startswith(b"\x89PNG")


def test_without_gradients_places_are_hidden(monkeypatch):
    """8-bit products and sums over anchors: the place whose absence costs most is the warmest."""
    from rebus.tasks import explain as module

    model = tiny.with_words(tiny.siglip())
    image = Image.new("RGB", (32, 32), (120, 120, 120))
    image.paste((250, 10, 10), (0, 16, 16, 32))
    model.network.embed_image = lambda pixels: (model.network.image(pixels), pixels[:, :1].mean((2, 3)).expand(-1, 32))[
        1
    ]
    model.network.embed_text = lambda tokens, mask=None: torch.ones(1, 32)
    monkeypatch.setattr(module, "is_quantized", lambda network: True)
    heat = model.explain(image, "red").heat
    assert heat[22:26, 6:10].min() > 0.9
    assert heat[:10, 22:].max() < 0.1
    assert rebus.load("asif/scenes").explain(scene(1, "test").image, "a red circle").heat.max() == 1


def test_several_texts_and_what_cannot_be_explained(photo):
    model = tiny.with_words(tiny.siglip())
    found = model.explain(photo, ["a red cat", "a dog"])
    assert [one.text for one in found] == ["a red cat", "a dog"]
    assert found[0].score == pytest.approx(float(model.match(photo, "a red cat")), abs=1e-5)
    writer = tiny.with_words(tiny.paligemma())
    assert writer.explain(photo, "a red cat").score < 0
    with pytest.raises(RebusError):
        model.explain(b"", "a cat")
