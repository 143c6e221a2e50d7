"""One opener: everything that `load` opens is told by its files alone, can be trained from, and is saved back."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import rebus
from rebus import catalog
from rebus.codec.images import ImagePipeline
from rebus.codec.processor import Processor
from rebus.core.errors import BadCheckpoint, BadConfig, UnknownName, UsageError
from rebus.models.contrastive.clip import CLIPConfig
from rebus.models.contrastive.clip_resnet import CLIPResNetConfig
from rebus.open_checkpoint import config_of, open_checkpoint
from rebus.recipes import recipe
from rebus.save_checkpoint import save_checkpoint
from rebus.train import Start, TrainConfig, override, train
from rebus.train.final_model import final_layout
from rebus.train.warm_start import build, interpolate
from rebus.weights.save import MANIFEST
from tests.train.settings import CLIP, SIGLIP
from tests.train.test_finetune import photos as photos


def network_of(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    system = catalog.system(name)
    return system.build(system.presets["tiny"])


def saved(name: str, folder: Path, layout: str | None = None) -> Path:
    system = catalog.system(name)
    config = system.presets["tiny"]
    form = system.layout_for(config) if layout is None else system.layouts[layout]
    return save_checkpoint(folder, form, config, network_of(name).state_dict())


@pytest.mark.parametrize("name", [*catalog.SYSTEMS, *catalog.BACKBONES])
def test_a_system_is_told_by_its_files(name: str, tmp_path: Path) -> None:
    config = catalog.system(name).presets["tiny"]
    for layout in (form for form in catalog.system(name).layouts.values() if form.write_config or form.save):
        # encoders of the published sizes alone, and Flamingos of a Llama and a ViT alone
        refused = {("siglip", "open_clip"): "published fixed sizes", ("flamingo", "idefics"): "Llama over a ViT"}
        if (name, layout.name) in refused:
            with pytest.raises(BadConfig, match=refused[name, layout.name]):
                layout.write_config(config)
            continue
        folder = saved(name, tmp_path / layout.name, layout.name)
        opened = open_checkpoint(folder if layout.config_file else next(folder.iterdir()))
        assert (opened.system.name, opened.layout.name) == (name, layout.name)
        assert opened.config == config
        state = network_of(name).state_dict()
        assert opened.tensors.keys() == state.keys()
        assert all(torch.equal(opened.tensors[key].load(), value) for key, value in state.items())


@pytest.mark.parametrize("layout", ["transformers", "open_clip"])
@pytest.mark.parametrize("wrapped", ["", "module."])
def test_a_file_of_weights_with_its_configuration_beside_it(layout: str, wrapped: str, tmp_path: Path) -> None:
    """`model.safetensors` itself, and what open_clip's trainer writes, beside a configuration of either layout."""
    folder, theirs = saved("clip", tmp_path / "one", layout), saved("clip", tmp_path / "other", "open_clip")
    (safe,) = folder.glob("*.safetensors")
    assert open_checkpoint(safe).layout.name == layout
    weights = {wrapped + name: value for name, value in load_file(next(theirs.glob("*.safetensors"))).items()}
    state = {"epoch": 3, "name": "run", "state_dict": weights, "optimizer": {"state": {}, "param_groups": []}}
    torch.save(state, folder / "epoch_3.pt")
    safe.unlink()
    opened = open_checkpoint(folder / "epoch_3.pt")
    assert (opened.system.name, opened.layout.name) == ("clip", "open_clip")
    assert opened.config == catalog.system("clip").presets["tiny"]
    wanted = network_of("clip").state_dict()
    assert all(torch.equal(opened.tensors[key].load(), value) for key, value in wanted.items())
    loaded = rebus.load(folder / "epoch_3.pt").network.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in wanted.items())


def test_a_file_of_weights_alone_says_what_is_missing(tmp_path: Path) -> None:
    torch.save({"state_dict": {"visual.proj": torch.zeros(2, 2)}}, tmp_path / "epoch_3.pt")
    with pytest.raises(BadCheckpoint, match=r"epoch_3\.pt: .*neither config\.json nor open_clip_config\.json lies"):
        open_checkpoint(tmp_path / "epoch_3.pt")
    saved("clip", tmp_path / "c")
    torch.save({"state_dict": {"visual.proj": torch.zeros(2, 2)}}, tmp_path / "c" / "epoch_3.pt")
    with pytest.raises(BadCheckpoint, match=r"visual\.proj"):
        rebus.load(tmp_path / "c" / "epoch_3.pt")


