"""PaLI-3's stages at full size, each from what the one before it left. None of them was run by us.

In one folder, with the data under the names that the recipes give:

    rebus train pali3_siglip --out siglip        rebus train pali3_ul2 --out ul2
    rebus train pali3_224 --out 224              rebus train pali3_812 --out 812
    rebus train pali3_1064 --out 1064            rebus train pali3_transfer --set data.path=VQA --out vqa

Neither data nor batch sizes and rates of the paper are known: what is said of stages, sizes and freezing is the
paper's, the rest is ours, in the ranges of PaLI and SigLIP. `pali3_siglip_t5` goes the same way from released parts,
and `pali3_scenes` is a small one of the scenes world.
"""

from dataclasses import replace

from rebus.backbones.text.encoder import TextConfig
from rebus.backbones.text.t5 import T5Config
from rebus.data.file_records import Files, Mixture
from rebus.data.scene_tasks import SceneTasks
from rebus.data.scenes.writing import CHARACTERS
from rebus.models.contrastive.siglip import SigLIPConfig
from rebus.models.unified.pali3 import G14, SYSTEM, UL2_3B, PaLI3Config
from rebus.models.unified.pali3 import PRESETS as PALI3
from rebus.objectives import NextTokenLoss, SeeAndSpeakLoss, SigmoidLoss, SpanCorruptionLoss, ul2_denoisers
from rebus.recipes.scenes import ENCODER
from rebus.train.config import Devices, Optim, Start, TrainConfig

_GPU = Devices(device="cuda", compile=True, recompute=True)
_MT5 = "google/mt5-xl"  # whose tokenizer has the vocabulary
_SENTINEL = 250_099  # <extra_id_0> of mT5's vocabulary
_IMAGES = "webli"  # pairs with alt texts; "webli-ocr": with the text in images, in reading order


def pali3_siglip() -> TrainConfig:
    """Stage 0, images: SigLIP's objective for a ViT-G/14 at 224 pixels, batch 32,768 (Sec. 3.1), and a text encoder of
    its width that is thrown away."""
    text = TextConfig(
        width=1664, num_layers=24, num_heads=16, mlp_width=8192, vocab_size=250_112, context=64, causal=False
    )
    return TrainConfig(
        system="siglip",
        model=SigLIPConfig(image=G14, text=text, embed=1664, pad_id=0),
        objective=SigmoidLoss(bias=-10.0),
        data=Files(path=_IMAGES, layout="webdataset"),
        optim=Optim(lr=1e-3, betas=(0.9, 0.95), weight_decay=1e-4, warmup=20_000, final=0.0),
        steps=40_000_000_000 // 32_768,
        batch_size=32_768,
        processor=_MT5,
        bf16=True,
        spike=20.0,
        devices=_GPU,
        workers=8,
    )


def pali3_ul2() -> TrainConfig:
    """Stage 0, text: UL2's mixture of denoisers for three billion parameters."""
    modes = ul2_denoisers(regular=_SENTINEL - 97, extreme=_SENTINEL - 98, sequential=_SENTINEL - 99)
    return TrainConfig(
        system="t5",
        model=UL2_3B,
        objective=SpanCorruptionLoss(sentinel=_SENTINEL, num_sentinels=97, denoisers=modes, z_loss=1e-4),
        data=Files(path="c4", layout="c4", form="text", truncate=True),
        optim=Optim(lr=1e-3, betas=(0.9, 0.98), weight_decay=0.0, warmup=10_000, schedule="rsqrt"),
        steps=500_000,
        batch_size=2048,
        processor=_MT5,
        bf16=True,
        spike=20.0,
        devices=_GPU,
        workers=8,
    )


def _mixture(read: float, find: float) -> Mixture:
    """The tasks of stage 1 (Sec. 3.2) by their shares; text alone keeps its span corruption."""
    parts = {
        Files(
            path=_IMAGES,
            layout="webdataset",
            form="split caption",
            prompt="Generate the alt_text in EN at {at}: {text}",
            truncate=True,
        ): 0.55 - read - find,
        Files(path="cc3m", layout="webdataset", form="caption", truncate=True): 0.1,
        Files(
            path="webli-ocr", layout="webdataset", form="caption", prompt="Generate the ocr_text in EN:", truncate=True
        ): read,
        Files(path="vq2a", layout="vqa", form="ask"): 0.1,
        Files(path="vq2a", layout="vqa", form="ask back", prompt="Generate a question in EN for {answer}:"): 0.1,
        Files(path="objects", layout="coco", form="objects", prompt="Answer in EN: List the objects present"): 0.05,
        Files(path="objects", layout="coco", form="detect"): find,
        Files(path="c4", layout="c4", form="text", truncate=True): 0.1,
    }
    return Mixture(parts=tuple(parts), weights=tuple(parts.values()))


