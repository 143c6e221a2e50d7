from dataclasses import replace

import numpy as np
import pytest
import torch

from rebus.backbones.vision.mask_vqvae import (
    SMALL,
    MaskVQVAE,
    MaskVQVAEConfig,
    from_arrays,
    infer_config,
    load_npz,
    save_npz,
    to_arrays,
)
from rebus.core.errors import BadCheckpoint, CannotWrite, MissingFile
from rebus.objectives.codebook import CodebookLoss

TINY = MaskVQVAEConfig(
    num_codes=11, code_width=5, encoder_widths=(2, 3, 4, 6), decoder_width=6, decoder_widths=(5, 4, 3, 2)
)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return MaskVQVAE(TINY).eval()


def blobs(count: int, seed: int = 0) -> torch.Tensor:
    """Ellipses and rectangles that fill their box, as cropped masks do."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:64, 0:64] / 63 * 2 - 1
    masks = []
    for _ in range(count):
        p, turn = rng.uniform(0.7, 6), rng.uniform(0, 0.6)
        u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        masks.append(np.abs(u) ** p + np.abs(v) ** p <= 1)
    return torch.from_numpy(np.stack(masks)).float()


def test_shapes_and_codes(network):
    masks = blobs(3)
    codes = network.encode(masks)
    assert codes.shape == (3, 16)
    assert codes.dtype == torch.int64
    assert network.decode(codes).shape == (3, 64, 64)
    assert network(masks).output.equal(network(masks).output)
    assert torch.allclose(network(masks).output, network.decode(codes), atol=1e-5)


def test_a_decoder_and_its_codebook_alone_decode(network, tmp_path):
    arrays = {name: array for name, array in to_arrays(network).items() if not name.startswith("encoder.")}
    np.savez(tmp_path / "vae-oid.npz", **arrays)
    alone = load_npz(tmp_path / "vae-oid.npz")
    codes = torch.randint(0, TINY.num_codes, (3, 16))
    assert alone.decode(codes).equal(network.decode(codes))
    save_npz(alone, tmp_path / "again.npz")
    assert load_npz(tmp_path / "again.npz").decode(codes).equal(network.decode(codes))
    with pytest.raises(BadCheckpoint, match="decoder and the codebook alone; encoding masks needs all"):
        alone.encode(blobs(1))


def test_half_an_encoder_is_refused(network):
    arrays = to_arrays(network)
    del arrays["encoder.2.weight"]
    with pytest.raises(BadCheckpoint, match=r"encoder\.2\.weight"):
        from_arrays(arrays)


def test_rows_do_not_depend_on_their_batch(network):
    masks = blobs(4)
    assert network.encode(masks)[2:3].equal(network.encode(masks[2:3]))
    assert torch.allclose(
        network.decode(network.encode(masks))[2], network.decode(network.encode(masks[2:3]))[0], atol=1e-6
    )


def convolve(x, weight, bias, stride, padding):
    """The definition, in float64: x (D, Y, X)."""
    kernel = weight.shape[-1]
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    side = (x.shape[1] - kernel) // stride + 1
    out = np.zeros((len(weight), side, side))
    for i in range(side):
        for j in range(side):
            window = x[:, i * stride : i * stride + kernel, j * stride : j * stride + kernel]
            out[:, i, j] = np.einsum("oikl,ikl->o", weight, window) + bias
    return out


def spread(x, weight, bias):
    """Transposed convolution 4 × 4, stride 2, padding 1: each pixel adds the kernel, scaled, to the output."""
    side = x.shape[1] * 2
    out = np.zeros((weight.shape[1], side + 2, side + 2))
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            out[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += np.einsum("i,iokl->okl", x[:, i, j], weight)
    return out[:, 1:-1, 1:-1] + bias[:, None, None]


def test_equals_a_transcription_of_the_definition_in_float64(network):
    arrays = {name: array.astype(np.float64) for name, array in to_arrays(network).items()}

    def layer(x, name, stride=1, padding=0):
        return convolve(x, arrays[f"{name}.weight"], arrays[f"{name}.bias"], stride, padding)

    def residual(x, name):
        y = np.maximum(layer(x, f"{name}.0", padding=1), 0)
        y = np.maximum(layer(y, f"{name}.2", padding=1), 0)
        return x + layer(y, f"{name}.4")

    mask = blobs(1)
    x = 2 * (mask[0].numpy().astype(np.float64)[None] - 0.5)
    for i in (0, 2, 4, 6):
        x = np.maximum(layer(x, f"encoder.{i}", stride=2, padding=1), 0)
    x = layer(residual(residual(x, "encoder.8.net"), "encoder.9.net"), "encoder.10")
    words = arrays["_vq_vae._embedding"]
    codes = [int(((words - vector) ** 2).sum(1).argmin()) for vector in x.reshape(len(x), 16).T]
    assert network.encode(mask)[0].tolist() == codes

    x = words[codes].reshape(4, 4, -1).transpose(2, 0, 1)
    x = residual(residual(np.maximum(layer(x, "decoder.0"), 0), "decoder.2.net"), "decoder.3.net")
    for i in (4, 6, 8, 10):
        x = np.maximum(spread(x, arrays[f"decoder.{i}.weight"], arrays[f"decoder.{i}.bias"]), 0)
    x = layer(x, "decoder.12")[0]
    assert np.abs(network.decode(torch.tensor([codes]))[0].detach().numpy() - x).max() < 1e-6


def test_released_layout_and_widths_from_arrays(network, tmp_path):
    arrays = to_arrays(MaskVQVAE(MaskVQVAEConfig()))
    assert arrays["_vq_vae._embedding"].shape == (128, 512)
    assert arrays["decoder.4.weight"].shape == (128, 128, 4, 4)
    assert arrays["decoder.10.weight"].shape == (32, 16, 4, 4)
    assert arrays["decoder.12.weight"].shape == (1, 16, 1, 1)
    assert arrays["encoder.9.net.4.bias"].shape == (128,)
    assert infer_config({n: a.shape for n, a in arrays.items()}) == MaskVQVAEConfig()
    save_npz(network, tmp_path / "masks.npz")
    again = load_npz(tmp_path / "masks.npz")
    assert again.cfg == TINY
    assert all(a.equal(b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    assert [p.name for p in tmp_path.iterdir()] == ["masks.npz"]


def test_averages_of_training_are_passed_over(network):
    arrays = to_arrays(network) | {"_vq_vae._ema_w": np.zeros((11, 5), np.float32)}
    assert from_arrays(arrays).cfg == TINY


def test_bad_arrays_are_listed(network):
    arrays = to_arrays(network)
    with pytest.raises(BadCheckpoint, match=r"encoder\.10\.bias: missing; more: unexpected"):
        from_arrays({n: a for n, a in arrays.items() if n != "encoder.10.bias"} | {"more": np.zeros(1, np.float32)})
    with pytest.raises(BadCheckpoint, match=r"decoder\.2\.net\.0\.bias: expected \(6,\), got \(7,\)"):
        from_arrays(arrays | {"decoder.2.net.0.bias": np.zeros(7, np.float32)})
    with pytest.raises(BadCheckpoint, match=r"encoder\.0\.bias: not finite"):
        from_arrays(arrays | {"encoder.0.bias": np.full(2, np.nan, np.float32)})
    with pytest.raises(BadCheckpoint, match=r"_vq_vae\._embedding expects 2 dimensions; got no array"):
        from_arrays({n: a for n, a in arrays.items() if "vq" not in n})


def test_bad_files_are_named_and_pickles_not_read(tmp_path):
    with pytest.raises(MissingFile, match=r"none\.npz"):
        load_npz(tmp_path / "none.npz")
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(BadCheckpoint, match=r"bad\.npz"):
        load_npz(tmp_path / "bad.npz")
    np.savez(tmp_path / "pickled.npz", encoder=np.array([{"a": 1}], dtype=object))
    with pytest.raises(BadCheckpoint, match=r"pickled\.npz"):
        load_npz(tmp_path / "pickled.npz")


def test_failed_save_leaves_the_old_file(network, tmp_path, monkeypatch):
    path = tmp_path / "masks.npz"
    save_npz(network, path)
    before = path.read_bytes()
    monkeypatch.setattr(np, "savez", lambda *a, **k: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(CannotWrite, match="disk full"):
        save_npz(network, path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_gradient_passes_straight_through(network):
    masks = blobs(2)
    made = network(masks)
    made.output.sum().backward()
    assert network.encoder[0].weight.grad.abs().sum() > 0
    assert network.codebook.grad is None  # only the second term of the loss moves the words
    CodebookLoss()(network, {"masks": masks}).total.backward()
    assert network.codebook.grad.abs().sum() > 0


def test_small_one_learns_a_few_masks():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    assert sum(p.numel() for p in MaskVQVAE(SMALL).parameters()) < 100_000
    narrow = replace(SMALL, encoder_widths=(4, 6, 8, 8), decoder_width=8, decoder_widths=(8, 8, 6, 4))
    network, masks = MaskVQVAE(narrow), blobs(4)
    CodebookLoss().begin(network, {"masks": masks})
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    curve = []
    for _ in range(30):
        losses = CodebookLoss()(network, {"masks": masks})
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        curve.append(losses.total.item())
    assert curve[-1] < 0.9 * curve[0]
