"""Fine-tuning of released models on your own images: `--set start_from=DIR --set data.path=DATA`, with whatever the
data hold.

`start_from` is a directory in Hub layout or a catalogue name whose weights are in the cache; architecture, tokenizer
and preprocessor come from there. `--set retention.path=OTHER` measures on other data what was forgotten, `--set
wise_ft=0.5` keeps weights halfway between old and new.
"""

from dataclasses import replace

from rebus.data.detection_batches import Detection
from rebus.data.file_records import Files, Mixture
from rebus.objectives import (
    AnswerLoss,
    ContrastiveTokenLoss,
    DistilledDetectionLoss,
    InterleavedLoss,
    NextTokenLoss,
    PrefixLMLoss,
    SigmoidLoss,
    SoftmaxLoss,
)
from rebus.train.config import LoRA, Optim, TrainConfig


def paligemma_captions() -> TrainConfig:
    """`rebus train paligemma_captions --set start_from=paligemma/3b-pt-224 --set data.path=photos`: the paper's
    transfer settings (Adam, cosine, 5% warm-up); `--set data.form=ask` for questions,
    `detect` for boxes."""
    return TrainConfig(
        objective=NextTokenLoss(),
        data=Files(),
        optim=Optim(lr=1e-5, betas=(0.9, 0.999), weight_decay=0.0, warmup=50, final=0.0),
        steps=1000,
        batch_size=16,
    )


def paligemma_lora() -> TrainConfig:
    """`rebus train paligemma_lora --set start_from=paligemma/3b-pt-224 --set data.path=photos`: LoRA
    adapters on the language model, everything else frozen."""
    return TrainConfig(
        objective=NextTokenLoss(),
        data=Files(),
        optim=Optim(lr=2e-4, betas=(0.9, 0.999), weight_decay=0.0, warmup=50, final=0.0),
        steps=1000,
        batch_size=16,
        lora=LoRA(parts=("text.blocks",), rank=16, alpha=16.0),
    )


def florence2_boxes() -> TrainConfig:
    """`rebus train florence2_boxes --set start_from=florence2/base-ft --set data.path=boxes`: your own boxes, asked
    for all at once (`<OD>`). All weights move, slowly, in float32."""
    return TrainConfig(
        objective=NextTokenLoss(),
        data=Files(form="detect"),
        optim=Optim(lr=5e-6, betas=(0.9, 0.999), weight_decay=0.01, warmup=50, final=0.0),
        steps=1000,
        batch_size=8,
    )


def florence2_captions() -> TrainConfig:
    """`rebus train florence2_captions --set start_from=florence2/base --set data.path=photos`: your own captions, in
    answer to `<CAPTION>`; `--set data.prompt="Describe in detail what is shown in the image."` for long ones."""
    return replace(florence2_boxes(), data=Files(form="caption"))


def florence2_reading() -> TrainConfig:
    """`rebus train florence2_reading --set start_from=florence2/base-ft --set data.path=receipts`: lines of writing,
    which are boxes or outlines of four corners labelled with what is written in them (`<OCR_WITH_REGION>`)."""
    return replace(florence2_boxes(), data=Files(form="read"))


def clip_captions() -> TrainConfig:
    """`rebus train clip_captions --set start_from=clip/b32 --set data.path=photos`: your own images and captions. The
    rate is low and the weights are kept halfway to where they started, which loses least elsewhere (Wortsman et al.,
    2022)."""
    return TrainConfig(
        objective=SoftmaxLoss(),
        data=Files(least_crop=0.9),
        optim=Optim(lr=1e-5, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.2, warmup=50, final=0.0),
        steps=1000,
        batch_size=64,
        wise_ft=0.5,
    )


def siglip_captions() -> TrainConfig:
    """`rebus train siglip_captions --set start_from=siglip/b16-224 --set data.path=photos`: as `clip_captions`, with
    the sigmoid loss; temperature and bias continue from their old values."""
    return TrainConfig(
        objective=SigmoidLoss(),
        data=Files(least_crop=0.9),
        optim=Optim(lr=1e-5, betas=(0.9, 0.95), weight_decay=1e-4, warmup=50, final=0.0),
        steps=1000,
        batch_size=64,
        wise_ft=0.5,
    )


