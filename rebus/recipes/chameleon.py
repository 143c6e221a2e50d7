"""Chameleon in the scenes world: first the codebook in which images are written, then text and images in one stream."""

from dataclasses import replace

from rebus.backbones.text.llama import LlamaConfig
from rebus.backbones.vision.vqgan import VQGANConfig
from rebus.data.scene_drawings import BEGIN, END, FIRST_CODE, SceneDrawings
from rebus.data.scene_images import SceneImages
from rebus.data.scene_tokenizer import BOS, EOS, IMAGE, PAD
from rebus.models.early_fusion.chameleon import SYSTEM
from rebus.models.early_fusion.chameleon_config import SEPARATOR, ChameleonConfig
from rebus.objectives import CodebookLoss, NextTokenLoss
from rebus.train.config import Optim, Start, TrainConfig

IMAGES = VQGANConfig(
    width=32, multiples=(1, 1, 2), num_blocks=1, latent_width=64, code_width=16, num_codes=512, image_size=48
)


def chameleon_scenes_codes() -> TrainConfig:
    """`rebus train chameleon_scenes_codes`, after `rebus train chameleon_scenes_codes_32 --out codes_32` · one busy
    core, 11 minutes · the tokenizer of images of `chameleon_scenes`, 48 pixels to 12 × 12 codes. In 0.89 of 80 held-out
    scenes of one or two objects `vild/scenes` finds just the true colours and shapes after it (score 0.8)."""
    return replace(
        chameleon_scenes_codes_32(),
        model=IMAGES,
        start_from="codes_32/final",
        optim=Optim(lr=2e-3, weight_decay=0.0, warmup=50, schedule="constant", cooldown=400),
        steps=900,
        seed=1,
    )


def chameleon_scenes_codes_32() -> TrainConfig:
    """`rebus train chameleon_scenes_codes_32` · one busy core, 11 minutes · 32 pixels to 8 × 8 codes, in which small
    shapes are lost: 0.60 of 200 scenes."""
    return TrainConfig(
        system="vqgan",
        model=replace(IMAGES, image_size=32),
        objective=CodebookLoss(),
        data=SceneImages(),
        optim=Optim(lr=2e-3, weight_decay=0.0, warmup=50, schedule="constant", cooldown=700),
        steps=2200,
        batch_size=16,
        bf16=True,
        eval_every=200,
    )


def chameleon_scenes_first() -> TrainConfig:
    """`rebus train chameleon_scenes_first --out first`, after `rebus train chameleon_scenes_codes --out codes` · one
    busy core, 52 minutes · what `chameleon_scenes` continues from: of 200 held-out scenes of one or two objects 0.83
    are captioned without a mistake, and 0.08 of the generated images show what was asked for."""
    data = SceneDrawings()
    words = data.tokenizer(SYSTEM.prompts, SEPARATOR, IMAGES.num_codes).vocab_size
    return TrainConfig(
        system="chameleon",
        model=ChameleonConfig(
            text=LlamaConfig(
                width=128,
                num_layers=4,
                num_heads=4,
                num_kv_heads=4,
                head_width=32,
                mlp_width=352,
                vocab_size=words,
                context=384,
                qk_norm=True,
            ),
            image=IMAGES,
            pad_id=PAD,
            bos_id=BOS,
            eos_id=EOS,
            image_id=IMAGE,
            begin_id=BEGIN,
            end_id=END,
            first_code=FIRST_CODE,
        ),
        objective=NextTokenLoss(z_loss=1e-5),
        data=data,
        optim=Optim(lr=2e-3, matrices="muon", warmup=100, schedule="constant", cooldown=600),
        steps=2000,
        batch_size=32,
        starts=(Start(source="codes/final", into="image"),),
        freeze=("image",),
        bf16=True,
        final_dtype="float16",
    )


def chameleon_scenes_second() -> TrainConfig:
    """`rebus train chameleon_scenes_second --out second`, after `rebus train chameleon_scenes_first --out first` · one
    busy core, 106 minutes · four of five batches have images to generate. Of 200 held-out scenes of one or two objects
    0.945 are captioned without a mistake; of the generated images, each the best of four, 0.48 show exactly what was
    asked for, and 0.73 where that is one object. The loss was still decreasing."""
    first = chameleon_scenes_first()
    return replace(
        first,
        data=SceneDrawings(caption=0.2, imagine=0.65, documents=0.15),
        optim=replace(first.optim, cooldown=7000),
        steps=7500,
        starts=(),
        start_from="first/final",
    )


def chameleon_scenes_third() -> TrainConfig:
    """`rebus train chameleon_scenes_third --out third`, after `rebus train chameleon_scenes_second --out second` · two
    busy cores, 93 minutes · half of the prompts say colours and shapes alone. Of 200 held-out scenes of one or two
    objects 0.94 are captioned without a mistake; of the generated images, each the best of 16, 0.58 show exactly what
    was asked for, and 0.775 where that is one object. Of two names in a reply the second was right in 0.18."""
    second = chameleon_scenes_second()
    return replace(
        second,
        data=SceneDrawings(caption=0.12, imagine=0.76, documents=0.12, named=0.5),
        optim=replace(second.optim, cooldown=6400),
        steps=6600,
        start_from="second/final",
        seed=2,
    )


def chameleon_scenes() -> TrainConfig:
    """`rebus train chameleon_scenes`, after `rebus train chameleon_scenes_third --out third` · one busy core, 86
    minutes · a third of the batches are replies, and in them text has a fifth of the loss, so that it is not lost among
    the codes. Of 200 held-out scenes of one or two objects 0.93 are captioned without a mistake; of the generated
    images, each the best of 16, 0.625 show exactly what was asked for, and 0.84 where that is one object; of 100
    replies both names and both images are right in 0.48."""
    third = chameleon_scenes_third()
    return replace(
        third,
        data=SceneDrawings(caption=0.1, imagine=0.55, documents=0.35, named=0.6),
        objective=NextTokenLoss(z_loss=1e-5, text_share=0.2),
        optim=replace(third.optim, lr=1.5e-3, cooldown=3800),
        steps=4000,
        start_from="third/final",
        seed=3,
    )
