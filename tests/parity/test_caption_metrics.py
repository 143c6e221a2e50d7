"""Caption scores against pycocoevalcap, the code of the COCO evaluation, on random captions."""

import random

import numpy as np
import pytest

from rebus.evaluate.caption_metrics import bleu, cider_d, cider_d_scores, rouge_l, words

pytestmark = pytest.mark.parity
official_bleu = pytest.importorskip("pycocoevalcap.bleu.bleu")
official_rouge = pytest.importorskip("pycocoevalcap.rouge.rouge")
official_cider = pytest.importorskip("pycocoevalcap.cider.cider")


def captions(seed, num_pictures, num_words):
    """Random captions; those of an image share words, and some candidates copy a reference or are empty."""
    chance = random.Random(seed)

    def caption(least=1):
        vocabulary = "a on the red cat dog bus man two ball tree sits runs with big old".split()[:num_words]
        return " ".join(chance.choices(vocabulary, k=chance.randint(least, 14)))

    references = [[caption() for _ in range(chance.randint(1, 6))] for _ in range(num_pictures)]
    candidates = []
    for others in references:
        copied = chance.choice(others)
        changed = " ".join(word for word in copied.split() if chance.random() < 0.8)
        candidates.append(chance.choice([copied, changed, caption(), f"{copied} {caption()}", "zebra", ""]))
    return candidates, references


@pytest.mark.parametrize(
    ("seed", "num_pictures", "num_words"),
    [(0, 1, 5), (1, 2, 3), (2, 5, 16), (3, 20, 16), (4, 60, 4), (5, 150, 16), (6, 7, 1)],
)
def test_equals_pycocoevalcap(seed, num_pictures, num_words):
    candidates, references = captions(seed, num_pictures, num_words)
    found = {picture: [candidate] for picture, candidate in enumerate(candidates)}
    truth = dict(enumerate(references))
    expected, _ = official_bleu.Bleu().compute_score(truth, found, verbose=0)
    assert bleu(candidates, references) == pytest.approx(expected, abs=1e-6)
    mean, each = official_rouge.Rouge().compute_score(truth, found)
    assert rouge_l(candidates, references) == pytest.approx(mean, abs=1e-6)
    single = [rouge_l([candidate], [others]) for candidate, others in zip(candidates, references)]
    assert single == pytest.approx(each.tolist(), abs=1e-6)
    mean, each = official_cider.Cider().compute_score(truth, found)
    assert cider_d(candidates, references) == pytest.approx(mean, abs=1e-6)
    assert np.abs(cider_d_scores(candidates, references) - each).max() < 1e-6


def test_no_right_gram_at_all():
    for candidates, references in [(["x"], [["a b c d e"]]), (["", ""], [["a b"], ["c"]]), (["x y z"], [["a"]])]:
        found = {picture: [candidate] for picture, candidate in enumerate(candidates)}
        expected, _ = official_bleu.Bleu().compute_score(dict(enumerate(references)), found, verbose=0)
        assert bleu(candidates, references) == pytest.approx(expected, rel=1e-6, abs=1e-12)


# Made by edu.stanford.nlp.process.PTBTokenizer of the stanford-corenlp-3.4.1.jar in pycocoevalcap 1.2, with
# -preserveLines -lowerCase, without the words that pycocoevalcap/tokenizer/ptbtokenizer.py drops.
TOKENISED = """
A black-and-white cat (on a sofa) sits. | a black-and-white cat -lrb- on a sofa -rrb- sits
It's 5:30 p.m. at St. Mary's, U.S.A. | it 's 5:30 p.m. at st. mary 's u.s.a.
The players' jerseys are red/white. | the players jerseys are red/white
They're gonna play; I cannot see. | they 're gon na play i can not see
A $5 bill & a 50% sale, 1,000 people... | a $ 5 bill & a 50 % sale 1,000 people
Two dogs -- one black - sitting. | two dogs one black sitting
a woman who'd've gone, we'll I'm you've | a woman who 'd 've gone we 'll i 'm you 've
rock 'n' roll in the 1980's and the '90s | rock 'n' roll in the 1980 's and the '90s
a t-shirt, an x-ray: no.1 #3 | a t-shirt an x-ray no. 1 # 3
A man rides a horse .A dog | a man rides a horse a dog
A man rides a horse.A dog | a man rides a horse.a dog
hello,world yes?no | hello world yes?no
“tea” — it’s ‘fine’ | tea it 's fine
don't won't shouldn't CAN'T couldnt | do n't wo n't should n't ca n't couldnt
lemme gimme wanna gotta 'tis 'twas | lem me gim me wan na got ta 't is 't was
10am 5'10" tall 7-eleven 12/25/2012 9:30pm | 10am 5 10 tall 7-eleven 12/25/2012 9:30 pm
man's best friends' o'clock ma'am y'all | man 's best friends o'clock ma'am y' all
one.two three...four five....six | one.two three four five six
A stop sign that says "STOP!!!" | a stop sign that says stop !!!
mid-air _under_ a*b a+b=c | mid-air _ under _ a * b a + b = c
"""


@pytest.mark.parametrize("row", TOKENISED.strip().splitlines())
def test_words_are_those_of_the_ptb_tokenizer(row):
    text, expected = row.split(" | ")
    assert words(text) == expected
