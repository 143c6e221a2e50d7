"""Data sets on disk as batches: the same whoever asks, in the model's own tokens; damaged records give way."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import rebus
from rebus.codec.boxes import LOC_1024
from rebus.codec.processor import Processor
from rebus.core.errors import MissingFile, RebusError, UsageError
from rebus.core.specs import Prompts
from rebus.data.file_records import Files, Mixture, file_batches, mixed_batches, varied
from rebus.data.record_batches import MixedBatches, even_pattern
from rebus.data.scenes import scene

PALIGEMMA = Prompts(caption="caption en", ask="answer en {question}", detect="detect {labels}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve scenes with captions, questions and boxes; two of them held out."""
    where = tmp_path_factory.mktemp("photos")
    rows = []
    for i in range(12):
        s = scene(i, "train")
        s.image.save(where / f"{i}.png")
        boxes = [{"label": label, "xyxy": list(box)} for label, box in zip(s.labels, s.boxes, strict=True)]
        question, answer = s.questions[0]
        rows.append(
            {
                "file": f"{i}.png",
                "captions": s.captions[:2],
                "boxes": boxes,
                "question": question,
                "answer": answer,
                "split": "val" if i >= 10 else "train",
            }
        )
    (where / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return where


@pytest.fixture(scope="module")
def processors() -> dict[str, Any]:
    return {name: rebus.load(f"{name}/scenes").processor for name in ("siglip", "paligemma")}


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_batch_depends_on_its_number_alone(folder: Path, processors: dict[str, Any]) -> None:
    files = Files(path=str(folder), form="pairs", least_crop=0.8, flip=True)
    one = file_batches(files, processors["siglip"], Prompts())
    assert len(one.source) == 10
    batches = [one.batch(3, i, 4) for i in range(6)]
    again = file_batches(replace(files, threads=3), processors["siglip"], Prompts())
    assert all(same(again.batch(3, i, 4), batches[i]) for i in reversed(range(6)))
    assert batches[0]["pixels"].shape == (4, 3, 96, 96)
    assert not same(one.batch(4, 0, 4), batches[0])


def test_ranks_share_a_batch(folder: Path, processors: dict[str, Any]) -> None:
    data = file_batches(Files(path=str(folder), form="pairs"), processors["siglip"], Prompts())
    whole = data.batch(0, 2, 6)
    parts = [data.batch(0, 2, 6, share=(i, 3)) for i in range(3)]
    assert all(torch.equal(torch.cat([part[k] for part in parts]), whole[k]) for k in whole)


def test_a_record_that_is_in_a_batch_twice_is_said(folder: Path, processors: dict[str, Any]) -> None:
    """Ten records in a batch of twelve: two of them come again, and would be negatives of themselves."""
    data = file_batches(Files(path=str(folder), form="pairs"), processors["siglip"], Prompts())
    batch = data.batch(0, 0, 12)
    same_image, pixels = batch["groups"][:, 0], batch["pixels"].flatten(1)
    assert len(same_image.unique()) == 10
    for i in range(12):
        assert torch.equal(same_image == same_image[i], (pixels == pixels[i]).all(dim=1))
    same_text = batch["groups"][:, 1]
    assert torch.equal(same_text[:, None] == same_text, (batch["tokens"][:, None] == batch["tokens"]).all(dim=2))


def test_every_record_comes_once_a_pass(folder: Path, processors: dict[str, Any]) -> None:
    data = file_batches(Files(path=str(folder), form="pairs"), processors["siglip"], Prompts())
    seen = torch.cat([data.batch(0, i, 5)["pixels"] for i in range(2)])
    assert len({tuple(picture.flatten().tolist()) for picture in seen}) == 10


@pytest.mark.parametrize(
    ("form", "prompt"), [("caption", "caption en"), ("ask", "answer en "), ("detect", "detect ")], ids=str
)
def test_writers_get_prompts_and_answers(form: Any, prompt: str, folder: Path, processors: dict[str, Any]) -> None:
    processor = processors["paligemma"]
    data = file_batches(Files(path=str(folder), form=form), processor, PALIGEMMA, LOC_1024)
    batch = data.batch(0, 0, 4)
    asked = processor.decode(batch["tokens"])
    assert len(asked) == 4
    assert all(text.strip().startswith(prompt.strip()) for text in asked)
    answers = processor.decode(batch["targets"])
    table = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]
    known = {
        "caption": {caption for row in table for caption in row["captions"]},
        "ask": {row["answer"] for row in table},
    }
    if form == "detect":
        assert all(answer.count("<loc") == 4 * (answer.count(";") + 1) for answer in answers)
    else:
        assert {a.replace(" ", "") for a in answers} <= {k.replace(" ", "") for k in known[form]}


