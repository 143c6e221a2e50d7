"""Texts → tokens, mask and targets, by each convention."""

from dataclasses import replace

import pytest
import torch

from rebus.codec.text import Control, ImageMark, Pieces, TextPipeline, canonical, clean
from rebus.codec.tokenizers import word_level_tokenizer
from rebus.core.errors import BadConfig, BadText, LimitExceeded, RebusError
from rebus.core.specs import TextSpec

from .vocabularies import TYPED, WORDS

TOKENIZER = word_level_tokenizer(WORDS, ["<pad>", "<eos>", "<bos>", "<unk>", "<image>", "\n"], locations=8, segments=4)
TOWER = TextSpec(context=6, pad_id=0, bos_id=2, eos_id=1)
WRITER = TextSpec(
    context=16,
    generates=True,
    pad_id=0,
    bos_id=2,
    eos_id=1,
    separator="\n",
    image_token_id=4,
    num_image_tokens=3,
    truncate=False,
)


def ids(text: str) -> list[int]:
    return TOKENIZER.encode(text)


def test_two_towers_start_end_and_zero_padding():
    tokens, mask = TextPipeline(TOKENIZER, TOWER)(["a red circle", "blue"])
    assert tokens.tolist() == [[2, *ids("a red circle"), 1], [2, *ids("blue"), 1, 0, 0]]
    assert mask.tolist() == [[True] * 5, [True] * 3 + [False] * 2]
    assert (tokens.dtype, mask.dtype) == (torch.int64, torch.bool)


def test_a_leading_space_is_before_prompts_and_answers_and_not_before_nothing():
    spaced = TextPipeline(TOKENIZER, replace(WRITER, leading_space=True, lower=True))
    assert [spaced.prepare(text) for text in ("A red", "")] == [" a red", ""]
    plain = TextPipeline(TOKENIZER, WRITER)
    assert torch.equal(spaced(["A red", ""])[0], plain(["a red", ""])[0])  # whole words: there are no spaces to see
    assert torch.equal(spaced.targets("A red"), plain.targets("a red"))


def test_too_long_keeps_the_end_token_last():
    tokens, _ = TextPipeline(TOKENIZER, TOWER)("a red circle of the blue square")
    assert tokens.tolist() == [[2, *ids("a red circle of"), 1]]


def test_fault_16_too_long_is_refused_with_both_numbers():
    pipeline = TextPipeline(TOKENIZER, replace(TOWER, truncate=False))
    with pytest.raises(BadText, match="text 1 has 9 tokens, the context holds 6"):
        pipeline(["a", "a red circle of the blue square"])


def test_padded_to_the_context_always():
    """SigLIP: the end token, then padding up to the context, which the text encoder reads the last place of."""
    v1 = TextPipeline(TOKENIZER, replace(TOWER, bos_id=None, pad_id=1, pad_to_context=True, lower=True, canonical=True))
    tokens, mask = v1(["A red, circle.", "a a a a a a a a"])
    assert tokens.tolist() == [[*ids("a red circle"), 1, 1, 1], [*ids("a a a a a"), 1]]
    assert mask.sum(1).tolist() == [4, 6]
    v2 = TextPipeline(TOKENIZER, replace(TOWER, bos_id=None, pad_to_context=True, lower=True))
    assert v2("A red.")[0].tolist() == [[*ids("a red."), 1, 0, 0]]


def test_one_text_or_many_or_none():
    pipeline = TextPipeline(TOKENIZER, TOWER)
    assert torch.equal(pipeline("a")[0], pipeline(["a"])[0])
    assert pipeline([])[0].shape == (0, 0)
    assert TextPipeline(TOKENIZER, replace(TOWER, pad_to_context=True))([])[0].shape == (0, 6)
    assert pipeline.targets([]).shape == (0, 0)


