"""Flamingo in the scenes world: a language model that reads documents, then what lets it look at images."""

from rebus.backbones.text.llama import LlamaConfig
from rebus.data.scene_documents import SceneDocuments
from rebus.models.frozen_lm.bridge import CrossConfig, ResamplerConfig
from rebus.models.frozen_lm.flamingo_config import FlamingoConfig, part
from rebus.objectives import InterleavedLoss
from rebus.recipes.scenes import ENCODER
from rebus.train.config import Optim, Start, TrainConfig

_READ = SceneDocuments(told=True, episodes=0.45, pages=0.0, captions=0.1, questions=0.1, rote=0.35)


def flamingo_scenes_text() -> TrainConfig:
    """`rebus train flamingo_scenes_text`: the language model of `flamingo/scenes`, which reads of scenes and sees
    none."""
    return TrainConfig(
        system="llama",
        model=LlamaConfig(
            width=96,
            num_layers=2,
            num_heads=4,
            num_kv_heads=4,
            head_width=24,
            mlp_width=192,
            vocab_size=_READ.tokenizer().vocab_size,
            context=512,
            tied=True,
        ),
        objective=InterleavedLoss(),
        data=_READ,
        optim=Optim(lr=4e-3, matrices="muon", warmup=50, schedule="constant", cooldown=300),
        steps=1500,
        batch_size=32,
        final_dtype="float16",
    )


def flamingo_scenes() -> TrainConfig:
    """`rebus train flamingo_scenes --set 'starts=[{"source": RUN/final, "into": "text"}, …]'`."""
    return TrainConfig(
        system="flamingo",
        model=FlamingoConfig(
            text=part("llama", flamingo_scenes_text().model),
            image=part("vit", ENCODER),
            resampler=ResamplerConfig(num_layers=1, num_heads=4, head_width=32, num_latents=8),
            cross=CrossConfig(num_heads=4, head_width=32, mlp_width=192),
            max_new_tokens=40,
        ),
        objective=InterleavedLoss(),
        data=SceneDocuments(pages=0.0),
        optim=Optim(lr=2e-3, matrices="muon", warmup=100, schedule="constant", cooldown=400),
        steps=2000,
        batch_size=16,
        starts=(
            Start(source="flamingo/scenes", take="text", into="text"),
            Start(source="paligemma/scenes", take="image", into="image"),
        ),
        freeze=("text", "image"),
        final_dtype="float16",
    )
