"""Encoders of image and text together in the scenes world, in the two phases of their papers."""

from dataclasses import replace

from rebus.backbones.text.bert import BERTConfig
from rebus.data.scene_readings import SceneCaptionPairs, SceneQuestions, scene_answers
from rebus.data.scene_tokenizer import scenes_tokenizer
from rebus.models.masked_lm.visualbert import VisualBERTConfig
from rebus.objectives import AnswerLoss, MaskedLMLoss
from rebus.recipes.scenes import ENCODER
from rebus.train.config import Optim, Start, TrainConfig


def visualbert_scenes_pretrain() -> TrainConfig:
    """`rebus train visualbert_scenes_pretrain` · one busy processor core, 26 minutes · of 200 held-out scenes 0.98
    match their own full caption better than their neighbour's; blanks of training captions 0.59 right at the end.

    The paper's regions come from a trained detector that stays as it is; these from the trained encoder of
    `paligemma/scenes`, patch by patch.
    """
    words = scenes_tokenizer(mask=True).vocab_size
    text = BERTConfig(width=128, num_layers=4, num_heads=4, mlp_width=256, vocab_size=words, context=64, pooler=True)
    return TrainConfig(
        system="visualbert",
        model=VisualBERTConfig(text=text, region_width=4 * ENCODER.width, image=ENCODER, merge=2),
        objective=MaskedLMLoss(),
        data=SceneCaptionPairs(),
        optim=Optim(lr=1.5e-3, matrices="muon", warmup=50, schedule="constant", cooldown=200),
        steps=700,
        batch_size=32,
        starts=(Start(source="paligemma/scenes", take="image", into="image"),),
        freeze=("image",),
        final_dtype="float16",
    )


def visualbert_scenes() -> TrainConfig:
    """`rebus train visualbert_scenes` · one busy processor core, 37 minutes · questions 0.968 of held-out scenes,
    from a list of 86 answers.

    Counts of one colour or shape are what it misses (0.87, 0.88). The image encoder is that of `paligemma/scenes`.

    What `visualbert_scenes_pretrain` learned is a start: --set 'starts=[{"source": "RUN/final", "take": "text", "into":
    "text"}, …]' for text, region_proj, region_types, region_positions and image.
    """
    first = visualbert_scenes_pretrain()
    return replace(
        first,
        model=replace(first.model, head="answers", num_answers=len(scene_answers())),
        objective=AnswerLoss(),
        data=SceneQuestions(),
        optim=Optim(lr=1.5e-3, matrices="muon", warmup=50, schedule="constant", cooldown=300),
        steps=1400,
        batch_size=16,
        seed=1,
    )
