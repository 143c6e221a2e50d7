"""Rows of key tables that several released layouts share: a stack of pre-LN blocks under different names."""

from rebus.weights.key_sides import Row


def transformers_blocks(theirs: str, ours: str) -> list[Row]:
    """`{theirs}.layers.{i}.…` of CLIP and SigLIP encoders in the transformers layout ⇄ `{ours}.{i}.…`."""
    layer = theirs + ".{i}."
    block = ours + ".{i}."
    pairs = [
        ("layer_norm1", "norm1"),
        ("layer_norm2", "norm2"),
        ("self_attn.q_proj", "attn.q"),
        ("self_attn.k_proj", "attn.k"),
        ("self_attn.v_proj", "attn.v"),
        ("self_attn.out_proj", "attn.out"),
        ("mlp.fc1", "mlp.up"),
        ("mlp.fc2", "mlp.down"),
    ]
    return [(layer + a + ".{p}", block + b + ".{p}") for a, b in pairs]


def open_clip_blocks(theirs: str, ours: str) -> list[Row]:
    """`{theirs}.{i}.…` of the original CLIP archives and of open_clip, with queries, keys and values in one matrix."""
    layer, block = theirs + ".{i}.", ours + ".{i}."
    fused = (block + "attn.q.{p}", block + "attn.k.{p}", block + "attn.v.{p}")
    return [
        (layer + "ln_1.{p}", block + "norm1.{p}"),
        (layer + "ln_2.{p}", block + "norm2.{p}"),
        (layer + "attn.in_proj_{p}", fused),
        (layer + "attn.out_proj.{p}", block + "attn.out.{p}"),
        (layer + "mlp.c_fc.{p}", block + "mlp.up.{p}"),
        (layer + "mlp.c_proj.{p}", block + "mlp.down.{p}"),
    ]


def timm_blocks(theirs: str, ours: str) -> list[Row]:
    """`{theirs}.{i}.…` of a timm vision transformer."""
    layer, block = theirs + ".{i}.", ours + ".{i}."
    return [
        (layer + "norm1.{p}", block + "norm1.{p}"),
        (layer + "norm2.{p}", block + "norm2.{p}"),
        (layer + "attn.qkv.{p}", (block + "attn.q.{p}", block + "attn.k.{p}", block + "attn.v.{p}")),
        (layer + "attn.proj.{p}", block + "attn.out.{p}"),
        (layer + "mlp.fc1.{p}", block + "mlp.up.{p}"),
        (layer + "mlp.fc2.{p}", block + "mlp.down.{p}"),
    ]


def big_vision_blocks(theirs: str, ours: str) -> list[Row]:
    """`{theirs}/encoderblock_{i}/…` of big_vision, as `rebus.weights.npz` spells it."""
    layer, block = theirs + "/encoderblock_{i}/", ours + ".{i}."
    attention = layer + "MultiHeadDotProductAttention_0/"
    return [
        (layer + "LayerNorm_0/{p}", block + "norm1.{p}"),
        (layer + "LayerNorm_1/{p}", block + "norm2.{p}"),
        (attention + "query/{p}", block + "attn.q.{p}"),
        (attention + "key/{p}", block + "attn.k.{p}"),
        (attention + "value/{p}", block + "attn.v.{p}"),
        (attention + "out/{p}", block + "attn.out.{p}"),
        (layer + "MlpBlock_0/Dense_0/{p}", block + "mlp.up.{p}"),
        (layer + "MlpBlock_0/Dense_1/{p}", block + "mlp.down.{p}"),
    ]


def big_vision_image() -> list[Row]:
    """SigLIP's vision encoder without its pooling, alone or inside PaliGemma."""
    return [
        ("img/embedding/{p}", "image.patch.{p}"),
        ("img/pos_embedding", "image.positions"),
        *big_vision_blocks("img/Transformer", "image.blocks"),
        ("img/Transformer/encoder_norm/{p}", "image.norm.{p}"),
    ]


def clip_vision() -> list[Row]:
    """CLIP's vision transformer in the transformers layout, without the projection."""
    return [
        ("vision_model.embeddings.class_embedding", "class_token"),
        ("vision_model.embeddings.patch_embedding.weight", "patch.weight"),
        ("vision_model.embeddings.position_embedding.weight", "positions"),
        ("vision_model.pre_layrnorm.{p}", "norm_pre.{p}"),  # sic
        *transformers_blocks("vision_model.encoder.layers", "blocks"),
        ("vision_model.post_layernorm.{p}", "norm.{p}"),
    ]


def siglip_vision() -> list[Row]:
    """SigLIP's vision encoder without its pooling, in the transformers layout, alone or inside PaliGemma."""
    return [
        ("vision_model.embeddings.patch_embedding.{p}", "patch.{p}"),
        ("vision_model.embeddings.position_embedding.weight", "positions"),
        *transformers_blocks("vision_model.encoder.layers", "blocks"),
        ("vision_model.post_layernorm.{p}", "norm.{p}"),
    ]