def test_all_captions_of_an_image_are_its_rows(folder: Path, processors: dict[str, Any]) -> None:
    processor = processors["paligemma"]
    data = file_batches(Files(path=str(folder), form="captions"), processor, PALIGEMMA, LOC_1024)
    table = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]
    known = {tuple(caption.replace(" ", "") for caption in row["captions"]) for row in table}
    batch = data.batch(0, 0, 4)
    answers = processor.decode(batch["targets"])
    owners = batch["owners"].tolist() if "owners" in batch else list(range(4))
    assert len(answers) > 4
    for image in range(4):
        mine = tuple(a.replace(" ", "") for a, owner in zip(answers, owners, strict=True) if owner == image)
        assert mine in known


def test_fault_30_damaged_records_give_way_and_are_named(
    folder: Path, processors: dict[str, Any], tmp_path: Path
) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "3.png").write_bytes(b"<html>")
    (tmp_path / "5.png").unlink()
    data = file_batches(Files(path=str(tmp_path), form="pairs"), processors["siglip"], Prompts())
    batches = [data.batch(0, i, 5) for i in range(2)]
    named = [name for batch in batches for name in batch.pop("damaged", [])]
    assert any("captions.jsonl:4" in name for name in named)
    assert any("captions.jsonl:6" in name for name in named)
    assert all(len(batch["pixels"]) == 5 for batch in batches)
    for i in range(12):
        (tmp_path / f"{i}.png").write_bytes(b"")
    with pytest.raises(RebusError, match="20 damaged records in a row"):
        data.batch(0, 0, 5)


def test_what_cannot_be_learned_is_refused(folder: Path, processors: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"data\.path, the data set, is missing"):
        file_batches(Files(), processors["siglip"], Prompts())
    with pytest.raises(UsageError, match="no prompt for ask"):
        file_batches(Files(path=str(folder), form="ask"), processors["paligemma"], Prompts())
    with pytest.raises(UsageError, match="has no location tokens"):
        file_batches(Files(path=str(folder), form="detect"), processors["paligemma"], PALIGEMMA)
    with pytest.raises(UsageError, match="least_crop"):
        file_batches(Files(path=str(folder), form="pairs", least_crop=0.0), processors["siglip"], Prompts())
    blind = Processor(None, processors["siglip"].text)
    with pytest.raises(MissingFile, match=r"no preprocessor_config\.json, without which it cannot process"):
        file_batches(Files(path=str(folder), form="pairs"), blind, Prompts())
    assert "pixels" not in file_batches(Files(path=str(folder), form="text"), blind, Prompts()).batch(0, 0, 2)
    with pytest.raises(UsageError, match="lost"):  # a split that is not there is no damaged record
        file_batches(Files(path=str(folder), form="pairs", val_split="lost"), processors["siglip"], Prompts()).batch(
            0, 0, 2, "val"
        )
    for variation in ({"least_crop": 0.5}, {"flip": True}):  # boxes would not be where the answer says
        with pytest.raises(UsageError, match=r"detect has positions in the whole image"):
            file_batches(
                Files(path=str(folder), form="detect", **variation), processors["paligemma"], PALIGEMMA, LOC_1024
            )


