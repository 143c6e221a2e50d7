"""GGUF files: values of each kind of block, metadata, and damage at every place, told in one line."""

import struct

import numpy as np
import pytest
import torch

import rebus
from rebus import catalog
from rebus.core.errors import BadCheckpoint, BadConfig, MissingExtra, RebusError
from rebus.open_checkpoint import open_checkpoint
from rebus.weights.gguf import open_gguf

gguf = pytest.importorskip("gguf")
KINDS = gguf.GGMLQuantizationType
TOKENS = ["<unk>", "<s>", "</s>", *"abcdeĠ12", "Ġa", "Ġab", *(f"w{i}" for i in range(82))]


def write(path, tensors, fields=(), architecture="llama", tokenizer=True):
    """A file by the reference's writer: tensors are (values, kind), fields (method, name, value)."""
    writer = gguf.GGUFWriter(path, architecture)
    for method, *given in fields:
        getattr(writer, method)(*given)
    if tokenizer:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("smollm")
        writer.add_token_list(TOKENS)
        writer.add_token_types([3, 3, 3, *[1] * (len(TOKENS) - 3)])
        writer.add_token_merges(["Ġ a", "Ġa b"])
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_add_bos_token(False)
    for name, (values, kind) in tensors.items():
        if kind is None:
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


FIELDS = [
    ("add_block_count", 2),
    ("add_context_length", 64),
    ("add_embedding_length", 24),
    ("add_feed_forward_length", 48),
    ("add_head_count", 4),
    ("add_head_count_kv", 2),
    ("add_rope_freq_base", 10_000.0),
    ("add_layer_norm_rms_eps", 1e-5),
    ("add_vocab_size", 96),
]


