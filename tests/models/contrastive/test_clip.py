"""CLIP reads a text at its end token, and nowhere else."""

import json
from pathlib import Path

import pytest
import torch

import rebus
from rebus.core.errors import BadConfig, BadText
from rebus.models.contrastive.clip import PRESETS


def scenes(folder: Path) -> Path:
    return rebus.load("clip/scenes").save(folder / "clip")


def edited(folder: Path, name: str, **fields: object) -> Path:
    path = scenes(folder)
    data = json.loads((path / name).read_text())
    target = data["text_config"] if name == "config.json" else data
    target.update(fields)
    (path / name).write_text(json.dumps({k: v for k, v in data.items() if v is not None}))
    return path


def test_fault_41_a_tokenizer_without_the_end_token_is_refused_at_load(tmp_path):
    path = scenes(tmp_path)
    assert len(rebus.load(path).embed_texts(["a circle"])) == 1
    for text in ("{}", None):
        (path / "tokenizer_config.json").unlink(missing_ok=True)
        if text is not None:
            (path / "tokenizer_config.json").write_text(text)
        with pytest.raises(BadConfig, match=r"at '<eos>' \(id 1\).* ends them with '.+' \(id 84\).*eos_token"):
            rebus.load(path)


def test_fault_41_another_end_token_is_refused(tmp_path):
    with pytest.raises(BadConfig, match=r"id 1\).*'<bos>' \(id 2\)"):
        rebus.load(edited(tmp_path, "tokenizer_config.json", eos_token="<bos>"))
    with pytest.raises(BadConfig, match=r"largest id, which goes up to 84.*'<eos>'"):
        rebus.load(edited(tmp_path / "b", "config.json", eos_token_id=2))  # which means the largest id
    with pytest.raises(BadConfig, match=r"the end token 85 \(eos_token_id\) is outside the 85 tokens"):
        rebus.load(edited(tmp_path / "c", "config.json", eos_token_id=85))


def test_fault_41_a_text_without_its_end_token_is_no_answer():
    network = rebus.load("clip/scenes").network
    good = torch.tensor([[2, 9, 1]])
    vector = network.embed_text(good)
    with pytest.raises(BadText, match=r"text 1 has no token 1, .*\(1 of 2 texts"):
        network.embed_text(torch.tensor([[2, 9, 1], [2, 9, 9]]))
    with pytest.raises(BadText, match="text 0 has no token 1"):
        network.embed_text(good, mask=torch.tensor([[True, True, False]]))
    left = network.embed_text(torch.tensor([[0, 2, 9, 1]]), mask=torch.tensor([[False, True, True, True]]))
    torch.testing.assert_close(left, vector)


def test_the_largest_id_is_the_end_token_as_openai_has_it():
    spec = rebus.create("clip/b32", image=PRESETS["tiny"].image, text=PRESETS["tiny"].text, embed=16)
    read = spec.system.text_spec(spec.config)
    assert (read.read_at, read.eos_id) == ("largest", 63)
