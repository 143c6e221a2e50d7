"""SimVLM at the tasks, whole and tiny: captions, questions, texts without an image, and a list of answers."""

import json
from dataclasses import replace

import pytest
import torch

import rebus
from rebus.api import Model
from rebus.codec.images import ImagePipeline, normalised
from rebus.codec.processor import Processor
from rebus.codec.text import TextPipeline
from rebus.core.errors import BadImage, BadText, MissingFile, UnsupportedTask, UsageError
from rebus.data.file_records import Files, Mixture
from rebus.data.scene_readings import SceneQuestions, scene_answers
from rebus.data.scene_tasks import SceneTasks
from rebus.data.scene_tokenizer import BOS, EOS, PAD, scenes_tokenizer
from rebus.data.scenes import scene
from rebus.models.prefix_lm.simvlm import PRESETS, SYSTEM
from rebus.objectives import AnswerLoss, PrefixLMLoss
from rebus.train import train
from rebus.train.config import Start
from rebus.train.setup import open_data
from tests.train.settings import CLIP

TOKENIZER = scenes_tokenizer()
CONFIG = replace(
    PRESETS["tiny"],
    vocab_size=TOKENIZER.vocab_size,
    image_size=96,
    pad_id=PAD,
    start_id=BOS,
    end_id=EOS,
)
ANSWERS = replace(CONFIG, head="answers", num_answers=len(scene_answers()))
RUN = replace(
    CLIP,
    system="simvlm",
    model=CONFIG,
    objective=PrefixLMLoss(),
    data=SceneTasks(caption=0.5, detect=0.0, ask=0.5, segment=0.0, questions=2),
)
PARTS = ("image", "image_proj", "image_positions", "tokens", "positions", "encoder", "decoder")


def made(config=CONFIG, **given):
    torch.manual_seed(0)
    network = SYSTEM.network(config).eval()
    for p in network.parameters():
        if p.ndim > 1:
            torch.nn.init.normal_(p, std=0.3)
    processor = Processor(ImagePipeline(SYSTEM.image_spec(config)), TextPipeline(TOKENIZER, SYSTEM.text_spec(config)))
    card = rebus.create("simvlm/small", width=24, num_layers=1, num_heads=3, image_size=32).card
    card = replace(card, tasks=SYSTEM.tasks(config))
    return Model(network, processor, config=config, card=card, system=SYSTEM, **given)


@pytest.fixture(scope="module")
def model():
    return made()


@pytest.fixture(scope="module")
def images():
    return [scene(seed, "test").image for seed in range(3)]


def test_a_caption_goes_on_from_the_papers_text_prefix(model, images):
    greedy = {"strategy": "greedy", "max_new_tokens": 6}
    captions = model.caption(images, **greedy)
    assert captions == model.complete([[image, "a picture of"] for image in images], **greedy)
    assert captions != model.caption(images, prompt="", **greedy)
    assert captions == [model.caption(image, **greedy) for image in images]
    begun = model.caption(images[0], prompt="there is", **greedy)
    assert begun == model.complete([images[0], "there is"], **greedy)


def test_a_text_is_continued_without_an_image_and_past_the_convolutions(model, images, monkeypatch):
    greedy = {"strategy": "greedy", "max_new_tokens": 6}
    mixed = model.complete([["a red circle"], [images[0], "a red circle"]], **greedy)
    monkeypatch.setattr(model.network.image, "feature_map", None)
    assert model.complete("a red circle", **greedy) == mixed[0]
    assert mixed[0] != mixed[1]
    with pytest.raises(BadText, match="text 0 holds 1 image: this model's texts have no place"):
        model.complete(["a red circle", images[0]])


def test_labels_are_ranked_by_their_likelihood_after_the_prefix(model, images):
    labels = ["red circle", "blue square", "star"]
    ranking = model.classify(images[0], labels)
    batch = model.processor(images=[images[0]], texts=["a picture of"])
    scores = []
    for label in labels:
        targets = model.processor.text.targets([label])
        with torch.no_grad():
            logits = model.network(**batch, targets=targets).logits[0]
        scores.append(logits.log_softmax(-1).gather(1, targets.T).sum())
    wanted = torch.stack(scores).softmax(0)
    found = torch.tensor([ranking.probabilities[ranking.labels.index(label)] for label in labels])
    torch.testing.assert_close(found.float(), wanted, atol=1e-4, rtol=1e-4)


