"""Chameleon end to end at its tiny size: what it reads, writes, draws and learns."""

import json
import re
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import rebus
from rebus import catalog
from rebus.api import Model
from rebus.backbones.vision.vqgan import PRESETS as VQGANS
from rebus.backbones.vision.vqgan import VQGAN
from rebus.codec.images import ImagePipeline
from rebus.codec.processor import Processor
from rebus.codec.text import ImageMark, Pieces, TextPipeline
from rebus.codec.tokenizers import word_level_tokenizer
from rebus.core.errors import BadConfig, BadText, UnsupportedTask, UsageError
from rebus.models.early_fusion.chameleon_config import SEPARATOR
from rebus.models.early_fusion.chameleon_layouts import code_name
from rebus.objectives import CodebookLoss, objective_of
from rebus.save_checkpoint import save_checkpoint
from rebus.tasks import interleaved
from rebus.tasks.image_generation import TokenRows

WORDS = "a red blue cat dog is the photo what ?".split()
SPECIALS = [
    "<s>",
    "<pad>",
    "</s>",
    "<unk>",
    *map(code_name, range(16)),
    "<eoss>",
    "<racm3:break>",
    SEPARATOR,
    "<image>",
]
EACH, CONTEXT = 9, 64


def build(preset="tiny", context=CONTEXT, seed=0) -> Model:
    """A model with random weights and a vocabulary of ten words."""
    system = catalog.system("chameleon")
    config = system.presets[preset]
    size = len(SPECIALS) + len(WORDS)
    config = replace(config, text=replace(config.text, vocab_size=size, context=context), image_id=23)
    torch.manual_seed(seed)
    network = system.build(config)
    for p in network.parameters():
        if p.ndim > 1:
            torch.nn.init.normal_(p, std=0.2)
    text = TextPipeline(word_level_tokenizer(WORDS, SPECIALS), system.text_spec(config))
    card = replace(catalog.info("chameleon/7b"), tasks=catalog.tasks_of(system, config))
    processor = Processor(ImagePipeline(system.image_spec(config)), text)
    return Model(network, processor, config=config, card=card, system=system)


@pytest.fixture(scope="module")
def model():
    return build()


def picture(colour):
    return Image.new("RGB", (14, 13), colour)


def test_what_the_processor_makes_of_a_document(model):
    batch = model.processor(images=[[picture("red")]], texts=[Pieces("a", ImageMark(), "cat")])
    image = [21, *[23] * EACH, 20]
    assert batch["tokens"].tolist() == [[0, 24, *image, 27, 22]]
    codes = model.network.read_images(batch["tokens"], batch["pixels"])
    assert codes[0, 3:12].tolist() == (model.network.image.encode(batch["pixels"])[0] + 4).tolist()
    with pytest.raises(BadText, match="9 image placeholders in the tokens, but 0 images"):
        model.network.read_images(batch["tokens"])


@pytest.fixture
def written(monkeypatch):
    """The rows of tokens behind every interleaved answer."""
    seen = []

    class Seen(TokenRows):
        def __init__(self, *args):
            super().__init__(*args)
            self.prompts = [len(row) for row in self.rows]
            seen.append(self)

    monkeypatch.setattr(interleaved, "TokenRows", Seen)
    return seen


def states(row):
    """A letter for each token: word, begin, code, end of an image, end."""
    kinds = {21: "b", 20: "e", 2: "."} | dict.fromkeys(range(4, 20), "c") | dict.fromkeys(range(24, 34), "w")
    return "".join(kinds.get(token, "!") for token in row)


def checked(written, answers, context):
    """The letters of each answer, which obey the states and say what was returned."""
    rows = [row[prompt:] for one in written for row, prompt in zip(one.rows, one.prompts, strict=True)]
    assert len(rows) == len(answers)
    for row, answer in zip(rows, answers, strict=True):
        said = states(row)
        assert re.fullmatch(r"(w*bc{9}e)*w*\.?", said), said
        assert said.count("b") == sum(isinstance(part, Image.Image) for part in answer)
        kinds = [isinstance(part, str) for part in answer]
        assert (True, True) not in pairwise(kinds), "texts that follow each other are one"
        assert len(row) + 3 <= context
    return [states(row) for row in rows]


