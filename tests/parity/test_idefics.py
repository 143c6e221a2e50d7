"""Flamingo in IDEFICS' layout against transformers, on random weights: several images a row, or none."""

from types import SimpleNamespace

import pytest
import torch

from rebus import catalog
from rebus.generation import generate
from rebus.weights.load_weights import load_into

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

VOCAB, PAD, AROUND, IMAGE = 61, 0, 61, 62
COUNTS = (3, 0, 1)
FIELDS = {
    "vectors, two blocks apart": {"alpha_type": "vector", "cross_layer_interval": 2, "qk_layer_norms": True},
    "one gate, tied, every block": {"tie_word_embeddings": True, "additional_vocab_size": 3},
}


@pytest.fixture(scope="module", params=FIELDS)
def pair(request):
    """The reference with weights that all matter, and ours with the same."""
    torch.manual_seed(0)
    fields = {"additional_vocab_size": 2, **FIELDS[request.param]}
    config = transformers.IdeficsConfig(
        vocab_size=VOCAB,
        hidden_size=36,
        intermediate_size=53,
        num_hidden_layers=4,
        num_attention_heads=3,
        max_position_embeddings=90,
        use_resampler=True,
        eos_token_id=None,
        bos_token_id=None,
        vision_config={
            "embed_dim": 24,
            "image_size": 25,
            "patch_size": 6,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "intermediate_size": 31,
        },
        perceiver_config={
            "use_resampler": True,
            "resampler_n_latents": 5,
            "resampler_depth": 2,
            "resampler_n_heads": 3,
            "resampler_head_dim": 7,
            "qk_layer_norms_perceiver": "qk_layer_norms" in fields,
        },
        **fields,
    )
    reference = transformers.IdeficsForVisionText2Text(config).eval()
    for parameter in reference.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.2)
    system = catalog.system("flamingo")
    layout = system.layouts["idefics"]
    cfg = layout.read_config(config.to_dict())
    network = system.build(cfg).eval()
    load_into(network, layout.keys(cfg).to_ours(reference.state_dict()), device="cpu", dtype=torch.float32)
    return reference, network, layout


def prompts(side):
    """Rows of words with as many images in them as `COUNTS` says, of uneven lengths, and which tokens are real."""
    random = torch.Generator().manual_seed(1)
    rows = []
    for count in COUNTS:
        row = torch.randint(4, VOCAB, (2,), generator=random).tolist() if count != 3 else []
        for _ in range(count):
            row += [AROUND, IMAGE, AROUND, *torch.randint(4, VOCAB, (3,), generator=random).tolist()]
        rows.append(row)
    longest = max(map(len, rows))
    tokens, mask = torch.full((3, longest), PAD), torch.zeros(3, longest, dtype=torch.bool)
    for b, row in enumerate(rows):
        at = slice(longest - len(row), None) if side == "left" else slice(0, len(row))
        tokens[b, at], mask[b, at] = torch.tensor(row), True
    pixels = torch.randn(3, max(COUNTS), 3, 25, 25, generator=random)
    image_mask = torch.arange(max(COUNTS)) < torch.tensor(COUNTS)[:, None]
    return {"tokens": tokens, "mask": mask, "pixels": pixels, "image_mask": image_mask}


def looks(tokens):
    """Which images the reference's processor lets each token look at, (B, L, N)."""
    from transformers.models.idefics import processing_idefics as theirs

    tokenizer = SimpleNamespace(convert_tokens_to_ids=lambda _: IMAGE, eos_token_id=-1)
    counted, _ = theirs.image_attention_mask_for_packed_input_ids(tokens, tokenizer, "pt")
    return theirs.incremental_to_binary_attention_mask(counted, "pt", num_classes=max(COUNTS))


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_scores_equal_the_references_with_images_in_rows_and_padding_on_either_side(pair, side):
    reference, network, _ = pair
    batch = prompts(side)
    positions = (batch["mask"].long().cumsum(1) - 1).clamp(min=0)
    wanted = reference(
        batch["tokens"],
        attention_mask=batch["mask"].long(),
        position_ids=positions,
        pixel_values=batch["pixels"],
        image_attention_mask=looks(batch["tokens"]),
    ).logits
    found = network(**batch).logits
    assert found.shape == wanted.shape
    assert (found - wanted)[batch["mask"]].abs().max() < 1e-4
    for b in (0, 2):  # whatever lies in the place of an image that is none
        other = {**batch, "pixels": batch["pixels"].masked_fill(~batch["image_mask"][..., None, None, None], 9.0)}
        assert torch.equal(network(**other).logits[b], found[b])


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}])
def test_decoding_equals_the_references_token_for_token(pair, options):
    reference, network, _ = pair
    batch = prompts("left")
    ours = {"strategy": "beam", **options} if options else {}
    found = generate(network, batch, eos_id=None, pad_id=PAD, max_new_tokens=6, **ours)
    for b, (row, real, count) in enumerate(zip(batch["tokens"], batch["mask"], COUNTS, strict=True)):
        tokens = row[None, real]
        wanted = reference.generate(
            tokens,
            pixel_values=batch["pixels"][b : b + 1],
            image_attention_mask=looks(tokens),
            max_new_tokens=6,
            do_sample=False,
            pad_token_id=PAD,
            **options,
        )
        assert found[b].tolist() == wanted[0, tokens.shape[1] :].tolist(), count


