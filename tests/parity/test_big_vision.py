"""big_vision archives, laid out here from the weights of transformers, through `rebus.load`: equal logits."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import Tensor

import rebus
from tests.parity.test_checkpoints import Case, close, paligemma, shaken

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
transformers = pytest.importorskip("transformers")

Arrays = dict[str, np.ndarray]


def linear(state: dict[str, Tensor], theirs: str, name: str, split: tuple[int, ...] = ()) -> Arrays:
    """A Dense layer as flax keeps it: kernel (in, out), the outputs split over heads where asked."""
    weight, bias = state[f"{theirs}.weight"].T, state.get(f"{theirs}.bias")
    found = {f"{name}/kernel": weight.reshape(weight.shape[0], *(split or (weight.shape[1],))).numpy()}
    return found if bias is None else {**found, f"{name}/bias": bias.reshape(*(split or (len(bias),))).numpy()}


def norm(state: dict[str, Tensor], theirs: str, name: str) -> Arrays:
    return {f"{name}/scale": state[f"{theirs}.weight"].numpy(), f"{name}/bias": state[f"{theirs}.bias"].numpy()}


def attention(state: dict[str, Tensor], names: dict[str, str], where: str, heads: int) -> Arrays:
    found: Arrays = {}
    for part in ("query", "key", "value"):
        width = len(state[f"{names[part]}.weight"])
        found |= linear(state, names[part], f"{where}/{part}", (heads, width // heads))
    out = state[f"{names['out']}.weight"].T
    return found | {
        f"{where}/out/kernel": out.reshape(heads, -1, out.shape[1]).numpy(),
        f"{where}/out/bias": state[f"{names['out']}.bias"].numpy(),
    }


def encoder(state: dict[str, Tensor], theirs: str, where: str, last: str, heads: int, stacked: bool) -> Arrays:
    layers: list[Arrays] = []
    while f"{theirs}.encoder.layers.{len(layers)}.layer_norm1.weight" in state:
        layer = f"{theirs}.encoder.layers.{len(layers)}"
        parts = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}
        names = {part: f"{layer}.self_attn.{name}" for part, name in parts.items()}
        layers.append(
            norm(state, f"{layer}.layer_norm1", "LayerNorm_0")
            | norm(state, f"{layer}.layer_norm2", "LayerNorm_1")
            | attention(state, names, "MultiHeadDotProductAttention_0", heads)
            | linear(state, f"{layer}.mlp.fc1", "MlpBlock_0/Dense_0")
            | linear(state, f"{layer}.mlp.fc2", "MlpBlock_0/Dense_1")
        )
    if stacked:
        found = {f"{where}/encoderblock/{name}": np.stack([layer[name] for layer in layers]) for name in layers[0]}
    else:
        found = {f"{where}/encoderblock_{i}/{name}": a for i, layer in enumerate(layers) for name, a in layer.items()}
    return found | norm(state, f"{theirs}.{last}", f"{where}/encoder_norm")


def eyes(state: dict[str, Tensor], theirs: str, heads: int, stacked: bool) -> Arrays:
    return {
        "img/embedding/kernel": state[f"{theirs}.embeddings.patch_embedding.weight"].permute(2, 3, 1, 0).numpy(),
        "img/embedding/bias": state[f"{theirs}.embeddings.patch_embedding.bias"].numpy(),
        "img/pos_embedding": state[f"{theirs}.embeddings.position_embedding.weight"][None].numpy(),
    } | encoder(state, theirs, "img/Transformer", "post_layernorm", heads, stacked)


def siglip_archive(model: torch.nn.Module, stacked: bool, text_heads: int = 2) -> Arrays:
    state = {name: t.detach() for name, t in model.state_dict().items()}
    head = "vision_model.head"
    for kind in ("weight", "bias"):
        for part, piece in zip("qkv", state[f"{head}.attention.in_proj_{kind}"].chunk(3), strict=True):
            state[f"{head}.{part}.{kind}"] = piece
    names = {"query": f"{head}.q", "key": f"{head}.k", "value": f"{head}.v", "out": f"{head}.attention.out_proj"}
    return (
        eyes(state, "vision_model", 4, stacked)
        | {"img/MAPHead_0/probe": state[f"{head}.probe"].numpy()}
        | attention(state, names, "img/MAPHead_0/MultiHeadDotProductAttention_0", 4)
        | norm(state, f"{head}.layernorm", "img/MAPHead_0/LayerNorm_0")
        | linear(state, f"{head}.mlp.fc1", "img/MAPHead_0/MlpBlock_0/Dense_0")
        | linear(state, f"{head}.mlp.fc2", "img/MAPHead_0/MlpBlock_0/Dense_1")
        | {
            "txt/Embed_0/embedding": state["text_model.embeddings.token_embedding.weight"].numpy(),
            "txt/pos_embedding": state["text_model.embeddings.position_embedding.weight"][None].numpy(),
        }
        | encoder(state, "text_model", "txt/Encoder_0", "final_layer_norm", text_heads, stacked)
        | linear(state, "text_model.head", "txt/head")
        | {"t": state["logit_scale"].numpy(), "b": state["logit_bias"].numpy()}
    )


@pytest.mark.parametrize("newer", [False, True], ids=["separate", "stacked"])
def test_a_siglip_archive_gives_the_logits_of_the_reference(tmp_path, newer):
    torch.manual_seed(0)
    tower = {"num_hidden_layers": 3, "intermediate_size": 40}
    config = transformers.SiglipConfig(
        text_config={
            **tower,
            "hidden_size": 20,
            "num_attention_heads": 2,
            "vocab_size": 61,
            "max_position_embeddings": 11,
            "projection_size": 24,
        },
        vision_config={**tower, "hidden_size": 24, "num_attention_heads": 4, "image_size": 24, "patch_size": 8},
    )
    model = shaken(transformers.SiglipModel(config))
    tokens, pixels = torch.randint(0, 61, (4, 11)), torch.randn(3, 3, 24, 24)
    arrays = siglip_archive(model, stacked=newer)
    np.savez(tmp_path / "siglip.npz", **{f"params/{name}" if newer else name: a for name, a in arrays.items()})
    case = Case(
        model,
        {"pixels": pixels, "tokens": tokens},
        lambda model: model(input_ids=tokens, pixel_values=pixels).logits_per_image,
    )
    ours = rebus.load(tmp_path / "siglip.npz", device="cpu")
    close(ours, case)
    ours.save(tmp_path / "out")
    again = transformers.SiglipModel.from_pretrained(tmp_path / "out")
    for name, parameter in model.named_parameters():
        assert again.get_parameter(name).equal(parameter), name


def paligemma_archive(model: torch.nn.Module, heads: int, pairs: int) -> Arrays:
    state = {name.removeprefix("model."): t.detach() for name, t in model.state_dict().items()}
    tower = "vision_tower.vision_model" if any("vision_tower.vision_model" in n for n in state) else "vision_tower"
    text = model.config.text_config

    def stack(theirs: str) -> Tensor:
        names = (f"language_model.layers.{i}.{theirs}.weight" for i in range(text.num_hidden_layers))
        return torch.stack([state[name] for name in names])

    def einsum(theirs: str, count: int) -> Tensor:
        weight = stack(f"self_attn.{theirs}_proj")
        return weight.reshape(len(weight), count, text.head_dim, -1).transpose(2, 3)

    out = stack("self_attn.o_proj").transpose(1, 2)
    arrays = {
        "llm/embedder/input_embedding": state["language_model.embed_tokens.weight"],
        "llm/final_norm/scale": state["language_model.norm.weight"],
        "llm/layers/attn/q_einsum/w": einsum("q", heads),
        "llm/layers/attn/kv_einsum/w": torch.stack([einsum("k", pairs), einsum("v", pairs)], dim=1),
        "llm/layers/attn/attn_vec_einsum/w": out.reshape(len(out), heads, text.head_dim, -1),
        "llm/layers/mlp/gating_einsum": torch.stack(
            [stack("mlp.gate_proj").transpose(1, 2), stack("mlp.up_proj").transpose(1, 2)], dim=1
        ),
        "llm/layers/mlp/linear": stack("mlp.down_proj").transpose(1, 2),
        "llm/layers/pre_attention_norm/scale": stack("input_layernorm"),
    }
    if text.model_type == "gemma2":
        arrays["llm/layers/post_attention_norm/scale"] = stack("post_attention_layernorm")
        arrays["llm/layers/pre_ffw_norm/scale"] = stack("pre_feedforward_layernorm")
        arrays["llm/layers/post_ffw_norm/scale"] = stack("post_feedforward_layernorm")
    else:
        arrays["llm/layers/pre_ffw_norm/scale"] = stack("post_attention_layernorm")
    return (
        eyes(state, tower, 3, stacked=True)
        | linear(state, "multi_modal_projector.linear", "img/head")
        | {name: t.contiguous().numpy() for name, t in arrays.items()}
    )


def archive(folder: Path, model: torch.nn.Module, dtype: type = np.float32) -> Path:
    arrays = paligemma_archive(model, heads=4, pairs=2)
    np.savez(folder / "pali.npz", **{f"params/{name}": a.astype(dtype) for name, a in arrays.items()})
    return folder / "pali.npz"


@pytest.mark.parametrize("kind", ["gemma", "gemma2"])
def test_a_paligemma_archive_gives_the_logits_of_the_reference(tmp_path, kind):
    torch.manual_seed(0)
    case = paligemma(kind, vocab=90, query_scale=6)
    close(rebus.load(archive(tmp_path, case.model), device="cpu"), case)


def test_bfloat16_arrays_need_no_package_of_their_own(tmp_path):
    torch.manual_seed(0)
    case = paligemma("gemma", vocab=90)
    for parameter in case.model.parameters():
        parameter.data = parameter.data.bfloat16().float()
    ours = rebus.load(archive(tmp_path, case.model, ml_dtypes.bfloat16), device="cpu")
    assert ours.dtype == torch.bfloat16
    close(rebus.load(tmp_path / "pali.npz", device="cpu", dtype="float32"), case)
