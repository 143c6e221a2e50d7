"""Real photos with captions, learned in minutes by what is known already."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from rebus.backbones.text.gpt2 import GPT2Config
from rebus.backbones.vision.resnet import ResNetConfig
from rebus.data.file_records import Files
from rebus.models.contrastive.lit import PRESETS
from rebus.models.cross_attention.visualgpt_config import VisualGPTConfig
from rebus.models.prefix_lm.simvlm import SimVLMConfig
from rebus.models.prefix_lm.virtex_config import CaptionerConfig, VirTexConfig
from rebus.objectives import BothWaysLoss, NextTokenLoss, Objective, PrefixLMLoss, SoftmaxLoss
from rebus.train.config import Optim, Start, TrainConfig

_PARTS = Path("photo_parts")
_ENCODER = ResNetConfig(num_classes=0, strided="first")
_PIECES = 2759  # word pieces in the 3,500 captions that are learned from


def lit_photos() -> TrainConfig:
    """`rebus train lit_photos --set data.path=flickr8k_1k` · about eight minutes of one processor core · Flickr8k, 100
    held-out photos by their first captions: R@1 0.33, R@5 0.72, R@10 0.86.

    Two networks of the extra `starter` that never met, EfficientNet-Lite0 and MiniLM, and 700 photos with five
    captions each. For so few, both encoders are locked and only heads learn; in the paper, with millions, the text
    encoder learns, too (`--set freeze=[]`). The heads begin with the names of the image encoder's classes.
    `asif/starter` has 0.33, 0.64 and 0.86 with the same photos. In seven folds of the training photos, where all
    was chosen, R@5 is 0.75; 0.69 with heads that begin at random, 0.45 before the first step. Three other orders of
    the photos gave R@1 0.36 to 0.39, R@5 0.71 to 0.73, R@10 0.88 on the held-out ones.
    """
    return TrainConfig(
        system="lit",
        model=PRESETS["starter"],
        objective=SoftmaxLoss(),
        data=Files(form="pairs", fast=False),
        optim=Optim(lr=2e-3, weight_decay=0.1, warmup=10, final=0.0),
        steps=60,
        batch_size=100,
        start_from="lit/starter",
        freeze=("text",),
        eval_every=30,
        eval_batches=1,
        save_every=30,
    )


def flamingo_photos() -> TrainConfig:
    """`rebus train flamingo_photos --set data.path=flickr8k_1k`: SmolLM2-135M learns to look at photos through
    EfficientNet-Lite0. Both are of the extra `captions` and stay as they are; resampler and cross-attention are
    learned, 6 million weights · one thread among many other processes, 49 minutes · CIDEr-D 0.304 on the 100 held-out
    photos (of 10), 0.119 against the captions of the next photo; `magic/starter` 0.104. `flamingo/photos` learned from
    COCO's photos too, 100 steps more (`benchmarks/photo_captions.py`): 0.276, and 0.429 on 32 of those.

    The gates learn at twenty times the rate: from zero, a few hundred steps of the others' would leave them nearly
    closed. The first cross-attention stands before the 15th of 30 blocks, so that no gradients are computed below
    it.
    """
    gates = [f"cross.{block}.{gate}" for block in range(4) for gate in ("attn_gate", "mlp_gate")]
    return TrainConfig(
        objective=NextTokenLoss(),
        data=Files(form="caption", fast=False, truncate=True, flip=True),
        optim=Optim(
            lr=1e-3,
            matrices="muon",
            warmup=30,
            schedule="linear",
            final=0.0,
            rates=tuple((gate, 20.0) for gate in gates),
        ),
        steps=380,
        batch_size=24,
        start_from="flamingo/starter",
        freeze=("text", "image", "added"),
        bf16=True,
        final_dtype="float16",
        eval_every=100,
        save_every=100,
        workers=0,
    )


def virtex_photos() -> TrainConfig:
    """`rebus train virtex_photos --set data.path=flickr8k_1k`: 223 steps in 5.4 minutes of one processor
    core among other processes (`benchmarks/photo_captions.py`) · Flickr8k, 100 held-out photos: CIDEr-D
    0.273; 0.106 if each has the next photo's caption; `magic/starter`, which is not trained on them, 0.104.

    It starts from `photo_parts/resnet50.pth`, trained on ImageNet (`benchmarks/keras_resnet.py`), which stays as it is,
    and from `photo_parts/words`, the word pieces of the captions with their embeddings in MiniLM (which the benchmark
    leaves in its `--out`). The captioner is new.
    """
    return _captioner(
        "virtex",
        VirTexConfig(
            image=_ENCODER,
            text=CaptionerConfig(width=384, num_heads=6, mlp_width=1024, vocab_size=_PIECES, context=40),
            image_size=160,
            pad_id=0,
            start_id=2,
            end_id=3,
            mask_id=4,
        ),
        BothWaysLoss(unknown=1),
        tokens="tokens",
        steps=223,
    )


def simvlm_photos() -> TrainConfig:
    """`rebus train simvlm_photos --set data.path=flickr8k_1k`: 356 steps in 5.8 minutes of one processor
    core among other processes (`benchmarks/photo_captions.py`) · Flickr8k, 100 held-out photos: CIDEr-D 0.259; 0.066
    if each has the next photo's caption; `magic/starter`, which is not trained on them, 0.104.

    Starts as `virtex_photos`, from three stages of the ResNet; encoder and decoder are new. There are no texts
    without images, and the prefix is the image with the paper's prompt.
    """
    return _captioner(
        "simvlm",
        SimVLMConfig(
            image=replace(_ENCODER, stages=3),
            width=384,
            num_layers=1,
            num_heads=6,
            mlp_width=768,
            vocab_size=_PIECES,
            context=48,
            image_size=128,
            pad_id=0,
            start_id=2,
            end_id=3,
        ),
        PrefixLMLoss(at_random=0.0),
        tokens="tokens",
        steps=356,
    )


def visualgpt_photos() -> TrainConfig:
    """`rebus train visualgpt_photos --set data.path=flickr8k_1k`: 229 steps in 6 minutes of one processor
    core among other processes (`benchmarks/photo_captions.py`) · Flickr8k, 100 held-out photos: CIDEr-D
    0.328; 0.088 if each has the next photo's caption; `magic/starter`, which is not trained on them, 0.104.

    Starts as `virtex_photos`. Its GPT-2 is small and has read nothing: this shows that the network learns, not what a
    language model adds, which is the paper's point.
    """
    return _captioner(
        "visualgpt",
        VisualGPTConfig(
            text=GPT2Config(width=384, num_layers=2, num_heads=6, mlp_width=1024, vocab_size=_PIECES, context=48),
            num_levels=2,
            mlp_width=768,
            image=_ENCODER,
            pad_id=0,
            start_id=2,
            end_id=3,
        ),
        NextTokenLoss(),
        tokens="text.tokens",
        steps=229,
    )


def _captioner(system: str, model: Any, objective: Objective, tokens: str, steps: int) -> TrainConfig:
    """Image encoder and word embeddings are there, and the former is locked. `tokens`: where the network has the
    latter."""
    words = str(_PARTS / "words")
    return TrainConfig(
        system=system,
        model=model,
        objective=objective,
        data=Files(form="caption", fast=False, truncate=True),
        optim=Optim(lr=1e-3, matrices="muon", warmup=30, schedule="linear", final=0.0),
        steps=steps,
        batch_size=32,
        starts=(
            *(
                Start(source=str(_PARTS / "resnet50.pth"), take=f"net.{part}", into=f"image.net.{part}")
                for part in ("conv1", "bn1", *(f"layer{i}" for i in range(1, model.image.stages + 1)))
            ),
            Start(source=words, take="tokens", into=tokens),
        ),
        processor=words,
        freeze=("image",),
        eval_every=100,
        save_every=100,
        workers=0,
    )
