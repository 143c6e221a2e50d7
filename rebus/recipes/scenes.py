"""The bundled checkpoints of the scenes world, each small enough to be trained on a laptop's processor."""

from dataclasses import replace

from rebus.backbones.text.encoder import TextConfig
from rebus.backbones.vision.vit import ViTConfig
from rebus.data.scene_batches import EOS, SceneCaptions, scenes_tokenizer
from rebus.models.contrastive.clip import CLIPConfig
from rebus.models.contrastive.siglip import SigLIPConfig
from rebus.objectives import SigmoidLoss, SoftmaxLoss
from rebus.train.config import AdamW, TrainConfig

# Exact GELU: several times faster than the tanh form on a processor, and these towers are ours to choose.
_TOWER = ViTConfig(width=128, num_layers=4, num_heads=4, mlp_width=256, patch_size=12, image_size=96, act="gelu")


def clip_scenes() -> TrainConfig:
    """`rebus train clip_scenes`"""
    words = scenes_tokenizer().vocab_size
    return TrainConfig(
        system="clip",
        model=CLIPConfig(
            image=replace(_TOWER, eps=1e-5, class_token=True),
            text=TextConfig(
                width=128, num_layers=2, num_heads=4, mlp_width=256, vocab_size=words, context=32, act="gelu"
            ),
            embed=128,
            end_id=EOS,
        ),
        objective=SoftmaxLoss(),
        data=SceneCaptions(context=32, begin=True),
        optim=AdamW(lr=1.5e-3, matrices="muon"),
        steps=2000,
        batch_size=128,
    )


def siglip_scenes() -> TrainConfig:
    """`rebus train siglip_scenes`"""
    words = scenes_tokenizer().vocab_size
    return TrainConfig(
        system="siglip",
        model=SigLIPConfig(
            image=_TOWER,
            text=TextConfig(
                width=128,
                num_layers=2,
                num_heads=4,
                mlp_width=256,
                vocab_size=words,
                context=32,
                causal=False,
                act="gelu",
                eps=1e-6,
            ),  # fmt: skip
            embed=128,
        ),
        objective=SigmoidLoss(bias=-4.85),
        data=SceneCaptions(context=32, pad=EOS),
        optim=AdamW(lr=1.5e-3, matrices="muon"),
        steps=2000,
        batch_size=128,
    )
