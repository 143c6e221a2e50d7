"""The files that Meta released Chameleon in, against a plain transcription of what its inference code computes."""

import json

import pytest
import torch
from torch.nn import functional as F

import rebus
from rebus import catalog
from rebus.backbones.vision.vqgan import TINY, VQGAN
from rebus.codec.tokenizers import word_level_tokenizer
from rebus.core.errors import BadCheckpoint, BadConfig, MissingFile
from rebus.models.early_fusion.chameleon_config import SEPARATOR
from rebus.models.early_fusion.chameleon_layouts import code_name
from rebus.models.early_fusion.chameleon_release import read_params

WIDTH, HEADS, KV, LAYERS, EACH = 24, 4, 2, 2, 6
MLP, VOCAB = 64, 40  # 32 · ⌈int(8 · 24 / 3) / 32⌉
SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", *map(code_name, range(16)), "<eoss>", "<racm3:break>", SEPARATOR]
SPECIALS += ["<reserved08707>"]
WORDS = [f"w{chr(97 + i)}" for i in range(VOCAB - len(SPECIALS))]
PARAMS = {
    "seed": 7,
    "model": {
        "dim": WIDTH,
        "n_layers": LAYERS,
        "n_heads": HEADS,
        "n_kv_heads": KV,
        "norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "qk_normalization": True,
        "vocab_size": VOCAB,
        "multiple_of": 32,
        "ffn_dim_multiplier": None,
    },
}
ALONG_WIDTH = ("tok_embeddings", "wo", "w2")


def whole_weights(shards):
    """Weights of the whole model by their released names; norms of heads (shards, width of a head)."""
    random = torch.Generator().manual_seed(0)

    def drawn(*shape):
        return torch.randn(*shape, generator=random) * 0.3

    w = {"tok_embeddings.weight": drawn(VOCAB, WIDTH), "output.weight": drawn(VOCAB, WIDTH)}
    w["norm.weight"] = 1 + drawn(WIDTH)
    w["rope.freqs"] = drawn(3)
    for i in range(LAYERS):
        for n, rows in (("q", HEADS), ("k", KV), ("v", KV)):
            w[f"layers.{i}.attention.w{n}.weight"] = drawn(rows * EACH, WIDTH)
        w[f"layers.{i}.attention.wo.weight"] = drawn(WIDTH, HEADS * EACH)
        for n in "qk":
            w[f"layers.{i}.attention.{n}_normalization.weight"] = 1 + drawn(shards, EACH)
            w[f"layers.{i}.attention.{n}_normalization.bias"] = drawn(shards, EACH)
        for n, shape in (("w1", (MLP, WIDTH)), ("w3", (MLP, WIDTH)), ("w2", (WIDTH, MLP))):
            w[f"layers.{i}.feed_forward.{n}.weight"] = drawn(*shape)
        for n in ("attention_norm", "ffn_norm"):
            w[f"layers.{i}.{n}.weight"] = 1 + drawn(WIDTH)
    return w


def shard(w, index, number):
    """One of the files of a model-parallel training."""
    found = {}
    for name, tensor in w.items():
        kind = name.split(".")[-2]
        if "_normalization" in kind:
            found[name] = tensor[index].clone()
        elif tensor.ndim < 2:
            found[name] = tensor
        else:
            found[name] = tensor.chunk(number, dim=1 if kind in ALONG_WIDTH else 0)[index].clone()
    return found


def written(tmp_path, number=1, swin=False, flat=False):
    """A download as Meta's, with the weights in so many shards; its checkpoint folder, and the weights."""
    folder, beside = tmp_path / "models" / "7b", tmp_path / "tokenizer"
    beside = folder if flat else beside
    folder.mkdir(parents=True)
    beside.mkdir(exist_ok=True)
    w = whole_weights(number)
    for i in range(number):
        file = "consolidated.pth" if number == 1 else f"consolidated.{i:02d}.pth"
        torch.save(shard(w, i, number), folder / file)
    params = {**PARAMS, "model": {**PARAMS["model"], "swin_norm": swin}}
    (folder / "params.json").write_text(json.dumps(params))
    (folder / "consolidate_params.json").write_text(json.dumps({"model_parallel_size": number}))
    torch.manual_seed(1)
    codes = VQGAN(TINY)
    state = {**codes.state_dict(), "loss.discriminator.main.0.weight": torch.zeros(3)}
    torch.save({"state_dict": state}, beside / "vqgan.ckpt")
    (beside / "vqgan.yaml").write_text("model:\n  params:\n    ddconfig:\n      resolution: 12\n      ch: 32\n")
    tokenizer = word_level_tokenizer(WORDS, SPECIALS)
    (beside / "text_tokenizer.json").write_bytes(tokenizer.files["tokenizer.json"])
    return folder, w, codes


