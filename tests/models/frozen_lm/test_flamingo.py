"""Flamingo: what is between the networks against the specification written out, and what it must never change."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from rebus import catalog
from rebus.backbones.text import gpt_neox, llama_layouts, mpt, opt
from rebus.core.errors import BadConfig, BadText
from rebus.generation import generate
from rebus.models.frozen_lm import openflamingo
from rebus.models.frozen_lm.bridge import CrossConfig, Resampler, ResamplerConfig
from rebus.models.frozen_lm.flamingo_config import PRESETS, FlamingoConfig, part
from rebus.weights.lazy_tensor import LazyTensor

SYSTEM = catalog.system("flamingo")


def build(cfg, gates=0.7, std=0.2):
    torch.manual_seed(0)
    network = SYSTEM.build(cfg).eval()
    for name, parameter in network.named_parameters():
        parameter.data.normal_(gates if name.endswith("gate") else 0.0, std)
    return network


@pytest.fixture(scope="module")
def network():
    return build(PRESETS["tiny"])


def documents(cfg, counts=(2, 0, 1), words=4):
    """Rows of two words, then images with words after each, padded on the right."""
    random = torch.Generator().manual_seed(1)
    rows = []
    for count in counts:
        row = torch.randint(3, 90, (2,), generator=random).tolist()
        for _ in range(count):
            row += [cfg.image_id, *torch.randint(3, 90, (words,), generator=random).tolist()]
        rows.append(row)
    longest = max(map(len, rows))
    tokens = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.arange(longest) < torch.tensor([len(row) for row in rows])[:, None]
    pixels = torch.randn(len(counts), max(counts), 3, 24, 24, generator=random)
    return {
        "tokens": tokens,
        "mask": mask,
        "pixels": pixels,
        "image_mask": torch.arange(max(counts)) < torch.tensor(counts)[:, None],
    }


# Counts of the specification: cross-attention, and what is trained in all but the vectors of new tokens.
@pytest.mark.parametrize(
    "preset, cross, trained, total",
    [
        ("open_3b", 881_000_496, 944_019_504, 2.56e9),
        ("open_4b", 897_744_928, 960_763_936, 4.04e9),
        ("open_9b", 1_115_815_952, 1_178_834_960, 8.13e9),
        ("open_9b_v1", 1_115_815_952, 1_178_834_960, 8.22e9),
    ],
)
def test_published_sizes(preset, cross, trained, total):
    with torch.device("meta"):
        network = SYSTEM.build(PRESETS[preset])
    count = {name: sum(p.numel() for p in module.parameters()) for name, module in network.named_children()}
    assert count["cross"] == cross
    assert count["resampler"] == 63_019_008
    learned = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert learned - count["added"] - count.get("added_head", 0) == trained
    assert round(sum(count.values()), -7) == total


# The host's prefix in OpenFlamingo's files, and a small one of ours.
HOSTS = {
    "mpt": ("transformer.blocks", "transformer.wte", mpt.PRESETS["tiny"]),
    "gpt_neox": ("gpt_neox.layers", "gpt_neox.embed_in", gpt_neox.PRESETS["tiny"]),
    "llama": ("model.layers", "model.embed_tokens", llama_layouts.PRESETS["tiny"]),
    "opt": ("model.decoder.layers", "model.decoder.embed_tokens", opt.PRESETS["tiny"]),
    "llama, v1": (None, "model.embed_tokens", llama_layouts.PRESETS["tiny"]),
}
WIDTH, MEDIA, INNER = 24, 24, 16


def released(host, every=2, layers=4, first=90, vocab_size=96):
    """The configuration and the tensors of a release over a small language model: each key of the specification."""
    name = host.split(",")[0]
    blocks, table, text = HOSTS[host]
    tiny = PRESETS["tiny"]
    cfg = FlamingoConfig(
        text=part(name, replace(text, num_layers=layers, vocab_size=vocab_size)),
        image=tiny.image,
        resampler=tiny.resampler,
        cross=CrossConfig(every=every, first=every - 1, num_heads=2, head_width=8, mlp_width=4 * WIDTH),
        added=("<|endofchunk|>", "<image>", "<PAD>"),
        first_added=first,
        writes_added=name != "llama",  # whose head was not among what was saved
    )
    shapes = {"perceiver.latents": (3, MEDIA), "perceiver.norm.weight": (MEDIA,), "perceiver.norm.bias": (MEDIA,)}

    def linears(at, inputs, outputs, media):
        return {
            f"{at}to_q.weight": (INNER, inputs),
            f"{at}to_kv.weight": (2 * INNER, media),
            f"{at}to_out.weight": (outputs, INNER),
        }

    def mlp(at, width):
        return {
            f"{at}0.weight": (width,),
            f"{at}0.bias": (width,),
            f"{at}1.weight": (4 * width, width),
            f"{at}3.weight": (width, 4 * width),
        }

    for i in range(2):
        at = f"perceiver.layers.{i}."
        shapes |= {f"{at}0.{n}.{p}": (MEDIA,) for n in ("norm_media", "norm_latents") for p in ("weight", "bias")}
        shapes |= linears(at + "0.", MEDIA, MEDIA, MEDIA) | mlp(at + "1.", MEDIA)
    for i in range(every - 1, layers, every):
        at = (
            f"lang_encoder.{blocks}.{i}.gated_cross_attn_layer."
            if blocks
            else f"lang_encoder.gated_cross_attn_layers.{i}."
        )
        shapes |= {
            at + "attn_gate": (1,),
            at + "ff_gate": (1,),
            at + "attn.norm.weight": (WIDTH,),
            at + "attn.norm.bias": (WIDTH,),
        }
        shapes |= linears(at + "attn.", WIDTH, WIDTH, MEDIA) | mlp(at + "ff.", WIDTH)
    shapes[f"lang_encoder.{table}.weight"] = (first + 3, WIDTH)
    if name == "gpt_neox":
        shapes["lang_encoder.embed_out.weight"] = (first + 3, WIDTH)
    random = torch.Generator().manual_seed(2)
    tensors = {key: torch.randn(shape, generator=random) * 0.3 for key, shape in shapes.items()}
    return cfg, tensors


def load_release(cfg, tensors, wrap=""):
    """A network with random frozen parts under what a file holds, buffers and frozen networks beside it included."""
    beside = {
        "lang_encoder.gpt_neox.layers.0.decoder_layer.attention.bias": torch.ones(1, 1, 4, 4, dtype=torch.bool),
        "vision_encoder.conv1.weight": torch.ones(3),
    }
    file = {wrap + name: LazyTensor.of(t) for name, t in (tensors | beside).items()}
    ours = openflamingo.keys(cfg).to_ours(openflamingo.prepare(file))
    found = {name: t.load() for name, t in openflamingo.learned(cfg, ours, "a file").items()}
    network = build(cfg)
    learned = {name for name, p in network.named_parameters() if p.requires_grad}
    assert found.keys() == learned
    network.load_state_dict(found, strict=False)
    return network


def attention(tensors, at, x, media, allowed=None):
    """Two heads of 8, written out."""
    q = x @ tensors[at + "to_q.weight"].T
    k, v = (media @ tensors[at + "to_kv.weight"].T).chunk(2, dim=-1)
    out = []
    for h in range(2):
        cut = slice(8 * h, 8 * h + 8)
        scores = q[:, cut] @ k[:, cut].T * 8**-0.5
        if allowed is not None:
            scores = scores.masked_fill(~allowed, -torch.finfo(scores.dtype).max)
        weights = scores.softmax(-1)
        out.append((weights if allowed is None else weights * allowed.any(-1, keepdim=True)) @ v[:, cut])
    return torch.cat(out, -1) @ tensors[at + "to_out.weight"].T


def feed_forward(tensors, at, x):
    x = F.layer_norm(x, (x.shape[-1],), tensors[at + "0.weight"], tensors[at + "0.bias"])
    return F.gelu(x @ tensors[at + "1.weight"].T) @ tensors[at + "3.weight"].T


def normed(tensors, at, x):
    return F.layer_norm(x, (x.shape[-1],), tensors[at + ".weight"], tensors[at + ".bias"])


def written_out(network, tensors, host, tokens, pixels):
    """One row as the specification says it, over the frozen networks."""
    cfg, blocks = network.cfg, HOSTS[host][0]
    latents = []
    for image in pixels:
        features = network.image.features(network.image.embed(image[None]))[0, 1:]
        x = tensors["perceiver.latents"]
        for i in range(2):
            at = f"perceiver.layers.{i}."
            own = normed(tensors, at + "0.norm_latents", x)
            media = torch.cat([normed(tensors, at + "0.norm_media", features), own])
            x = x + attention(tensors, at + "0.", own, media)
            x = x + feed_forward(tensors, at + "1.", x)
        latents.append(normed(tensors, "perceiver.norm", x))
    media, time = torch.cat(latents), (tokens == cfg.image_id).cumsum(0)
    allowed = time[:, None] == torch.arange(1, len(pixels) + 1).repeat_interleave(3)
    table = torch.cat([network.text.tokens.weight[:90], tensors[f"lang_encoder.{HOSTS[host][1]}.weight"][90:]])
    x, layers, _ = network.text.lay_out(table[tokens][None], torch.ones(1, len(tokens), dtype=torch.bool))
    x = x[0]
    for i, layer in enumerate(layers):
        if (i + 1) % cfg.cross.every == 0:
            at = (
                f"lang_encoder.{blocks}.{i}.gated_cross_attn_layer."
                if blocks
                else f"lang_encoder.gated_cross_attn_layers.{i}."
            )
            x = x + tensors[at + "attn_gate"].tanh() * attention(
                tensors, at + "attn.", normed(tensors, at + "attn.norm", x), media, allowed
            )
            x = x + tensors[at + "ff_gate"].tanh() * feed_forward(tensors, at + "ff.", x)
        x = layer(x[None])[0]
    hidden = network.text.norm(x)
    scores = network.text.logits(hidden)[:, :90]
    if not cfg.writes_added:
        return torch.cat([scores, torch.full((len(tokens), 3), -torch.inf)], 1)
    head = tensors.get("lang_encoder.embed_out.weight", table)[90:]
    return torch.cat([scores, hidden @ head.T], 1)


@torch.no_grad()
@pytest.mark.parametrize("host", HOSTS)
def test_a_release_is_read_and_computes_what_the_specification_says(host):
    cfg, tensors = released(host)
    network = load_release(cfg, tensors, wrap="module." if host == "mpt" else "")
    batch = documents(cfg)
    found = network(**batch).logits
    for b, count in enumerate((2, 0, 1)):
        row = batch["tokens"][b, batch["mask"][b]]
        if count:
            wanted = written_out(network, tensors, host, row, batch["pixels"][b, :count])
            torch.testing.assert_close(found[b, : len(row)], wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("preset", openflamingo.RELEASED)
def test_a_release_is_told_by_its_names_and_shapes(preset):
    cfg = PRESETS[preset]
    blocks = openflamingo._BLOCKS[cfg.text.system]
    width, shapes = cfg.cross.mlp_width // 4, {"perceiver.latents": (64, 1024)}
    for i in cfg.cross.places(cfg.text.config["num_layers"]):
        at = "gated_cross_attn_layers." if preset == "open_9b_v1" else blocks
        own = "" if preset == "open_9b_v1" else "gated_cross_attn_layer."
        shapes[f"lang_encoder.{at}{i}.{own}ff.3.weight"] = (width, 4 * width)
    assert openflamingo.infer_config(shapes) == cfg
    assert openflamingo.infer_config({"module." + name: shape for name, shape in shapes.items()}) == cfg
    with pytest.raises(BadConfig, match="no release we know"):
        openflamingo.infer_config(dict(list(shapes.items())[:-1]))


@torch.no_grad()
@pytest.mark.parametrize("preset", ["tiny", "tiny_mpt", "tiny_idefics"])
def test_closed_gates_leave_the_language_model_bit_for_bit(preset):
    network = build(PRESETS[preset], gates=0.0)
    for block in network.cross:
        block.attn_gate.zero_(), block.mlp_gate.zero_()
    batch = documents(network.cfg)
    words = batch["tokens"].masked_fill(batch["tokens"] >= network.cfg.vocabulary, 5)
    alone = network.text(words, batch["mask"]).logits[..., : network.cfg.vocabulary]
    assert torch.equal(network(tokens=words, mask=batch["mask"]).logits[..., : network.cfg.vocabulary], alone)
    network.added.weight.copy_(network.text.tokens.weight[5])  # so that image tokens read as that word
    assert torch.equal(network(**batch).logits[..., : network.cfg.vocabulary], alone)
    network.cross[0].attn_gate.fill_(0.5)
    assert not torch.equal(network(**batch).logits[..., : network.cfg.vocabulary], alone)


@torch.no_grad()
def test_a_token_sees_the_last_image_before_it_alone(network):
    batch = documents(network.cfg, counts=(3,))
    found = network(**batch).logits[0]
    marks = (batch["tokens"][0] == network.cfg.image_id).nonzero()[:, 0].tolist()
    for j in range(3):
        other = batch["pixels"].clone()
        other[0, j] += 1.0
        changed = (network(**{**batch, "pixels": other}).logits[0] != found).any(-1)
        assert not changed[: marks[j]].any()
        assert changed[marks[j]]
    network_of_one = build(replace(PRESETS["tiny"], cross=replace(PRESETS["tiny"].cross, first=1)))
    found = network_of_one(**batch).logits[0]
    for j in range(3):  # looking once, in the last block, nothing is handed on
        other = batch["pixels"].clone()
        other[0, j] += 1.0
        changed = (network_of_one(**{**batch, "pixels": other}).logits[0] != found).any(-1)
        seeing = torch.arange(len(changed)) >= marks[j]
        if j < 2:
            seeing &= torch.arange(len(changed)) < marks[j + 1]
        assert torch.equal(changed[seeing], seeing[seeing])
        assert not changed[: marks[j]].any()


@torch.no_grad()
def test_padding_of_images_changes_no_row(network):
    batch = documents(network.cfg)
    found = network(**batch).logits
    wide = torch.full((3, 5, 3, 24, 24), 7.0)
    where = torch.zeros(3, 5, dtype=torch.bool)
    where[0, [1, 4]] = where[2, 2] = True  # wherever in the row the images are
    wide[where] = batch["pixels"][batch["image_mask"]]
    padded = network(**{**batch, "pixels": wide, "image_mask": where}).logits
    torch.testing.assert_close(padded, found, atol=1e-6, rtol=1e-6)
    assert torch.equal(
        network(**{**batch, "pixels": wide * where[..., None, None, None], "image_mask": where}).logits, padded
    )
    alone = network(tokens=batch["tokens"][2:, :7], pixels=batch["pixels"][2:, :1]).logits
    torch.testing.assert_close(alone, found[2:, :7], atol=1e-5, rtol=1e-5)
    text = network(tokens=batch["tokens"][1:2, :2]).logits
    torch.testing.assert_close(text, found[1:2, :2], atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("preset", ["tiny", "tiny_mpt", "tiny_idefics"])
def test_what_prompts_begin_with_is_read_once(preset):
    """Shots, then two questions after them, one with an image of its own: as if each were a prompt of its own."""
    network = build(PRESETS[preset])
    cfg = network.cfg
    shots = documents(cfg, counts=(2,))
    before = network.start(room=0, **shots).cache
    question = {
        "tokens": torch.tensor([[cfg.image_id, 7, 8], [9, 10, 0]]),
        "mask": torch.tensor([[True] * 3, [True, True, False]]),
    }
    pixels, where = (
        torch.randn(2, 1, 3, 24, 24, generator=torch.Generator().manual_seed(3)),
        torch.tensor([[True], [False]]),
    )
    options = {"eos_id": None, "pad_id": 0, "max_new_tokens": 5}
    found = generate(network, {**question, "pixels": pixels, "image_mask": where, "after": before}, **options)
    for b, length in enumerate((3, 2)):
        tokens = torch.cat([shots["tokens"], question["tokens"][b : b + 1, :length]], dim=1)
        seen = torch.cat([shots["pixels"], pixels[b : b + 1]], dim=1) if b == 0 else shots["pixels"]
        step = network.start(room=5, tokens=tokens, pixels=seen)
        after = network.start(
            room=5,
            **{k: v[b : b + 1] for k, v in question.items()},
            after=before,
            **({"pixels": pixels[:1]} if b == 0 else {}),
        )
        torch.testing.assert_close(after.logits, step.logits, atol=1e-4, rtol=1e-4)
        assert found[b].tolist() == generate(network, {"tokens": tokens, "pixels": seen}, **options)[0].tolist()


@torch.no_grad()
def test_several_texts_share_their_row_of_images(network):
    batch = documents(network.cfg, counts=(1, 1))
    owners = torch.tensor([1, 0, 1])
    tokens = batch["tokens"][[0, 1, 0]]
    found = network(tokens=tokens, pixels=batch["pixels"], owners=owners).logits
    wanted = network(tokens=tokens, pixels=batch["pixels"][owners]).logits
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_other_numbers_of_images_than_marks_are_refused(network):
    batch = documents(network.cfg)
    with pytest.raises(BadText, match="row 0: 2 image tokens in the text, and 1 images"):
        network(**{**batch, "image_mask": torch.tensor([[True, False], [False, False], [True, False]])})
    with pytest.raises(BadText, match="row 1: 0 image tokens in the text, and 1 images"):
        network(**{**batch, "image_mask": torch.tensor([[True, True], [True, False], [True, False]])})
    with pytest.raises(BadText, match="row 0: 2 image tokens in the text, and 0 images"):
        network(tokens=batch["tokens"])
    with pytest.raises(BadText, match="the context holds 64"):
        network(tokens=torch.full((1, 65), 5))


@torch.no_grad()
def test_clips_become_as_many_vectors_as_images_and_times_are_interpolated():
    torch.manual_seed(0)
    resampler = Resampler(8, ResamplerConfig(num_layers=1, num_heads=2, head_width=4, num_latents=3, num_frames=4))
    features = torch.randn(2, 4, 5, 8)
    assert resampler(features).shape == (2, 3, 8)
    assert not torch.allclose(resampler(features), resampler(features.flip(1)), atol=1e-4)
    times = resampler._times(7)
    torch.testing.assert_close(times[::2], resampler.times)
    torch.testing.assert_close(times[1], (resampler.times[0] + resampler.times[1]) / 2)
    cfg = replace(PRESETS["tiny"], resampler=replace(PRESETS["tiny"].resampler, num_frames=2))
    network = build(cfg)
    clip = torch.randn(1, 1, 3, 3, 24, 24)
    tokens = torch.tensor([[cfg.image_id, 5]])
    found = network(tokens=tokens, pixels=clip, image_mask=torch.tensor([[True]])).logits
    assert not torch.allclose(found, network(tokens=tokens, pixels=clip.flip(2)).logits, atol=1e-5)


@torch.no_grad()
def test_where_text_is_left_alone_only_what_follows_an_image_changes():
    cfg = replace(PRESETS["tiny"], cross=replace(PRESETS["tiny"].cross, text_alone=True))
    network = build(cfg)
    for block in network.cross:
        block.attn_gate.fill_(0.5)
        block.mlp_gate.fill_(0.5)
    tokens = torch.tensor([[5, 6, cfg.image_id, 7], [8, 9, 10, 11]])
    alone = network.text(tokens[1:]).logits
    assert torch.equal(network(tokens=tokens[1:]).logits[..., : cfg.vocabulary], alone)
    mask = torch.tensor([[True], [False]])
    seen = network(tokens=tokens, pixels=torch.randn(2, 1, 3, 24, 24), image_mask=mask).logits[..., : cfg.vocabulary]
    torch.testing.assert_close(seen[1], alone[0])
    blind = network.text(tokens.masked_fill(tokens == cfg.image_id, 0)).logits
    torch.testing.assert_close(seen[0, :2], blind[0, :2])
    assert not torch.allclose(seen[0, 3], blind[0, 3], atol=1e-3)


def test_only_what_is_new_learns(network):
    learned = {name.split(".")[0] for name, p in network.named_parameters() if p.requires_grad}
    assert learned == {"resampler", "cross", "added"}


@pytest.mark.parametrize(
    "field, value, said",
    [
        ("text", {"system": "vit", "config": {}}, "vit is none"),
        ("image", {"system": "gpt2", "config": {}}, "gpt2 is none"),
        ("first_added", 97, "leaves a gap"),
        ("mark", ["<picture>"], "<image> once"),
        ("cross", {"first": 2}, "of 2 blocks"),
        ("crosss", {}, "crosss"),
    ],
)
def test_what_cannot_be_is_refused_by_name(field, value, said):
    layout = SYSTEM.layouts["transformers"]
    data = layout.write_config(PRESETS["tiny"])
    assert layout.read_config(data) == PRESETS["tiny"]
    with pytest.raises(BadConfig, match=said):
        layout.read_config(data | {field: value})