def test_a_thousand_answers_obey_the_states(written):
    model = build(context=128)
    answers = model.complete(
        [["a cat"]] * 1000, seed=list(range(1000)), max_new_tokens=8, guidance=None, best_of=1, batch_size=1000
    )
    counts = [said.count("b") for said in checked(written, answers, 128)]
    assert min(counts) == 0
    assert max(counts) >= 3


def test_no_image_is_begun_that_does_not_fit(written):
    model = build(context=24)
    answers = model.complete([["a cat"]] * 30, seed=list(range(30)), max_new_tokens=20, best_of=1, batch_size=30)
    said = checked(written, answers, 24)
    begun = [3 + one.index("b") for one in said if "b" in one]
    assert begun
    assert max(begun) <= 24 - EACH - 3
    full = [one for one in said if len(one) + 3 == 24 and not one.endswith(".")]
    assert full, "some went on in words where no image fitted any more"


def test_an_answer_does_not_depend_on_its_batch(model):
    documents = [["a", picture("red")], ["the photo is"], [picture("blue"), "cat", picture("red"), "?"], ["dog"]]
    options = {"max_new_tokens": 30}
    together = model.complete(documents, seed=[1, 2, 3, 4], **options)
    alone = [model.complete(one, seed=i + 1, **options) for i, one in enumerate(documents)]

    def plain(answer):
        return [part if isinstance(part, str) else part.tobytes() for part in answer]

    assert [plain(answer) for answer in together] == [plain(answer) for answer in alone]


def test_images_are_drawn_of_prompts(model):
    one, two = model.imagine(["a red cat", "the blue dog is a dog"], seed=[1, 2])
    assert (one.mode, one.size) == ("RGB", (12, 12))
    assert one.tobytes() == model.imagine("a red cat", seed=1).tobytes()
    assert one.tobytes() != two.tobytes()


def test_guidance_at_scale_one_is_none(model):
    def drawn(**options):
        return [image.tobytes() for image in model.imagine(["a red cat", "dog"], seed=[1, 2], **options)]

    assert drawn(guidance=None) == drawn(guidance=1) == drawn(guidance=(1.0, 1.0))
    assert drawn(guidance=1 + 1e-9) == drawn(guidance=None), "the mixture itself, not only the way round it"
    assert drawn(guidance=6.0) != drawn(guidance=None)
    assert drawn() == drawn(guidance=1.5) == drawn(guidance=(1.5, 99.0)), "no images before, nothing to go to"
    with pytest.raises(UsageError, match="a number, for the text, or two"):
        drawn(guidance="much")


def test_large_codebooks_draw_as_anole_does_small_ones_from_all_codes():
    system = catalog.system("chameleon")
    large, small = (system.suited_to(system.presets[name]).decoding["imagine"] for name in ("anole_7b", "tiny"))
    assert large == {"strategy": "sample", "temperature": 0.7, "top_p": 0.9, "guidance": (3.0, 1.2)}
    assert small == {"strategy": "sample", "temperature": 0.6, "guidance": 1.5, "best_of": 16}


