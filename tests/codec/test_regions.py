import base64

import h5py
import numpy as np
import pytest
import torch

from rebus.codec.processor import Processor
from rebus.codec.region_files import RegionFiles, save_regions
from rebus.codec.regions import ImageRegions, regions_batch
from rebus.core.errors import BadImage, BadRegions, MissingFile

RNG = np.random.default_rng(0)


def regions(number=3, width=5, size=(40, 30), key="a"):
    boxes = np.array([[4 * i, 2 * i, 4 * i + 8, 2 * i + 6] for i in range(number)], np.float32)
    return ImageRegions(RNG.normal(size=(number, width)).astype(np.float32), boxes, size, key)


def tsv(folder, rows, columns=6):
    def line(name, r):
        boxes, features = (
            base64.b64encode(value.astype(np.float32).tobytes()).decode() for value in (r.boxes, r.features)
        )
        wide, high = r.size
        if columns == 6:
            return f"{name}\t{wide}\t{high}\t{len(r.features)}\t{boxes}\t{features}"
        return f"{name}\t{high}\t{wide}\t-\t-\t-\t-\t{len(r.features)}\t{boxes}\t{features}"

    (folder / "all.tsv").write_text("\n".join(line(name, r) for name, r in rows) + "\n")
    return folder / "all.tsv"


def hdf5(folder, rows):
    with h5py.File(folder / "all.hdf5", "w") as file:
        for name, r in rows:
            file[f"{name}_features"], file[f"{name}_boxes"], file[f"{name}_size"] = r.features, r.boxes, r.size
    return folder / "all.hdf5"


def bottom_up(folder, rows):
    for name, r in rows:
        padded = np.concatenate([r.features, np.zeros((2, r.features.shape[1]), np.float32)])
        boxes = np.concatenate([r.boxes, np.zeros((2, 4), np.float32)])
        wide, high = r.size
        count = len(r.features)
        np.savez(
            folder / f"{name}.npz", x=padded, bbox=boxes, num_bbox=count, image_w=wide, image_h=high, image_id=name
        )
    return folder