@pytest.mark.parametrize("text", TYPED)
def test_fault_14_typed_control_tokens_are_text(text):
    tokens, _ = TextPipeline(TOKENIZER, replace(WRITER, context=64))(text, images=1)
    assert tokens[0].tolist().count(4) == 3
    assert not set(tokens[0, 4:-1].tolist()) & (TOKENIZER.special_ids - {3})
    tower, _ = TextPipeline(TOKENIZER, replace(TOWER, context=64, clean=True))(text.replace("<", "&amp;lt;"))
    assert not set(tower[0, 1:-1].tolist()) & (TOKENIZER.special_ids - {3})


def test_a_writers_prompt_is_pictures_start_words_separator():
    tokens, mask = TextPipeline(TOKENIZER, WRITER)(["what is the circle?", "a"], images=[1, 2])
    assert tokens[0].tolist() == [4, 4, 4, 2, *ids("what is the circle?"), 5, 0][: tokens.shape[1]]
    assert tokens[1].tolist() == [4] * 6 + [2, *ids("a"), 5] + [0] * (tokens.shape[1] - 9)
    assert mask.sum(1).tolist() == [10, 9]


def test_an_empty_prompt_is_still_a_prompt():
    tokens, _ = TextPipeline(TOKENIZER, WRITER)("", images=1)
    assert tokens.tolist() == [[4, 4, 4, 2, 5]]
    assert TextPipeline(TOKENIZER, TOWER)("")[0].tolist() == [[2, 1]]


def test_answers_that_begin_by_themselves_need_no_prompt():
    """Encoder-decoders: an empty prompt has no token, beside one that has some, too."""
    spec = replace(WRITER, bos_id=None, separator="", image_token_id=None, num_image_tokens=0)
    assert TextPipeline(TOKENIZER, spec)(["", "a circle"])[0].tolist() == [[1, 0], ids("a circle")]
    own = TextPipeline(TOKENIZER, replace(spec, empty_prompts=True))
    mask = own(["", "a circle"])[1]
    assert mask.tolist() == [[False, False], [True, True]]
    assert own([""])[0].shape == (1, 0)


def test_a_separator_without_a_piece_of_its_own_is_encoded():
    pipeline = TextPipeline(TOKENIZER, replace(WRITER, separator="? ."))
    assert pipeline("a")[0].tolist() == [[2, *ids("a ? .")]]


def test_generating_is_said_and_not_guessed():
    """Flamingo's prompts have neither a separator nor placeholders in front, and are never cut."""
    pipeline = TextPipeline(TOKENIZER, replace(TOWER, generates=True))
    assert pipeline("a red circle")[0].tolist() == [[2, *ids("a red circle")]]
    with pytest.raises(BadText, match="the context holds 6"):
        pipeline("a red circle of the blue square")
    tower = TextPipeline(TOKENIZER, replace(TOWER, separator="\n"))
    assert tower("a")[0].tolist() == [[2, *ids("a"), 1]]


def test_an_encoder_decoder_reads_an_ended_prompt_and_answers_from_the_start_token():
    """BART: `<s> prompt </s>` for the encoder, `<s> answer </s>` for the decoder. T5 does without `<s>`."""
    bart = TextPipeline(TOKENIZER, replace(TOWER, generates=True, separator="<eos>", bos_before_answer=True))
    assert bart("a red circle")[0].tolist() == [[2, *ids("a red circle"), 1]]
    assert bart.targets(["a", ""]).tolist() == [[2, *ids("a"), 1], [2, 1, -100]]
    t5 = TextPipeline(TOKENIZER, replace(TOWER, generates=True, eos_after_prompt=True, bos_id=None))
    assert t5("a red")[0].tolist() == [[*ids("a red"), 1]]
    assert t5.targets("a").tolist() == [[*ids("a"), 1]]


def test_tasks_put_control_tokens_into_prompts():
    prompt = Pieces("what is ", Control("<loc0001>"), Control("<loc0002>"))
    pipeline = TextPipeline(TOKENIZER, WRITER)
    loc = [TOKENIZER.id_of("<loc0001>"), TOKENIZER.id_of("<loc0002>")]
    assert pipeline(prompt)[0].tolist() == [[2, *ids("what is"), *loc, 5]]
    assert pipeline([prompt, "a"])[1].sum(1).tolist() == [6, 3]
    assert pipeline.targets(Pieces(Control("<loc0001>"), " a")).tolist() == [[loc[0], *ids("a"), 1]]
    with pytest.raises(BadText, match="no control token <loc9999>"):
        pipeline(Pieces(Control("<loc9999>")))
    with pytest.raises(BadText, match="made of str, Control and ImageMark"):
        Pieces("a", 3)  # type: ignore[arg-type]