def test_torchvisions_weights_alone_are_told_by_their_shapes(tmp_path: Path) -> None:
    import torchvision

    for variant, ending in (("resnet18", "pth"), ("resnet50", "th")):
        theirs = getattr(torchvision.models, variant)(num_classes=7)
        file = tmp_path / f"{variant}.{ending}"
        torch.save({"state_dict": {f"module.{k}": v for k, v in theirs.state_dict().items()}, "epoch": 3}, file)
        opened = open_checkpoint(file)
        assert (opened.system.name, opened.config.variant, opened.config.num_classes) == ("resnet", variant, 7)
        ours = rebus.load(file, device="cpu").network
        pixels = torch.randn(2, 3, 65, 97)
        with torch.no_grad():
            torch.testing.assert_close(ours(pixels), theirs.eval()(pixels), atol=1e-5, rtol=1e-5)


def test_a_config_without_a_type_is_given_to_whoever_knows_it(tmp_path: Path) -> None:
    """timm's repositories have a config.json of their own beside open_clip's."""
    model = rebus.load("clip/scenes")
    folder = model.save(tmp_path / "both", layout="open_clip")
    (folder / "config.json").write_text(json.dumps({"architecture": "vit_base_patch16_clip_224"}))
    assert open_checkpoint(folder).layout.name == "open_clip"
    (folder / "open_clip_config.json").unlink()
    with pytest.raises(BadConfig, match="model_type: missing"):
        open_checkpoint(folder)


def test_strange_weights_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "strange.npz", **{"encoder/w": np.zeros(3, np.float32)})
    with pytest.raises(BadCheckpoint, match="weights named encoder/w … do not identify their network"):
        open_checkpoint(tmp_path / "strange.npz")
    with pytest.raises(UnknownName, match="clip/b32"):
        open_checkpoint("clip/b23")


def short(start: Path, photos: Path, name: str, *more: str) -> TrainConfig:
    settings = [f"start_from={start}", f"data.path={photos}", "steps=2", "batch_size=4", "workers=0", "eval_every=0"]
    return override(recipe(name), [*settings, "optim.warmup=1", *more])


def test_an_open_clip_directory_is_trained_and_saved_as_one(photos: Path, tmp_path: Path) -> None:
    model = rebus.load("clip/scenes")
    folder = model.save(tmp_path / "start", layout="open_clip")
    final = train(short(folder, photos, "clip_captions", "wise_ft=1"), tmp_path / "run")
    assert (final / "open_clip_config.json").is_file()
    found = rebus.load(final)
    assert found.config == rebus.load(folder).config
    assert found.processor.image.spec == rebus.load(folder).processor.image.spec
    assert not torch.equal(found.network.text_proj.weight, model.network.text_proj.weight)


def test_an_archive_of_arrays_is_trained(photos: Path, tmp_path: Path) -> None:
    """big_vision's own files: what comes out is in a layout that can be written."""
    transformers = pytest.importorskip("transformers")
    from tests.parity.test_big_vision import siglip_archive

    model = rebus.load("siglip/scenes")
    theirs = transformers.SiglipModel.from_pretrained(model.save(tmp_path / "theirs"))
    start = tmp_path / "start"
    start.mkdir()
    np.savez(start / "weights.npz", **siglip_archive(theirs, True, text_heads=4))
    for name, data in model.processor.files().items():
        (start / name).write_bytes(data)
    final = train(short(start / "weights.npz", photos, "siglip_captions"), tmp_path / "run")
    assert rebus.load(final).config == open_checkpoint(start / "weights.npz").config


RESNET = replace(
    CLIP,
    model=CLIPConfig(
        image=CLIPResNetConfig(layers=(1, 1, 1, 1), width=8, image_size=96, embed=16),
        text=CLIP.model.text,
        embed=16,
        end_id=CLIP.model.end_id,
    ),
    steps=1,
    batch_size=4,
)


