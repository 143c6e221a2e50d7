"""VirTex against PyTorch's own decoder layers and torchvision's ResNet on random weights, in float32."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import rebus
from rebus.core.errors import BadText, UsageError
from rebus.core.labels import IGNORED
from rebus.generation import generate
from rebus.models.prefix_lm import virtex
from rebus.models.prefix_lm.virtex_config import CaptionerConfig, infer_config
from rebus.objectives import BothWaysLoss

pytestmark = pytest.mark.parity
torchvision = pytest.importorskip("torchvision")
HEADS, VOCAB, CONTEXT = 2, 97, 12


class Head(nn.Module):
    """A captioner of one direction, as the released code puts it together, by its names."""

    def __init__(self, layers, pre_norm, width=128):
        super().__init__()
        self.visual_projection = nn.Linear(2048, width)
        self.embedding = nn.ModuleDict(
            {
                "words": nn.Embedding(VOCAB, width),
                "positions": nn.Embedding(CONTEXT, width),
                "layer_norm": nn.LayerNorm(width, eps=1e-8),
            }
        )
        layer = nn.TransformerDecoderLayer(width, HEADS, 4 * width, 0.0, "gelu", batch_first=True, norm_first=pre_norm)
        self.transformer = nn.TransformerDecoder(layer, layers, nn.LayerNorm(width) if pre_norm else None)
        self.output = nn.Linear(width, VOCAB)
        self.output.weight = self.embedding["words"].weight

    def forward(self, features, tokens):
        length = tokens.shape[1]
        memory = self.visual_projection(features.flatten(2).transpose(1, 2))
        e = self.embedding
        x = e["layer_norm"](e["words"](tokens) + e["positions"](torch.arange(length)))
        x = x * (tokens != 0)[..., None]
        above = torch.ones(length, length).triu(1).bool()
        return self.output(self.transformer(x, memory, tgt_mask=above))


class Reference(nn.Module):
    def __init__(self, layers=2, pre_norm=False, both=True):
        super().__init__()
        self.visual = nn.ModuleDict({"cnn": torchvision.models.resnet50()})
        self.visual["cnn"].fc = nn.Identity()
        self.textual = Head(layers, pre_norm)
        if both:
            self.backward_textual = Head(layers, pre_norm)
            for name in ("visual_projection", "embedding", "output"):
                setattr(self.backward_textual, name, getattr(self.textual, name))

    def features(self, pixels):
        net = self.visual["cnn"]
        x = net.maxpool(net.relu(net.bn1(net.conv1(pixels))))
        return net.layer4(net.layer3(net.layer2(net.layer1(x))))


def shaken(model):
    torch.manual_seed(0)
    for name, value in model.state_dict().items():
        if name.endswith("running_mean"):
            nn.init.normal_(value, std=0.1)
        elif name.endswith("running_var"):
            nn.init.uniform_(value, 0.5, 1.5)
        elif value.is_floating_point() and not name.startswith("visual"):
            nn.init.normal_(value, mean=float("norm" in name and name.endswith("weight")), std=0.06)
    return model.eval()


@pytest.fixture(scope="module", params=[(2, False, True), (1, True, False)], ids=["both", "pre_norm"])
def pair(request, tmp_path_factory):
    theirs = shaken(Reference(*request.param))
    file = tmp_path_factory.mktemp("virtex") / "model.pth"
    torch.save({"model": theirs.state_dict(), "iteration": 500_000}, file)
    return theirs, rebus.load(file, device="cpu")


def test_features_and_both_directions(pair):
    theirs, model = pair
    pixels = torch.randn(2, 3, 97, 74, generator=torch.Generator().manual_seed(1))
    captions = [[1, 5, 9, 0, 33, 7, 2], [1, 8, 44, 2]]  # 0 is a word that the tokenizer does not know
    targets = torch.full((2, 6), IGNORED)
    for row, caption in enumerate(captions):
        targets[row, : len(caption) - 1] = torch.tensor(caption[1:])
    with torch.no_grad():
        features = theirs.features(pixels)
        torch.testing.assert_close(model.network.image.feature_map(pixels), features, atol=1e-4, rtol=0)
        out = model(pixels=pixels, tokens=torch.ones(2, 1, dtype=torch.int64), targets=targets)
        for row, caption in enumerate(captions):
            sentence = torch.tensor([caption])
            wanted = theirs.textual(features[row : row + 1], sentence[:, :-1])[0]
            torch.testing.assert_close(out.logits[row, : len(caption) - 1], wanted, atol=1e-4, rtol=0)
            if out.backward is not None:
                wanted = theirs.backward_textual(features[row : row + 1], sentence.flip(1)[:, :-1])[0]
                torch.testing.assert_close(out.backward[row, : len(caption) - 1], wanted, atol=1e-4, rtol=0)
    assert (out.backward is None) == (not hasattr(theirs, "backward_textual"))


def test_what_is_learned_is_the_sum_of_both_directions(pair):
    theirs, model = pair
    if not hasattr(theirs, "backward_textual"):
        pytest.skip("one direction")
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    rows = torch.tensor([[1, 5, 9, 0, 33, 2], [1, 8, 44, 2, 0, 0]])  # padded with the id of unknown words
    with torch.no_grad():
        features = theirs.features(pixels)
        back = torch.tensor([[2, 33, 0, 9, 5, 1], [2, 44, 8, 1, 0, 0]])
        wanted = sum(
            F.cross_entropy(head(features, one[:, :-1]).flatten(0, 1), one[:, 1:].flatten(), ignore_index=0)
            for head, one in ((theirs.textual, rows), (theirs.backward_textual, back))
        )
        targets = rows[:, 1:].clone()
        targets[1, 3:] = IGNORED
        batch = {"pixels": pixels, "tokens": rows[:, :1], "targets": targets}
        losses = BothWaysLoss()(model.network, batch)
    torch.testing.assert_close(losses.total, wanted, atol=1e-5, rtol=0)
    torch.testing.assert_close(losses.parts["forward"] + losses.parts["backward"], wanted, atol=1e-5, rtol=0)


def greedy(theirs, features, forget):
    words = [1]
    for _ in range(8):
        seen = words[1:] if forget and len(words) > 1 else words
        words.append(int(theirs.textual(features, torch.tensor([seen]))[0, -1].argmax()))
    return words[1:]


@pytest.mark.parametrize("forget", [False, True])
def test_captions_with_and_without_the_start_token(pair, forget):
    theirs, model = pair
    pixels = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    network = virtex.VirTex(replace(model.config, forgets_start=forget)).eval()
    network.load_state_dict(model.network.state_dict())
    tokens = torch.ones(3, 1, dtype=torch.int64)
    found = generate(network, {"pixels": pixels, "tokens": tokens}, eos_id=None, pad_id=0, max_new_tokens=8)
    with torch.no_grad():
        features = theirs.features(pixels)
        wanted = [greedy(theirs, features[row : row + 1], forget) for row in range(3)]
    assert found.tolist() == wanted


def test_the_size_of_every_published_model():
    wanted = {  # spec: trainable parameters
        "r50_l1_h512": 38_111_568, "r50_l1_h768": 51_699_792, "r50_l1_h1024": 69_482_320,
        "r50_l1_h2048": 182_555_472, "r50_l2_h1024": 103_075_664, "r50_l3_h1024": 136_669_008,
        "r50_l4_h1024": 170_262_352, "r50w2x_l1_h1024": 112_808_528, "r101_l1_h1024": 88_474_448,
        "r50_l1_h2048_forward": 115_407_696, "r50_l1_h2048_masked": 115_407_696, "r50_tokens": 43_998_032,
        "r50_labels": 23_674_001,
    }  # fmt: skip
    assert wanted.keys() == {name for name in virtex.PRESETS if "tiny" not in name}
    for name, parameters in wanted.items():
        with torch.device("meta"):
            network = virtex.VirTex(virtex.PRESETS[name])
        assert sum(p.numel() for p in network.parameters()) == parameters, name


def test_label_heads_are_told_by_their_shapes():
    with torch.device("meta"):
        cnn = torchvision.models.wide_resnet50_2()
    shapes = {f"visual.cnn.{name}": tuple(t.shape) for name, t in cnn.state_dict().items() if "fc" not in name}
    shapes |= {"textual.output.weight": (81, 2048), "textual.output.bias": (81,)}
    found = infer_config(shapes)
    assert (found.head, found.text.vocab_size, found.image.variant) == ("labels", 81, "wide_resnet50_2")
    with pytest.raises(UsageError, match="does not caption images"), torch.device("meta"):
        network = virtex.VirTex(virtex.PRESETS["r50_l1_h2048_masked"])
        network.start(room=3, pixels=torch.zeros(1, 3, 64, 64), tokens=torch.ones(1, 1, dtype=torch.int64))


def test_a_caption_longer_than_the_positions_is_refused():
    network = virtex.VirTex(replace(virtex.PRESETS["tiny"], text=CaptionerConfig(width=24, num_heads=3, context=5)))
    batch = {"pixels": torch.zeros(1, 3, 64, 64), "tokens": torch.ones(1, 1, dtype=torch.int64)}
    network.start(room=5, **batch)
    with pytest.raises(BadText, match="6 tokens of caption"):
        network.start(room=6, **batch)


def test_of_the_finished_captions_the_one_that_reads_best_both_ways_is_taken():
    torch.manual_seed(3)
    cfg = replace(virtex.PRESETS["tiny"], text=replace(virtex.PRESETS["tiny"].text, vocab_size=9))
    network = virtex.VirTex(cfg).eval()
    for p in network.parameters():
        nn.init.normal_(p, std=0.5)
    nn.init.zeros_(network.bias)  # which both directions share
    batch = {"pixels": torch.randn(3, 3, 64, 64), "tokens": torch.ones(3, 1, dtype=torch.int64)}
    options = {"eos_id": 2, "pad_id": 0, "strategy": "beam", "max_new_tokens": 2, "length_penalty": 1.0}
    options |= {"num_beams": 81}  # more than there are sentences of two words at most: all of them finish
    found = generate(network, batch, both_ways=2.0, **options)
    sentences = [[2], *([a, b] for a in range(9) if a != 2 for b in range(9))]
    texts = torch.tensor([s + [IGNORED] * (2 - len(s)) for s in sentences])
    for row in range(3):
        alone = {name: value[row : row + 1] for name, value in batch.items()}
        repeated = {name: value.expand(len(texts), *value.shape[1:]) for name, value in alone.items()}
        with torch.no_grad():
            out = network(**repeated, targets=texts)
            forward = -F.cross_entropy(out.logits.mT, texts, ignore_index=IGNORED, reduction="none").sum(1)
            back = torch.tensor([[*reversed(s), 1] + [IGNORED] * (2 - len(s)) for s in sentences])[:, 1:]
            backward = -F.cross_entropy(out.backward.mT, back, ignore_index=IGNORED, reduction="none").sum(1)
            told = network.backward_likelihood(texts[None], **alone)[0]
        torch.testing.assert_close(told, backward, atol=1e-4, rtol=0)
        lengths = torch.tensor([len(s) for s in sentences])
        best = sentences[int(((forward + 2 * backward) / lengths).argmax())]
        assert found[row, : len(best)].tolist() == best
    plain = generate(network, batch, **options)
    assert not torch.equal(plain, found)  # the other reading changed at least one of them


def test_a_model_that_reads_one_way_says_so():
    network = virtex.VirTex(virtex.PRESETS["tiny_pre_norm"]).eval()
    batch = {"pixels": torch.randn(1, 3, 64, 64), "tokens": torch.ones(1, 1, dtype=torch.int64)}
    with pytest.raises(UsageError, match="both_ways is for models"):
        generate(network, batch, eos_id=2, pad_id=0, strategy="beam", both_ways=1.0, max_new_tokens=3)
