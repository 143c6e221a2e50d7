"""The papers' own runs at full size. None of them was run by us: each states what its paper reports.

They want a data set of hundreds of millions of pairs (`--set data.path=SHARDS`), a directory with tokenizer and
preprocessor files (`--set processor=DIR`), and many GPUs: `torchrun … -m rebus.cli train clip_b32 --out DIR`.
`rebus plan` says what that costs.
"""

from dataclasses import replace

from rebus.data.detection_batches import Detection
from rebus.data.file_records import Files, Mixture
from rebus.models.contrastive.clip import PRESETS as CLIP
from rebus.models.contrastive.siglip import PRESETS as SIGLIP
from rebus.models.cross_attention.visualgpt_config import PRESETS as VISUALGPT
from rebus.models.distillation.vild import PRESETS as VILD
from rebus.models.masked_lm.visualbert import PRESETS as VISUALBERT
from rebus.models.prefix_lm.simvlm import PRESETS as SIMVLM
from rebus.models.prefix_lm.virtex import PRESETS as VIRTEX
from rebus.models.unified.paligemma import PRESETS as PALIGEMMA
from rebus.objectives import (
    AnswerLoss,
    BothWaysLoss,
    DistilledDetectionLoss,
    MaskedLMLoss,
    NextTokenLoss,
    PrefixLMLoss,
    SelfCriticalLoss,
    SigmoidLoss,
    SoftmaxLoss,
)
from rebus.train.config import Devices, Optim, Start, TrainConfig

_GPU = Devices(device="cuda", compile=True)
_PAIRS = 400_000_000  # OpenAI's, never released


def clip_b32() -> TrainConfig:
    """CLIP ViT-B/32: 32 epochs of 400M pairs, batch 32,768 · published ImageNet zero-shot top-1 63.3 (as open_clip
    measures the released weights)."""
    return TrainConfig(
        system="clip",
        model=CLIP["b32"],
        objective=SoftmaxLoss(),
        data=Files(layout="webdataset", least_crop=0.9),
        optim=Optim(lr=5e-4, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.2, warmup=2000, final=0.0),
        steps=32 * _PAIRS // 32_768,
        batch_size=32_768,
        bf16=True,
        spike=20.0,
        devices=_GPU,
        workers=8,
    )


def virtex_r50() -> TrainConfig:
    """VirTex, ResNet-50 and the widest captioner: 500,000 steps of 256 of COCO's 118,000 images (`data.path=COCO`)
    · published: VOC07 mAP 88.7, ImageNet linear top-1 53.8. The paper's optimiser keeps an average of the weights
    beside (Lookahead) and its flips swap "left" and "right" in the caption; ours does neither."""
    return TrainConfig(
        system="virtex",
        model=VIRTEX["r50_l1_h2048"],
        objective=BothWaysLoss(),
        data=Files(layout="coco", form="caption", least_crop=0.2),
        optim=Optim(
            kind="sgd", lr=1e-3, rates=(("image", 200.0),), weight_decay=1e-4, warmup=10_000, final=0.0, clip_norm=10.0
        ),
        steps=500_000,
        batch_size=256,
        bf16=True,
        devices=_GPU,
        workers=8,
    )


def simvlm_base() -> TrainConfig:
    """SimVLM base: a million steps of 4,096 pairs of ALIGN's data, which nobody else has, and 512 texts of C4
    · published after fine-tuning: VQAv2 test-std 78.14, COCO CIDEr 134.8 (recalled, as are rate and schedule).

    Here of COYO's pairs and C4's texts, in every batch eight to one: `--set data.parts.0.path=COYO --set
    data.parts.1.path=C4`, and `--set processor=DIR` with a tokenizer of 32,000 pieces. COYO comes as addresses: fetched
    by img2dataset, its pairs lie in tars.
    """
    pairs = Files(layout="webdataset", form="caption", prompt="", least_crop=0.2, truncate=True)
    texts = Files(layout="c4", form="text", truncate=True)
    return TrainConfig(
        system="simvlm",
        model=SIMVLM["base"],
        objective=PrefixLMLoss(),
        data=Mixture(parts=(pairs, texts), weights=(8.0, 1.0), mix="rows"),
        optim=Optim(lr=5e-4, betas=(0.9, 0.999), weight_decay=0.01, warmup=20_000, schedule="linear", final=0.0),
        steps=1_000_000,
        batch_size=4096 + 512,
        bf16=True,
        spike=20.0,
        devices=_GPU,
        workers=8,
    )