def turned(weight, heads):
    """Rows as llama.cpp's converter puts them."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, weight.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weight.shape))


def llama(path, fields=FIELDS):
    """The tiny Llama as a GGUF file."""
    system = catalog.system("llama")
    torch.manual_seed(0)
    network = system.network(system.presets["tiny"]).eval()
    state = {name: p.numpy() for name, p in network.state_dict().items()}
    names = {"norm1": "attn_norm", "norm2": "ffn_norm", "attn.out": "attn_output"}
    names |= {f"attn.{n}": f"attn_{n}" for n in "qkv"} | {f"mlp.{n}": f"ffn_{n}" for n in ("gate", "up", "down")}
    top = {"tokens.weight": "token_embd.weight", "norm.weight": "output_norm.weight", "head.weight": "output.weight"}
    tensors = {}
    for name, value in state.items():
        if name in top:
            tensors[top[name]] = (value, None)
            continue
        _, layer, *part, _ = name.split(".")
        part = ".".join(part)
        value = turned(value, {"attn.q": 4, "attn.k": 2}[part]) if part in ("attn.q", "attn.k") else value
        tensors[f"blk.{layer}.{names[part]}.weight"] = (value, None)
    return network, write(path, tensors, fields)


def test_blocks_of_every_common_kind_have_their_values(tmp_path):
    random = np.random.default_rng(0)
    plain = {
        "f32": (random.standard_normal((3, 5), dtype=np.float32), None),
        "f16": (random.standard_normal((2, 3, 7)).astype(np.float16), None),
        "vector": (random.standard_normal(6, dtype=np.float32), None),
    }
    kinds = {
        kind: (random.standard_normal((6, 64), dtype=np.float32), KINDS[kind])
        for kind in ("Q8_0", "Q4_1", "Q4_0", "BF16")
    }
    found = open_gguf(write(tmp_path / "a.gguf", plain | kinds)).tensors
    for name, (values, _) in plain.items():
        assert found[name].load().numpy().dtype == values.dtype
        assert np.array_equal(found[name].load().numpy(), values)
    for name, (values, kind) in kinds.items():
        wanted = torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(values, kind), kind))
        assert found[name].shape == (6, 64)
        assert torch.equal(found[name].load().float(), wanted), name
        assert torch.equal(found[name].between(2, 5).load().float(), wanted[2:5])
    assert (found["Q8_0"].load() - torch.from_numpy(kinds["Q8_0"][0])).abs().max() < 0.02


def test_a_llama_is_told_by_its_metadata_and_its_heads_are_put_in_order(tmp_path):
    network, path = llama(tmp_path / "tiny.gguf")
    opened = open_checkpoint(path)
    assert (opened.system.name, opened.layout.name, opened.config) == ("llama", "gguf", network.cfg)
    assert open_checkpoint(tmp_path).config == network.cfg  # the folder that holds nothing else
    state = network.state_dict()
    assert opened.tensors.keys() == state.keys()
    assert all(torch.equal(opened.tensors[name].load(), value) for name, value in state.items())
    model = rebus.load(path, device="cpu")
    saved = rebus.load(model.save(tmp_path / "saved"), device="cpu")
    for one in (model, saved):
        spec = one.processor.text.spec
        assert (spec.bos_id, spec.eos_id) == (None, 2)
        assert one.processor(texts=["a ab 12", "</s>"])["tokens"][0].tolist() == [3, 12, 8, 9, 10]
    tokens = torch.randint(0, 96, (2, 9))
    with torch.no_grad():
        torch.testing.assert_close(saved.network(tokens).logits, network(tokens).logits)


def test_metadata_of_every_type_is_read(tmp_path):
    given = {"u8": 200, "i8": -3, "u16": 60_000, "i16": -300, "u32": 2**31, "i32": -7, "u64": 2**40, "i64": -(2**40)}
    methods = {"u8": "uint8", "i8": "int8", "u16": "uint16", "i16": "int16", "u32": "uint32", "i32": "int32"}
    methods |= {"u64": "uint64", "i64": "int64"}
    fields = [(f"add_{methods[name]}", name, value) for name, value in given.items()]
    fields += [("add_float32", "f32", 0.5), ("add_float64", "f64", 0.1), ("add_bool", "yes", True)]
    fields += [("add_string", "text", "naïve"), ("add_array", "numbers", [1, -2]), ("add_array", "texts", ["a", "ü"])]
    found = open_gguf(write(tmp_path / "a.gguf", {"x": (np.ones(2, np.float32), None)}, fields)).metadata
    given |= {"f32": 0.5, "f64": 0.1, "yes": True, "text": "naïve", "numbers": [1, -2], "texts": ["a", "ü"]}
    assert {name: found[name] for name in given} == given


def refused(path):
    with pytest.raises(BadCheckpoint) as caught:
        opened = open_checkpoint(path)
        for tensor in opened.tensors.values():
            tensor.load()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_cut_off_anywhere_is_refused(tmp_path):
    _, path = llama(tmp_path / "whole.gguf")
    whole, cut = path.read_bytes(), tmp_path / "cut" / "cut.gguf"
    cut.parent.mkdir()
    for length in (*range(1, 40), *range(40, len(whole) - 32, 397)):
        cut.write_bytes(whole[:length])
        assert "truncated" in (said := refused(cut)) or "damaged" in said, length
    cut.write_bytes(b"")
    assert "empty file" in refused(cut)


def test_changed_bytes_are_refused_or_read_but_never_a_traceback(tmp_path):
    _, path = llama(tmp_path / "whole.gguf")
    whole, changed = path.read_bytes(), tmp_path / "changed.gguf"
    random = np.random.default_rng(0)
    for _ in range(150):
        data = bytearray(whole)
        for at in random.integers(4, 6000, 3):
            data[at] = random.integers(0, 256)
        changed.write_bytes(data)
        try:
            open_checkpoint(changed).processor()
        except RebusError as error:
            assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("at", "data", "said"),
    [
        (0, b"GGML", "does not begin with GGUF"),
        (4, struct.pack("<I", 1), "version 1 of GGUF; 2 and 3 can be read"),
        (8, struct.pack("<Q", 2**60), "bytes are wanted at byte 16"),
        (16, struct.pack("<Q", 2**60), "bytes are wanted at byte 24"),
        (24, struct.pack("<Q", 2**63), "bytes are wanted at byte 32"),
    ],
)
def test_lengths_are_not_trusted(at, data, said, tmp_path):
    _, path = llama(tmp_path / "a.gguf")
    whole = bytearray(path.read_bytes())
    whole[at : at + len(data)] = data
    path.write_bytes(whole)
    assert said in refused(path)


def test_other_architectures_settings_and_tokenizers_are_refused_by_name(tmp_path):
    one = {"x": (np.ones(2, np.float32), None)}
    assert "architecture 'mamba', which is not supported" in refused(
        write(tmp_path / "a.gguf", one, architecture="mamba")
    )
    scaled = [*FIELDS, ("add_rope_scaling_type", gguf.RopeScalingType.YARN)]
    with pytest.raises(BadConfig, match=r"b.gguf: llama.rope.scaling.type: only 'none' is supported; got 'yarn'"):
        open_checkpoint(llama(tmp_path / "b.gguf", scaled)[1])
    assert "one of 3 parts" in refused(write(tmp_path / "c.gguf", one, [("add_uint16", "split.count", 3)]))
    data = llama(tmp_path / "d.gguf")[1].read_bytes()
    (tmp_path / "d.gguf").write_bytes(data.replace(b"smollm", b"strange"[:6]))
    assert 'cuts texts as "strang"; known are gpt-2, smollm, llama-bpe' in refused(tmp_path / "d.gguf")


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("rebus.core.extras.find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r'a.gguf, a GGUF file, needs the extra "gguf"'):
        open_gguf(tmp_path / "a.gguf")