def transcribed(w, tokens, swin):
    """Scores (S, V): rotary positions turn neighbouring numbers, heads of a shard share their norms."""

    def norm(x, name):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * w[name]

    def turned(x):  # S H K
        angles = torch.arange(len(x))[:, None] * 10000.0 ** (-torch.arange(0, EACH, 2) / EACH)
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], EACH // 2, 2))
        return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)[:, None]).flatten(2)

    def attention(x, i):
        q, k, v = ((x @ w[f"layers.{i}.attention.w{n}.weight"].T).unflatten(-1, (-1, EACH)) for n in "qkv")
        parts = []
        for n, heads in (("q", q), ("k", k)):
            gain, offset = (w[f"layers.{i}.attention.{n}_normalization.{p}"] for p in ("weight", "bias"))
            each = heads.shape[1] // len(gain)
            y = F.layer_norm(heads, (EACH,), eps=1e-5)
            parts.append(turned(y * gain.repeat_interleave(each, 0) + offset.repeat_interleave(each, 0)))
        q, k = parts
        k, v = (t.repeat_interleave(HEADS // KV, dim=1) for t in (k, v))
        scores = torch.einsum("shk,thk->hst", q, k) / EACH**0.5
        scores = scores + torch.full((len(x), len(x)), -torch.inf).triu(1)
        mixed = torch.einsum("hst,thk->shk", scores.softmax(-1), v).flatten(1)
        return mixed @ w[f"layers.{i}.attention.wo.weight"].T

    def mlp(x, i):
        first, third, second = (w[f"layers.{i}.feed_forward.{n}.weight"] for n in ("w1", "w3", "w2"))
        return (F.silu(x @ first.T) * (x @ third.T)) @ second.T

    x = w["tok_embeddings.weight"][tokens]
    for i in range(LAYERS):
        before, after = f"layers.{i}.attention_norm.weight", f"layers.{i}.ffn_norm.weight"
        x = x + (norm(attention(x, i), before) if swin else attention(norm(x, before), i))
        x = x + (norm(mlp(x, i), after) if swin else mlp(norm(x, after), i))
    return norm(x, "norm.weight") @ w["output.weight"].T


@torch.no_grad()
@pytest.mark.parametrize("number, swin", [(1, False), (2, False), (2, True)])
def test_the_release_computes_what_its_code_does(tmp_path, number, swin):
    folder, w, codes = written(tmp_path, number, swin)
    model = rebus.load(folder, dtype=torch.float32)
    tokens = torch.randint(24, VOCAB, (9,), generator=torch.Generator().manual_seed(2))
    found = model.network(tokens=tokens[None], mask=torch.ones(1, 9, dtype=torch.bool)).logits[0]
    assert (found - transcribed(w, tokens, swin)).abs().max() < 1e-4
    pixels = torch.rand(2, 3, 12, 12) * 2 - 1
    assert torch.equal(model.network.image.encode(pixels), codes.encode(pixels))
    assert {"imagine", "complete", "caption"} <= model.tasks


def test_its_tokens_of_images_are_those_of_its_tokenizer(tmp_path):
    folder, _, _ = written(tmp_path, flat=True)
    model = rebus.load(folder)
    assert (model.config.first_code, model.config.end_id, model.config.begin_id, model.config.image_id) == (
        4,
        20,
        21,
        23,
    )
    assert model.processor.text.tokenizer.encode("wa wb") == [24, 25]
    assert model.imagine("wa", seed=0).size == (12, 12)


def test_it_is_saved_as_the_reference_library_reads_it(tmp_path):
    folder, _, _ = written(tmp_path)
    model = rebus.load(folder, dtype=torch.float32)
    again = rebus.load(model.save(tmp_path / "saved"))
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["model_type"] == "chameleon"
    for (name, one), (_, other) in zip(
        model.network.state_dict().items(), again.network.state_dict().items(), strict=True
    ):
        assert torch.equal(one, other), name
    assert again.processor.text.tokenizer.encode("wa wb") == [24, 25]


def test_sizes_of_the_published_models_follow_from_their_parameters():
    seven = {"dim": 4096, "n_layers": 32, "n_heads": 32, "norm_eps": 1e-5, "vocab_size": 65536, "multiple_of": 256}
    presets = catalog.system("chameleon").presets
    assert read_params({"model": {**seven, "qk_normalization": True}}) == presets["7b"].text
    large = {**seven, "dim": 8192, "n_layers": 48, "n_heads": 64, "n_kv_heads": 8, "swin_norm": True}
    assert read_params({**large, "qk_normalization": True}) == presets["34b"].text


def test_what_is_missing_or_does_not_fit_is_named(tmp_path):
    folder, _, _ = written(tmp_path, 2)
    (folder / "consolidated.01.pth").rename(tmp_path / "aside")
    with pytest.raises(MissingFile, match=r"1 of 2 shards consolidated\.NN\.pth are there"):
        rebus.load(folder)
    torch.save({"norm.weight": torch.ones(WIDTH)}, folder / "consolidated.01.pth")
    with pytest.raises(BadCheckpoint, match="other weights than each other"):
        rebus.load(folder)
    (tmp_path / "aside").rename(folder / "consolidated.01.pth")
    (tmp_path / "tokenizer" / "vqgan.ckpt").unlink()
    with pytest.raises(MissingFile, match=r"no vqgan\.ckpt in .*a folder `tokenizer` beside `models`"):
        rebus.load(folder)
    with pytest.raises(BadConfig, match=r"params\.json\.n_heads: expected int above 0; got 'many'"):
        read_params({"model": {**PARAMS["model"], "n_heads": "many"}})


class Code:
    def __reduce__(self):
        return (print, ("code of a checkpoint was run",))


def test_code_in_a_release_is_not_run(tmp_path, capsys):
    folder, _, _ = written(tmp_path)
    torch.save({"norm.weight": Code()}, folder / "consolidated.pth")
    with pytest.raises(BadCheckpoint, match="refused, nothing was run"):
        rebus.load(folder)
    assert "was run" not in capsys.readouterr().out