def simvlm_warm() -> TrainConfig:
    """SimVLM base as `simvlm_base`, not from scratch: the stages of torchvision's ResNet-101 (`resnet101.pth` here),
    the blocks of SigLIP's ViT-B/16, decoder and words of T5-base. Nobody published such a run; its rate and length are
    ours, and its processor has T5's tokenizer."""
    fresh, t5 = simvlm_base(), "google-t5/t5-base"
    stages = ("conv1", "bn1", "layer1", "layer2", "layer3")
    return replace(
        fresh,
        model=replace(SIMVLM["base"], vocab_size=32_128, start_id=0, end_id=1),
        optim=replace(fresh.optim, lr=1e-4, warmup=2000),
        steps=100_000,
        starts=(
            *(Start(source="resnet101.pth", take=f"net.{stage}", into=f"image.net.{stage}") for stage in stages),
            Start(source="siglip/b16-224", take="image.blocks", into="encoder.blocks"),
            *(Start(source=t5, take=part, into=part) for part in ("decoder", "tokens")),
        ),
    )


def simvlm_vqa() -> TrainConfig:
    """SimVLM base fine-tuned for VQA 2.0, whose 3,129 commonest answers a linear layer scores · published test-std
    78.14 (recalled). The paper chose its rate from 1e-5, 2e-5 and 5e-5; batch and number of epochs are ours.

    Begins where `rebus train simvlm_base --out runs/simvlm_base` ended: `--set processor=runs/simvlm_base/final --set
    data.path=VQA --set data.answers=answers_vqa.txt`. A preprocessor of 480 pixels sees as the paper's did.
    """
    batch, epochs = 256, 10
    parts = ("image", "image_proj", "image_positions", "tokens", "positions", "encoder", "decoder")
    return TrainConfig(
        system="simvlm",
        model=replace(SIMVLM["base"], head="answers"),
        objective=AnswerLoss(),
        data=Files(layout="vqa", form="answers"),
        optim=Optim(lr=2e-5, betas=(0.9, 0.999), weight_decay=0.01, warmup=500, schedule="linear", final=0.0),
        steps=_QUESTIONS // batch * epochs,
        batch_size=batch,
        batch_norm="frozen",
        starts=tuple(Start(source="runs/simvlm_base/final", take=part, into=part) for part in parts),
        bf16=True,
        devices=_GPU,
        workers=8,
    )


def siglip_b16() -> TrainConfig:
    """SigLIP ViT-B/16 at 224 pixels: 40 billion examples of WebLI, batch 32,768 · published ImageNet zero-shot top-1
    76.2, COCO R@1 64.4 and 47.2. The paper's optimiser is a sparing form of Adam with β₂ = 0.95; ours is AdamW."""
    return TrainConfig(
        system="siglip",
        model=SIGLIP["b16_224"],
        objective=SigmoidLoss(bias=-10.0),
        data=Files(layout="webdataset"),
        optim=Optim(lr=1e-3, betas=(0.9, 0.95), weight_decay=1e-4, warmup=20_000, final=0.0),
        steps=40_000_000_000 // 32_768,
        batch_size=32_768,
        bf16=True,
        spike=20.0,
        devices=_GPU,
        workers=8,
    )


def paligemma_3b() -> TrainConfig:
    """PaliGemma 3B, stage 1: a billion examples at 224 pixels, nothing frozen, rate 2e-5 (batch size ours)
    · published for its fine-tunes: COCO CIDEr 141.9, VQAv2 83.2. The paper's own mixture of tasks was not released."""
    return TrainConfig(
        system="paligemma",
        model=PALIGEMMA["3b_224"],
        objective=NextTokenLoss(),
        data=Files(layout="webdataset"),
        optim=Optim(lr=2e-5, betas=(0.9, 0.999), weight_decay=0.0, warmup=10_000, schedule="rsqrt"),
        steps=1_000_000_000 // 8192,
        batch_size=8192,
        bf16=True,
        spike=20.0,
        devices=Devices(device="cuda", compile=True, recompute=True),
        workers=8,
    )


def vild_resnet50() -> TrainConfig:
    """ViLD with a ResNet-50 from scratch: 180,000 steps of 256 images of LVIS, about 460 epochs · published mask AP
    of rare labels 16.1, of all 22.5.

    `--set data.path=LVIS --set data.taught=TAUGHT`, the second from `rebus data regions LVIS --split train --teacher
    clip/b32 --proposals DETECTOR --out TAUGHT`, by a detector of frequent and common labels. The published rate falls
    to a tenth at 162,000 and a hundredth at 171,000 steps; here it falls along a straight line over the last 18,000.
    Weight decay is of kernels and embeddings, in the gradient.
    """
    return TrainConfig(
        system="vild",
        model=VILD["resnet50"],
        objective=DistilledDetectionLoss(distillation=0.5),
        data=Detection(layout="lvis", drop_rare=True, threads=8),
        optim=Optim(
            kind="sgd",
            lr=0.32,
            momentum=0.9,
            weight_decay=4e-5,
            warmup=1000,
            schedule="constant",
            cooldown=18_000,
            clip_norm=1e6,
        ),
        steps=180_000,
        batch_size=256,
        bf16=True,
        devices=Devices(device="cuda"),
        workers=8,
    )


