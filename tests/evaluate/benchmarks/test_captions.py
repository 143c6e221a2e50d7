import pytest

from rebus.core.errors import UsageError
from rebus.data.record import Record
from rebus.data.scenes import scene
from rebus.evaluate.caption_metrics import bleu, cider_d, rouge_l, words
from rebus.evaluate.measure import measure
from tests.evaluate.benchmarks.samples import ByteLRU, Seeing, Told, coco, png


def test_equals_the_metrics_themselves(tmp_path):
    some = [scene(n, "test") for n in range(30)]
    result = measure(Seeing(some), "captions", coco(tmp_path, some), batch_size=7)
    truth = [[words(one.captions[0])] for one in some]
    said = [words(one.captions[0].replace("solid", "striped")) for one in some]
    scores = result.document["scores"]
    assert scores["cider_d"] == pytest.approx(cider_d(said, truth))
    assert [scores[f"bleu{n}"] for n in (1, 2, 3, 4)] == pytest.approx(bleu(said, truth))
    assert scores["rouge_l"] == pytest.approx(rouge_l(said, truth))
    assert 0 < scores["bleu4"] < 1
    worst = next(iter(result.outcome.worst))
    assert worst.said != worst.truth


def test_decoding_reaches_the_model(tmp_path):
    seen = {}
    model = Told(caption=lambda images, **decoding: seen.update(decoding) or ["a cat"] * len(images))
    reader = ByteLRU([Record(key=str(n), image=png(tmp_path, n), captions=("a cat", "a dog")) for n in range(2)])
    measure(model, "captions", reader, prompt="describe", num_beams=3, max_new_tokens=9)
    assert seen == {"prompt": "describe", "strategy": "beam", "num_beams": 3, "max_new_tokens": 9}


def test_one_picture_has_no_score(tmp_path):
    model = Told(caption=lambda images: ["a cat"] * len(images))
    with pytest.raises(UsageError, match="CIDEr-D"):
        measure(model, "captions", ByteLRU([Record(key="a", image=png(tmp_path, 0), captions=("a cat",))]))
