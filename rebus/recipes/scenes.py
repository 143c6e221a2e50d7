"""The bundled checkpoints of the scenes world, each small enough to be trained on a laptop's processor."""

from dataclasses import replace

from rebus.backbones.text.bert import BERTConfig
from rebus.backbones.text.encoder import TextConfig
from rebus.backbones.text.gemma import GemmaConfig
from rebus.backbones.vision.mask_vqvae import SMALL
from rebus.backbones.vision.vit import ViTConfig
from rebus.data.scene_captions import SceneCaptions
from rebus.data.scene_masks import SceneMasks
from rebus.data.scene_tasks import SceneTasks
from rebus.data.scene_tokenizer import EOS, IMAGE, PAD, scenes_tokenizer
from rebus.models.contrastive.align import ALIGNConfig
from rebus.models.contrastive.align_config import align_image
from rebus.models.contrastive.clip import CLIPConfig
from rebus.models.contrastive.siglip import SigLIPConfig
from rebus.models.unified.paligemma import PaliGemmaConfig
from rebus.objectives import CodebookLoss, NextTokenLoss, SeeAndSpeakLoss, SigmoidLoss, SoftmaxLoss
from rebus.train.config import Optim, TrainConfig

# Exact GELU: several times faster than the tanh form on a processor, and these towers are ours to choose.
TOWER = ViTConfig(width=128, num_layers=4, num_heads=4, mlp_width=256, patch_size=12, image_size=96, act="gelu")


def clip_scenes() -> TrainConfig:
    """`rebus train clip_scenes` · one processor core, 10 to 14 minutes · recall at 1 among 100: 0.974 both ways.

    Run twice, on different processors, it ended within 0.001 of that. Colours, fills, sizes and order carry it that
    far; shapes alone it hardly tells apart (`classify` 0.15).
    """
    words = scenes_tokenizer().vocab_size
    return TrainConfig(
        system="clip",
        model=CLIPConfig(
            image=replace(TOWER, eps=1e-5, class_token=True),
            text=TextConfig(
                width=128, num_layers=2, num_heads=4, mlp_width=256, vocab_size=words, context=32, act="gelu"
            ),
            embed=128,
            end_id=EOS,
        ),
        objective=SoftmaxLoss(),
        data=SceneCaptions(context=32, begin=True),
        optim=Optim(lr=1.5e-3, matrices="muon", warmup=100, schedule="constant", cooldown=120),
        steps=400,
        batch_size=128,
        final_dtype="float16",
    )


def siglip_scenes() -> TrainConfig:
    """`rebus train siglip_scenes` · one processor core, 12 to 17 minutes · recall at 1 among 100: 0.936 and 0.925.

    As with `clip_scenes`, shapes alone are hardly told apart.
    """
    words = scenes_tokenizer().vocab_size
    return TrainConfig(
        system="siglip",
        model=SigLIPConfig(
            image=TOWER,
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
            ),
            embed=128,
            pad_id=PAD,
        ),
        objective=SigmoidLoss(bias=-4.85),
        data=SceneCaptions(context=32),
        optim=Optim(lr=1.5e-3, matrices="muon", schedule="constant", cooldown=120),
        steps=470,
        batch_size=128,
        final_dtype="float16",
    )


def align_scenes() -> TrainConfig:
    """`rebus train align_scenes`: a small EfficientNet and a small BERT, ALIGN's smoothed labels and free temperature.

    The temperature begins at 0.07, not at the paper's 1: seven hundred steps are too few to learn it from there.
    """
    words = scenes_tokenizer().vocab_size
    return TrainConfig(
        system="align",
        model=ALIGNConfig(
            image=align_image(scales=(0.5, 0.5), image_size=96),
            text=BERTConfig(
                width=128, num_layers=2, num_heads=4, mlp_width=256, vocab_size=words, context=32, pooler=True
            ),
            embed=128,
            image_head=True,
            temperature=0.07,
        ),
        objective=SoftmaxLoss(label_smoothing=0.1),
        data=SceneCaptions(context=32, begin=True),
        optim=Optim(lr=2e-3, matrices="muon", warmup=50, schedule="constant", cooldown=220),
        steps=700,
        batch_size=128,
        final_dtype="float16",
    )


def mask_vqvae_scenes() -> TrainConfig:
    """`rebus train mask_vqvae_scenes`: the words in which `paligemma/scenes` writes masks."""
    return TrainConfig(
        system="mask_vqvae",
        model=SMALL,
        objective=CodebookLoss(),
        data=SceneMasks(),
        optim=Optim(lr=2e-3, weight_decay=0.0, warmup=50),
        steps=400,
        batch_size=32,
    )


def paligemma_scenes() -> TrainConfig:
    """`rebus train paligemma_scenes` · one processor core, about 50 minutes · the first of two stages ("pt").

    The paper starts from SigLIP's tower, trained on billions of images. Here the tower first learns to name what each
    patch shows, which costs a hundred thousand images, and keeps doing so beside the language model.
    """
    words = scenes_tokenizer(locations=True).vocab_size
    return TrainConfig(
        system="paligemma",
        model=PaliGemmaConfig(
            image=TOWER,
            text=GemmaConfig(
                width=128, num_layers=3, num_heads=4, num_kv_heads=1, head_width=32, mlp_width=256, vocab_size=words
            ),
            image_id=IMAGE,
        ),
        objective=SeeAndSpeakLoss(places=(words - 1024 - 128, 1024)),
        data=SceneTasks(tower_first=1600, turn=3100),
        optim=Optim(lr=1.5e-3, matrices="muon", warmup=100, again=1600, schedule="constant", cooldown=500),
        steps=4250,
        batch_size=32,
        position_waves=5.0,
        final_dtype="float16",
    )


def paligemma_scenes_mix() -> TrainConfig:
    """`rebus train paligemma_scenes_mix --set start_from=…` · one processor core, 70 to 97 minutes · questions 0.941,
    captions 0.961, AP50 0.964, mIoU 0.719 from a first stage with 0.865, 0.947, 0.847, 0.436.

    PaliGemma's last stage, from `pt` to `mix`: what the tower sees is there already, so it stays as it is while the
    language model learns to answer questions and to write masks, which take it longest. Without `start_from` it goes
    on from the checkpoint in the package.
    """
    return replace(
        paligemma_scenes(),
        objective=NextTokenLoss(),
        data=SceneTasks(caption=0.1, detect=0.2, ask=0.4, segment=0.3),
        optim=Optim(lr=1e-3, matrices="muon", warmup=50, schedule="constant", cooldown=1500),
        steps=3500,
        seed=1,
        start_from="paligemma/scenes",
        freeze=("image",),
        position_waves=0.0,
    )