def test_an_image_of_another_size_keeps_its_row(model, images):
    big = replace(SYSTEM.image_spec(CONFIG), size=(160, 160))
    processor = Processor(ImagePipeline(big), model.processor.text)
    batch = processor(images=images, texts=["a", "what colour is the circle?", ""])
    alone = processor(images=[images[2]], texts=[""])
    with torch.no_grad():
        together, single = model.network(**batch).logits, model.network(**alone).logits
    assert batch["pixels"].shape[-1] == 160
    torch.testing.assert_close(together[2:], single, atol=1e-4, rtol=0)


def test_answers_come_from_a_list(images):
    asked = made(ANSWERS, companions={"answers": list(scene_answers())})
    questions = ["what colour is the circle?", "how many objects are there?", "is there a star?"]
    answers = asked.ask(images, questions)
    assert answers == [asked.ask(image, question) for image, question in zip(images, questions, strict=True)]
    assert set(answers) <= set(scene_answers()[1:])
    assert asked.tasks == {"ask"}
    with pytest.raises(UnsupportedTask, match="caption"):
        asked.caption(images[0])
    with pytest.raises(UsageError):
        asked.ask(images[0], questions[0], max_new_tokens=3)
    with pytest.raises(MissingFile, match="there are no answers to pick from"):
        made(ANSWERS).ask(images[0], questions[0])
    with pytest.raises(UnsupportedTask, match='one with the head "answers" classifies'):
        made().network.answer_logits()


def test_faults_of_images_and_questions_are_named(model, tmp_path):
    (tmp_path / "empty.png").touch()
    with pytest.raises(BadImage, match=r"empty\.png"):
        model.caption(tmp_path / "empty.png")
    with pytest.raises(BadText, match="a question must be a text that is not empty"):
        model.ask(scene(0, "test").image, " ")
    with pytest.raises(BadText, match=r"the context holds 40"):
        model.complete("red " * 50)
    with pytest.raises(BadText, match="positions"):  # what is read and what is to be written share them
        model.complete("red " * 30, max_new_tokens=20)


def test_pretrained_on_pairs_and_texts_then_tuned_for_a_list_of_answers(tmp_path):
    rows = []
    for i in range(8):
        scene(i, "train").image.save(tmp_path / f"{i}.png")
        rows.append({"file": f"{i}.png", "captions": scene(i, "train").captions[:1]})
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "c4").mkdir()
    lines = [json.dumps({"text": scene(i, "train").captions[1]}) + "\n" for i in range(20)]
    (tmp_path / "c4" / "texts.jsonl").write_text("".join(lines))
    model = made()
    model.save(tmp_path / "fresh")
    pairs = Files(path=str(tmp_path), form="caption", prompt="", val_split=None)
    texts = Files(path=str(tmp_path / "c4"), form="text", val_split=None)
    mixed = Mixture(parts=(pairs, texts), weights=(3.0, 1.0), mix="rows")
    run = replace(RUN, data=mixed, processor=str(tmp_path / "fresh"), steps=2, final_dtype=None)
    batch = open_data(run).batch(0, 0, 8)
    assert batch["image_mask"].sum() == 6
    assert batch["tokens"].shape == (8, 0)  # all is drawn from the targets
    first = train(run, tmp_path / "first")

    starts = tuple(Start(source=str(first), take=part, into=part) for part in PARTS)
    tuned = replace(RUN, model=ANSWERS, objective=AnswerLoss(), data=SceneQuestions(per_image=2), starts=starts)
    final = train(replace(tuned, steps=2), tmp_path / "second")
    asked = rebus.load(final, device="cpu")
    assert asked.tasks == {"ask"}
    assert asked.ask(tmp_path / "0.png", "how many objects are there?") in scene_answers()
    assert rebus.load(first, device="cpu").tasks == {"caption", "ask", "classify", "complete", "stream"}


def test_a_list_is_not_taught_to_a_network_that_writes():
    with pytest.raises(UsageError, match="simvlm picks no answers from a list"):
        open_data(replace(RUN, data=SceneQuestions()))


def test_eight_scenes_are_learned_by_heart():
    torch.manual_seed(0)
    network = SYSTEM.network(CONFIG).train()
    data = open_data(RUN)
    batch = {name: value for name, value in data.batch(0, 0, 4).items() if torch.is_tensor(value)}
    assert batch["owners"].tolist() == [row for row in range(4) for _ in range(3)]
    batch["pixels"] = normalised(batch["pixels"], data.processor.image.spec)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(80):
        losses = PrefixLMLoss(at_random=0.0)(network, batch)
        optimiser.zero_grad()
        losses.total.backward()
        optimiser.step()
    assert float(losses.parts["accuracy"]) > 0.9
