"""Flamingo in the scenes world: a language model reads; then it learns to look at images, and from examples of them."""

from dataclasses import replace

from rebus.backbones.text.llama import LlamaConfig
from rebus.data.scene_documents import SceneDocuments
from rebus.models.frozen_lm.bridge import CrossConfig, ResamplerConfig
from rebus.models.frozen_lm.flamingo_config import FlamingoConfig, part
from rebus.objectives import InterleavedLoss
from rebus.recipes.scenes import ENCODER
from rebus.train.config import Optim, Start, TrainConfig

_READ = SceneDocuments(told=True, episodes=0.45, pages=0.0, captions=0.1, questions=0.1, rote=0.35)


def flamingo_scenes_text() -> TrainConfig:
    """`rebus train flamingo_scenes_text` · one thread of two busy cores, 4 minutes, and 3 more for the second run,
    `--set start_from=RUN/final --set seed=1 --set steps=1200 --set optim.lr=0.0015 --set optim.cooldown=600`.

    The language model of `flamingo_scenes`, which reads of scenes and sees none. Of names that occurred before in the
    same episode it writes 0.68 after the first run and 0.80 after the second, 0.78 for pairs of colour and shape that
    it never read of. Texts that repeat themselves are what it learns to copy from: in pilots on tokens of the same form
    it began after some 350 steps with them, and not within 550 without.
    """
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
        optim=Optim(lr=4e-3, matrices="muon", warmup=50, schedule="constant", cooldown=400),
        steps=1800,
        batch_size=32,
        final_dtype="float16",
    )


def flamingo_scenes_episodes() -> TrainConfig:
    """`rebus train flamingo_scenes_episodes --out bound`, in the folder where
    `rebus train flamingo_scenes_text --out text` was run · one thread of two busy cores, 4 minutes · names are bound to
    what images show. Some episodes give examples as descriptions, which the language model already binds names to: in
    pilots binding began after some 300 steps with these, and not within 1,200 without. With prompts
    learned besides names it began later, or not within 800 steps."""
    return TrainConfig(
        system="flamingo",
        model=FlamingoConfig(
            text=part("llama", flamingo_scenes_text().model),
            image=part("vit", ENCODER),
            resampler=ResamplerConfig(num_layers=1, num_heads=4, head_width=32, num_latents=16),
            cross=CrossConfig(num_heads=4, head_width=32, mlp_width=192),
            max_new_tokens=40,
        ),
        objective=InterleavedLoss(),
        data=SceneDocuments(episodes=1.0, pages=0.0, captions=0.0, questions=0.0, images=6, asked=0.0, worded=0.8),
        optim=Optim(lr=3e-3, matrices="muon", warmup=50, schedule="constant"),
        steps=800,
        batch_size=24,
        starts=(
            Start(source="text/final", into="text"),
            Start(source="paligemma/scenes", take="image", into="image"),
        ),
        freeze=("text", "image"),
        final_dtype="float16",
    )


def flamingo_scenes() -> TrainConfig:
    """`rebus train flamingo_scenes`, in the folder of `flamingo_scenes_episodes --out bound` · one
    thread of two busy cores, 8 minutes · captions and questions besides. Of 200 episodes of held-out combinations it
    gives 0.245 the correct one of four names without examples and 0.805 after eight; of 400 held-out scenes 0.975 are
    captioned without a mistake. Trained on the same mixture from the start, captions were learned (0.98) and names were
    not (0.28 after eight examples).
    """
    return replace(
        flamingo_scenes_episodes(),
        data=SceneDocuments(episodes=0.6, pages=0.0, captions=0.3, questions=0.1, images=6, worded=0.4),
        optim=Optim(lr=2e-3, matrices="muon", warmup=50, schedule="constant", cooldown=700),
        steps=1500,
        seed=1,
        starts=(),
        start_from="bound/final",
    )
