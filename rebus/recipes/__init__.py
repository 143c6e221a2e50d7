"""One Python function for each run whose result is published: its command, its hardware, its score.

`rebus train NAME` looks a name up in `RECIPES`; `--set` changes single fields.
"""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from rebus.core.errors import unknown

if TYPE_CHECKING:
    from rebus.train.config import TrainConfig

RECIPES = {
    "clip_scenes": "rebus.recipes.scenes",
    "clip_scene_crops": "rebus.recipes.scenes",
    "vild_scenes": "rebus.recipes.scenes",
    "siglip_scenes": "rebus.recipes.scenes",
    "align_scenes": "rebus.recipes.scenes",
    "virtex_scenes": "rebus.recipes.scene_captions",
    "visualgpt_scenes": "rebus.recipes.scene_captions",
    "visualgpt_scenes_cider": "rebus.recipes.scene_captions",
    "flamingo_scenes_episodes": "rebus.recipes.scene_documents",
    "flamingo_scenes": "rebus.recipes.scene_documents",
    "flamingo_scenes_text": "rebus.recipes.scene_documents",
    "simvlm_scenes": "rebus.recipes.scene_prefixes",
    "simvlm_scenes_mix": "rebus.recipes.scene_prefixes",
    "chameleon_scenes_first": "rebus.recipes.chameleon",
    "chameleon_scenes_second": "rebus.recipes.chameleon",
    "chameleon_scenes_third": "rebus.recipes.chameleon",
    "chameleon_scenes": "rebus.recipes.chameleon",
    "chameleon_scenes_codes": "rebus.recipes.chameleon",
    "chameleon_scenes_codes_32": "rebus.recipes.chameleon",
    "vit_scenes": "rebus.recipes.scenes",
    "bert_scenes": "rebus.recipes.scenes",
    "magic_scenes": "rebus.recipes.scene_captions",
    "mask_vqvae_scenes": "rebus.recipes.scenes",
    "visualbert_scenes": "rebus.recipes.scene_readings",
    "visualbert_scenes_pretrain": "rebus.recipes.scene_readings",
    "paligemma_scenes": "rebus.recipes.scenes",
    "paligemma_scenes_mix": "rebus.recipes.scenes",
    "pali3_scenes": "rebus.recipes.pali3",
    "florence2_scenes_first": "rebus.recipes.florence2",
    "florence2_scenes": "rebus.recipes.florence2",
    "paligemma_captions": "rebus.recipes.finetune",
    "paligemma_lora": "rebus.recipes.finetune",
    "simvlm_captions": "rebus.recipes.finetune",
    "florence2_boxes": "rebus.recipes.finetune",
    "florence2_captions": "rebus.recipes.finetune",
    "florence2_reading": "rebus.recipes.finetune",
    "visualbert_answers": "rebus.recipes.finetune",
    "clip_captions": "rebus.recipes.finetune",
    "siglip_captions": "rebus.recipes.finetune",
    "vild_boxes": "rebus.recipes.finetune",
    "magic_captions": "rebus.recipes.finetune",
    "flamingo_documents": "rebus.recipes.finetune",
    "flamingo_mixture": "rebus.recipes.finetune",
    "clip_b32": "rebus.recipes.papers",
    "simvlm_base": "rebus.recipes.papers",
    "simvlm_warm": "rebus.recipes.papers",
    "simvlm_vqa": "rebus.recipes.papers",
    "virtex_r50": "rebus.recipes.papers",
    "siglip_b16": "rebus.recipes.papers",
    "paligemma_3b": "rebus.recipes.papers",
    "vild_resnet50": "rebus.recipes.papers",
    "vild_resnet152_ensemble": "rebus.recipes.papers",
    "visualbert_coco": "rebus.recipes.papers",
    "visualbert_vqa": "rebus.recipes.papers",
    **dict.fromkeys(
        ("pali3_siglip", "pali3_ul2", "pali3_224", "pali3_812", "pali3_1064", "pali3_transfer", "pali3_siglip_t5"),
        "rebus.recipes.pali3",
    ),
    "visualgpt_coco": "rebus.recipes.papers",
    "visualgpt_coco_cider": "rebus.recipes.papers",
    "flamingo_photos": "rebus.recipes.photos",
    "lit_photos": "rebus.recipes.photos",
    "virtex_photos": "rebus.recipes.photos",
    "simvlm_photos": "rebus.recipes.photos",
    "visualgpt_photos": "rebus.recipes.photos",
}


def recipe(name: str) -> "TrainConfig":
    """The settings of a recipe. Raises `UnknownName` with the nearest names."""
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES, f"Recipes: {', '.join(RECIPES)}.")
    make: Callable[[], TrainConfig] = getattr(import_module(RECIPES[name]), name)
    return make()
