"""Rows of key tables that several released layouts share: a stack of pre-LN blocks under different names."""

Row = tuple[str | tuple[str, ...], str | tuple[str, ...]]


def transformers_blocks(theirs: str, ours: str) -> list[Row]:
    """`{theirs}.layers.{i}.…` of CLIP and SigLIP towers in the transformers layout ⇄ `{ours}.{i}.…`."""
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
