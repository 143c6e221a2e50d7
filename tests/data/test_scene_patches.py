"""Owners of patches against the masks, pixel by pixel."""

from rebus.core.labels import IGNORED
from rebus.data.scene_patches import LEAST_SHARE, patch_owners
from rebus.data.scene_tasks import SceneTasks
from rebus.data.scenes import COLOURS, FILLS, SHAPES, SIZES, scene
from rebus.data.scenes.writing import CHARACTERS
from tests.data.test_scene_batches import writer


def test_each_patch_names_the_object_that_covers_most_of_it() -> None:
    drawn = [scene(i, "val") for i in range(8)]
    for s in drawn:
        owners = patch_owners(s, 12)
        for patch in range(64):
            row, column = divmod(patch, 8)
            window = (slice(12 * row, 12 * row + 12), slice(12 * column, 12 * column + 12))
            covered = [int(o.mask[window].sum()) for o in s.objects]
            assert bool(owners["present"][patch]) == (max(covered) >= LEAST_SHARE * 144)
            if owners["present"][patch]:
                rank = covered.index(max(covered))
                o = s.objects[rank]
                names = [SHAPES.index(o.shape), COLOURS.index(o.colour), SIZES.index(o.size), FILLS.index(o.fill), rank]
                assert owners["names"][patch].tolist() == [*names, IGNORED]
                assert (owners["boxes"][patch] * 96).tolist() == list(o.box)


def test_patches_of_a_writing_name_the_character_that_covers_most_of_them() -> None:
    for s in (scene(i, "val", size=192) for i in range(6)):
        assert s.writing is not None
        plain, owners = patch_owners(s, 12), patch_owners(s, 12, s.writing)
        left, top, right, bottom = s.writing.box
        read = [i for i, name in enumerate(owners["names"][:, 5]) if name != IGNORED]
        assert {i for i in range(256) if (owners["names"][i] != plain["names"][i]).any()} == set(read)
        assert owners["present"][read].any()
        in_order = sorted(read, key=lambda i: i % 16)
        said = [CHARACTERS[owners["names"][i, 5]] for i in in_order if owners["present"][i]]
        assert "".join(dict.fromkeys(said)) == "".join(dict.fromkeys(s.writing.text.upper()))
        for i in read:
            assert owners["names"][i, :5].tolist() == [IGNORED] * 5
            x0, y0, x1, y1 = owners["boxes"][i] * 192
            assert left < x0 < x1 < right
            assert top < y0 < y1 < bottom
            row, column = divmod(i, 16)
            assert x0 < 12 * column + 12
            assert x1 > 12 * column
            assert y0 < 12 * row + 12
            assert y1 > 12 * row


def test_the_first_batches_hold_pictures_alone() -> None:
    data = SceneTasks(encoder_first=2).open(writer())
    first, later = data.batch(0, 1, 3), data.batch(0, 2, 3)
    assert set(first) == {"pixels", "names", "present", "boxes"}
    assert (len(first["pixels"]), len(later["pixels"]), len(later["tokens"])) == (6, 3, 6)
    assert "tokens" in data.batch(0, 0, 3, "val")
