"""Files beside a network: opened where they are there, and saved again."""

import torch
from torch import nn

from rebus.core.system import Companion
from rebus.weights.companions import companion_files, open_companions


def a_module(path):
    network = nn.Linear(int(path.read_text()), 1)
    assert network.training
    return network


COMPANIONS = {
    "decoder": Companion(file="decoder.txt", load=a_module, tasks=frozenset({"segment"}), purpose="…"),
    "answers": Companion(
        file="answers.txt", load=lambda p: p.read_text().split(), tasks=frozenset({"ask"}), purpose="…"
    ),
}


def test_those_whose_file_is_there_are_opened(tmp_path):
    device = torch.device("meta")
    assert open_companions(COMPANIONS, tmp_path, device) == {} == open_companions(COMPANIONS, None, device)
    assert companion_files(COMPANIONS, tmp_path) == {} == companion_files(COMPANIONS, None)
    (tmp_path / "answers.txt").write_text("yes no")
    assert open_companions(COMPANIONS, tmp_path, device) == {"answers": ["yes", "no"]}
    (tmp_path / "decoder.txt").write_text("3")
    (tmp_path / "other.txt").write_text("nobody's")
    found = open_companions(COMPANIONS, tmp_path, device)
    assert found["decoder"].weight.shape == (1, 3)
    assert found["decoder"].weight.device == device
    assert not found["decoder"].training, "ready for inference"
    assert companion_files(COMPANIONS, tmp_path) == {"decoder.txt": b"3", "answers.txt": b"yes no"}
