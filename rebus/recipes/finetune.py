"""Released models on one's own images: `--set start_from=DIR --set data.path=DATA`, with whatever the data hold.

`start_from` is a directory in Hub layout or a catalogue name whose weights are in the cache; architecture, tokenizer
and preprocessor come from there. `--set retention.path=OTHER` measures on other data what was forgotten, `--set
wise_ft=0.5` keeps weights halfway between old and new.
"""

from rebus.data.file_records import Files
from rebus.objectives import AnswerLoss, NextTokenLoss, SigmoidLoss, SoftmaxLoss
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
    """`rebus train paligemma_lora --set start_from=paligemma/3b-pt-224 --set data.path=photos`: thin matrices beside
    the language model's, everything else as it was."""
    return TrainConfig(
        objective=NextTokenLoss(),
        data=Files(),
        optim=Optim(lr=2e-4, betas=(0.9, 0.999), weight_decay=0.0, warmup=50, final=0.0),
        steps=1000,
        batch_size=16,
        lora=LoRA(parts=("text.blocks",), rank=16, alpha=16.0),
    )


def clip_captions() -> TrainConfig:
    """`rebus train clip_captions --set start_from=clip/b32 --set data.path=photos`: images and captions of one's
    own. The rate is low and the weights are kept halfway to where they started, which loses least elsewhere (Wortsman
    et al., 2022)."""
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
    the sigmoid loss; temperature and bias go on from where they were."""
    return TrainConfig(
        objective=SigmoidLoss(),
        data=Files(least_crop=0.9),
        optim=Optim(lr=1e-5, betas=(0.9, 0.95), weight_decay=1e-4, warmup=50, final=0.0),
        steps=1000,
        batch_size=64,
        wise_ft=0.5,
    )


def visualbert_answers() -> TrainConfig:
    """`rebus train visualbert_answers --set start_from=visualbert/vqa --set processor=google-bert/bert-base-uncased
    --set data.path=vqa --set data.regions=features.hdf5 --set data.answers=answers_vqa.txt`: one's own questions with
    the paper's rate. The list has as many answers as the model scores; what it lacks is not learned."""
    return TrainConfig(
        objective=AnswerLoss(),
        data=Files(form="answers"),
        optim=Optim(lr=2e-5, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.01, warmup=100, schedule="linear", final=0.0),
        steps=1000,
        batch_size=64,
    )
