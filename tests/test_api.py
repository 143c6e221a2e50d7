"""Load, create, save: what a user of the Python interface relies on."""

import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import rebus
from rebus import catalog
from rebus.backbones.vision.mask_vqvae import SMALL, MaskVQVAE, save_npz
from rebus.core.errors import BadCheckpoint, BadConfig, MissingFile, UnknownName, UsageError
from rebus.open_checkpoint import open_checkpoint
from tests import tiny


def picture(seed=0, size=(41, 30)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8))


def batch(model):
    g, cfg = torch.Generator().manual_seed(0), model.config
    pixels = torch.randn(2, 3, 32, 32, generator=g)
    tokens = torch.randint(4, 20, (2, 12), generator=g)
    if model.system.name == "paligemma":
        pictures = torch.full((2, cfg.num_image_tokens), cfg.image_id)
        return {"pixels": pixels, "tokens": torch.cat([pictures, tokens], 1), "targets": tokens}
    return {"pixels": pixels, "tokens": tokens}


@pytest.mark.parametrize("name", tiny.ALL)
def test_saved_and_loaded_is_the_same_model(name, tmp_path):
    model = tiny.ALL[name]()
    loaded = rebus.load(model.save(tmp_path / "m"), device="cpu")
    assert loaded.config == model.config
    with torch.no_grad():
        # mapped weights lie elsewhere in memory: a last bit may differ
        torch.testing.assert_close(loaded(**batch(model)).logits, model(**batch(model)).logits, atol=1e-6, rtol=1e-6)
    assert loaded.num_parameters() == model.num_parameters()
    assert loaded.tasks == model.tasks


@pytest.mark.parametrize("name", tiny.ALL)
def test_dtype_and_repr(name, tmp_path):
    folder = tiny.ALL[name]().save(tmp_path / "m")
    assert rebus.load(folder, device="cpu", dtype=torch.bfloat16).dtype == torch.bfloat16
    assert rebus.load(folder, device="cpu", dtype="float32").dtype == torch.float32
    assert str(rebus.load(folder, device="cpu")).startswith("Model(")


def test_half_precision_files_run_in_float32_on_a_cpu(tmp_path):
    folder = tiny.clip().to(torch.float16).save(tmp_path / "m")
    assert rebus.load(folder, device="cpu").dtype == torch.float32


def test_open_clip_layout_returns(tmp_path):
    model = tiny.clip()
    loaded = rebus.load(model.save(tmp_path / "m", layout="open_clip"), device="cpu")
    assert (tmp_path / "m" / "open_clip_model.safetensors").is_file()
    with torch.no_grad():
        assert torch.equal(loaded(**batch(model)).logits, model(**batch(model)).logits)
    assert loaded.processor.image.spec.mean == model.processor.image.spec.mean


def test_without_tokenizer_files_only_texts_fail(tmp_path):
    model = rebus.load(tiny.clip().save(tmp_path / "m"), device="cpu")
    assert model.embed_images(picture()).shape == (1, 16)
    with pytest.raises(MissingFile, match=r"tokenizer\.json"):
        model.embed_texts("a photo")


def test_task_that_the_model_lacks_names_models_that_can():
    with pytest.raises(rebus.UnsupportedTask, match="paligemma/"):
        tiny.clip().caption(picture())
    with pytest.raises(rebus.UnsupportedTask, match="clip/"):
        tiny.paligemma().embed_images(picture())
    with pytest.raises(rebus.UnsupportedTask):
        tiny.clip().generate(pixels=torch.zeros(1, 3, 32, 32), tokens=torch.zeros(1, 2, dtype=torch.long))


def test_a_task_that_a_model_cannot_do_names_models_that_can():
    for model in (tiny.clip(), tiny.paligemma()):
        with pytest.raises(rebus.UnsupportedTask, match=r"cannot complete; models that can: .*magic/scenes"):
            model.complete(["a", picture(), "b"])
        with pytest.raises(rebus.UnsupportedTask, match=r"cannot imagine; models that can: .*chameleon"):
            model.imagine("a red circle")
        with pytest.raises(rebus.UnsupportedTask, match="cannot complete"):
            model.stream("complete", ["a"])


def test_a_companion_is_loaded_with_its_model_and_saved_with_it(tmp_path):
    folder = tiny.with_words(tiny.paligemma()).save(tmp_path / "m")
    without = rebus.load(folder, device="cpu")
    assert without.companions == {}
    with pytest.raises(MissingFile, match=r"no vae-oid\.npz, without which mask tokens cannot be turned into masks"):
        without.segment(picture(), "a red circle")
    save_npz(MaskVQVAE(SMALL), folder / "vae-oid.npz")
    model = rebus.load(folder, device="cpu")
    assert model.companions["mask_decoder"].decode(torch.zeros(1, 16, dtype=torch.long)).shape == (1, 64, 64)
    assert isinstance(model.segment(picture(), "a red circle", max_new_tokens=2), list)
    again = model.save(tmp_path / "again")
    assert (again / "vae-oid.npz").read_bytes() == (folder / "vae-oid.npz").read_bytes()