def pali3_224() -> TrainConfig:
    """Stage 1, images and text at 224 pixels, image encoder frozen: alt texts that are cut and gone on with, captions,
    text in images, questions both ways, objects and their boxes, and text alone."""
    return TrainConfig(
        system="pali3",
        model=PALI3["5b_224"],
        objective=SpanCorruptionLoss(sentinel=_SENTINEL, z_loss=1e-4),
        data=_mixture(read=0.15, find=0.05),
        optim=Optim(lr=1e-4, betas=(0.9, 0.98), weight_decay=0.0, warmup=5_000, schedule="rsqrt"),
        steps=500_000,
        batch_size=2048,
        starts=(
            Start(source="siglip/final", take="image", into="image"),
            Start(source="ul2/final", into="text"),
        ),
        processor=_MT5,
        freeze=("image",),
        bf16=True,
        spike=20.0,
        devices=_GPU,
        workers=8,
    )


def pali3_812() -> TrainConfig:
    """Stage 2, 812 pixels: everything learns, more of it from text in images and boxes."""
    return replace(
        pali3_224(),
        model=PALI3["5b_812"],
        data=_mixture(read=0.35, find=0.15),
        optim=Optim(lr=2e-5, betas=(0.9, 0.98), weight_decay=0.0, warmup=1_000, schedule="rsqrt"),
        steps=20_000,
        batch_size=512,
        starts=(Start(source="224/final"),),
        freeze=(),
    )


def pali3_1064() -> TrainConfig:
    """Stage 2, 1,064 pixels, for documents."""
    return replace(
        pali3_812(), model=PALI3["5b_1064"], steps=10_000, batch_size=256, starts=(Start(source="812/final"),)
    )


def pali3_transfer() -> TrainConfig:
    """One task, image encoder frozen: `--set data.path=VQA`, and `--set start_from=1064/final` for documents
    · published, from weights that nobody has: COCO CIDEr 145.9, VQAv2 test-dev 85.0, TextVQA with OCR 80.8."""
    return TrainConfig(
        objective=NextTokenLoss(),
        data=Files(),
        optim=Optim(lr=3e-5, betas=(0.9, 0.98), weight_decay=0.0, warmup=500, final=0.0),
        steps=10_000,
        batch_size=256,
        start_from="812/final",
        freeze=("image",),
        bf16=True,
        devices=_GPU,
        workers=8,
    )


def pali3_siglip_t5() -> TrainConfig:
    """From released parts, on your own data: SigLIP So400m/14, frozen, and Flan-T5 XL. `--set data.path=DATA`; to
    continue at 812 pixels `--set start_from=… --set model.image.image_size=812 --set freeze=[]`."""
    t5 = "google/flan-t5-xl"
    return TrainConfig(
        system="pali3",
        model=PALI3["so400m_t5_xl"],
        objective=SpanCorruptionLoss(),
        data=Files(),
        optim=Optim(lr=1e-4, rates=(("image_proj", 10.0),), betas=(0.9, 0.98), weight_decay=0.0, warmup=500, final=0.0),
        steps=20_000,
        batch_size=128,
        starts=(
            Start(source="siglip/so400m14-224", take="image", into="image"),
            Start(source=t5, into="text"),
        ),
        processor=t5,
        freeze=("image",),
        bf16=True,
        devices=_GPU,
        workers=8,
    )


def pali3_scenes() -> TrainConfig:
    """`rebus train pali3_scenes` · one processor core among some thirty other processes, 83 minutes · questions 0.955,
    captions 0.940, reading 0.927 (numbers 0.866, words 0.986), AP50 0.175.

    Captions, questions, boxes in plain numbers and reading, of scenes in which a number or a word is written. Boxes, a
    tenth of the tasks, it has hardly learned.

    Its image encoder begins as that of `paligemma/scenes`, which can name what each patch shows. It first learns the
    characters too, in place of the paper's billions of pairs, and continues with both as further losses.
    """
    data = SceneTasks(
        questions=2, caption=0.15, detect=0.1, ask=0.3, segment=0.0, read=0.45, encoder_first=700, turn=2300
    )
    words = data.tokenizer(SYSTEM.prompts, SYSTEM.locations).vocab_size
    return TrainConfig(
        system="pali3",
        model=PaLI3Config(
            image=ENCODER,
            text=T5Config(
                width=128,
                num_layers=2,
                num_decoder_layers=2,
                num_heads=4,
                head_width=32,
                mlp_width=256,
                mlp="gated silu",  # the tanh form of GELU is several times slower on a processor
                vocab_size=words,
                context=64,
            ),
        ),
        objective=SeeAndSpeakLoss(kinds=(7, 8, 3, 3, 5, len(CHARACTERS))),
        data=data,
        optim=Optim(lr=1.5e-3, matrices="muon", warmup=100, again=700, schedule="constant", cooldown=600),
        steps=3700,
        batch_size=32,
        starts=(Start(source="paligemma/scenes", take="image", into="image"),),
        final_dtype="float16",
    )