def test_a_run_is_saved_in_a_layout_that_holds_its_model(tmp_path: Path) -> None:
    final = train(RESNET, tmp_path / "run")
    assert (final / "open_clip_config.json").is_file()
    assert rebus.load(final).config == RESNET.model


def test_what_cannot_be_saved_is_refused_before_the_first_step(tmp_path: Path) -> None:
    clip = catalog.system("clip")
    with pytest.raises(UsageError, match="cannot be saved: the transformers layout has no ResNet encoders"):
        replace(clip, layouts={"transformers": clip.layouts["transformers"]}).layout_for(RESNET.model)
    assert final_layout(RESNET).name == "open_clip"


def test_parts_of_several_checkpoints_start_one_run(tmp_path: Path) -> None:
    """A ViT of CLIP's and SigLIP's text encoder: what came from where is known, and WiSE-FT goes back to that alone."""
    vit = catalog.system("vit")
    tower = catalog.system("siglip").network(SIGLIP.model).image
    image = save_checkpoint(tmp_path / "vit", vit.layouts["transformers"], SIGLIP.model.image, tower.state_dict())
    whole = catalog.system("siglip").network(SIGLIP.model)
    text = save_checkpoint(
        tmp_path / "siglip", catalog.system("siglip").layouts["transformers"], SIGLIP.model, whole.state_dict()
    )
    starts = (Start(source=str(image), into="image"), Start(source=str(text), take="text", into="text"))
    config = replace(SIGLIP, starts=starts, wise_ft=0.5)
    network, copied = build(config)
    assert torch.equal(network.image.patch.weight, tower.patch.weight)
    assert torch.equal(network.text.tokens.weight, whole.text.tokens.weight)
    assert {copied[name] for name in copied if name.startswith("image.")} == {str(image)}
    assert not any(name.startswith(("pool.", "log_scale", "bias")) for name in copied)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    learned = {name: parameter.clone() for name, parameter in network.named_parameters()}
    interpolate(network, config, copied)
    for name, parameter in network.named_parameters():
        wanted = learned[name] - 0.5 if name in copied else learned[name]  # what began at random stays as it is
        torch.testing.assert_close(parameter, wanted)


@pytest.mark.parametrize(
    "start, error, said",
    [
        (Start(source="siglip/scenes", take="text", into="image"), BadCheckpoint, "image encoder has another size"),
        (Start(source="siglip/scenes", take="txt", into="text"), UnknownName, "part of siglip/scenes"),
        (Start(source="siglip/scenes", take="text", into="txt"), UnknownName, "part of the network"),
    ],
)
def test_starts_that_do_not_fit_are_named(start: Start, error: type, said: str) -> None:
    with pytest.raises(error, match=said):
        build(replace(SIGLIP, starts=(start,)))


def test_starts_can_be_set_in_a_shell(tmp_path: Path) -> None:
    config = override(SIGLIP, ['starts=[{"source": "siglip/scenes", "take": "image", "into": "image"}]'])
    assert config.starts == (Start(source="siglip/scenes", take="image", into="image"),)


def test_a_name_gives_its_configuration_without_weights() -> None:
    assert config_of("clip/b32")[1] == catalog.system("clip").presets["b32"]
    assert config_of("siglip/scenes")[1] == rebus.load("siglip/scenes").config


@pytest.mark.parametrize("layout", ["transformers", "open_clip"])
def test_all_that_is_wrong_with_weights_is_said_at_once(layout: str, tmp_path: Path) -> None:
    file = saved("clip", tmp_path, layout) / ("model" if layout == "transformers" else "open_clip_model")
    file = file.with_suffix(".safetensors")
    weights = load_file(file)
    missing, misshapen = sorted(name for name in weights if "final_layer_norm" in name or "ln_final" in name)
    del weights[missing]
    weights[misshapen] = torch.zeros(3)
    weights["extra.weight"] = torch.zeros(2)
    save_file(weights, file)
    (tmp_path / MANIFEST).unlink()
    with pytest.raises(BadCheckpoint) as found:
        rebus.load(tmp_path)
    text = str(found.value)
    assert 'unexpected weight "extra.weight"' in text
    assert "1 missing: " in text
    assert "1 of another shape: " in text
    assert "got [3]" in text
    assert "\n" not in text