def test_a_mixture_keeps_its_weights_and_loses_nothing(folder: Path, processors: dict[str, Any]) -> None:
    parts = (Files(path=str(folder), form="caption"), Files(path=str(folder), form="ask"))

    def opened(weights: tuple[float, ...], *parts: Files) -> MixedBatches:
        return mixed_batches(Mixture(parts=parts, weights=weights), processors["paligemma"], PALIGEMMA)

    mixed = opened((3.0, 1.0), *parts)
    kinds = [processors["paligemma"].decode(mixed.batch(0, i, 2)["tokens"])[0].split()[0] for i in range(8)]
    assert sorted(kinds) == ["answer"] * 2 + ["caption"] * 6
    second = [i for i, kind in enumerate(kinds) if kind == "answer"][1]
    assert same(mixed.batch(0, second, 2), mixed.parts[1].batch(0, 1, 2))
    strict = replace(parts[1], most_damaged=0.02)
    assert opened((1.0, 1.0), parts[0], strict).most_damaged == 0.02
    with pytest.raises(UsageError, match="one weight above 0 for each"):
        opened((1.0,), *parts)


def test_patterns_are_even() -> None:
    pattern = even_pattern((5, 3, 2))
    assert np.bincount(pattern).tolist() == [500, 300, 200]
    assert all(np.bincount(pattern[i : i + 10], minlength=3).tolist() == [5, 3, 2] for i in range(0, 1000, 10))


def test_crops_are_squares_of_at_least_their_share() -> None:
    rng = np.random.default_rng(0)
    sizes = [varied(Image.new("RGB", (100, 80)), rng, 0.5, False).size for _ in range(50)]
    assert all(width == height <= 80 for width, height in sizes)
    assert min(width for width, _ in sizes) >= (0.5 * 8000) ** 0.5 - 1


def test_auto_is_detect_where_there_are_boxes_and_no_captions(
    folder: Path, processors: dict[str, Any], tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]
    table = folder / "boxes.jsonl"
    table.write_text("\n".join(json.dumps({name: row[name] for name in ("file", "boxes", "split")}) for row in rows))
    for path, form in ((table, "detect"), (folder / "captions.jsonl", "caption")):
        made = file_batches(Files(path=str(path)), processors["paligemma"], PALIGEMMA, LOC_1024)
        assert made.source.files.form == form  # type: ignore[attr-defined]
    assert file_batches(Files(path=str(table)), processors["siglip"], Prompts()).source.files.form == "pairs"  # type: ignore[attr-defined]
    table.unlink()


def test_auto_is_ask_where_there_are_questions_alone_and_a_prefix_is_the_whole_prompt(
    folder: Path, processors: dict[str, Any], tmp_path: Path
) -> None:
    picture = next(folder.glob("*.png"))
    (tmp_path / picture.name).write_bytes(picture.read_bytes())
    processor = processors["paligemma"]
    for row, prompt in (
        ({"prefix": "red", "suffix": "circle"}, "red"),
        ({"question": "red", "answer": "circle"}, "answer en red"),
    ):
        table = tmp_path / f"{prompt.replace(' ', '_')}.jsonl"
        table.write_text("".join(json.dumps({"image": picture.name, **row, "n": n}) + "\n" for n in range(2)))
        made = file_batches(Files(path=str(table)), processor, PALIGEMMA, LOC_1024)
        assert made.source.files.form == "ask"  # type: ignore[attr-defined]
        record = made.source.read(0, 0, "train", 0)
        example = made.source.make(record, np.random.default_rng(0))
        assert [(text.prompt, text.text) for text in example.texts] == [(prompt, "circle")]


def test_fault_16_an_answer_longer_than_the_context_is_a_damaged_record(
    folder: Path, processors: dict[str, Any], tmp_path: Path
) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    rows = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]
    context = processors["paligemma"].text.spec.context
    rows[3]["captions"] = ["red " * context]
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    files = Files(path=str(tmp_path), form="caption")
    refused = file_batches(files, processors["paligemma"], PALIGEMMA)
    named = [name for i in range(2) for name in refused.batch(0, i, 5).get("damaged", [])]
    assert len(named) == 1
    assert "captions.jsonl:4" in named[0]
    assert f"has {context + 1:,} tokens, the context holds {context:,}" in named[0]
    allowed = file_batches(replace(files, truncate=True), processors["paligemma"], PALIGEMMA)
    batches = [allowed.batch(0, i, 5) for i in range(2)]
    assert not any("damaged" in batch for batch in batches)
    assert max(batch["targets"].shape[1] for batch in batches) == context