def test_guidance_goes_from_nothing_to_images_to_text(model, monkeypatch):
    """The formula of the paper's inference over three separate prompts, against the one batch of three."""
    batch = model.processor(images=[[picture("red")], []], texts=[Pieces("a", ImageMark(), "cat"), Pieces("the dog")])
    rows = TokenRows(model, batch)
    for row in rows.rows:
        row.append(21)
    image = rows.rows[0][2:13]
    seen = {}
    monkeypatch.setattr(model, "generate", lambda **given: seen.update(given) or torch.full((2, EACH), 4))
    spec = model.system.image_tokens(model.config)
    rows.draw([0, 1], spec, {"guidance": (3.0, 1.2)})
    nothing, alone = seen["guidance"].then.batch, seen["guidance"].batch
    assert [row[real].tolist() for row, real in zip(alone["tokens"], alone["mask"], strict=True)] == [
        [0, *image, 21],
        [0, 21],
    ]
    assert nothing["tokens"].tolist() == [[0, 21], [0, 21]]

    from rebus.generation.guidance import GuidedWriter

    full = {"tokens": seen["tokens"], "mask": seen["mask"]}
    network, token = model.network, torch.tensor([5, 9])
    with torch.no_grad():
        first = GuidedWriter(network, seen["guidance"]).start(room=2, **full)
        second = GuidedWriter(network, seen["guidance"]).step(token, first.cache.select(torch.tensor([0, 1])))
        f, i, u = (network.step(token, network.start(room=2, **one).cache).logits for one in (full, alone, nothing))
    wanted = u + 1.2 * (i - u) + 3.0 * (f - i)
    torch.testing.assert_close(second.logits.softmax(-1), wanted.softmax(-1), atol=1e-5, rtol=1e-4)


def test_answers_in_text_have_no_codes_in_them(model):
    for prompt in ("caption", "ask", "complete"):
        arguments = {"caption": [picture("red")], "ask": [picture("red"), "what ?"], "complete": [["a"]]}[prompt]
        said = "".join(model.stream(prompt, *arguments, max_new_tokens=30, strategy="greedy"))
        assert set(said.replace("?", " ? ").split()) <= set(WORDS)
    logits = model.network(**model.processor(images=picture("red"), texts="what ?")).logits
    assert logits[:, :, 4:20].amax() > logits[:, :, 24:].amax() - 5, "codes have scores, and were not taken"


def test_without_the_decoder_of_images_it_answers_in_text_and_says_what_draws():
    model = build("tiny_swin")
    assert "imagine" not in model.tasks
    assert isinstance(model.complete(["a", picture("red")], seed=0, max_new_tokens=12), str)
    assert isinstance(model.caption(picture("blue"), max_new_tokens=9), str)
    ranking = model.classify(picture("blue"), ["cat", "dog", "a red cat"])
    assert sum(ranking.probabilities) == pytest.approx(1)
    with pytest.raises(UnsupportedTask):
        model.imagine("a cat")


def test_learning_to_draw_has_a_finite_loss_over_codes(model):
    batch = model.processor(
        images=[[picture("red")], [picture("blue")], [picture("red"), picture("blue")]],
        texts=["a red cat", "what ?", Pieces("a", ImageMark(), "?")],
        targets=[Pieces(ImageMark()), "a dog", Pieces("the", ImageMark(), "dog")],
    )
    assert batch["tokens"][0].tolist()[:5] == [0, 24, 25, 27, 22]
    assert batch["targets"][0].tolist() == [21, *[23] * EACH, 20, 2, -100, -100]
    # the images of the second row and of the first of the third are in their prompts
    assert (batch["tokens"] == 23).sum(dim=1).tolist() == [0, EACH, EACH]
    network = build().network.train()
    made = network(**batch)
    red, blue = (network.image.encode(model.processor(images=picture(c))["pixels"])[0] + 4 for c in ("red", "blue"))
    assert made.targets[0, 1:10].tolist() == red.tolist()
    assert made.targets[2, 2:11].tolist() == blue.tolist()
    losses = objective_of(catalog.system("chameleon"), network.cfg)(network, batch)
    assert losses.total.isfinite()
    losses.total.backward()
    assert network.text.head.weight.grad[4:20].abs().sum() > 0
    assert all(p.grad is None for p in network.image.parameters())
    with pytest.raises(BadText, match="answer 0 has marks for 2 images, of 1"):
        model.processor(images=[[picture("red")]], texts="a", targets=[Pieces(ImageMark(), ImageMark())])


