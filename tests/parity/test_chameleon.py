"""Chameleon against transformers on random weights, in both orders of norms, and its VQ-GAN both ways."""

import pytest
import torch
from torch.nn import functional as F

from rebus import catalog
from rebus.backbones.vision.vqgan import VQGAN, VQGANConfig
from rebus.core.outputs import Predictions
from rebus.generation import generate
from rebus.models.early_fusion.chameleon_layouts import code_name
from rebus.weights.load_weights import load_into

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

VOCAB, CODES, EACH = 73, 20, 16
FIRST, BEGIN, END, IMAGE = 4, 25, 24, 40
SPECIAL = {"<s>": 0, "<pad>": 1, "</s>": 2, "<eoss>": END, "<racm3:break>": BEGIN, "<image>": IMAGE}
FIELDS = {
    "7B": {"num_key_value_heads": 3},
    "34B": {"num_key_value_heads": 1, "swin_norm": True},
}


@pytest.fixture(scope="module", params=FIELDS)
def pair(request):
    """The reference with weights that all matter, and ours with the same."""
    torch.manual_seed(0)
    config = transformers.ChameleonConfig(
        vocab_size=VOCAB,
        hidden_size=30,
        intermediate_size=37,
        num_hidden_layers=3,
        num_attention_heads=3,
        max_position_embeddings=90,
        vocabulary_map=SPECIAL | {code_name(i): FIRST + i for i in range(CODES)},
        vq_config={
            "embed_dim": 6,
            "num_embeddings": CODES,
            "latent_channels": 10,
            "resolution": 16,
            "base_channels": 32,
            "channel_multiplier": [1, 2, 1],
            "num_res_blocks": 2,
        },
        **FIELDS[request.param],
    )
    reference = transformers.ChameleonForConditionalGeneration(config).eval()
    for parameter in reference.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.2)
    system = catalog.system("chameleon")
    layout = system.layouts["transformers"]
    cfg = layout.read_config(config.to_dict())
    assert not cfg.draws
    network = system.build(cfg).eval()
    load_into(network, layout.keys(cfg).to_ours(reference.state_dict()), device="cpu", dtype=torch.float32)
    return reference, network, layout


def prompts(side):
    """Rows with two images, one and none, of uneven lengths, and which tokens are real."""
    random = torch.Generator().manual_seed(1)
    image = [BEGIN, *[IMAGE] * EACH, END]
    words = torch.randint(41, VOCAB, (3, 4), generator=random).tolist()
    rows = [[0, *image, *words[0], *image], [0, *words[1], *image, words[2][0]], [0, *words[2]]]
    longest = max(map(len, rows))
    tokens, mask = torch.full((3, longest), 1), torch.zeros(3, longest, dtype=torch.bool)
    for b, row in enumerate(rows):
        at = slice(longest - len(row), None) if side == "left" else slice(0, len(row))
        tokens[b, at], mask[b, at] = torch.tensor(row), True
    pixels = torch.rand(3, 2, 3, 16, 16, generator=random) * 2 - 1
    return {"tokens": tokens, "mask": mask, "pixels": pixels, "image_mask": torch.tensor([[1, 1], [1, 0], [0, 0]]) > 0}


def theirs(batch):
    return {
        "input_ids": batch["tokens"],
        "attention_mask": batch["mask"].long(),
        "pixel_values": batch["pixels"][batch["image_mask"]],
    }


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_scores_equal_the_references_with_images_in_rows_and_padding_on_either_side(pair, side):
    reference, network, _ = pair
    batch = prompts(side)
    positions = (batch["mask"].long().cumsum(1) - 1).clamp(min=0)
    wanted = reference(**theirs(batch), position_ids=positions).logits
    found = network(**batch).logits
    words = [i for i in range(VOCAB) if not FIRST <= i < FIRST + CODES]  # the reference blots out scores of codes
    assert (found - wanted)[batch["mask"]][:, words].abs().max() < 1e-4
    states = reference.model(**theirs(batch), position_ids=positions).last_hidden_state
    assert (found - reference.lm_head(states))[batch["mask"]].abs().max() < 1e-4


@torch.no_grad()
def test_greedy_decoding_equals_the_references_token_for_token(pair):
    reference, network, _ = pair
    batch = prompts("left")
    wanted = reference.generate(**theirs(batch), max_new_tokens=12, do_sample=False, eos_token_id=2, pad_token_id=1)
    words = [i for i in range(VOCAB) if not FIRST <= i < FIRST + CODES]
    found = generate(network, batch, eos_id=2, pad_id=1, max_new_tokens=12, allowed=words)
    assert found.tolist() == wanted[:, batch["tokens"].shape[1] :].tolist()


@torch.no_grad()
def test_images_become_the_references_codes(pair):
    reference, network, _ = pair
    pixels = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1
    wanted = reference.model.vqmodel.encode(pixels)
    features = network.image.features(pixels)
    assert (features - reference.model.vqmodel.quant_conv(wanted.last_hidden_state).flatten(2).mT).abs().max() < 1e-4
    codes = network.image.encode(pixels)
    assert codes.flatten().tolist() == wanted.image_tokens.tolist()
    assert len(codes.unique()) > 5