def vild_resnet152_ensemble() -> TrainConfig:
    """ViLD-ensemble with a ResNet-152, w = 2 · published mask AP of rare labels 19.2, of all 26.2. Otherwise as
    `vild_resnet50`."""
    return replace(
        vild_resnet50(), model=VILD["resnet152_ensemble"], objective=DistilledDetectionLoss(distillation=2.0)
    )


_BERT = "google-bert/bert-base-uncased"
# What BERT has and VisualBERT begins with; segments and positions of regions begin as those of words (Sec. 3.2).
_FROM_BERT = (
    *(
        Start(source=_BERT, take=part, into=f"text.{part}")
        for part in ("tokens", "positions", "types", "norm", "blocks")
    ),
    Start(source=_BERT, take="types", into="region_types"),
    Start(source=_BERT, take="positions", into="region_positions"),
)
_CAPTIONS, _QUESTIONS = 566_747, 443_757  # of COCO's train2014 and val2014 without minival; of VQA 2.0's train2014


def visualbert_coco() -> TrainConfig:
    """VisualBERT, first phase: 10 epochs of COCO's captions, batch 48, 2,048 features a region (`--set data.regions=…`)
    · published after all phases: VQA 2.0 test-dev 70.80. The paper's Adam has no bias correction and clips every tensor
    alone; its pooler stays BERT's, which our BERT leaves out: here it begins at random and learns."""
    batch, epochs = 48, 10
    steps = _CAPTIONS // batch * epochs
    return TrainConfig(
        system="visualbert",
        model=VISUALBERT["vqa_pre"],
        objective=MaskedLMLoss(),
        data=Files(layout="coco", form="caption pairs"),
        optim=Optim(
            lr=5e-5, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.01, warmup=steps // 10, schedule="linear", final=0.0
        ),
        steps=steps,
        batch_size=batch,
        starts=_FROM_BERT,
        processor=_BERT,
        devices=_GPU,
        workers=8,
    )


def visualbert_vqa() -> TrainConfig:
    """VisualBERT, last phase: 10 epochs of VQA 2.0's questions, batch 64, from the second phase's weights
    · published: test-dev 70.80. `--set data.regions=FEATURES --set
    data.answers=answers_vqa.txt`."""
    batch, epochs = 64, 10
    steps = _QUESTIONS // batch * epochs
    return TrainConfig(
        system="visualbert",
        model=VISUALBERT["vqa"],
        objective=AnswerLoss(),
        data=Files(layout="vqa", form="answers"),
        optim=Optim(
            lr=2e-5, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.01, warmup=steps // 10, schedule="linear", final=0.0
        ),
        steps=steps,
        batch_size=batch,
        starts=tuple(
            Start(source="visualbert/vqa-pre", take=part, into=part)
            for part in ("text", "region_proj", "region_types", "region_positions")
        ),
        processor=_BERT,
        devices=_GPU,
        workers=8,
    )


_GPT2 = "openai-community/gpt2"


def visualgpt_coco() -> TrainConfig:
    """VisualGPT, first stage: up to 100 epochs of 1% of COCO's captions (5,667), batch 25, on 2,048 features a region
    (`--set data.path=COCO --set data.regions=coco_detections.hdf5`) · published: CIDEr 2.5 above the best baseline
    (second-hand). The data set is to hold these captions alone. The paper's dropout is left out."""
    batch, captions, epochs = 25, 5_667, 100
    return TrainConfig(
        system="visualgpt",
        model=VISUALGPT["base"],
        objective=NextTokenLoss(),
        data=Files(layout="karpathy", form="caption", truncate=True),
        optim=Optim(lr=1e-4, betas=(0.9, 0.999), weight_decay=0.0, warmup=0, schedule="constant"),
        steps=captions * epochs // batch,
        batch_size=batch,
        starts=(Start(source=_GPT2, into="text"),),
        processor=_GPT2,
        devices=_GPU,
        workers=8,
    )


def visualgpt_coco_cider() -> TrainConfig:
    """VisualGPT, second stage: self-critical training on CIDEr-D, five beams an image, from the first stage's
    (`--set start_from=RUN/final`), until five epochs bring nothing: here ten of them."""
    first = visualgpt_coco()
    return replace(
        first,
        objective=SelfCriticalLoss(corpus=5_667),
        data=Files(layout="karpathy", form="captions", truncate=True),
        optim=replace(first.optim, lr=1e-5),
        steps=5_667 * 10 // 5,
        batch_size=5,
        starts=(),
        processor=None,
    )
