import pytest
import torch

from rebus.backbones.vision.vit import ViT, ViTConfig

SMALL = {"width": 16, "num_layers": 2, "num_heads": 4, "mlp_width": 24, "patch_size": 4, "image_size": 14}


@torch.no_grad()
@pytest.mark.parametrize("class_token", [True, False])
def test_one_vector_a_patch_and_the_class_token_in_front(class_token):
    vit = ViT(ViTConfig(**SMALL, class_token=class_token)).eval()
    assert vit(torch.randn(2, 3, 14, 14)).shape == (2, 9 + class_token, 16)
    assert vit(torch.randn(1, 3, 8, 21)).shape == (1, 10 + class_token, 16)


@torch.no_grad()
def test_a_picture_does_not_depend_on_its_batch():
    torch.manual_seed(0)
    vit = ViT(ViTConfig(**SMALL)).eval()
    pixels = torch.randn(3, 3, 14, 14)
    torch.testing.assert_close(vit(pixels)[1:2], vit(pixels[1:2]))


@torch.no_grad()
def test_what_fills_no_patch_is_not_seen():
    vit = ViT(ViTConfig(**SMALL)).eval()
    pixels = torch.randn(1, 3, 14, 14)
    changed = pixels.clone()
    changed[..., 12:, :] = 9
    assert torch.equal(vit(pixels), vit(changed))


@torch.no_grad()
def test_flat_patches_of_the_table_s_own_grid_are_the_picture():
    torch.manual_seed(0)
    vit = ViT(ViTConfig(**{**SMALL, "image_size": 12}, flat_patches=True)).eval()
    patches = torch.randn(2, 9, 48)
    same = vit.embed_patches(patches, torch.tensor([[3, 3], [3, 3]]))
    torch.testing.assert_close(same, vit.patch(patches) + vit.positions)


@torch.no_grad()
def test_padding_of_flat_patches_changes_nothing():
    torch.manual_seed(0)
    vit = ViT(ViTConfig(**{**SMALL, "image_size": 12}, flat_patches=True)).eval()
    patches, grid = torch.randn(2, 8, 48), torch.tensor([[2, 4], [1, 5]])
    mask = torch.arange(8)[None] < torch.tensor([[8], [5]])
    whole = vit.features(vit.embed_patches(patches, grid), mask[:, None, None, :])
    alone = vit.features(vit.embed_patches(patches[1:, :5], grid[1:]))
    torch.testing.assert_close(whole[1:, :5], alone)
