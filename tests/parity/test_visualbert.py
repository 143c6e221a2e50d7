"""VisualBERT against the reference classes: every head, odd sizes, texts and regions padded."""

from dataclasses import replace

import pytest
import torch

import rebus
from rebus.core.errors import BadConfig
from rebus.models.masked_lm.visualbert import PRESETS, VisualBERT, keys, mmf_keys, original_keys
from rebus.models.masked_lm.visualbert_config import CLASS_OF, read_transformers, write_transformers
from rebus.open_checkpoint import open_checkpoint

transformers = pytest.importorskip("transformers")
HEADS = ["tiny", "tiny_answers", "tiny_verdict", "tiny_choices", "tiny_phrases"]


def reference(preset, seed=0):
    """The reference class with random weights, and ours with the same."""
    cfg = PRESETS[preset]
    torch.manual_seed(seed)
    config = transformers.VisualBertConfig(**write_transformers(cfg))
    theirs = getattr(transformers, CLASS_OF[cfg.head])(config).eval()
    for name, p in theirs.named_parameters():  # so that every input moves every output well above the tolerance
        torch.nn.init.normal_(p, mean=float(name.endswith("LayerNorm.weight")), std=0.4)
    ours = VisualBERT(cfg).eval()
    tensors = keys(cfg).to_ours(theirs.state_dict())
    ours.load_state_dict({name: tensor.load() for name, tensor in tensors.items()})
    return theirs, ours


def batch(choices=0):
    """Three rows of 9, 4 and 7 tokens, with 5, 2 and 7 regions."""
    torch.manual_seed(1)
    rows = 3 * (choices or 1)
    lengths = torch.tensor([9, 4, 7])[torch.arange(rows) // (choices or 1)] - torch.arange(rows) % (choices or 1)
    mask = torch.arange(9) < lengths[:, None]
    tokens = torch.randint(3, 67, (rows, 9)) * mask
    region_mask = torch.arange(7) < torch.tensor([5, 2, 7])[:, None]
    return {
        "tokens": tokens,
        "mask": mask,
        "types": (torch.arange(9) > 3).long().expand(rows, -1),
        "regions": torch.randn(3, 7, 14),
        "region_mask": region_mask,
        "region_types": (torch.arange(7) > 2).long().expand(3, -1),
    }


def in_their_words(found):
    return {
        "input_ids": found["tokens"],
        "attention_mask": found["mask"].long(),
        "token_type_ids": found["types"],
        "visual_embeds": found["regions"],
        "visual_attention_mask": found["region_mask"].long(),
        "visual_token_type_ids": found["region_types"],
    }


@pytest.mark.parametrize("preset", HEADS[:3])
def test_heads_equal_the_reference(preset):
    theirs, ours = reference(preset)
    found = batch()
    alignment = torch.randint(-1, 9, (3, 7, 2))
    alignment[1, 0] = -1
    with torch.no_grad():
        wanted = theirs(**in_their_words(found), image_text_alignment=alignment)
        got = ours(**found, alignment=alignment)
    if preset == "tiny":
        torch.testing.assert_close(
            got.tokens[found["mask"]], wanted.prediction_logits[:, :9][found["mask"]], atol=1e-4, rtol=0
        )
        torch.testing.assert_close(got.fits, wanted.seq_relationship_logits, atol=1e-4, rtol=0)
    else:
        torch.testing.assert_close(got.logits, wanted.logits, atol=1e-4, rtol=0)
    with torch.no_grad():
        again = ours(**found)
    assert (again[0] - got[0]).abs().max() > 5e-2  # the alignment matters


def test_choices_equal_the_reference():
    theirs, ours = reference("tiny_choices")
    found = batch(choices=4)
    spread = {
        n: found[n].repeat_interleave(4, 0).unflatten(0, (3, 4)) for n in ("regions", "region_mask", "region_types")
    }
    rows = {name: value.unflatten(0, (3, 4)) for name, value in found.items() if name in ("tokens", "mask", "types")}
    with torch.no_grad():
        wanted = theirs(**in_their_words({**rows, **spread})).logits
        got = ours(**{**found, **rows}).logits
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=0)


def test_phrases_equal_the_reference():
    theirs, ours = reference("tiny_phrases")
    found = batch()
    at = torch.tensor([[1, 5, 7], [2, -1, -1], [3, 4, -1]])
    with torch.no_grad():
        wanted = theirs(**in_their_words(found), region_to_phrase_position=at).logits
        got = ours(**found, phrase_at=at).logits
    there = at >= 0
    torch.testing.assert_close(got[there].softmax(-1), wanted[there].softmax(-1), atol=1e-5, rtol=0)
    real = found["region_mask"][:, None].expand_as(got) & there[..., None]
    torch.testing.assert_close(got[real], wanted[real], atol=1e-4, rtol=0)