def test_pairs_and_plain_texts_share_a_batch(folder: Path, processors: dict[str, Any], tmp_path: Path) -> None:
    texts = [f"{'red ' * (i % 5 + 1)}circle" for i in range(30)]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    parts = (Files(path=str(folder), form="caption"), Files(path=str(tmp_path), form="text", val_split=None))
    mixture = Mixture(parts=parts, weights=(2.0, 1.0), mix="rows")
    mixed = mixed_batches(mixture, processors["paligemma"], PALIGEMMA)
    batch = mixed.batch(0, 1, 6)
    assert batch["pixels"].shape[:2] == (6, 1)
    assert batch["image_mask"].tolist() == [[True], [False], [True], [True], [False], [True]]
    alone = [file_batches(part, processors["paligemma"], PALIGEMMA) for part in parts]
    assert torch.equal(batch["pixels"][batch["image_mask"]], alone[0].batch(0, 1, 4)["pixels"])  # its own next four
    assert mixed.texts(0, 1, 6)[1::3] == alone[1].texts(0, 1, 2)
    parted = torch.cat([mixed.batch(0, 1, 6, share=(i, 2))["image_mask"] for i in range(2)])
    assert torch.equal(parted, batch["image_mask"])
    assert mixed.batch(0, 0, 3, "val")["image_mask"].sum() == 2
    with pytest.raises(UsageError, match=r"mix=rows mixes caption, ask, detect, text in one batch; .* caption, pairs"):
        wrong = replace(mixture, parts=(parts[0], replace(parts[0], form="pairs")))
        mixed_batches(wrong, processors["paligemma"], PALIGEMMA)


def test_a_damaged_text_gives_way_to_another_text(folder: Path, processors: dict[str, Any], tmp_path: Path) -> None:
    lines = [json.dumps({"text": "" if i % 3 == 0 else "a red circle"}) for i in range(40)]
    (tmp_path / "texts.jsonl").write_text("\n".join(lines) + "\n")
    parts = (Files(path=str(folder), form="caption"), Files(path=str(tmp_path), form="text", val_split=None))
    mixed = mixed_batches(Mixture(parts=parts, weights=(1.0, 1.0), mix="rows"), processors["paligemma"], PALIGEMMA)
    batch = mixed.batch(0, 0, 16)
    assert batch["image_mask"][:, 0].tolist() == [True, False] * 8
    assert batch["damaged"]
    assert all("texts.jsonl" in line for line in batch["damaged"])


def test_a_caption_is_cut_and_gone_on_with(folder: Path, processors: dict[str, Any]) -> None:
    template = "caption en at {at}: {text}"
    files = Files(path=str(folder), form="split caption", prompt=template)
    source = file_batches(files, processors["paligemma"], PALIGEMMA).source
    record = source.read(0, 0, "train", 0)
    seen = set()
    for seed in range(40):
        (row,) = source.make(record, np.random.default_rng(seed)).texts
        assert row.prompt is not None
        at, _, text = row.prompt.removeprefix("caption en at ").partition(":")
        assert len(text.split()) == int(at)
        assert " ".join([*text.split(), *row.text.split()]) in record.captions
        assert row.text  # the last word is always left to write
        seen.add(int(at))
    assert {0, 1, 2} <= seen  # nothing before it: a caption as ever


def test_questions_are_asked_back_and_objects_listed(folder: Path, processors: dict[str, Any]) -> None:
    def made(form: Any, prompt: str) -> tuple[Any, Any]:
        files = Files(path=str(folder), form=form, prompt=prompt)
        source = file_batches(files, processors["paligemma"], PALIGEMMA).source
        record = source.read(0, 0, "train", 0)
        return record, source.make(record, np.random.default_rng(0)).texts[0]

    record, row = made("ask back", "a question for {answer}:")
    (question,) = record.questions
    assert row == (f"a question for {question.answers[0]}:", question.text)
    record, row = made("objects", "list the objects present")
    assert row == ("list the objects present", ", ".join(sorted({thing.label for thing in record.things})))