@torch.no_grad()
def test_the_reference_reads_what_we_write(pair):
    reference, network, layout = pair
    cfg = network.cfg
    assert layout.read_config(layout.write_config(cfg)) == cfg
    written = {name: t.load() for name, t in layout.keys(cfg).to_theirs(network.state_dict()).items()}
    again = type(reference)(transformers.IdeficsConfig(**layout.write_config(cfg))).eval()
    missing, strange = again.load_state_dict(written, strict=False)
    again.tie_weights()
    assert not strange
    assert set(missing) <= {"lm_head.weight", "lm_head.additional_fc.weight"}
    batch = prompts("right")
    seen = {"pixel_values": batch["pixels"], "image_attention_mask": looks(batch["tokens"])}
    torch.testing.assert_close(again(batch["tokens"], **seen).logits, reference(batch["tokens"], **seen).logits)


RELEASED = {  # config.json of HuggingFaceM4/idefics-9b; that of idefics-80b has other sizes and no longest text
    "_name_or_path": "None",
    "additional_vocab_size": 2,
    "alpha_initializer": "zeros",
    "alpha_type": "float",
    "alphas_initializer_range": 0.0,
    "architectures": ["IdeficsForVisionText2Text"],
    "bos_token_id": 1,
    "cross_layer_activation_function": "swiglu",
    "cross_layer_interval": 4,
    "dropout": 0.0,
    "eos_token_id": 2,
    "freeze_lm_head": False,
    "freeze_text_layers": False,
    "freeze_text_module_exceptions": [],
    "freeze_vision_layers": False,
    "freeze_vision_module_exceptions": [],
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 11008,
    "max_position_embeddings": 2048,
    "max_sequence_length": 2048,
    "model_type": "idefics",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "pad_token_id": 0,
    "qk_layer_norms": True,
    "rms_norm_eps": 1e-06,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.28.0.dev0",
    "use_cache": True,
    "use_resampler": True,
    "vocab_size": 32000,
    "vision_config": {
        "embed_dim": 1280,
        "image_size": 224,
        "intermediate_size": 5120,
        "patch_size": 14,
        "num_attention_heads": 16,
        "num_hidden_layers": 32,
    },
    "perceiver_config": {
        "qk_layer_norms_perceiver": True,
        "resampler_depth": 6,
        "resampler_head_dim": 96,
        "resampler_n_heads": 16,
        "resampler_n_latents": 64,
    },
}
LARGE = {
    **{name: value for name, value in RELEASED.items() if name != "max_position_embeddings"},
    "hidden_size": 8192,
    "intermediate_size": 22016,
    "num_attention_heads": 64,
    "num_hidden_layers": 80,
    "rms_norm_eps": 1e-05,
}


@pytest.mark.parametrize("name, released", [("idefics-9b", RELEASED), ("idefics-80b", LARGE)])
def test_the_releases_are_these_networks(name, released):
    """By their configurations, and counted as the reference counts."""
    system, card = catalog.system("flamingo"), catalog.info(f"flamingo/{name}")
    cfg = system.presets[card.preset]
    assert system.layouts["idefics"].read_config(released) == cfg
    kept = {field: value for field, value in released.items() if field not in ("architectures", "torch_dtype")}
    with torch.device("meta"):
        networks = transformers.IdeficsForVisionText2Text(transformers.IdeficsConfig(**kept)), system.build(cfg)
    theirs, ours = (sum(parameter.numel() for parameter in network.parameters()) for network in networks)
    assert theirs == ours == card.parameters