@pytest.mark.parametrize("preset", HEADS)
def test_what_the_reference_saves_is_read_and_what_we_save_it_reads(preset, tmp_path):
    theirs, ours = reference(preset)
    theirs.save_pretrained(tmp_path / "theirs")
    opened = open_checkpoint(tmp_path / "theirs")
    assert opened.config == ours.cfg
    model = rebus.load(tmp_path / "theirs", device="cpu")
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, ours.state_dict()[name]), name
    model.save(tmp_path / "ours")
    again, report = type(theirs).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    for name, value in theirs.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_the_hubs_configuration_is_read():
    """With RoBERTa's ids of control tokens, as it was released."""
    data = {
        "architectures": ["VisualBertForQuestionAnswering"],
        "attention_probs_dropout_prob": 0.1,
        "bos_token_id": 0,
        "bypass_transformer": False,
        "eos_token_id": 2,
        "gradient_checkpointing": False,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": 768,
        "id2label": {str(i): f"LABEL_{i}" for i in range(3129)},
        "initializer_range": 0.02,
        "intermediate_size": 3072,
        "label2id": {f"LABEL_{i}": i for i in range(3129)},
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 512,
        "model_type": "visual_bert",
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "pad_token_id": 1,
        "special_visual_initialize": True,
        "transformers_version": "4.6.0.dev0",
        "type_vocab_size": 2,
        "visual_embedding_dim": 2048,
        "vocab_size": 30522,
    }
    cfg = read_transformers(data)
    assert (cfg.head, cfg.num_answers, cfg.region_width, cfg.text.pad_id) == ("answers", 3129, 2048, 1)
    assert rebus.catalog.system("visualbert").text_spec(cfg).pad_id == 0


@pytest.mark.parametrize("preset", [*HEADS, "tiny_late"])
def test_the_original_file_is_read(preset, tmp_path):
    """A `.th` file holds weights alone, under the original code's names; heads are 64 wide there."""
    cfg = PRESETS[preset]
    cfg = replace(cfg, text=replace(cfg.text, width=128, num_heads=2), region_width=9)
    torch.manual_seed(0)
    network = VisualBERT(cfg).eval()
    state = {name: tensor.load() for name, tensor in original_keys(cfg).to_theirs(network.state_dict()).items()}
    assert "bert.bert.embeddings.token_type_embeddings_visual.weight" in state
    assert ("bert.classifier.weight" in state) == (network.choice is not None)
    if network.blanks is not None:  # the tied matrix is in the file a second time
        state["bert.cls.predictions.decoder.weight"] = state["bert.bert.embeddings.word_embeddings.weight"]
    state["detector.backbone.0.weight"] = torch.zeros(2)
    torch.save(state, tmp_path / "model_state_epoch_3.th")
    model = rebus.load(tmp_path / "model_state_epoch_3.th", device="cpu")
    assert model.config == cfg
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, network.state_dict()[name]), name


@pytest.mark.parametrize("outputs", [11, 2], ids=["answers", "verdict"])
def test_a_file_of_mmf_is_read_and_gives_what_its_head_gives(outputs, tmp_path):
    """The reference class's body under MMF's names, and the reference library's own two-layer head on top, which is
    read before [SEP] for answers, and by the pooled vector else."""
    from transformers.models.bert.modeling_bert import BertPredictionHeadTransform

    cfg = replace(PRESETS["tiny"], text=replace(PRESETS["tiny"].text, width=128, num_heads=2))
    torch.manual_seed(0)
    config = transformers.VisualBertConfig(**write_transformers(cfg))
    body = transformers.VisualBertModel(config).eval()
    head = torch.nn.Sequential(BertPredictionHeadTransform(config), torch.nn.Linear(128, outputs))
    names = {
        "visual_token_type_embeddings": "token_type_embeddings_visual",
        "visual_position_embeddings": "position_embeddings_visual",
        "visual_projection": "projection",
    }
    state = {f"model.classifier.{name}": value for name, value in head.state_dict().items()}
    for name, value in body.state_dict().items():
        for theirs, mmf in names.items():
            name = name.replace(theirs, mmf)
        state[f"model.bert.{name}"] = value
    torch.save({"model": state}, tmp_path / "visual_bert.pth")
    model = rebus.load(tmp_path / "visual_bert.pth", device="cpu")
    assert model.tasks == {"ask" if outputs == 11 else "match"}
    assert model.system.prompts.ask == "{question}", "no [MASK] stands behind the question"
    found = batch()
    with torch.no_grad():
        seen = body(**in_their_words(found))
        last = found["mask"].sum(dim=1) - 2
        states = seen.last_hidden_state[torch.arange(3), last] if outputs == 11 else seen.pooler_output
        torch.testing.assert_close(model.network(**found).logits, head(states), atol=1e-4, rtol=0)
    again = rebus.load(model.save(tmp_path / "saved"), device="cpu")
    assert again.config == model.config
    torch.testing.assert_close(again.network(**found).logits, model.network(**found).logits, atol=0, rtol=0)


def test_mmfs_two_passes_over_two_images_are_refused(tmp_path):
    cfg = replace(PRESETS["tiny_transform"], text=replace(PRESETS["tiny"].text, width=128, num_heads=2))
    state = {n: t.load() for n, t in mmf_keys(cfg).to_theirs(VisualBERT(cfg).state_dict()).items()}
    state["model.classifier.1.weight"] = torch.zeros(2, 256)
    torch.save(state, tmp_path / "nlvr2.pth")
    with pytest.raises(BadConfig, match="reads 256 numbers in place of 128"):
        rebus.load(tmp_path / "nlvr2.pth")