def test_the_z_loss_of_the_paper_is_in_the_objective():
    system = catalog.system("chameleon")
    objective = objective_of(system, system.presets["7b"])
    logits = torch.randn(1, 2, 5) * 3
    targets = torch.tensor([[1, 4]])
    wanted = F.cross_entropy(logits[0], targets[0]) + 1e-5 * logits[0].logsumexp(-1).square().mean()
    assert objective.z_loss == 1e-5
    network = type("", (), {"__call__": lambda self, **_: rebus.core.outputs.Predictions(logits)})()
    torch.testing.assert_close(objective(network, {"targets": targets}).total, wanted)


@pytest.mark.parametrize(("preset", "draws"), [("tiny", True), ("tiny_swin", False)])
def test_both_releases_are_read_and_written_back(preset, draws, tmp_path):
    """Anole's configuration is Meta's: only the weights tell whether there is a decoder."""
    model = build(preset)
    saved = model.save(tmp_path / "saved")
    config = json.loads((saved / "config.json").read_text())
    assert config["vq_config"].pop("decoder", False) == draws
    (saved / "config.json").write_text(json.dumps(config))
    again = rebus.load(saved, device="cpu")
    assert again.config == model.config
    assert ("imagine" in again.tasks) == draws
    if draws:
        assert again.imagine("a cat", seed=3).tobytes() == model.imagine("a cat", seed=3).tobytes()
    assert again.caption(picture("red"), max_new_tokens=9) == model.caption(picture("red"), max_new_tokens=9)


def test_a_vocabulary_in_another_order_is_refused_by_name():
    layout = catalog.system("chameleon").layouts["transformers"]
    data = layout.config_data(build().config)
    names = data["vocabulary_map"]
    names[code_name(3)], names[code_name(4)] = names[code_name(4)], names[code_name(3)]
    with pytest.raises(BadConfig, match="code 3 of images, IMGIMGDZ"):
        layout.read_config(data)
    del names["<eoss>"]
    with pytest.raises(BadConfig, match="no token for end_id"):
        layout.read_config(data)


def test_codes_have_the_names_of_the_release():
    assert (code_name(53), code_name(1024)) == ("IMGIMGFDZ", "IMGIMGBACEZ")


def test_codes_are_those_of_float32_whatever_the_weights_are():
    torch.manual_seed(0)
    network = VQGAN(VQGANS["tiny"], decoder=False).eval()
    torch.nn.init.normal_(network.codebook)
    pixels = torch.rand(16, 3, 12, 12) * 2 - 1
    network = network.bfloat16()
    rounded = network.encode(pixels.bfloat16())
    assert torch.equal(rounded, network.float().encode(pixels.bfloat16().float()))
    with pytest.raises(UsageError, match="no decoder"):
        network.decode(rounded)


def test_the_tokenizer_of_images_is_read_from_the_released_file(tmp_path):
    torch.manual_seed(0)
    network = VQGAN(VQGANS["tiny"])
    weights = {**network.state_dict(), "loss.discriminator.main.0.weight": torch.zeros(2)}
    torch.save({"state_dict": weights}, tmp_path / "vqgan.ckpt.pt")
    model = rebus.load(tmp_path / "vqgan.ckpt.pt", device="cpu")
    assert replace(model.config, image_size=12) == VQGANS["tiny"]
    codes = torch.randint(16, (2, EACH))
    assert torch.equal(model.network.decode(codes), network.decode(codes))
    layout = catalog.system("vqgan").layouts["transformers"]
    folder = save_checkpoint(tmp_path / "own", layout, network.cfg, network.state_dict())
    assert rebus.load(folder, device="cpu").config == network.cfg


def test_the_tokenizer_of_images_learns_to_rebuild_them():
    torch.manual_seed(0)
    network, objective = VQGAN(VQGANS["tiny"]).train(), CodebookLoss()
    batch = {"pixels": torch.rand(4, 3, 1, 1).expand(-1, -1, 12, 12) * 2 - 1}
    objective.begin(network, batch)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(50):
        found = objective(network, batch)
        optimizer.zero_grad()
        found.total.backward()
        optimizer.step()
        losses.append(float(found.parts["rebuilt"]))
    assert losses[-1] < 0.8 * losses[0]