def vild_boxes() -> TrainConfig:
    """`rebus train vild_boxes --set start_from=DIR --set data.path=boxes`: a detector with a text encoder learns the
    boxes, masks and labels of a data set (COCO, LVIS, CVAT, …). Without a teacher what it knows of other labels fades;
    `rebus data regions` gives it one, `--set data.taught=DIR --set objective.distillation=0.5`."""
    return TrainConfig(
        objective=DistilledDetectionLoss(distillation=0.0),
        data=Detection(scales=(0.8, 1.25)),
        optim=Optim(lr=1e-4, weight_decay=0.01, warmup=50, clip_norm=10.0),
        steps=1000,
        batch_size=8,
        batch_norm="frozen",
    )


def magic_captions() -> TrainConfig:
    """`rebus train magic_captions --set start_from=openai-community/gpt2 --set data.path=captions`: a language model
    learns how captions read, without their images, so that MAGIC can guide it (the paper's settings for COCO; for
    Flickr30k `--set steps=10000 --set optim.warmup=1000`).

    `start_from` is any causal language model. Texts begin with its own start token or, where it has none, with its end
    token; the released models have a token of their own for that. The loss that is measured is that of captions held
    out, where the released code chose its weights by the test captions.
    """
    return TrainConfig(
        objective=ContrastiveTokenLoss(margin=0.5),
        data=Files(form="text", truncate=True),
        optim=Optim(lr=2e-5, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0, warmup=2000, schedule="linear", final=0.0),
        steps=20_000,
        batch_size=128,
    )


def simvlm_captions() -> TrainConfig:
    """`rebus train simvlm_captions --set start_from=DIR --set data.path=photos`: the prompt is read, the caption
    written, at the highest of the paper's three rates; `--set data.form=ask` for questions with generated answers.
    """
    return TrainConfig(
        objective=PrefixLMLoss(at_random=0.0),
        data=Files(),
        optim=Optim(lr=5e-5, betas=(0.9, 0.999), weight_decay=0.01, warmup=50, schedule="linear", final=0.0),
        steps=1000,
        batch_size=64,
        batch_norm="frozen",
    )


def visualbert_answers() -> TrainConfig:
    """`rebus train visualbert_answers --set start_from=visualbert/vqa --set processor=google-bert/bert-base-uncased
    --set data.path=vqa --set data.regions=features.hdf5 --set data.answers=answers_vqa.txt`: your own questions with
    the paper's rate. The list has as many answers as the model scores; what it lacks is not learned."""
    return TrainConfig(
        objective=AnswerLoss(),
        data=Files(form="answers"),
        optim=Optim(lr=2e-5, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.01, warmup=100, schedule="linear", final=0.0),
        steps=1000,
        batch_size=64,
    )


def flamingo_documents() -> TrainConfig:
    """`rebus train flamingo_documents --set start_from=DIR --set data.path=obelics`: what is between a frozen language
    model and a frozen image encoder learns from documents of text and images in turn, with OpenFlamingo's rate. DIR is
    a directory that `rebus.join("flamingo", text=…, image=…).save(DIR)` wrote, or a trained Flamingo; the data are
    OBELICS, MMC4, or images with captions. OpenFlamingo puts weight decay on the cross-attention alone, here it is on
    all matrices that learn."""
    return TrainConfig(
        objective=InterleavedLoss(),
        data=Files(form="documents"),
        optim=Optim(lr=1e-4, betas=(0.9, 0.999), weight_decay=0.1, warmup=1875, schedule="constant", final=1.0),
        steps=100_000,
        batch_size=32,
    )


def flamingo_mixture() -> TrainConfig:
    """`rebus train flamingo_mixture --set start_from=DIR --set 'data.parts=[{"path": "photos", "form": "documents"},
    {"path": "obelics", "form": "documents"}]'`: the same from pairs of image and caption and from documents in each
    step, whose losses count 0.2 and 1 (OpenFlamingo's weights)."""
    parts = (Files(form="documents"), Files(form="documents"))
    return replace(flamingo_documents(), data=Mixture(parts=parts, weights=(0.2, 1.0), mix="steps"))