FORMS = {
    "npz": lambda folder, rows: save_regions(folder / "all.npz", dict(rows)),
    "hdf5": hdf5,
    "tsv": tsv,
    "lxmert": lambda folder, rows: tsv(folder, rows, columns=10),
    "folder": bottom_up,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_layout_gives_back_what_was_written(form, tmp_path):
    rows = [("391895", regions(3)), ("12", regions(2, size=(30, 40)))]
    files = RegionFiles(FORMS[form](tmp_path, rows))
    assert set(files.ids) == {"391895", "12"}
    assert len(files) == 2
    assert "12" in files
    for name, wanted in rows:
        found = files[name]
        np.testing.assert_array_equal(found.features, wanted.features)
        np.testing.assert_array_equal(found.boxes, wanted.boxes)
        assert found.size == wanted.size
    found = files.of("images/COCO_val2014_000000391895.jpg", (40, 30))  # COCO's names
    np.testing.assert_array_equal(found.features, rows[0][1].features)


@pytest.mark.parametrize("form", FORMS)
def test_an_image_without_features_is_named_and_nothing_is_made_up(form, tmp_path):
    files = RegionFiles(FORMS[form](tmp_path, [("391895", regions())]))
    with pytest.raises(BadRegions, match=r"no regions of image 391896 among 1; did you mean 391895\?"):
        files["391896"]
    with pytest.raises(BadRegions, match="no regions of image cat"):
        files.of("cat.jpg")


@pytest.mark.parametrize("form", FORMS)
def test_values_that_are_not_finite_are_named(form, tmp_path):
    bad = regions()
    bad.features[1, 2], bad.features[0, 0] = np.nan, np.inf
    files = RegionFiles(FORMS[form](tmp_path, [("7", bad), ("8", regions())]))
    with pytest.raises(BadRegions, match=r"7.*2 of 15 numbers of the features are not finite"):
        files["7"]
    assert len(files["8"].features) == 3


def test_regions_of_another_image_are_refused(tmp_path):
    files = RegionFiles(tsv(tmp_path, [("1", regions(size=(40, 30))), ("2", regions(size=(30, 40)))]))
    assert files.of("1.jpg", (40, 30)).size == (40, 30)
    with pytest.raises(
        BadRegions, match=r"regions of an image of 30 × 40 pixels; 2.jpg has 40 × 30: they belong to ano"
    ):
        files.of("2.jpg", (40, 30))
    np.savez(tmp_path / "5.npz", x=np.ones((2, 3)), image_id="6")
    with pytest.raises(BadRegions, match="says that these are regions of image 6: ids were swapped"):
        RegionFiles(tmp_path / "5.npz")["5"]
    with pytest.raises(BadRegions, match="a box leaves the image of 9 × 9 pixels: they are not of the same image"):
        ImageRegions(np.ones((1, 3)), np.array([[0, 0, 20, 5]]), (9, 9))
    with pytest.raises(BadRegions, match="line 2: image 1 is a duplicate"):
        RegionFiles(tsv(tmp_path, [("1", regions()), ("1", regions())]))


@pytest.mark.parametrize(
    ("features", "boxes", "message"),
    [
        (np.zeros((0, 4)), None, r"features are \(regions, width\), at least one; got \(0, 4\)"),
        (np.zeros(4), None, "features are"),
        (np.array([["a"]]), None, "not a table of numbers"),
        (np.zeros((2, 4)), np.zeros((3, 4)), r"2 regions need boxes \(2, 4\); got \(3, 4\)"),
        (np.zeros((1, 4)), np.array([[5, 0, 1, 2]]), "in one of them right < left or bottom < top"),
        (np.zeros((1, 4)), np.array([[np.nan, 0, 1, 2]]), "1 of 4 numbers of the boxes are not finite"),
    ],
)
def test_what_is_no_table_of_regions_is_refused(features, boxes, message):
    with pytest.raises(BadRegions, match=message):
        ImageRegions(features, boxes)


def test_a_file_of_one_image_is_named_after_it(tmp_path):
    np.save(tmp_path / "COCO_train2014_000000000009.npy", np.ones((4, 3), np.float32))
    files = RegionFiles(tmp_path / "COCO_train2014_000000000009.npy")
    assert files.of("COCO_train2014_000000000009.jpg").features.shape == (4, 3)
    assert RegionFiles(tmp_path).ids == files.ids
    np.savez(tmp_path / "COCO_train2014_000000000009.npz", x=np.ones((4, 3), np.float32))
    with pytest.raises(BadRegions, match="two files are named COCO_train2014_000000000009"):
        RegionFiles(tmp_path)


def test_damaged_files_are_refused_and_objects_are_not_loaded(tmp_path):
    with pytest.raises(MissingFile, match="no such file or folder of region features"):
        RegionFiles(tmp_path / "none.npz")
    for name in ("a.npz", "a.hdf5", "a.tsv", "a.txt"):
        (tmp_path / name).write_bytes(b"not one of these\n")
    for name, message in (
        ("a.npz", "not a readable file of features"),
        ("a.hdf5", "not a readable HDF5 file"),
        ("a.txt", r"are \.npz, \.npy, \.hdf5, \.h5 or \.tsv files"),
    ):
        with pytest.raises(BadRegions, match=message):
            RegionFiles(tmp_path / name)
    with pytest.raises(BadRegions, match="line 1: 1 columns; expects 6 or 10"):
        RegionFiles(tmp_path / "a.tsv")["not one of these"]
    np.savez(tmp_path / "code.npz", x=np.array([print], dtype=object))
    with pytest.raises(BadRegions, match=r"not a readable file of features \(Object arrays cannot be loaded"):
        RegionFiles(tmp_path / "code.npz")["code"]
    with h5py.File(tmp_path / "link.hdf5", "w") as file:
        file["1_features"] = h5py.ExternalLink("/etc/other.hdf5", "x")
    with pytest.raises(BadRegions, match="1_features is a link, not data"):
        RegionFiles(tmp_path / "link.hdf5")["1"]


def test_a_batch_holds_rows_of_different_length_and_images():
    one, two, three = regions(3), regions(2), regions(1)
    batch = regions_batch([[one], [two, three]])
    assert batch["regions"].shape == (2, 3, 5)
    assert batch["region_mask"].all()
    assert batch["region_types"].tolist() == [[0, 0, 0], [0, 0, 1]]
    torch.testing.assert_close(batch["boxes"][0, 1], torch.tensor([4 / 40, 2 / 30, 12 / 40, 8 / 30]))
    assert "boxes" not in regions_batch([[one], [ImageRegions(two.features)]])
    assert regions_batch([[one], [two]])["region_mask"].tolist() == [[True] * 3, [True, True, False]]
    with pytest.raises(BadRegions, match=r"different widths cannot form a batch: 5 \(a\), 6 \(b\)"):
        regions_batch([[one], [regions(width=6, key="b")]])


def test_a_processor_takes_them_as_images():
    batch = Processor(None, None)(images=[regions(3), regions(2)])
    assert set(batch) == {"regions", "region_mask", "boxes"}
    with pytest.raises(BadImage, match="images and region features are mixed"):
        Processor(None, None)(images=[regions(), np.zeros((3, 3, 3), np.uint8)])
    with pytest.raises(BadRegions, match="takes region features in place of images"):
        Processor(None, None, reads_regions=True)(images=[np.zeros((3, 3, 3), np.uint8)])
