from dataclasses import replace

import pytest
import torch

from rebus import catalog
from rebus.backbones.vision.resnet import ResNetConfig
from rebus.core.errors import BadRegions, BadText, UnsupportedTask, UsageError
from rebus.models.masked_lm.visualbert import PRESETS, SYSTEM, VisualBERT

HEADS = ["tiny", "tiny_answers", "tiny_verdict", "tiny_phrases", "tiny_late"]


def build(preset, **changes):
    torch.manual_seed(0)
    network = VisualBERT(replace(PRESETS[preset], **changes)).eval()
    for p in network.parameters():
        if p.ndim > 1:
            torch.nn.init.normal_(p, std=0.3)
    return network


def batch(side="right"):
    """Texts of 6, 3 and 5 tokens and 4, 7 and 2 regions, padded, with each row alone."""
    torch.manual_seed(1)
    texts, counts = (6, 3, 5), (4, 7, 2)
    rows = [(torch.randint(3, 67, (1, n)), torch.randn(1, r, 14)) for n, r in zip(texts, counts)]
    tokens, mask = torch.zeros(3, 6, dtype=torch.long), torch.zeros(3, 6, dtype=torch.bool)
    regions, region_mask = torch.randn(3, 7, 14), torch.zeros(3, 7, dtype=torch.bool)
    for i, (text, seen) in enumerate(rows):
        at = slice(0, text.shape[1]) if side == "right" else slice(6 - text.shape[1], 6)
        tokens[i, at], mask[i, at] = text[0], True
        regions[i, : seen.shape[1]], region_mask[i, : seen.shape[1]] = seen[0], True
    return {"tokens": tokens, "mask": mask, "regions": regions, "region_mask": region_mask}, rows


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("preset", HEADS)
def test_a_row_does_not_depend_on_its_batch_or_padding(preset, side):
    network = build(preset)
    whole, rows = batch(side)
    with torch.no_grad():
        together = network(**whole)
        for i, (tokens, regions) in enumerate(rows):
            alone = network(tokens=tokens, regions=regions)
            if preset in ("tiny", "tiny_late"):
                torch.testing.assert_close(together.tokens[i, whole["mask"][i]], alone.tokens[0], atol=1e-4, rtol=0)
                torch.testing.assert_close(together.fits[i], alone.fits[0], atol=1e-4, rtol=0)
            else:
                found = together.logits[i]
                if preset == "tiny_phrases":
                    found = found[:, whole["region_mask"][i]]
                torch.testing.assert_close(found, alone.logits[0], atol=1e-4, rtol=0)


def test_the_order_of_regions_changes_nothing():
    network = build("tiny_answers")
    _, rows = batch()
    tokens, regions = rows[1]
    with torch.no_grad():
        torch.testing.assert_close(
            network(tokens=tokens, regions=regions).logits,
            network(tokens=tokens, regions=regions[:, torch.randperm(7)]).logits,
            atol=1e-5,
            rtol=0,
        )


def test_late_fusion_reads_the_text_alone_and_joins_it_once():
    """The original code's meaning of `bypass_transformer`: a plain transcription."""
    network = build("tiny_late")
    _, rows = batch()
    tokens, regions = rows[0]
    with torch.no_grad():
        x = network.text(tokens)
        seen = network.region_proj(regions) + network.region_types.weight[0] + network.region_positions.weight[0]
        x = network.joint(torch.cat([x, network.text.norm(seen)], dim=1))
        pooled = torch.tanh(network.text.pooler(x[:, 0]))
        torch.testing.assert_close(network(tokens=tokens, regions=regions).fits, network.match(pooled))
        early = build("tiny")(tokens=tokens, regions=regions).fits
    assert (network.match(pooled) - early).abs().max() > 1e-3


def test_the_segment_of_a_region_matters():
    """0 for the first image and 1 for the second; the reference library's default of 1 is another network."""
    network = build("tiny_verdict")
    _, rows = batch()
    tokens, regions = rows[0]
    kinds = torch.tensor([[0, 0, 1, 1]])
    with torch.no_grad():
        default = network(tokens=tokens, regions=regions).logits
        torch.testing.assert_close(network(tokens=tokens, regions=regions, region_types=0 * kinds).logits, default)
        assert (network(tokens=tokens, regions=regions, region_types=kinds).logits - default).abs().max() > 1e-3


def test_answers_are_read_before_the_last_token():
    network = build("tiny_answers")
    _, rows = batch()
    tokens, regions = rows[0]
    states = network.read(tokens=tokens, regions=regions)
    torch.testing.assert_close(network(tokens=tokens, regions=regions).logits, network.choice(states.text[:, -2]))
    logits = network.answer_logits(tokens=tokens, regions=regions)
    assert logits[0, 0] == -torch.inf  # <unk> is never given
    assert logits[0, 1:].isfinite().all()


