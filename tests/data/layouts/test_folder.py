"""Folders of images with captions, or with labels as sub-folders."""

import json
import pickle
from pathlib import Path

import pytest

from rebus.core.errors import MissingFile, RebusError, UsageError
from rebus.data.held_out import open_parts
from rebus.data.inspecting import inspect
from rebus.data.layouts import folder, open_layout
from rebus.data.reading.tables import BadTable
from rebus.data.record import XYXY, BadRecord, LeftOut, Question, Reader, Record
from tests.data.layouts.timing import quickest


def pictures(at: Path, *names: str) -> Path:
    for name in names:
        (at / name).parent.mkdir(parents=True, exist_ok=True)
        (at / name).write_bytes(b"\xff\xd8\xff")
    return at


def everything(reader: Reader) -> list[Record]:
    reader = pickle.loads(pickle.dumps(reader))
    return [reader.read(block, row) for block, size in enumerate(reader.sizes) for row in range(size)]


@pytest.mark.parametrize("column", ["file", "file_name", "filename", "image", "path"])
@pytest.mark.parametrize("name, separator", [("captions.csv", ","), ("metadata.tsv", "\t")])
def test_a_table_of_text(tmp_path: Path, name: str, separator: str, column: str) -> None:
    pictures(tmp_path, "a.jpg", "in/b.jpg")
    lines = [[column, "caption", "title", "by"], ["a.jpg", "One", "Two", "me"], ["in/b.jpg", "", "Three", ""]]
    (tmp_path / name).write_text("\n".join(separator.join(line) for line in lines), encoding="utf-8-sig")
    first, second = everything(open_layout(tmp_path))
    assert (first.key, first.image, first.captions) == (f"{name}:2", tmp_path / "a.jpg", ("One", "Two"))
    assert first.facts == {"by": "me"}
    assert (second.image, second.captions) == (tmp_path / "in" / "b.jpg", ("Three",))


def test_lists_in_cells(tmp_path: Path) -> None:
    pictures(tmp_path, "a.jpg", "b.jpg")
    boxes = json.dumps([{"label": "dog", "xyxy": [1, 2, 3, 4]}]).replace('"', '""')
    (tmp_path / "captions.csv").write_text(f'file,captions,boxes\na.jpg,"[""one"", ""two""]","{boxes}"\nb.jpg,three,\n')
    first, second = everything(open_layout(tmp_path))
    assert first.captions == ("one", "two")
    assert [(thing.label, thing.box) for thing in first.things] == [("dog", (1.0, 2.0, 3.0, 4.0))]
    assert (second.captions, second.things) == (("three",), ())


ROWS = [
    {
        "file": "a.jpg",
        "captions": ["one", "two", "one", " "],
        "label": 7,
        "split": "train",
        "width": 640,
        "boxes": [
            {
                "category": "cat",
                "bbox_xywh": [10, 20, 5.5, 6],
                "iscrowd": 1,
                "area": 33,
                "id": 9,
                "segmentation": [[1]],
            },
            {"label": "ant", "xyxy": [0, 0, 1, 1]},
        ],
    },
    {"file": "b.jpg", "question": "How many?", "answer": "2", "answers": ["two"], "qid": 5, "type": "number"},
    {"file": "c.jpg", "caption": "x", "boxes": None, "split": "validation"},
]