def test_targets_end_and_are_padded_with_minus_100():
    pipeline = TextPipeline(TOKENIZER, WRITER)
    targets = pipeline.targets(["<loc0001><loc0002> red circle", ""])
    assert targets.tolist()[0] == [*TOKENIZER.encode_answer("<loc0001><loc0002>"), *ids("red circle"), 1]
    assert targets.tolist()[1] == [1, -100, -100, -100, -100]
    assert pipeline.decode(targets) == ["<loc0001><loc0002> red circle", ""]


def test_fault_14_answers_hold_no_control_tokens_but_places_and_masks():
    targets = TextPipeline(TOKENIZER, WRITER).targets("<eos> <image> <seg001>")
    assert TOKENIZER.id_of("<seg001>") in targets[0]
    assert not {1, 4} & set(targets[0, :-1].tolist())


def test_answers_that_are_too_long():
    pipeline = TextPipeline(TOKENIZER, WRITER)
    with pytest.raises(BadText, match="answer 0 has 21 tokens, the context holds 16"):
        pipeline.targets("a " * 20)
    with pytest.raises(BadText, match="answer 0 has 21 tokens"):  # nor by default
        TextPipeline(TOKENIZER, replace(WRITER, truncate=None)).targets("a " * 20)
    cut = TextPipeline(TOKENIZER, replace(WRITER, truncate=True)).targets("a " * 20)
    assert cut.tolist() == [ids("a") * 16]  # without an end that was not there


@pytest.mark.parametrize("truncate", [None, False])
def test_fault_16_prompt_and_pictures_longer_than_the_context(truncate):
    pipeline = TextPipeline(TOKENIZER, replace(WRITER, truncate=truncate))
    with pytest.raises(BadText, match=r"4 images \(12 tokens\) and 5 tokens of text make 17; the context holds 16"):
        pipeline(["a red circle"], images=4)
    with pytest.raises(BadText, match="prompt 0: 17 tokens of text make 17"):
        pipeline(["a " * 15])


def test_fault_16_a_prompt_is_cut_where_that_is_allowed_but_never_its_images():
    pipeline = TextPipeline(TOKENIZER, WRITER)
    pipeline.allow_truncation()
    assert pipeline("a red circle", images=4)[0].tolist() == [[4] * 12 + [2, *ids("a red"), 5]]
    marked = Pieces("a ", ImageMark(), "red circle of the blue square . a a a a a a")
    tail = ids("red circle of the blue square . a a a a a a")[: 16 - 4 - 2]
    assert pipeline(marked, images=1)[0].tolist() == [[*ids("a"), 4, 4, 4, 2, *tail, 5]]
    with pytest.raises(BadText, match="5 images"):
        pipeline("a", images=5)


def test_fault_16_a_dual_encoder_says_once_how_many_texts_it_cut(caplog):
    long, longer = "a red circle of the blue square", "a " * 9
    pipeline = TextPipeline(TOKENIZER, TOWER)
    with pipeline.one_report():
        pipeline(["a", long])
        pipeline([longer])
    assert [r.getMessage().split(" and were")[0] for r in caplog.records] == [
        "2 of 3 texts are longer than the context of 6 tokens (up to 11)"
    ]
    pipeline([long])
    assert len(caplog.records) == 1
    TextPipeline(TOKENIZER, TOWER)(["a red circle of"])  # exactly the context
    allowed = TextPipeline(TOKENIZER, TOWER)
    allowed.allow_truncation()
    assert torch.equal(allowed(long)[0], pipeline(long)[0])
    assert len(caplog.records) == 1


def test_fault_15_one_entry_of_pictures_for_each_prompt():
    with pytest.raises(BadText, match="2 prompts but images for 3"):
        TextPipeline(TOKENIZER, WRITER)(["a", "a"], images=[1, 1, 1])