def test_images_are_regions_by_their_grid():
    network = build("tiny_grid")
    pixels = torch.randn(2, 3, 24, 24)
    tokens = torch.randint(3, 67, (2, 5))
    with torch.no_grad():
        cells = torch.stack([image.features for image in network.image.region_features(pixels)])
        assert cells.shape == (2, 9, 14)
        torch.testing.assert_close(network.image(pixels), cells)
        wanted = network(tokens=tokens, regions=cells).logits
        torch.testing.assert_close(network(tokens=tokens, pixels=pixels).logits, wanted)
        each = network(tokens=tokens.flip(0), pixels=pixels, owners=torch.tensor([1, 0])).logits
        torch.testing.assert_close(each, wanted.flip(0))


def test_two_images_a_row_are_told_apart_and_absent_ones_not_seen():
    network = build("tiny_grid", head="verdict", num_answers=3129)
    pixels, tokens = torch.randn(2, 2, 3, 24, 24), torch.randint(3, 67, (2, 5))
    there = torch.tensor([[True, True], [True, False]])
    with torch.no_grad():
        found = network(tokens=tokens, pixels=pixels, image_mask=there).logits
        torch.testing.assert_close(found[1:], network(tokens=tokens[1:], pixels=pixels[1:, 0]).logits)
        both = torch.cat([image.features for image in network.image.region_features(pixels[0])])[None]
        kinds = (torch.arange(18) >= 9).long()[None]
        torch.testing.assert_close(found[:1], network(tokens=tokens[:1], regions=both, region_types=kinds).logits)


def test_cells_are_merged_and_boxes_say_where_they_are():
    network = build("tiny_grid", image=replace(PRESETS["tiny_grid"].image, image_size=32), region_width=56, merge=2)
    (found,) = network.image.region_features(torch.randn(1, 3, 32, 32), merge=2)
    assert found.features.shape == (4, 56)
    assert found.boxes.tolist() == [[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5], [0, 0.5, 0.5, 1], [0.5, 0.5, 1, 1]]
    assert network(tokens=torch.ones(1, 4, dtype=torch.long), pixels=torch.randn(1, 3, 32, 32)).logits.shape == (1, 11)


def test_a_resnet_makes_regions_with_the_numbers_of_their_boxes():
    network = build("tiny_answers", image=ResNetConfig(variant="resnet18", num_classes=0), region_width=512 + 6)
    with torch.no_grad():
        seen, real, boxes = network.see(pixels=torch.randn(1, 3, 64, 64))
    assert seen.shape == (1, 4, 24)
    assert real.all()
    assert boxes[0, 3].tolist() == [0.5, 0.5, 1.0, 1.0]
    assert SYSTEM.image_spec(network.cfg).resize == "exact"


def test_a_phrase_means_one_region():
    network = build("tiny_phrases", region_width=20)
    tokens, regions = torch.randint(3, 67, (2, 5)), torch.randn(2, 3, 14)
    boxes = torch.rand(2, 3, 2).repeat(1, 1, 2) + torch.tensor([0.0, 0.0, 0.1, 0.2])
    with torch.no_grad():
        probabilities, where = network.ground(tokens=tokens, regions=regions, boxes=boxes)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(2))
    assert torch.equal(where, boxes)
    with pytest.raises(BadRegions, match="come without boxes"):
        build("tiny_phrases").ground(tokens=tokens, regions=regions)


def test_what_cannot_be_is_said():
    tokens, regions = torch.ones(2, 4, dtype=torch.long), torch.randn(2, 3, 9)
    with pytest.raises(BadRegions, match="features of a region are 9 wide; this network was trained with 14"):
        build("tiny")(tokens=tokens, regions=regions)
    with pytest.raises(BadRegions, match="has nothing that makes them of an image"):
        build("tiny")(tokens=tokens, pixels=torch.randn(2, 3, 24, 24))
    with pytest.raises(BadText, match="2 texts for 3 rows of images"):
        build("tiny")(tokens=tokens, regions=torch.randn(3, 3, 14))
    with pytest.raises(
        UnsupportedTask, match="ask expects a VisualBERT with the head 'answers'; this one has 'pretrain"
    ):
        build("tiny").answer_logits(tokens=tokens, regions=torch.randn(2, 3, 14))
    with pytest.raises(UnsupportedTask, match="head 'pretraining' or 'verdict'; this one has 'answers'"):
        build("tiny_answers").match_logits(tokens=tokens, regions=torch.randn(2, 3, 14))
    with pytest.raises(UsageError, match="images need pixels"):
        build("tiny_grid")(tokens=tokens, pixels=torch.randn(2, 3, 24))


@pytest.mark.parametrize("width, wanted", [(512, 110_270_976), (1024, 110_664_192), (2048, 111_450_624)])
def test_the_size_without_heads(width, wanted):
    """The published counts with heads are those of the catalogue (tests/contracts)."""
    with torch.device("meta"):
        network = VisualBERT(replace(PRESETS["vcr"], region_width=width))
    heads = sum(p.numel() for name, p in network.named_parameters() if name.startswith("choice."))
    assert sum(p.numel() for p in network.parameters()) - heads == wanted


def test_every_card_names_tasks_of_its_head():
    for card in catalog.ROWS.values():
        if card.system == SYSTEM.name:
            assert card.tasks == SYSTEM.tasks(PRESETS[card.preset]), card.name
