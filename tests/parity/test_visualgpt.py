"""VisualGPT against a transcription of its released training code, by its names; and GPT-2 inside it."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import rebus
from rebus.backbones.text import gpt2
from rebus.core.labels import IGNORED
from rebus.generation import generate
from rebus.models.cross_attention.visualgpt import PRESETS, VisualGPT, keys

pytestmark = pytest.mark.parity
WIDTH, HEADS, REGION, VOCAB, LEVELS = 128, 2, 30, 97, 3


class Conv1D(nn.Module):
    """A linear layer whose matrix lies the other way round."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(inputs, outputs)), nn.Parameter(torch.empty(outputs))

    def forward(self, x):
        return x @ self.weight + self.bias


def split(x):
    return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def attention(q, k, v, hidden):
    scores = split(q) @ split(k).mT / (WIDTH // HEADS) ** 0.5
    return (scores.masked_fill(hidden, -10_000.0).softmax(-1) @ split(v)).transpose(1, 2).flatten(2)


def module(**parts):
    return nn.ModuleDict(parts)


class Reference(nn.Module):
    """The whole network; `tau` is given at every call, and padding of regions is attended to."""

    def __init__(self, layers=2):
        super().__init__()
        linear = nn.Linear

        def mhatt():
            inner = {f"fc_{n}": linear(WIDTH, WIDTH) for n in "qkvo"}
            unread = {f"c_attn_{n}": linear(WIDTH, WIDTH) for n in ("query", "key", "value")}
            return module(attention=module(**inner, **unread), layer_norm=nn.LayerNorm(WIDTH))

        def pwff():
            return module(fc1=linear(WIDTH, 72), fc2=linear(72, WIDTH), layer_norm=nn.LayerNorm(WIDTH))

        def block():
            attn = module(c_attn=Conv1D(WIDTH, 3 * WIDTH), c_proj=Conv1D(WIDTH, WIDTH))
            attn.register_buffer("bias", torch.ones(1, 1, 60, 60))
            cross = module(**{f"fc_{n}": linear(WIDTH, WIDTH) for n in "qkv"}, c_proj=Conv1D(WIDTH, WIDTH))
            cross["c_attn"] = Conv1D(WIDTH, 3 * WIDTH)
            gates = {f"fc_alpha{k}": linear(2 * WIDTH, WIDTH) for k in (1, 2, 3)}
            mlp = module(c_fc=Conv1D(WIDTH, 160), c_proj=Conv1D(160, WIDTH))
            norms = {f"ln_{k}": nn.LayerNorm(WIDTH) for k in (1, 2)}
            return module(attn=attn, enc_dec_attn=cross, mlp=mlp, **gates, **norms)

        layers_of = [module(mhatt=mhatt(), pwff=pwff()) for _ in range(LEVELS)]
        self.encoder = module(fc=linear(REGION, WIDTH), layer_norm=nn.LayerNorm(WIDTH), layers=nn.ModuleList(layers_of))
        words = {"wte": nn.Embedding(VOCAB, WIDTH), "wpe": nn.Embedding(40, WIDTH), "ln_f": nn.LayerNorm(WIDTH)}
        head = linear(WIDTH, VOCAB, bias=False)
        head.weight = words["wte"].weight
        self.decoder = module(
            transformer=module(**words, h=nn.ModuleList(block() for _ in range(layers))),
            lm_head=module(decoder=head),
        )
        self.register_buffer("running_seq", torch.zeros(1))
        for name, p in self.named_parameters():
            nn.init.normal_(p, mean=float("l" in name.split(".")[-2] and "n" in name.split(".")[-2]
                                          and p.ndim == 1 and name.endswith("weight")), std=0.15)  # fmt: skip

    def see(self, regions):
        e = self.encoder
        x = e["layer_norm"](F.gelu(e["fc"](regions), approximate="tanh"))
        levels = []
        for layer in e["layers"]:
            a = layer["mhatt"]["attention"]
            mixed = attention(a["fc_q"](x), a["fc_k"](x), a["fc_v"](x), torch.tensor(False))
            x = layer["mhatt"]["layer_norm"](x + a["fc_o"](mixed))
            w = layer["pwff"]
            x = w["layer_norm"](x + w["fc2"](w["fc1"](x).relu()))
            levels.append(x)
        return levels

    def forward(self, regions, tokens, tau):
        t = self.decoder["transformer"]
        length = tokens.shape[1]
        x = t["wte"](tokens) + t["wpe"](torch.arange(length))
        later = torch.ones(length, length).triu(1).bool()
        for b in t["h"]:
            q, k, v = b["attn"]["c_attn"](b["ln_1"](x)).chunk(3, dim=-1)
            a = x + b["attn"]["c_proj"](attention(q, k, v, later))
            total = 0
            for i, level in enumerate(self.see(regions), 1):
                c, seen = b["enc_dec_attn"], b["ln_1"](level)
                mixed = attention(c["fc_q"](b["ln_1"](a)), c["fc_k"](seen), c["fc_v"](seen), torch.tensor(False))
                found = c["c_proj"](mixed)
                alpha = b[f"fc_alpha{i}"](torch.cat([a, found], -1)).sigmoid()
                total = total + alpha * (alpha > tau) * a + (1 - alpha) * (alpha < 1 - tau) * found
            a = total / 3**0.5
            m = b["mlp"]
            x = a + m["c_proj"](F.gelu(m["c_fc"](b["ln_2"](a)), approximate="tanh"))
        return self.decoder["lm_head"]["decoder"](t["ln_f"](x))


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    torch.manual_seed(0)
    theirs = Reference().eval()
    file = tmp_path_factory.mktemp("visualgpt") / "visualGPT_best.pth"
    torch.save({"state_dict": theirs.state_dict(), "epoch": 3, "val_cider": 1.0, "use_rl": False}, file)
    return theirs, rebus.load(file, device="cpu")


def test_a_file_of_the_released_code_gives_its_logits(pair):
    """Captions of different length, and fewer regions than the 50 up to which that code fills with zeros."""
    theirs, model = pair
    assert (model.config.filled_to, model.config.threshold, model.config.num_levels) == (50, 0.2, LEVELS)
    regions = torch.randn(2, 7, REGION, generator=torch.Generator().manual_seed(1))
    there = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
    captions = [[9, 5, 33, 7, 2, 60], [9, 8, 44, 2]]
    targets = torch.full((2, 5), IGNORED)
    for row, caption in enumerate(captions):
        targets[row, : len(caption) - 1] = torch.tensor(caption[1:])
    batch = {"regions": regions, "region_mask": there, "tokens": torch.full((2, 1), 9)}
    with torch.no_grad():
        out = model(**batch, targets=targets)
        step = model.network.start(room=6, **batch)
        for row, caption in enumerate(captions):
            filled = F.pad(regions[row, there[row]], (0, 0, 0, 50 - int(there[row].sum())))[None]
            wanted = theirs(filled, torch.tensor([caption[:-1]]), 0.2)[0]
            torch.testing.assert_close(out.logits[row, : len(caption) - 1], wanted, atol=1e-4, rtol=0)
            torch.testing.assert_close(step.logits[row], wanted[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.2, 0.5])
def test_values_and_gradients_equal_the_transcription_in_float64(pair, threshold):
    theirs, model = pair
    cfg = replace(model.config, threshold=threshold, filled_to=0)
    ours = VisualGPT(cfg).double()
    ours.load_state_dict(model.network.state_dict())
    exact = Reference().double()
    exact.load_state_dict(theirs.state_dict())
    random = torch.Generator().manual_seed(2)
    regions = torch.randn(2, 6, REGION, generator=random).double()
    tokens = torch.randint(3, VOCAB, (2, 7), generator=random)
    wanted = exact(regions, tokens[:, :-1], threshold)
    found = ours(regions=regions, tokens=tokens[:, :1], targets=tokens[:, 1:]).logits
    torch.testing.assert_close(found, wanted, atol=1e-10, rtol=0)

    weights = torch.randn(wanted.shape, generator=random).double()
    (wanted * weights).sum().backward()
    (found * weights).sum().backward()
    named = dict(exact.named_parameters())
    gradients = keys(cfg).to_ours({n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in named.items()})
    for name, p in ours.named_parameters():
        torch.testing.assert_close(p.grad, gradients[name].load(), atol=1e-9, rtol=1e-9, msg=name)
    assert max(p.grad.abs().max() for n, p in ours.named_parameters() if "gates" in n) > 1e-3


def closed(network):
    """The same with every α at 1: nothing of the image passes."""
    with torch.no_grad():
        for look in network.looks:
            for gate in look.gates:
                gate.weight.zero_()
                gate.bias.fill_(40.0)
    return network.eval()


@pytest.mark.parametrize("changes", [{"num_levels": 1}, {"fusion": "normalised gates"}])
def test_gpt2_inside_is_gpt2_while_the_gates_are_closed(changes):
    """One level, or the mean of them, leaves a as it is. And what transformers' beam search writes, this writes."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=96, n_positions=64, n_embd=24, n_layer=2, n_head=3, n_inner=40,
                                initializer_range=0.6, eos_token_id=2, bos_token_id=1)
    ).eval()  # fmt: skip
    network = closed(VisualGPT(replace(PRESETS["tiny"], **changes)))
    weights = gpt2.keys(network.cfg.text).to_ours(theirs.state_dict())
    network.text.load_state_dict({name: tensor.load() for name, tensor in weights.items()})
    tokens = torch.randint(3, 96, (3, 5), generator=torch.Generator().manual_seed(4))
    regions = torch.randn(3, 4, 14)
    with torch.no_grad():
        found = network(regions=regions, tokens=tokens[:, :1], targets=tokens[:, 1:]).logits
        alone = network.text(tokens[:, :1], targets=tokens[:, 1:]).logits
        assert torch.equal(found, alone)
        torch.testing.assert_close(found, theirs(tokens[:, :-1]).logits, atol=1e-4, rtol=0)
    for beams, penalty in ((5, 0.0), (3, 1.0)):
        options = {"max_new_tokens": 10, "num_beams": beams, "length_penalty": penalty}
        wanted = theirs.generate(input_ids=tokens, do_sample=False, pad_token_id=3, eos_token_id=2, **options)[:, 5:]
        batch = {"regions": regions, "tokens": tokens}
        assert torch.equal(generate(network, batch, eos_id=2, pad_id=3, strategy="beam", **options), wanted)


def test_released_gates_that_are_closed_multiply_the_language_path():
    """With all three α at 1 the sum over levels is √3 a, which no norm undoes: not GPT-2, as the formula has it."""
    torch.manual_seed(0)
    network = closed(VisualGPT(replace(PRESETS["tiny"], num_levels=3))).double()
    text = network.text
    tokens = torch.randint(3, 96, (2, 5), generator=torch.Generator().manual_seed(4))
    x = text.embed(tokens) + text.positions(torch.arange(5))
    mask = torch.ones(5, 5).tril().bool()[None, None]
    for block in text.blocks:
        a = (x + block.attn(block.norm1(x), mask=mask)) * 3**0.5
        x = a + block.mlp(block.norm2(a))
    wanted = text.logits(text.norm(x))
    for seed in (0, 1):  # whatever the image
        regions = torch.randn(2, 4, 14, generator=torch.Generator().manual_seed(seed)).double()
        found = network(regions=regions, tokens=tokens[:, :1], targets=torch.cat([tokens[:, 1:], tokens[:, :1]], 1))
        torch.testing.assert_close(found.logits, wanted)


def test_published_sizes():
    """The released code's count of 239,976,960, without the 26,576,640 weights in it that nothing reads."""
    with torch.device("meta"):
        network = VisualGPT(PRESETS["base"])

    def count(part):
        return sum(p.numel() for p in part.parameters())

    assert count(network) == 239_976_960 - 26_576_640
    assert count(network.encoder) == 23_432_448 - 5_315_328
    assert count(network.text) == 124_439_808
    assert sum(count(look.gates) for look in network.looks) == 42_494_976
    assert sum(count(look.cross) for look in network.looks) == 28_348_416