def test_a_row_is_the_same_alone_and_in_a_batch():
    pipeline = TextPipeline(TOKENIZER, WRITER)
    texts = ["a red circle", "", "what is the blue square?", Pieces("a ", Control("<loc0003>"))]
    tokens, mask = pipeline(texts, images=1)
    for row, real, text in zip(tokens, mask, texts, strict=True):
        assert torch.equal(row[real][None], pipeline(text, images=1)[0])


@pytest.mark.parametrize("text", ["a\0", "\ud83d", 3, None, b"a"])
def test_fault_17_what_is_no_text(text):
    pipeline = TextPipeline(TOKENIZER, replace(TOWER, clean=True))
    with pytest.raises(BadText):
        pipeline([text])
    with pytest.raises(BadText):
        TextPipeline(TOKENIZER, WRITER).targets(["a", text])


def test_fault_17_a_megabyte():
    for spec in (TOWER, WRITER):
        with pytest.raises(LimitExceeded, match="MAX_TEXT_CHARS"):
            TextPipeline(TOKENIZER, spec)("a " * 500_000)
    assert TextPipeline(TOKENIZER, TOWER)("a " * 50_000)[0].shape == (1, 6)


@pytest.mark.parametrize("text", ["שלום עולם", "\u202eabc", "\u200f\u200e", "👩‍👩‍👧", "\ufeff", " \n\t ", "\x01\x7f"])
def test_fault_17_odd_but_valid(text):
    for spec in (TOWER, replace(TOWER, clean=True, lower=True), replace(TOWER, canonical=True), WRITER):
        tokens, mask = TextPipeline(TOKENIZER, spec)([text, "a"])
        assert tokens.shape == mask.shape


def test_cleaning():
    assert clean("  a &amp;lt; b\n\tc  ") == "a < b c"
    assert clean("â€œquotesâ€\x9d ﬁne") == '"quotes" fine'


def test_canonical():
    assert canonical("  A_photo: of 'two' dogs!  (really)") == "A photo of two dogs really"


def test_fault_23_ids_outside_the_tokenizer():
    with pytest.raises(BadConfig, match="eos_id 49407 is outside the tokenizer's"):
        TextPipeline(TOKENIZER, replace(TOWER, eos_id=49_407))


def test_decoding_stops_at_the_end_token():
    pipeline = TextPipeline(TOKENIZER, WRITER)
    row = [*ids("a red circle"), 1, *ids("blue"), 0, -100]
    assert pipeline.decode(torch.tensor([row])) == ["a red circle"]
    assert pipeline.decode([row, row]) == ["a red circle"] * 2
    assert pipeline.decode(torch.tensor(row)) == ["a red circle"]


def test_every_refusal_is_a_user_error():
    assert issubclass(BadText, RebusError)


def test_images_of_models_that_put_the_start_token_first():
    tokenizer = word_level_tokenizer(["a", "cat"], ("<pad>", "<eos>", "<bos>", "<unk>", "<image>", "<around>"))
    spec = TextSpec(context=16, pad_id=0, generates=True, eos_id=1, bos_id=2, image_token_id=4, num_image_tokens=1)
    first = TextPipeline(tokenizer, replace(spec, bos_first=True))
    around = TextPipeline(tokenizer, replace(spec, bos_first=True, image_around_id=5))
    a, cat = tokenizer.encode("a cat")
    two = Pieces("a", ImageMark(), ImageMark(), "cat", ImageMark(), "a")

    def of(pipeline, prompt, images):
        return pipeline(prompt, images=images)[0][0].tolist()

    assert of(TextPipeline(tokenizer, spec), two, 3) == [a, 4, 4, cat, 4, 2, a]
    assert of(first, two, 3) == [2, a, 4, 4, cat, 4, a]
    assert of(around, two, 3) == [2, a, 5, 4, 5, 4, 5, cat, 5, 4, 5, a]  # neighbours share the token between them
    assert of(around, "a cat", 2) == [2, 5, 4, 5, 4, 5, a, cat]
    assert of(around, "cat", 0) == [2, cat]
