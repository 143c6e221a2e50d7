"""A whole tiny Flamingo of a language model and an image encoder on disk, with a tokenizer of words."""

import torch

import rebus
from rebus.backbones.text import gpt2
from rebus.backbones.vision import vit_layouts
from rebus.codec.images import ImagePipeline
from rebus.codec.processor import Processor
from rebus.codec.text import TextPipeline
from rebus.codec.tokenizers import word_level_tokenizer
from rebus.core.specs import ImageSpec
from rebus.save_checkpoint import save_checkpoint

WORDS = "? : a answer blue cat circle colour dog green is it no output question red short square the what yes".split()
TOKENIZER = word_level_tokenizer(WORDS, ("<pad>", "<eos>", "<unk>"))


def parts(folder):
    """Directories of the two networks."""
    torch.manual_seed(0)
    text = gpt2.GPT2Config(
        width=24, num_layers=3, num_heads=3, mlp_width=40, vocab_size=TOKENIZER.vocab_size, context=400
    )
    words = Processor(None, TextPipeline(TOKENIZER, gpt2.text_spec(text)))
    image = vit_layouts.ViTConfig(
        width=24, num_layers=1, num_heads=2, mlp_width=32, patch_size=8, image_size=24, eps=1e-5, class_token=True
    )
    seen = Processor(ImagePipeline(ImageSpec(size=(24, 24), resize="shorter"), threads=1), None)
    made = {}
    for name, system, config, processor in (
        ("text", gpt2.SYSTEM, text, words),
        ("image", vit_layouts.SYSTEM, image, seen),
    ):
        network = system.network(config)
        layout = system.layouts["transformers"]
        made[name] = save_checkpoint(folder / name, layout, config, network.state_dict(), processor=processor)
    return made


def joined(folder, **resampler):
    """The two as a Flamingo whose gates are open."""
    made = {name: rebus.load(path, device="cpu") for name, path in parts(folder).items()}
    settings = {"resampler": {"num_layers": 2, "num_heads": 2, "head_width": 8, "num_latents": 3, **resampler}}
    model = rebus.join("flamingo", **made, **settings, cross={"num_heads": 2, "head_width": 8, "mlp_width": 40})
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model
