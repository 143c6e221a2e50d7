"""Recipes that take seconds."""

from dataclasses import replace

from rebus.backbones.text.bert import BERTConfig
from rebus.backbones.text.encoder import TextConfig
from rebus.backbones.text.gemma import GemmaConfig
from rebus.backbones.vision.mask_vqvae import MaskVQVAEConfig
from rebus.backbones.vision.vit import ViTConfig
from rebus.data.scene_captions import SceneCaptions
from rebus.data.scene_masks import SceneMasks
from rebus.data.scene_readings import SceneCaptionPairs, SceneQuestions, scene_answers
from rebus.data.scene_tasks import SceneTasks
from rebus.data.scene_tokenizer import EOS, IMAGE, scenes_tokenizer
from rebus.models.contrastive.clip import CLIPConfig
from rebus.models.contrastive.clip_resnet import CLIPResNetConfig
from rebus.models.contrastive.siglip import SigLIPConfig
from rebus.models.masked_lm.visualbert import VisualBERTConfig
from rebus.models.unified.paligemma import PaliGemmaConfig
from rebus.objectives import AnswerLoss, CodebookLoss, MaskedLMLoss, NextTokenLoss, SigmoidLoss, SoftmaxLoss
from rebus.train import Optim, TrainConfig

MASKS = TrainConfig(
    system="mask_vqvae",
    model=MaskVQVAEConfig(
        num_codes=8, code_width=4, encoder_widths=(2, 2, 4, 4), decoder_width=4, decoder_widths=(4, 2, 2, 2)
    ),
    objective=CodebookLoss(),
    data=SceneMasks(sizes=(96,)),
    optim=Optim(lr=1e-2, warmup=2),
    steps=6,
    batch_size=4,
    save_every=2,
    eval_every=3,
    eval_batches=1,
    workers=0,
)
_TOWER = ViTConfig(width=16, num_layers=1, num_heads=2, mlp_width=16, patch_size=32, image_size=96, act="gelu")
_WORDS = TextConfig(
    width=16, num_layers=1, num_heads=2, mlp_width=16, vocab_size=scenes_tokenizer().vocab_size, context=32, act="gelu"
)
CLIP = TrainConfig(
    system="clip",
    model=CLIPConfig(image=replace(_TOWER, class_token=True), text=_WORDS, embed=16, end_id=EOS),
    objective=SoftmaxLoss(),
    data=SceneCaptions(begin=True, full=1.0),
    optim=Optim(lr=3e-3, warmup=2, matrices="muon"),
    steps=4,
    batch_size=8,
    save_every=2,
    eval_every=0,
    final_dtype="float16",
    workers=0,
)
RESNET = replace(
    CLIP,
    model=CLIPConfig(
        image=CLIPResNetConfig(layers=(1, 1, 1, 1), width=8, image_size=96, embed=16), text=_WORDS, embed=16, end_id=EOS
    ),
    optim=Optim(lr=3e-3, warmup=2),
)
SIGLIP = replace(
    CLIP,
    system="siglip",
    model=SigLIPConfig(image=_TOWER, text=replace(_WORDS, causal=False), embed=16, pad_id=0),
    objective=SigmoidLoss(bias=-2.0),
    data=SceneCaptions(),
)
PALIGEMMA = replace(
    CLIP,
    system="paligemma",
    model=PaliGemmaConfig(
        image=_TOWER,
        text=GemmaConfig(
            width=16,
            num_layers=2,
            num_heads=4,
            num_kv_heads=2,
            head_width=8,
            mlp_width=16,
            vocab_size=scenes_tokenizer(locations=True).vocab_size,
        ),
        image_id=IMAGE,
    ),
    objective=NextTokenLoss(),
    data=SceneTasks(patch=32, caption=0.5, detect=0.3, ask=0.2, segment=0.0),
)
VISUALBERT = replace(
    CLIP,
    system="visualbert",
    model=VisualBERTConfig(
        text=BERTConfig(
            width=16,
            num_layers=1,
            num_heads=2,
            mlp_width=16,
            vocab_size=scenes_tokenizer(mask=True).vocab_size,
            context=64,
            pooler=True,
        ),
        region_width=16,
        image=_TOWER,
    ),
    objective=MaskedLMLoss(),
    data=SceneCaptionPairs(),
)
VISUALBERT_ANSWERS = replace(
    VISUALBERT,
    model=replace(VISUALBERT.model, head="answers", num_answers=len(scene_answers())),
    objective=AnswerLoss(),
    data=SceneQuestions(per_image=2),
)
