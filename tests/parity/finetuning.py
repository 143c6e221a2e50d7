"""A PaliGemma directory as the reference library writes it, small and untrained, with a tokenizer for given texts."""

from collections.abc import Sequence
from pathlib import Path

import tokenizers
import torch
import transformers
from tokenizers import models, pre_tokenizers

SPECIALS = ("<pad>", "<eos>", "<bos>", "<unk>", "<image>", "\n")


def write_directory(folder: Path, texts: Sequence[str], width: int = 96, layers: int = 2) -> None:
    """Words of `texts` (and of the prompt) are the vocabulary."""
    words = sorted({word for text in ("caption en", *texts) for word in text.split()})
    vocab = {word: i for i, word in enumerate((*SPECIALS, *words))}
    table = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    table.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=table, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<unk>"
    )
    fast.add_special_tokens({"additional_special_tokens": ["<image>"]})
    fast.add_tokens(["\n"], special_tokens=False)
    fast.save_pretrained(folder)
    transformers.SiglipImageProcessor(
        size={"height": 48, "width": 48}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    ).save_pretrained(folder)
    torch.manual_seed(0)
    transformers.PaliGemmaForConditionalGeneration(
        transformers.PaliGemmaConfig(
            text_config={
                "model_type": "gemma",
                "hidden_size": width,
                "num_hidden_layers": layers,
                "num_attention_heads": 4,
                "num_key_value_heads": 1,
                "head_dim": 24,
                "intermediate_size": 2 * width,
                "vocab_size": len(vocab),
            },
            vision_config={
                "model_type": "siglip_vision_model",
                "hidden_size": width,
                "num_hidden_layers": layers,
                "num_attention_heads": 4,
                "intermediate_size": 2 * width,
                "image_size": 48,
                "patch_size": 16,
                "vision_use_head": False,
                "projection_dim": width,
            },
            projection_dim=width,
            image_token_index=vocab["<image>"],
        )
    ).save_pretrained(folder)


@torch.no_grad()
def reference_captions(folder: Path, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """What transformers writes, greedily, with the weights in a directory: new tokens only."""
    model = transformers.PaliGemmaForConditionalGeneration.from_pretrained(folder).eval()
    tokens = batch["tokens"]
    written = model.generate(
        input_ids=tokens,
        attention_mask=batch["mask"].long(),
        token_type_ids=torch.zeros_like(tokens),
        pixel_values=batch["pixels"],
        max_new_tokens=32,
        do_sample=False,
        eos_token_id=1,
        pad_token_id=0,
    )
    return written[:, tokens.shape[1] :]
