"""SimVLM begun with the weights of a T5, and of several networks at once."""

from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from transformers import T5Config, T5ForConditionalGeneration

import rebus
from rebus.backbones.vision.resnet import ResNetConfig
from rebus.catalog import system
from rebus.core.errors import BadCheckpoint
from rebus.models.prefix_lm.simvlm import PRESETS, SimVLM
from rebus.nn.norms import LayerNorm
from rebus.objectives import PrefixLMLoss
from rebus.save_checkpoint import save_checkpoint
from rebus.train import TrainConfig
from rebus.train.config import Start
from rebus.train.final_model import _domain
from rebus.train.warm_start import build
from tests.train.settings import CLIP

TINY = PRESETS["tiny"]
PARTS = ("tokens", "encoder.blocks", "encoder.norm", "decoder")


def t5(folder, **changes):
    torch.manual_seed(0)
    sizes = {"d_model": 24, "d_kv": 8, "num_heads": 3, "d_ff": 40, "num_layers": 2, "vocab_size": 96}
    reference = T5ForConditionalGeneration(T5Config(**{**sizes, "decoder_start_token_id": 1, **changes})).eval()
    for p in reference.parameters():
        nn.init.normal_(p, std=0.4)
    reference.save_pretrained(folder)
    return reference


def starting(*starts):
    """A run of SimVLM that begins with them."""
    return TrainConfig(system="simvlm", model=TINY, objective=PrefixLMLoss(), data=CLIP.data, starts=starts)


def from_t5(folder, *parts):
    return starting(*(Start(source=str(folder), take=part, into=part) for part in parts))


def test_what_is_taken_over_of_a_t5_computes_what_it_did(tmp_path):
    """Bar what is T5's own: without positions, and with its norms and activation, the scores are its scores."""
    reference = t5(tmp_path)
    for stack in (reference.encoder, reference.decoder):
        nn.init.zeros_(stack.block[0].layer[0].SelfAttention.relative_attention_bias.weight)
    built = build(from_t5(tmp_path, *PARTS))
    ours = built.network.eval()
    assert set(built.copied.values()) == {str(tmp_path)}
    nn.init.zeros_(ours.positions.weight)
    for module in list(ours.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, LayerNorm):
                assert (child.bias == 0).all()
                norm = nn.RMSNorm(child.weight.shape[0], eps=1e-6)
                norm.weight = child.weight
                setattr(module, name, norm)
        if hasattr(module, "act") and hasattr(module, "up"):
            module.act = F.relu
    random = torch.Generator().manual_seed(1)
    tokens, targets = (torch.randint(3, 96, (2, n), generator=random) for n in (7, 5))
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[1, 4:] = False
    with torch.no_grad():
        wanted = reference(input_ids=tokens, attention_mask=mask.long(), decoder_input_ids=torch.cat(
            [torch.ones(2, 1, dtype=torch.int64), targets[:, :-1]], dim=1)).logits  # fmt: skip
        found = ours(tokens=tokens, mask=mask, targets=targets).logits
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-5)


def test_several_sources_in_one_run(tmp_path):
    """The convolutions of a ResNet, the encoder of SigLIP's ViT, the decoder and the words of a T5."""
    reference = t5(tmp_path / "t5")
    resnet = timm.create_model("resnet18")
    for value in resnet.parameters():
        nn.init.normal_(value, std=0.4)
    save_file(resnet.state_dict(), tmp_path / "resnet18.safetensors")
    image, encoder = str(tmp_path / "resnet18.safetensors"), str(tmp_path / "siglip")
    sizes = {"width": 24, "num_layers": 2, "num_heads": 3, "mlp_width": 40}
    text = {**sizes, "vocab_size": 64, "context": 12}
    siglip = rebus.create("siglip/b16-224", image={**sizes, "image_size": 32}, text=text, embed=24, pad_id=0)
    siglip.save(encoder)
    vit = siglip.network.image
    stages = ("conv1", "bn1", "layer1", "layer2", "layer3")
    config = starting(
        *(Start(source=image, take=f"net.{stage}", into=f"image.net.{stage}") for stage in stages),
        *(Start(source=encoder, take=f"image.{part}", into=f"encoder.{part}") for part in ("blocks", "norm")),
        *(Start(source=str(tmp_path / "t5"), take=part, into=part) for part in ("tokens", "decoder")),
    )
    published = ResNetConfig(variant="resnet18", num_classes=0, stages=3)
    network = build(replace(config, model=replace(TINY, image=published))).network
    assert torch.equal(network.image.net.layer3[0].conv1.weight, resnet.layer3[0].conv1.weight)
    assert torch.equal(network.encoder.blocks[1].mlp.up.weight, vit.blocks[1].mlp.up.weight)
    assert torch.equal(network.tokens.weight, reference.shared.weight)
    cross = reference.decoder.block[1].layer[1].EncDecAttention
    assert torch.equal(network.decoder.blocks[1].cross.v.weight, cross.v.weight)


def test_a_t5_that_does_not_fit_is_refused_by_name(tmp_path):
    t5(tmp_path / "wide", d_ff=48)
    with pytest.raises(BadCheckpoint, match=r"decoder has another size: decoder\.blocks\.0\.mlp\.up\.weight"):
        build(from_t5(tmp_path / "wide", "decoder"))
    t5(tmp_path / "gated", feed_forward_proj="gated-gelu")
    with pytest.raises(BadCheckpoint, match=r"gated: the MLPs of T5 v1\.1, mT5 and UL2 are gated"):
        build(from_t5(tmp_path / "gated", "decoder"))


def test_a_model_that_began_with_a_t5_is_one_of_photos(tmp_path):
    t5(tmp_path)
    assert _domain(from_t5(tmp_path, "tokens")) == "photos"
    assert _domain(replace(from_t5(tmp_path), starts=())) == "shapes"


def test_a_single_weight_is_a_part(tmp_path):
    network = SimVLM(TINY)
    nn.init.normal_(network.image_positions, std=0.4)
    save_checkpoint(tmp_path / "run", system("simvlm").layout_for(TINY), TINY, network.state_dict())
    start = Start(source=str(tmp_path / "run"), take="image_positions", into="image_positions")
    assert torch.equal(build(starting(start)).network.image_positions, network.image_positions)
