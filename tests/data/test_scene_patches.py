"""Owners of patches against the masks, pixel by pixel."""

from rebus.data.scene_patches import LEAST_SHARE, patch_owners
from rebus.data.scene_tasks import SceneTasks
from rebus.data.scenes import COLOURS, FILLS, SHAPES, SIZES, scene
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
                assert owners["names"][patch].tolist() == names
                assert (owners["boxes"][patch] * 96).tolist() == list(o.box)


def test_the_first_batches_hold_pictures_alone() -> None:
    data = SceneTasks(encoder_first=2).open(writer())
    first, later = data.batch(0, 1, 3), data.batch(0, 2, 3)
    assert set(first) == {"pixels", "names", "present", "boxes"}
    assert (len(first["pixels"]), len(later["pixels"]), len(later["tokens"])) == (6, 3, 6)
    assert "tokens" in data.batch(0, 0, 3, "val")