@pytest.mark.parametrize("name", ["captions.jsonl", "metadata.jsonl", "captions.json", "qa.jsonl", "other.jsonl"])
def test_a_table_of_json(tmp_path: Path, name: str) -> None:
    pictures(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    text = json.dumps(ROWS) if name.endswith("json") else "\n".join(json.dumps(row) for row in ROWS)
    (tmp_path / name).write_text(text)
    reader = open_layout(tmp_path / name if name.startswith("other") else tmp_path)
    first, second, third = everything(reader)
    assert (first.captions, first.label) == (("one", "two", "one"), "7")
    assert first.facts == {"split": "train", "width": 640}
    cat, ant = first.things
    box: XYXY = (10.0, 20.0, 15.5, 26.0)
    assert (cat.label, cat.box, cat.crowd, cat.area, cat.id, cat.outline) == ("cat", box, True, 33.0, "9", [[1]])
    assert (ant.label, ant.crowd, ant.area, ant.id) == ("ant", False, None, "")
    assert second.questions == (Question(text="How many?", answers=("2", "two"), id="5", kind="number"),)
    assert second.facts == {}
    assert third.things == ()
    assert third.facts == {"boxes": None, "split": "validation"}  # nobody looked, which is not "nothing there"
    assert list(reader.labels) == ["7", "ant", "cat"]


def test_a_row_for_each_caption_is_one_image_with_several(tmp_path: Path) -> None:
    pictures(tmp_path, "a.jpg", "b.jpg")
    rows = ["a.jpg,one,1,train", "b.jpg,three,1,val", "a.jpg,two,2,train", "a.jpg,one,2,train", "a.jpg,late,3,val"]
    (tmp_path / "captions.csv").write_text("image,caption,number,split\n" + "\n".join(rows))
    first, second = everything(open_layout(tmp_path))
    assert (first.key, first.captions) == ("captions.csv:2", ("one", "two", "one", "late"))
    assert first.facts == {"number": ["1", "2", "2", "3"], "split": ["train", "train", "train", "val"]}
    assert (second.key, second.captions) == ("captions.csv:3", ("three",))
    val = everything(open_layout(tmp_path, split="val"))
    assert [(record.key, record.captions) for record in val] == [
        ("captions.csv:3", ("three",)),
        ("captions.csv:6", ("late",)),
    ]


def test_rows_of_questions_things_and_labels(tmp_path: Path) -> None:
    """What several rows repeat counts once; an answer a row are the answers to one question."""
    pictures(tmp_path, "a.jpg")
    box = {"label": "dog", "xyxy": [1, 2, 3, 4], "outline": [[1, 2, 3, 4, 5, 6]]}
    rows = [
        {"file": "a.jpg", "caption": "c", "question": "What?", "answer": "cat", "boxes": [box, box]},
        {"file": "a.jpg", "caption": "c", "question": "What?", "answer": "cat", "boxes": [box, box]},
        {"file": "a.jpg", "caption": "c", "question": "Where?", "answer": "here", "boxes": None},
        {"file": "a.jpg", "label": "pet"},
    ]
    (tmp_path / "captions.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    asked, labelled = everything(open_layout(tmp_path))
    assert asked.captions == ("c",)
    assert asked.questions == (
        Question(text="What?", answers=("cat", "cat")),
        Question(text="Where?", answers=("here",)),
    )
    assert len(asked.things) == 2
    assert asked.facts == {}
    assert labelled.label == "pet"  # another label of the same image is another record


def test_splits_by_column(tmp_path: Path) -> None:
    pictures(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    (tmp_path / "captions.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS))
    assert [record.key for record in everything(open_layout(tmp_path, split="val"))] == ["captions.jsonl:3"]
    with pytest.raises(UsageError, match='no rows of the split "test"; it has train, validation'):
        open_layout(tmp_path, split="test")


DAMAGED = [
    ('{"file": "a.jpg", "caption": ', "not JSON"),
    ('{"file": "b.jpg", "caption": "x"}', r"b\.jpg is missing"),
    ('{"file": "https://x.org/a.jpg", "caption": "x"}', "a URL; download the images first"),
    ('{"file": 3, "caption": "x"}', "must be a name; got 3"),
    ('{"file": "a\\u0000.jpg", "caption": "x"}', "is not the name of a file"),
    (json.dumps({"file": "a" * 5_000, "caption": "x"}), "is missing"),
    ('{"caption": "x"}', "names no image; its columns are caption"),
    ('{"file": "a.jpg", "caption": 3}', "caption must be a text or a list of texts; got int"),
    ('{"file": "a.jpg", "captions": ["x", null]}', "got a list with null"),
    ('{"file": "a.jpg", "label": 1.5}', "label must be a text or a whole number; got float"),
    ('{"file": "a.jpg", "question": ["x"]}', "question must be a text; got list"),
    ('{"file": "a.jpg", "boxes": {}}', "boxes must be a list; got dict"),
    ('{"file": "a.jpg", "boxes": [3]}', r"boxes\[0\] must be an object"),
    ('{"file": "a.jpg", "boxes": [{"xyxy": [1, 2, 3, 4]}]}', r"boxes\[0\] has no label"),
    ('{"file": "a.jpg", "boxes": [{"label": "a", "box": [1]}]}', r"no xyxy or bbox_xywh, in pixels; it has label, box"),
    ('{"file": "a.jpg", "boxes": [{"label": "a", "xyxy": [1, 2, 3]}]}', "4 finite numbers"),
    ('{"file": "a.jpg", "boxes": [{"label": "a", "xyxy": [1, 2, NaN, 4]}]}', "4 finite numbers"),
    (f'{{"file": "a.jpg", "boxes": [{{"label": "a", "xyxy": [1, 2, 3, 1{"0" * 400}]}}]}}', "4 finite numbers"),
    ('{"file": "a.jpg", "boxes": [{"label": "a", "xyxy": [3, 2, 1, 4]}]}', "ends before it begins"),
    ('{"file": "a.jpg", "boxes": [{"label": "a", "xyxy": [1, 2, 3, 4], "area": "big"}]}', "1 finite number;"),
]


@pytest.mark.parametrize("line, says", DAMAGED)
def test_a_damaged_row_is_named_and_the_others_are_read(tmp_path: Path, line: str, says: str) -> None:
    pictures(tmp_path, "a.jpg", "0.jpg", "2.jpg")
    good = '{{"file": "{}.jpg", "caption": "x"}}'
    (tmp_path / "captions.jsonl").write_text(f"{good.format(0)}\n{line}\n{good.format(2)}\n")
    reader = open_layout(tmp_path)
    assert list(reader.sizes) == [3]
    assert reader.read(0, 0).captions == reader.read(0, 2).captions == ("x",)
    with pytest.raises(BadRecord, match=rf"^captions\.jsonl:2: .*{says}") as caught:
        reader.read(0, 1)
    assert (caught.value.key, "\n" in str(caught.value)) == ("captions.jsonl:2", False)


@pytest.mark.parametrize("header", ["file,capton", "fil,caption", "file"])
def test_columns_that_are_not_understood(tmp_path: Path, header: str) -> None:
    (tmp_path / "captions.csv").write_text(f"{header}\n{header}\n")
    wanted = f"its columns are {', '.join(header.split(','))}; wanted an image's file .file, .* captions, text, title"
    with pytest.raises(BadTable, match=wanted):
        open_layout(tmp_path)


def test_other_files_called_labels_are_no_table(tmp_path: Path) -> None:
    pictures(tmp_path, "cat/a.jpg")
    (tmp_path / "labels.json").write_text('{"cat": 0}')
    (tmp_path / "labels.csv").write_text("class,number\ncat,0\n")
    assert [record.label for record in everything(open_layout(tmp_path))] == ["cat"]


def test_folders_are_labels(tmp_path: Path) -> None:
    pictures(
        tmp_path, "dog/2.PNG", "dog/10.jpg", "cat/deep/1.jpeg", "top.webp", "cat/note.txt", ".x/1.jpg", "cat/.1.jpg"
    )
    (tmp_path / "empty").mkdir()
    (tmp_path / "cat" / "round").symlink_to(tmp_path / "cat", target_is_directory=True)
    reader = open_layout(tmp_path)
    records = everything(reader)
    assert [(record.key, record.label) for record in records] == [
        ("cat/deep/1.jpeg", "cat"),
        ("dog/10.jpg", "dog"),
        ("dog/2.PNG", "dog"),
        ("top.webp", None),
    ]
    assert list(reader.labels) == ["cat", "dog"]
    assert records[0].image == tmp_path / "cat/deep/1.jpeg"
    (tmp_path / "dog" / "10.jpg").unlink()
    with pytest.raises(BadRecord, match=r"dog/10\.jpg: dog/10\.jpg is missing"):
        reader.read(0, 1)


def test_split_folders(tmp_path: Path) -> None:
    pictures(tmp_path, "train/cat/1.jpg", "train/dog/1.jpg", "val/cat/2.jpg")
    assert [(r.key, r.label) for r in everything(open_layout(tmp_path, split="validation"))] == [
        ("val/cat/2.jpg", "cat")
    ]
    assert len(everything(open_layout(tmp_path))) == 3
    assert [r.label for r in everything(open_layout(tmp_path / "train", split="train"))] == ["cat", "dog"]
    with pytest.raises(UsageError, match='no split "test"; it has train, val'):
        open_layout(tmp_path, split="test")
    pictures(tmp_path / "other", "car/1.jpg", "train/1.jpg")
    assert [r.label for r in everything(open_layout(tmp_path / "other"))] == ["car", "train"]  # a train on rails


def test_a_table_in_each_split_folder(tmp_path: Path) -> None:
    for split in ("train", "test"):
        pictures(tmp_path, f"{split}/1.jpg")
        (tmp_path / split / "metadata.csv").write_text(f"file_name,text\n1.jpg,{split}\n")
    assert [r.captions for r in everything(open_layout(tmp_path))] == [("test",), ("train",)]
    assert [r.captions for r in everything(open_layout(tmp_path, split="train"))] == [("train",)]
    with pytest.raises(UsageError, match='no split "val"; it has test, train'):
        open_layout(tmp_path, split="val")


def test_nothing_to_read(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("x")
    assert not folder.recognises(tmp_path)
    with pytest.raises(MissingFile, match="no images here"):
        open_layout(tmp_path, "folder")


def test_large_tables_are_read_in_blocks_and_fast(tmp_path: Path) -> None:
    pictures(tmp_path, "a.jpg")
    rows = 20_000
    (tmp_path / "captions.jsonl").write_text(
        "".join(
            f'{{"file": "a.jpg", "label": {n}, "caption": "{n}", "split": "{"train" if n % 2 else "val"}"}}\n'
            for n in range(rows)
        )
    )
    reader = open_layout(tmp_path)
    assert sum(reader.sizes) == rows
    assert len(pickle.dumps(reader)) < 2_000
    assert reader.read(2, 100).captions == (str(2 * folder.BLOCK + 100),)
    half = open_layout(tmp_path, split="train")
    assert half.read(1, 3).captions == (str(2 * (folder.BLOCK + 3) + 1),)
    with pytest.raises(IndexError):
        half.read(1, rows)
    assert quickest(lambda: [reader.read(n % 2, n) for n in range(1_000)]) < 1


@pytest.mark.parametrize(
    "name, split, count",
    [
        ("flickr8k_1k/captions.jsonl", "val", 100),
        ("flickr8k_1k", None, 800),
        ("coco_mini/annotations.jsonl", None, 191),
        ("coco_qa_mini/qa.jsonl", None, 50),
        ("photos_permissive/labels.json", None, 17),
    ],
)
def test_photos(shared: Path, name: str, split: str | None, count: int) -> None:
    reader = open_layout(shared / name, "folder", split)
    records = everything(reader)
    assert len(records) == count
    assert all(record.captions or record.questions for record in records)
    if "flickr" in name:
        assert all(len(record.captions) >= 4 for record in records)
    if "coco_mini" in name:
        assert sum(len(record.things) for record in records) == 1027
        assert sum("boxes" in record.facts for record in records) == 64
        assert "refrigerator" in reader.labels


def test_captions_beside_each_image(tmp_path: Path) -> None:
    """As img2dataset's output format "files" writes them."""
    pictures(tmp_path, "00000/000000000.jpg", "00000/000000001.jpg", "00001/000010000.jpg")
    (tmp_path / "00000" / "000000000.txt").write_text("a cat")
    (tmp_path / "00000" / "000000000.json").write_text(json.dumps({"caption": "a cat", "url": "http://x/1"}))
    (tmp_path / "00000" / "000000001.json").write_text(json.dumps({"caption": "a dog", "url": "http://x/2"}))
    (tmp_path / "00001" / "000010000.txt").write_text("a cow\n\na grey cow\n")
    reader = open_layout(tmp_path)
    records = everything(reader)
    assert [record.captions for record in records] == [("a cat",), ("a dog",), ("a cow", "a grey cow")]
    assert [record.label for record in records] == [None] * 3
    assert records[1].facts["url"] == "http://x/2"
    assert not reader.labels
    assert not reader.unread


def test_a_table_of_any_name_and_images_in_a_folder(tmp_path: Path) -> None:
    pictures(tmp_path, "images/a.jpg")
    (tmp_path / "questions.csv").write_text("image,question,answer\na.jpg,What?,A cat\n")
    (record,) = everything(open_layout(tmp_path))
    assert record.image == tmp_path / "images" / "a.jpg"
    assert record.questions[0].answers == ("A cat",)


def test_open_clips_columns_separated_by_tabs(tmp_path: Path) -> None:
    pictures(tmp_path, "a.jpg")
    (tmp_path / "train.tsv").write_text("filepath\ttitle\na.jpg\ta cat\n")
    assert [record.captions for record in everything(open_layout(tmp_path))] == [("a cat",)]


def test_kaggles_flickr8k(tmp_path: Path) -> None:
    pictures(tmp_path, "Images/1.jpg")
    (tmp_path / "captions.txt").write_text('image,caption\n1.jpg,"A child , climbing ."\n')
    (record,) = everything(open_layout(tmp_path))
    assert (record.image, record.captions) == (tmp_path / "Images" / "1.jpg", ("A child , climbing .",))


def test_tables_that_are_not_understood_are_named_and_stop_a_training(tmp_path: Path) -> None:
    pictures(tmp_path, "images/a.jpg", "images/b.jpg")
    (tmp_path / "notes.csv").write_text("picture,says\na.jpg,a cat\n")
    (tmp_path / "other.json").write_text("{}")
    reader = open_layout(tmp_path)
    assert [line.split(": ")[0] for line in inspect(reader).faults] == [
        str(tmp_path / "notes.csv"),
        str(tmp_path / "other.json"),
    ]
    assert "its columns are picture, says; wanted an image's file" in reader.unread[0]
    with pytest.raises(UsageError, match=r"notes\.csv: not read: .* not used as labels while there is a table"):
        open_parts(str(tmp_path), "auto", "train", "val")


def test_another_table_beside_the_one_read_is_named(tmp_path: Path) -> None:
    pictures(tmp_path, "a.jpg")
    for name in ("captions.csv", "more.csv"):
        (tmp_path / name).write_text("file,caption\na.jpg,a cat\n")
    assert open_layout(tmp_path).unread == (
        f"{tmp_path / 'more.csv'}: not read: another table is read; give this one as the path",
    )


def written(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows) if path.suffix == ".json" else "\n".join(map(json.dumps, rows)))
    return path


def test_paligemma_s_prefix_and_suffix(tmp_path: Path) -> None:
    """As Roboflow exports them, a table a split; the prefix is the whole prompt."""
    pictures(tmp_path, "a.jpg", "b.jpg")
    detect = {"image": "a.jpg", "prefix": "detect cat", "suffix": "<loc0001><loc0002><loc0003><loc0004> cat"}
    written(tmp_path / "_annotations.train.jsonl", [detect, {"image": "a.jpg", "suffix": "a cat"}])
    written(tmp_path / "_annotations.valid.jsonl", [{"image": "b.jpg", "prefix": "caption en", "suffix": "a dog"}])
    (record,) = everything(open_layout(tmp_path, split="train"))
    assert record.questions == (
        Question(text="detect cat", answers=(detect["suffix"],), is_prompt=True),
        Question(text="", answers=("a cat",), is_prompt=True),
    )
    assert record.facts == {}
    (record,) = everything(open_layout(tmp_path, split="val"))
    assert (record.image, record.questions[0].answers) == (tmp_path / "b.jpg", ("a dog",))
    assert len(everything(open_layout(tmp_path))) == 2
    with pytest.raises(UsageError, match='no split "test"; it has train, valid'):
        open_layout(tmp_path, split="test")


def test_llava_s_conversations(tmp_path: Path) -> None:
    pictures(tmp_path, "coco/a.jpg")
    turns = [("human", "<image>\nWhat is it?"), ("gpt", "A cat."), ("human", "Its colour?"), ("gpt", "Grey.")]
    said = [{"from": who, "value": text} for who, text in turns]
    rows = [
        {"id": "1", "image": "coco/a.jpg", "conversations": said},
        {"id": "2", "conversations": said[2:]},
        {"id": "3", "image": "coco/a.jpg", "conversations": said[1:2]},
    ]
    reader = open_layout(written(tmp_path / "llava_v1_5_mix.json", rows))
    with pytest.raises(BadRecord, match="turn 0 of its conversation answers nothing"):
        reader.read(0, 0)  # rows 1 and 3, about the same image
    reader = open_layout(written(tmp_path / "llava.json", rows[:2]))
    record = reader.read(0, 0)
    assert [(q.text, q.answers) for q in record.questions] == [
        ("What is it?", ("A cat.",)),
        ("Its colour?", ("Grey.",)),
    ]
    assert record.facts == {"id": "1"}
    with pytest.raises(LeftOut, match="names no image"):  # a text of LLaVA's mixture, no damage
        reader.read(0, 1)


def test_vizwiz(tmp_path: Path) -> None:
    pictures(tmp_path, "train/VizWiz_train_0.jpg", "test/VizWiz_test_0.jpg")
    answers = [{"answer_confidence": "yes", "answer": text} for text in ("basil leaves", "basil")]
    row = {"image": "VizWiz_train_0.jpg", "question": "What?", "answers": answers, "answer_type": "other"}
    written(tmp_path / "Annotations" / "train.json", [{**row, "answerable": 1}])
    written(tmp_path / "Annotations" / "test.json", [{"image": "VizWiz_test_0.jpg", "question": "Which?"}])
    (record,) = everything(open_layout(tmp_path, split="train"))
    assert record.image == tmp_path / "train" / "VizWiz_train_0.jpg"
    assert record.questions == (Question(text="What?", answers=("basil leaves", "basil"), kind="other"),)
    assert record.facts == {"answerable": 1}
    (record,) = everything(open_layout(tmp_path, split="test"))
    assert record.questions == (Question(text="Which?", answers=()),)


@pytest.mark.parametrize(
    "name, lines, reason",
    [
        ("laion.csv", ["URL,TEXT", "https://a/1.jpg,a cat"], "its column URL has URLs"),
        ("Train_GCC-training.tsv", ["a cat\thttps://a/1.jpg", "b\thttps://a/2.jpg"], "its first line names no columns"),
    ],
)
def test_tables_of_web_addresses_name_the_command(tmp_path: Path, name: str, lines: list[str], reason: str) -> None:
    (tmp_path / name).write_text("\n".join(lines))
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(RebusError, match=rf"{name}: .*{reason}.*rebus data download .*{name} --out DIR"):
            open_layout(path)
    pictures(tmp_path, "cat/a.jpg")
    with pytest.raises(UsageError, match=rf"{reason}.*not used as labels"):
        open_parts(str(tmp_path), "auto", None, None)


def test_names_of_classes_beside_their_numbers(tmp_path: Path) -> None:
    pictures(tmp_path, "images/0.jpg", "images/1.jpg")
    rows = [{"file": f"images/{n}.jpg", "class_index": n, "name": name} for n, name in enumerate(["tench", "goldfish"])]
    written(tmp_path / "labels.json", rows)
    (tmp_path / "class_names.json").write_text('["tench", "goldfish"]')
    reader = open_layout(tmp_path)
    assert [record.label for record in everything(reader)] == ["tench", "goldfish"]
    assert list(reader.labels) == ["goldfish", "tench"]
    assert open_parts(str(tmp_path), "auto", None, None)


def test_questions_csv_beside_images_and_objects_of_imagefolder(tmp_path: Path) -> None:
    pictures(tmp_path / "asked", "a.jpg")
    (tmp_path / "asked" / "questions.csv").write_text("image,question,answer\na.jpg,What?,a cat\na.jpg,Where?,here\n")
    (record,) = everything(open_layout(tmp_path / "asked"))
    assert [(q.text, q.answers) for q in record.questions] == [("What?", ("a cat",)), ("Where?", ("here",))]
    pictures(tmp_path / "boxes", "a.jpg")
    objects = {"bbox": [[1, 2, 3, 4]], "categories": ["dog"]}
    written(tmp_path / "boxes" / "metadata.jsonl", [{"file_name": "a.jpg", "objects": objects}])
    (record,) = everything(open_layout(tmp_path / "boxes"))
    assert [(thing.label, thing.box) for thing in record.things] == [("dog", (1, 2, 4, 6))]