def test_the_configuration_returns_and_the_reference_reads_it(pair):
    reference, network, layout = pair
    data = layout.config_data(network.cfg)
    again = transformers.ChameleonForConditionalGeneration(transformers.ChameleonConfig(**data))
    back = layout.keys(network.cfg).to_theirs(network.state_dict())
    again.load_state_dict({name: tensor.load() for name, tensor in back.items()})
    batch = prompts("right")
    with torch.no_grad():
        wanted, found = (one.eval()(**theirs(batch)).logits for one in (reference, again))
    assert torch.equal(wanted, found)


def test_labels_that_are_codes_have_a_finite_loss_where_the_references_is_infinite(pair):
    reference, network, _ = pair
    batch = prompts("right")
    prompt = {**batch, "tokens": batch["tokens"][2:, :3], "mask": batch["mask"][2:, :3], "pixels": batch["pixels"][:1]}
    prompt["image_mask"] = torch.tensor([[True, False]])
    targets = torch.tensor([[BEGIN, *[IMAGE] * EACH, END, 2]])
    made = network(**prompt, targets=targets)
    assert made.targets is not None
    loss = F.cross_entropy(made.logits[0], made.targets[0])
    assert loss.isfinite()
    tokens = torch.cat([prompt["tokens"], made.targets], dim=1)
    assert not reference(tokens, labels=tokens).loss.isfinite() or reference(tokens, labels=tokens).loss > 1e30
    assert isinstance(made, Predictions)


def res_block(w, x):
    def norm(name, y):
        return F.group_norm(y, 32, w[f"{name}.weight"], w[f"{name}.bias"], eps=1e-6)

    y = norm("norm1", x)
    y = F.conv2d(y * y.sigmoid(), w["conv1.weight"], w["conv1.bias"], padding=1)
    y = norm("norm2", y)
    y = F.conv2d(y * y.sigmoid(), w["conv2.weight"], w["conv2.bias"], padding=1)
    skip = F.conv2d(x, w["nin_shortcut.weight"], w["nin_shortcut.bias"]) if "nin_shortcut.weight" in w else x
    return skip + y


def under(w, prefix):
    return {name.removeprefix(prefix): tensor for name, tensor in w.items() if name.startswith(prefix)}


def attention(w, x):
    y = F.group_norm(x, 32, w["norm.weight"], w["norm.bias"], eps=1e-6)
    q, k, v = (F.conv2d(y, w[f"{n}.weight"], w[f"{n}.bias"]).flatten(2) for n in "qkv")  # B C P
    weights = torch.einsum("bcp,bcq->bpq", q, k) / q.shape[1] ** 0.5
    mixed = torch.einsum("bpq,bcq->bcp", weights.softmax(dim=-1), v).reshape(x.shape)
    return x + F.conv2d(mixed, w["proj_out.weight"], w["proj_out.bias"])


def transcribed(w, codes, levels, blocks, side):
    """codes → embedding → channels first → 1 × 1 convolution → decoder."""
    x = w["quantize.embedding.weight"][codes].reshape(len(codes), side, side, -1).permute(0, 3, 1, 2)
    x = F.conv2d(x, w["post_quant_conv.weight"], w["post_quant_conv.bias"])
    x = F.conv2d(x, w["decoder.conv_in.weight"], w["decoder.conv_in.bias"], padding=1)
    x = res_block(under(w, "decoder.mid.block_1."), x)
    x = attention(under(w, "decoder.mid.attn_1."), x)
    x = res_block(under(w, "decoder.mid.block_2."), x)
    for level in range(levels - 1, -1, -1):
        for block in range(blocks + 1):
            x = res_block(under(w, f"decoder.up.{level}.block.{block}."), x)
        if level:
            x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
            name = f"decoder.up.{level}.upsample.conv"
            x = F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=1)
    x = F.group_norm(x, 32, w["decoder.norm_out.weight"], w["decoder.norm_out.bias"], eps=1e-6)
    return F.conv2d(x * x.sigmoid(), w["decoder.conv_out.weight"], w["decoder.conv_out.bias"], padding=1)


@torch.no_grad()
def test_codes_become_images_as_the_specification_has_it():
    torch.manual_seed(0)
    cfg = VQGANConfig(
        width=32, multiples=(1, 2, 1), num_blocks=2, latent_width=10, code_width=6, num_codes=CODES, image_size=16
    )
    network = VQGAN(cfg).eval()
    for p in network.parameters():
        p.add_(torch.randn_like(p) * 0.1)
    codes = torch.randint(CODES, (3, EACH))
    wanted = transcribed(network.state_dict(), codes, 3, 2, 4)
    assert wanted.std() > 0.1
    assert (network.decode(codes) - wanted).abs().max() < 1e-4
    assert (network.draw_images(codes) - (wanted.clamp(-1, 1) + 1) / 2).abs().max() < 1e-4