def test_unknown_names_are_answered_with_near_ones():
    with pytest.raises(UnknownName, match="clip/b32"):
        rebus.load("clip/b23")
    with pytest.raises(UnknownName, match="siglip/b16-224"):
        rebus.info("siglip/b16-225")


def test_overrides_are_checked():
    with pytest.raises(BadConfig, match="widht"):
        rebus.create("clip/b32", text={"widht": 3})
    with pytest.raises(BadConfig, match="embed"):
        rebus.create("clip/b32", embed="wide")


def test_meta_models_cost_nothing():
    with torch.device("meta"):
        model = rebus.create("paligemma/v2-28b-pt-896")
    assert model.device.type == "meta"
    assert model.num_parameters() == rebus.info("paligemma/v2-28b-pt-896").parameters


def test_wrong_arguments_are_usage_errors(tmp_path):
    folder = tiny.clip().save(tmp_path / "m")
    with pytest.raises(UsageError, match="quantize"):
        rebus.load(folder, quantize="int7")
    with pytest.raises(UsageError, match="dtype"):
        rebus.load(folder, dtype="float33")
    with pytest.raises(UsageError, match="layout"):
        tiny.clip().save(tmp_path / "n", layout="onnx")


def test_fault_20_config_fields(tmp_path):
    folder = tiny.clip().save(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    for change, word in (
        ({"text_config": {**config["text_config"], "widht": 3}}, "widht"),
        ({"_attn": "os.system"}, "_attn"),
        ({"vision_config": {**config["vision_config"], "num_hidden_layers": 10**9}}, "num_hidden_layers"),
        ({"vision_config": {**config["vision_config"], "hidden_size": -4}}, "hidden_size"),
        ({"model_type": "clop"}, "clip"),
    ):
        (folder / "rebus_manifest.json").unlink(missing_ok=True)
        (folder / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises((BadConfig, UnknownName), match=word):
            rebus.load(folder)


def test_fault_22_missing_and_extra_weights(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tiny.clip().save(tmp_path / "m")
    (folder / "rebus_manifest.json").unlink()
    tensors = load_file(folder / "model.safetensors")
    short = {k: v for k, v in tensors.items() if k != "visual_projection.weight"}
    save_file(short, folder / "model.safetensors")
    with pytest.raises(BadCheckpoint, match=r"image_proj\.weight"):
        rebus.load(folder)
    save_file({**tensors, "vision_model.extra.weight": torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(BadCheckpoint, match="extra"):
        rebus.load(folder)


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_quantised_models_answer_alike_and_are_not_saved(tmp_path, kind):
    model = tiny.siglip()
    folder = model.save(tmp_path / "m")
    small = rebus.load(folder, device="cpu", quantize=kind)
    a, b = model.embed_images(picture()), small.embed_images(picture())
    assert torch.nn.functional.cosine_similarity(a, b).item() > 0.99
    with pytest.raises(UsageError, match="quantised"):
        small.save(tmp_path / "n")
    assert not (tmp_path / "n").exists()


def test_list_models_filters():
    assert {card.family for card in rebus.list_models(family="unified")} == {"unified"}
    captioning = {card.name for card in rebus.list_models(task="caption")}
    assert captioning == {card.name for card in catalog.cards() if "caption" in card.tasks} != set()
    released = {card.name for card in rebus.list_models(released=True)}
    assert released == {card.name for card in catalog.cards() if card.released} != set()
    assert len({card.name for card in rebus.list_models()}) == len(list(catalog.cards()))


def test_the_catalogue_knows_the_tasks_of_every_head():
    for card in catalog.cards():
        system = catalog.system(card.system)
        if card.preset in system.assemble:
            continue
        config = open_checkpoint(card.name).config if card.bundled else system.presets[card.preset]
        assert card.tasks == catalog.tasks_of(system, config), card.name


def test_tasks_follow_the_head_that_a_model_is_made_with():
    with torch.device("meta"):
        assert rebus.create("virtex/r50-l1-h512").tasks == {"caption", "stream"}
        labels = rebus.create("virtex/r50-l1-h512", head="labels")
        assert rebus.create("visualbert/vqa", head="phrases").tasks == {"detect"}
    with pytest.raises(rebus.UnsupportedTask, match="cannot caption"):
        labels.caption("image.png")


def test_generate_does_not_depend_on_the_batch():
    model = tiny.paligemma()
    inputs = batch(model)
    inputs.pop("targets")
    both = model.generate(**inputs, max_new_tokens=5)
    one = model.generate(**{k: v[1:] for k, v in inputs.items()}, max_new_tokens=5)
    assert torch.equal(both[1, : one.shape[1]], one[0])


def test_a_model_is_pickled_copied_and_saved_whole(tmp_path):
    for model in (tiny.clip(), tiny.paligemma()):
        torch.save(model, tmp_path / "model.pt")
        others = (
            pickle.loads(pickle.dumps(model)),
            copy.deepcopy(model),
            torch.load(tmp_path / "model.pt", weights_only=False),
        )
        for other in others:
            assert other.system is model.system
            assert other.tasks == model.tasks
            wanted, found = (dict(one.network.state_dict()) for one in (model, other))
            assert wanted.keys() == found.keys()
            assert all(wanted[name].equal(found[name]) for name in wanted)
    assert pickle.loads(pickle.dumps(tiny.clip())).embed_images(picture()).equal(tiny.clip().embed_images(picture()))


def test_familiar_names(tmp_path):
    model = rebus.load("siglip/scenes")
    assert model.eval() is model
    assert model.state_dict().keys() == model.network.state_dict().keys()
    model.save_pretrained(tmp_path / "model")
    again = rebus.Model.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(again.embed_texts("a"), model.embed_texts("a"), atol=1e-6, rtol=0)
    for name, ours in {"encode_image": "embed_images", "tokenizer": "processor", "cuda": r"to\(", "vqa": "ask"}.items():
        with pytest.raises(AttributeError, match=ours):
            getattr(model, name)
    with pytest.raises(AttributeError, match=r"ours is rebus\.load"):
        rebus.from_pretrained  # noqa: B018


def test_what_there_is_at_the_top():
    assert set(rebus.__all__) <= set(dir(rebus))
    for name in dir(rebus):
        assert getattr(rebus, name) is not None
    errors = {name for name, kind in vars(rebus.core.errors).items() if isinstance(kind, type)}
    assert {name for name in errors if issubclass(vars(rebus.core.errors)[name], rebus.RebusError)} <= set(dir(rebus))
    assert issubclass(rebus.MissingFile, FileNotFoundError)
    assert issubclass(rebus.UsageError, ValueError)
    assert (Path(rebus.__file__).parent / "py.typed").exists()


def test_the_processor_of_another_checkpoint(tmp_path):
    model = rebus.load("siglip/scenes")
    model.save(tmp_path / "whole")
    model.save(tmp_path / "bare")
    for file in (tmp_path / "bare").iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            file.unlink()
    bare = rebus.load(tmp_path / "bare")
    with pytest.raises(FileNotFoundError, match=r"tokenizer.*processor="):
        bare.embed_texts("a")
    with pytest.raises(rebus.MissingFile, match=r"preprocessor.*processor="):
        bare.embed_images(picture())
    mended = rebus.load(tmp_path / "bare", processor=tmp_path / "whole")
    torch.testing.assert_close(mended.embed_texts("a"), model.embed_texts("a"), atol=1e-6, rtol=0)
    torch.testing.assert_close(mended.embed_images(picture()), model.embed_images(picture()), atol=1e-6, rtol=0)
    with pytest.raises(rebus.MissingFile, match="processor: "):
        rebus.load(tmp_path / "bare", processor=tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [{"device": "abacus"}, {"device": "cuda:99"}, {"device": 3.5}, {"dtype": 5}, {"dtype": "int8"}],
    ids=str,
)
def test_places_and_types_that_there_are_not(tmp_path, wrong):
    tiny.clip().save(tmp_path / "model")
    with pytest.raises(rebus.UsageError, match=next(iter(wrong))):
        rebus.load(tmp_path / "model", **wrong)


@pytest.mark.parametrize("source", [None, 5, b"clip/b32"], ids=str)
def test_what_is_no_source(source):
    with pytest.raises(rebus.UsageError, match="a model is a name"):
        rebus.load(source)


def test_an_encoder_is_saved_alone(tmp_path):
    torch.manual_seed(0)
    model = rebus.create("virtex/r50-l1-h512", text={"width": 64, "num_heads": 1, "mlp_width": 64})
    folder = model.save(tmp_path / "resnet", part="image")
    theirs = pytest.importorskip("torchvision").models.resnet50()
    theirs.fc = torch.nn.Identity()
    theirs.load_state_dict(load_file(folder / "model.safetensors"))
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(theirs.eval()(pixels), model.network.image.features(pixels), atol=1e-4, rtol=0)
    assert rebus.load(folder).system.name == "resnet"
    with pytest.raises(UsageError, match='expects an encoder that is a backbone, "image" or "text"'):
        model.save(tmp_path / "other", part="rightward")