def with_preprocessor(folder: Path, name: str, preset: str, size: int) -> Path:
    system = catalog.system(name)
    config = system.presets[preset]
    processor = Processor(ImagePipeline(replace(system.image_spec(config), size=(size, size))), None)
    weights = system.build(config).state_dict()
    return save_checkpoint(folder, system.layout_for(config), config, weights, processor=processor)


@pytest.mark.parametrize(
    ("name", "preset", "size"), [("clip", "tiny", 48), ("siglip", "tiny", 36), ("clip", "tiny_resnet", 96)]
)
def test_a_preprocessor_of_another_size_than_the_network_is_refused(name, preset, size, tmp_path: Path) -> None:
    folder = with_preprocessor(tmp_path / "m", name, preset, size)
    own = catalog.system(name).presets[preset].image.image_size
    with pytest.raises(BadConfig, match=rf"images of {size} × {size} pixels, and the network was made for {own} × "):
        rebus.load(folder)
    model = rebus.load(folder, image_size=own)
    assert model.embed_images([Image.new("RGB", (70, 50), "red")]).shape == (1, 16 if name == "clip" else 32)
    assert rebus.load(model.save(tmp_path / "again")).processor.image.spec.size == (own, own)


def test_another_size_is_taken_where_it_is_asked_for_and_fits_the_patches(tmp_path: Path) -> None:
    folder = with_preprocessor(tmp_path / "m", "clip", "tiny", 24)
    image = Image.effect_noise((90, 90), 80).convert("RGB")
    larger = rebus.load(folder, image_size=48)
    assert larger.processor(images=[image])["pixels"].shape == (1, 3, 48, 48)
    assert not torch.equal(larger.embed_images([image]), rebus.load(folder).embed_images([image]))
    with pytest.raises(UsageError, match="image_size 36: expected a multiple of the patch, 8 pixels"):
        rebus.load(folder, image_size=36)


def test_a_network_of_convolutions_reads_images_of_any_size(tmp_path: Path) -> None:
    folder = with_preprocessor(tmp_path / "m", "lit", "tiny", 96)
    assert rebus.load(folder).processor.image.spec.size == (96, 96)


def test_a_run_of_another_image_size_reads_images_of_its_own(tmp_path: Path) -> None:
    from rebus.train.setup import processor_of

    folder = with_preprocessor(tmp_path / "m", "clip", "tiny", 24)
    clip = catalog.system("clip")
    tiny = clip.presets["tiny"]
    larger = replace(tiny, image=replace(tiny.image, image_size=32))
    assert processor_of(replace(CLIP, start_from=str(folder), model=larger), clip).image.spec.size == (32, 32)


def test_a_layout_that_has_no_place_for_the_network_says_so(tmp_path: Path) -> None:
    model = rebus.load(with_preprocessor(tmp_path / "m", "clip", "tiny_resnet", 64))
    with pytest.raises(BadConfig, match='transformers layout has no ResNet encoders; save with layout="open_clip"'):
        model.save(tmp_path / "again", layout="transformers")
    assert (model.save(tmp_path / "again") / "open_clip_config.json").is_file()


def test_parts_of_bundled_models_are_kept_once_and_saved_whole(tmp_path: Path) -> None:
    lent = {card.name: card.shares for card in catalog.bundled().values() if card.shares}
    assert "visualgpt/scenes" in lent
    for name, shares in lent.items():
        model = rebus.load(name)
        own = rebus.load(model.save(tmp_path / name)).network.state_dict()
        for part, source in shares.items():
            same = {key: t for key, t in rebus.load(source).network.state_dict().items() if key.startswith(f"{part}.")}
            assert same
            assert all(torch.equal(own[key], tensor) for key, tensor in same.items())


def test_bundled_checkpoints_take_at_most_32_mb() -> None:
    sizes = {
        folder.name: sum(file.stat().st_size for file in folder.rglob("*"))
        for folder in catalog.checkpoint_folder().glob("*_scenes")
    }
    assert max(sizes.values()) <= 4_000_000
    assert sum(sizes.values()) <= 32 * 2**20
