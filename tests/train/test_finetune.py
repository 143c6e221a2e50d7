"""Fine-tuning: what is shown, refused, measured before and after, and kept."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import rebus
from rebus.codec.boxes import LOC_1024
from rebus.core.errors import BadConfig, MissingExtra, MissingFile, RebusError, UnknownName, UsageError
from rebus.data.file_records import Files
from rebus.data.forms import TextRow
from rebus.data.model_inputs import ModelInputs
from rebus.data.scene_captions import SceneCaptions
from rebus.data.scene_tasks import SceneTasks
from rebus.data.scenes import scene
from rebus.recipes import recipe
from rebus.train import TrainConfig, override, train
from rebus.train.audit import audit, audit_words, images_of, show, texts_of
from rebus.train.config import Watch
from rebus.train.setup import open_data, resolved
from rebus.train.trackers import Records
from rebus.weights.checkpoint_files import open_weights
from tests.data.test_scene_batches import PROMPTS, WRITER
from tests.train.settings import CLIP, PALIGEMMA


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rows = []
    for i in range(12):
        s = scene(i, "novel")
        s.image.save(folder / f"{i}.png")
        rows.append({"file": f"{i}.png", "caption": s.captions[0], "split": "val" if i >= 8 else "train"})
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return folder


def short(name: str, photos: Path, *more: str) -> TrainConfig:
    system = "paligemma" if name.startswith("paligemma") else name.partition("_")[0]
    settings = [f"start_from={system}/scenes", f"data.path={photos}", "steps=3", "batch_size=4", "workers=0"]
    return override(recipe(name), [*settings, "optim.warmup=1", "eval_batches=1", *more])


@pytest.mark.parametrize("name", ["clip_captions", "siglip_captions", "paligemma_captions", "paligemma_lora"])
def test_recipes_take_the_model_from_where_they_start(name: str, photos: Path, tmp_path: Path) -> None:
    config = short(name, photos, "retention.path=" + str(photos))
    final = train(config, tmp_path / "run")
    model = rebus.load(final)
    before = open_weights(rebus.catalog.checkpoint_folder() / config.start_from.replace("/", "_"))  # type: ignore[union-attr]
    after = open_weights(final)
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[k].load(), after[k].load()) for k in before)
    assert "first_batch" in {p.name for p in (tmp_path / "run").iterdir()}
    copied = json.loads((tmp_path / "run" / "started_from.json").read_text())
    assert set(copied.values()) == {config.start_from}
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert set(report) == {"new", "retention"}
    assert report["new"]["before"]["loss"] != report["new"]["after"]["loss"]
    page = (tmp_path / "run" / "report.md").read_text()
    assert "| new | loss |" in page
    measure = "recall@1" if name in ("clip_captions", "siglip_captions") else "CIDEr-D"
    assert 0 <= report["new"]["before"][measure] <= 10
    assert report["retention"]["after"].keys() == report["new"]["after"].keys()
    assert f"- {measure}: " in page
    assert model.processor.text is not None
    assert model.card.domain == "shapes", "a few images more do not make it a model for photos"
    assert set(model.companions) == set(model.system.companions), "what lay beside the weights is saved with them"


def test_weights_between_old_and_new(photos: Path, tmp_path: Path) -> None:
    weights = []
    for share in (0.0, 0.5, 1.0):
        final = train(short("siglip_captions", photos, f"wise_ft={share}", "optim.lr=1e-2"), tmp_path / str(share))
        weights.append({name: tensor.load().float() for name, tensor in open_weights(final).items()})
    old = open_weights(rebus.catalog.checkpoint_folder() / "siglip_scenes")
    for name in weights[0]:
        torch.testing.assert_close(weights[0][name], old[name].load().float())
        middle = (weights[0][name] + weights[2][name]) / 2
        torch.testing.assert_close(weights[1][name], middle, atol=2e-3, rtol=2e-3)
    with pytest.raises(UsageError, match=r"wise_ft=0\.5"):
        resolved(replace(CLIP, wise_ft=0.5))


def test_lora_with_some_parts_whole(photos: Path, tmp_path: Path) -> None:
    config = short("paligemma_lora", photos, 'lora.whole=["text.norm"]', "optim.lr=1e-2", "lora.rank=2")
    after = open_weights(train(config, tmp_path / "run"))
    before = open_weights(rebus.catalog.checkpoint_folder() / "paligemma_scenes")
    moved = {name for name in before if not torch.equal(before[name].load(), after[name].load())}
    assert "language_model.model.norm.weight" in moved
    assert not any("vision_tower" in name or "embed_tokens" in name for name in moved)
    assert any("self_attn.q_proj" in name for name in moved)


def test_nothing_to_start_from(photos: Path) -> None:
    with pytest.raises(UsageError, match="start_from, the model"):
        resolved(recipe("paligemma_captions"))
    with pytest.raises(UsageError, match="processor, the source of tokenizer"):
        open_data(replace(CLIP, data=Files(path=str(photos), form="pairs")))


def test_a_folder_is_claimed_when_all_is_there(photos: Path, tmp_path: Path) -> None:
    wrong = short("clip_captions", photos, "data.path=nowhere", "steps=1")
    with pytest.raises(MissingFile, match="nowhere"):
        train(wrong, tmp_path / "run")
    with pytest.raises(UnknownName, match='did you mean "clip/scenes"'):
        train(replace(wrong, start_from="clip/scnes"), tmp_path / "run")
    train(short("clip_captions", photos, "steps=1"), tmp_path / "run")


def test_leaks_are_refused(photos: Path) -> None:
    config = resolved(short("paligemma_captions", photos))
    data = open_data(config)
    assert data.processor is not None
    processor, batch = data.processor, data.batch(0, 0, 4)
    audit(batch, processor)
    picture = config.model.image_id  # type: ignore[union-attr]
    answer = batch["targets"][1]
    body = answer[answer >= 0][:-1]

    def changed(**parts: torch.Tensor) -> dict[str, torch.Tensor]:
        return {**batch, **parts}

    wrong = answer.clone()
    wrong[0] = picture
    with pytest.raises(UsageError, match="row 1 has image tokens among its targets"):
        audit(changed(targets=with_row(batch["targets"], 1, wrong)), processor)
    wide = torch.nn.functional.pad(batch["tokens"], (0, len(body)))
    mask = torch.nn.functional.pad(batch["mask"], (0, len(body)))
    wide[1, -len(body) :], mask[1, -len(body) :] = body, True
    with pytest.raises(UsageError, match="row 1 leaks the whole target into its prompt"):
        audit(changed(tokens=wide, mask=mask), processor)
    with pytest.raises(UsageError, match="row 1 has no target"):
        audit(changed(targets=with_row(batch["targets"], 1, torch.full_like(answer, -100))), processor)
    hole = answer.clone()
    hole[1] = -100
    with pytest.raises(UsageError, match="row 1 has padding in the middle"):
        audit(changed(targets=with_row(batch["targets"], 1, hole)), processor)
    prompt = batch["tokens"][1][batch["mask"][1]]
    repeated = torch.cat([prompt[prompt != picture][1:], answer])
    targets = torch.nn.functional.pad(batch["targets"], (0, len(repeated) - len(answer)), value=-100)
    with pytest.raises(UsageError, match="row 1 repeats its prompt"):
        audit(changed(targets=with_row(targets, 1, repeated)), processor)


def test_words_that_the_tokenizer_lacks_are_refused_or_told(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    processor = open_data(resolved(short("paligemma_captions", photos))).processor
    assert processor is not None
    with pytest.raises(UsageError, match=r"row 1 has a text with no known token: 'zebras graze'"):
        audit_words([TextRow("", "a red circle"), TextRow("", "zebras graze")], processor)
    with caplog.at_level(logging.WARNING, "rebus"):
        audit_words([TextRow("", "a red circle"), TextRow("", "a zebra")], processor)
    assert "20% of the words of the first batch are unknown to the tokenizer" in caplog.text
    assert "'zebra'" in caplog.text
    caplog.clear()
    audit_words([TextRow("", "a red circle"), TextRow("", "<loc0001><loc0002><loc0100><loc0200> circle")], processor)
    assert not caplog.records


def test_a_run_on_words_that_are_lost_is_refused(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "zebras"
    folder.mkdir()
    for i in range(8):
        scene(i).image.save(folder / f"{i}.png")
    (folder / "captions.csv").write_text("file,caption\n" + "".join(f"{i}.png,zebras graze\n" for i in range(8)))
    for name in ("paligemma_captions", "siglip_captions"):
        with pytest.raises(UsageError, match="a text with no known token"):
            train(short(name, folder), tmp_path / name)


def test_prompts_that_lose_words_say_so_once(caplog: pytest.LogCaptureFixture) -> None:
    model = rebus.load("siglip/scenes")
    with caplog.at_level(logging.WARNING, "rebus"):
        model.embed_texts(["a red circle"])
        assert not caplog.records
        model.embed_texts(["a red zebra"])
        model.embed_texts(["a red giraffe"])
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "the tokenizer has no tokens for 'zebra'"
    ]


def test_words_of_published_templates_are_not_the_callers(caplog: pytest.LogCaptureFixture) -> None:
    model, image = rebus.load("vild/scenes"), scene(0, "test").image
    with caplog.at_level(logging.WARNING, "rebus"):
        model.detect(image, ["red circle"])  # "This is {a name}.": its tokenizer has no "this"
        assert not caplog.records
        model.detect(image, ["red circle"], templates=["this is my {}"])
    assert "no tokens for 'this'" in caplog.text


def with_row(rows: torch.Tensor, index: int, row: torch.Tensor) -> torch.Tensor:
    rows = rows.clone()
    rows[index] = row
    return rows


def test_the_first_batch_can_be_looked_at(photos: Path, tmp_path: Path) -> None:
    train(short("paligemma_captions", photos, "steps=1", "eval_every=0"), tmp_path / "run")
    page = (tmp_path / "run" / "first_batch" / "index.md").read_text()
    assert "- text: 'caption en" in page
    assert page.count("to be answered: '") == 4
    with Image.open(tmp_path / "run" / "first_batch" / "00.png") as picture:
        assert picture.size == (96, 96)


def test_each_row_is_shown_with_its_images_and_texts(tmp_path: Path) -> None:
    text = replace(WRITER, num_image_tokens=9)
    inputs = ModelInputs("writer", text, prompts=PROMPTS, locations=LOC_1024)
    data = PALIGEMMA.data.open(inputs)  # type: ignore[union-attr]
    batch, processor = data.batch(0, 0, 3), data.processor
    page = show(batch, processor, tmp_path / "two").read_text().split("\n\n")[1:]
    assert [text.count("- text:") for text in page] == [2, 2, 2]
    assert [text.count("![") for text in page] == [1, 1, 1]
    one, two = batch["pixels"][:1], batch["pixels"][1:]
    pixels = torch.stack([torch.cat([one, torch.zeros_like(one)]), two, torch.zeros_like(two)])
    there = torch.tensor([[True, False], [True, True], [False, False]])
    rows = batch | {"pixels": pixels, "image_mask": there, "owners": torch.tensor([2, 0, 1, 1, 2, 2])}
    assert [[float(image.float().mean()) for image in images] for images in images_of(rows)] == [
        [float(one.float().mean())],
        [float(image.float().mean()) for image in two],
        [],
    ]
    assert texts_of(rows) == [[1], [2, 3], [0, 4, 5]]
    page = show(rows, processor, tmp_path / "rows").read_text().split("\n\n")[1:]
    assert [(text.count("!["), text.count("- text:")) for text in page] == [(1, 1), (2, 2), (0, 3)]
    assert sorted(p.name for p in (tmp_path / "rows").glob("*.png")) == ["00.png", "01.png", "01_1.png"]
    assert show({"pixels": one}, processor, tmp_path / "images").read_text().count("![") == 1


def test_scenes_are_for_models_of_their_world() -> None:
    def changed(**parts: Any) -> TrainConfig:
        return replace(CLIP, model=replace(CLIP.model, **parts))  # type: ignore[type-var]

    model: Any = CLIP.model
    with pytest.raises(UsageError, match="tokens of their own; the model has 49,408"):
        open_data(changed(text=replace(model.text, vocab_size=49_408)))
    with pytest.raises(UsageError, match="scenes have 96 pixels a side, the model's images 64"):
        open_data(changed(image=replace(model.image, image_size=64)))
    with pytest.raises(UsageError, match="no prompt for caption"):
        open_data(replace(CLIP, data=SceneTasks(patch=32)))


@pytest.mark.parametrize(("end", "reads"), [(None, "at their largest id"), (2, "at '<bos>' \\(id 2\\)")])
def test_scenes_are_refused_for_a_model_that_reads_texts_at_another_token(end: int | None, reads: str) -> None:
    """It would learn to read every caption at its last word, or at none."""
    config = recipe("clip_scenes")
    open_data(config)
    with pytest.raises(BadConfig, match=rf"the network reads texts {reads}.* and the tokenizer ends them with '<eos>'"):
        open_data(replace(config, model=replace(config.model, end_id=end)))


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_the_precision_of_what_is_kept(dtype: Any, tmp_path: Path) -> None:
    final = train(replace(CLIP, steps=1, final_dtype=dtype), tmp_path / "run")
    assert {str(weight.dtype) for weight in open_weights(final).values()} == {f"torch.{dtype or 'float32'}"}


@pytest.mark.parametrize("config", [CLIP, PALIGEMMA], ids=["towers", "writer"])
def test_a_gallery_is_drawn_at_each_evaluation(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, eval_every=2, eval_batches=1, watch=Watch(gallery=4))
    train(config, tmp_path / "run")
    names = sorted(p.name for p in (tmp_path / "run" / "gallery").iterdir())
    assert names == ["step_00000002.jpg", "step_00000004.jpg"]
    with Image.open(tmp_path / "run" / "gallery" / names[0]) as sheet:
        assert sheet.width == 4 * 232 + 8


def test_numbers_go_to_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    train(replace(CLIP, watch=Watch(tensorboard=True), steps=2), tmp_path / "run")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [e.value for e in events.Scalars("loss")] == pytest.approx([line["loss"] for line in lines])
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(MissingExtra, match="wandb"):
        train(replace(CLIP, watch=Watch(wandb="mine"), steps=1), tmp_path / "other")


def test_too_many_damaged_records_stop_the_run() -> None:
    records = Records(0.1)
    assert records.count(["a: gone"], 50) == ["a: gone"]
    assert records.count([], 60) == []
    with pytest.raises(RebusError, match=r"16 of 144 records were damaged, more than data\.most_damaged=0\.1"):
        records.count([f"{i}: gone" for i in range(15)], 18)


def test_retention_may_be_scenes(photos: Path, tmp_path: Path) -> None:
    config = replace(short("clip_captions", photos, "steps=1"), retention=SceneCaptions(begin=True))
    train(config, tmp_path / "run")
    assert set(json.loads((tmp_path / "run" / "report.json").read_text())) == {"new", "retention"}


def test_a_language_model_learns_captions_without_their_images(photos: Path, tmp_path: Path) -> None:
    folder = rebus.catalog.bundled_folder("magic/scenes")
    settings = [f"start_from={folder}", f"data.path={photos}", "steps=3", "batch_size=4", "workers=0", "optim.lr=1e-3"]
    config = override(recipe("magic_captions"), [*settings, "optim.warmup=1", "eval_every=3", "eval_batches=1"])
    model = rebus.load(train(config, tmp_path / "run"), device="cpu")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1].keys() >= {"next_token", "apart", "val_loss"}
    assert rows[-1]["loss"] == pytest.approx(rows[-1]["next_token"] + rows[-1]["apart"])
    batch = open_data(resolved(config)).batch(0, 0, 4)
    end = model.processor.text.spec.eos_id  # type: ignore[union-attr]
    assert batch["tokens"].tolist() == [[end]] * 4, "a text begins where another one ends"
    assert "pixels" not in batch
    assert all(row[row >= 0][-1] == end for row in batch["targets"])
    joined = rebus.join("magic", text=model, guide=rebus.load("clip/scenes", device="cpu"), max_new_tokens=4)
    assert isinstance(joined.caption(scene(0, "test").image), str)


def test_scenes_without_images_are_for_models_of_their_words() -> None:
    config = recipe("magic_scenes")
    batch = open_data(config).batch(0, 0, 4)
    assert batch.keys() == {"tokens", "mask", "targets"}
    with pytest.raises(UsageError, match="tokens of their own"):
        open_data(replace(config, model=replace(config.model, vocab_size=90)))
