"""VQA accuracy against what the official evaluation gave for the same answers."""

import hashlib
import random

import numpy as np
import pytest

from rebus.evaluate.vqa import normal_answer, vqa_accuracies, vqa_accuracy

pytestmark = pytest.mark.parity

# Made by PythonEvaluationTools/vqaEvaluation/vqaEval.py of github.com/GT-Vision-Lab/VQA at a013f00, whose print
# statements were written as calls to run it under Python 3.11: `evaluate` on the questions of `questions()`, and
# `processDigitArticle(processPunctuation(answer))` on the listed and the random answers.
TENTHS = (
    "0X00030X0X6300XX9X69XXXX6X0X6X933X9600906X030X903X60X00X906X60XX3X96X9X0XX6XX6939900X60066X3X030XXX0"
    "X090009XXX60XX6XX600X9X0X0X6963X606XX0X6X33003XXXXX30XX30XXX09633X639X9060060XXXX96990960X903XX3X660"
    "XXX6X30XX0X60XX669XX3XXXX63690369090X0XX0XXX09X9696060X3X0003X09600363XXX366X603XXX9XX0099X303X90X6X"
    "6X999X990X60X0X06060X609909XX6909XX63XX6XX0XX03690XXXX0X6X009009XX9906X9X00XXXX3X6XX609XX00X090090X6"
)
OVERALL = 0.60975
NORMAL = {
    "The Two Cats": "2 cats",
    "1,000 a-b c/d": "1000 ab cd",
    "red , white-blue": "red white blue",
    "3.5.": "3.5",
    "no.1": "no.1",
    "u.s.a.": "usa",
    "a.m. - p.m.": "am pm",
    "Im ive IVE": "im ive ive",
    "somebody'd": "somebodyd",
    "ow's'at": "'ow's'at",
    "YALL'D'VE": "y'all'd've",
    "she's": "she's",
    "what? who?": "what who",
    "(left)": "left",
    "<a> [b] {c}": "b c",
    "it's: 5": "it's: 5",
    "........................................": "........",
    "none of the ten": "0 of 10",
    "a": "",
    "  spaced   out ": "spaced out",
    "C++": "c",
    "$5,000.50": "$5000.50",
    "café-bar": "café bar",
}
DIGEST = "f56e37574020b560643f003608a6140b0c50a1e2e5997dc23b814dae0dde0559"

WORDS = (
    "yes no Yes NO none zero One two three TEN eleven a an the The cat cats Cat dog red white blue 1,000 1000 2,5 3.5 "
    ".5 5. st. St a.m. t-shirt tshirt red/white dont don't Im I'm ive couldnt've couldn'tve couldnt somebody'd "
    "she'd've twas yall'd've ow's'at y'allll let's oclock wont won't its it's $5 50% #1 it: (l) [b] {c} 'x' \"y\" <z> "
    "a=b a_b"
).split()
JOINTS = [" "] * 12 + [
    "  ",
    ", ",
    ",",
    " / ",
    "/",
    "-",
    " - ",
    ". ",
    ".",
    "! ",
    "?",
    "; ",
    ";",
    "\n",
    "\t",
    "' ",
    "@",
    "+",
]


class Chance:
    """Draws that depend on nothing but `random()`, which Python keeps alike in all versions."""

    def __init__(self, seed):
        self.draw = random.Random(seed).random

    def below(self, number):
        return int(self.draw() * number)

    def pick(self, things):
        return things[self.below(len(things))]

    def answer(self):
        text = self.pick(["", "", "", " "]) + self.pick(WORDS)
        for _ in range(self.below(4)):
            text += self.pick(JOINTS) + self.pick(WORDS)
        return text + self.pick(["", "", "", ".", " ", "!", "\n"])


def questions():
    """(answer, ten people's answers) of questions whose people agree more or less."""
    chance = Chance(0)
    for _ in range(400):
        several = [chance.answer() for _ in range(1 + chance.below(5))]
        spelt = [text for one in several for text in (one, one.upper(), f"the {one}", f"{one}.", one.replace("'", ""))]
        pool = chance.pick([several, spelt])
        yield chance.pick([*pool, chance.answer()]), [chance.pick(pool) for _ in range(10)]


def test_accuracy_equals_the_official_evaluation():
    answers, people = zip(*questions())
    expected = np.array([10 if tenth == "X" else int(tenth) for tenth in TENTHS]) / 10
    assert len(set(TENTHS)) == 5
    assert np.abs(vqa_accuracies(answers, people) - expected).max() < 1e-6
    assert vqa_accuracy(answers, people) == pytest.approx(OVERALL, abs=1e-6)


@pytest.mark.parametrize(("answer", "expected"), NORMAL.items())
def test_normal_answer_equals_the_official_one(answer, expected):
    assert normal_answer(answer) == expected


def test_normal_answer_equals_the_official_one_on_random_answers():
    chance = Chance(1)
    answers = "|".join(normal_answer(chance.answer()) for _ in range(5000))
    assert hashlib.sha256(answers.encode()).hexdigest() == DIGEST
