"""Our ids against those of the reference libraries, on real captions and on nasty strings."""

import gzip
import io
import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rebus.codec.processor import Processor, load_processor
from rebus.codec.text import TextPipeline, canonical
from rebus.codec.tokenizer_files import read_definition
from rebus.codec.tokenizer_formats import added_token
from rebus.codec.tokenizers import Tokenizer, load_tokenizer, word_level_tokenizer
from rebus.core.specs import ImageSpec, TextSpec

pytestmark = pytest.mark.parity

NASTY = [
    "a photo of a cat",
    "It's 2023! don't we'll I'M you've they'd",
    "naïve café ÀÉÎ straße İstanbul",
    "日本語 テキスト 한국어 ไทย",
    "emoji 😀👍🏽 👨‍👩‍👧 🇪🇺",
    "a\tb\n\nc  d\r\n",
    "1234567 3.14 1,000 ½ ①",
    "#hash_tag @user http://x.y/z?a=b&c=d",
    "שלום עולם مرحبا",
    "\u200bzero\u00a0width\u3000wide",
    "ﬁ ligature Ａｂｃ full width e\u0301",
    "",
    "   ",
    "  lead and trail  ",
    "!!!???... (a) [b] {c} \\ ~ ` ^ | _",
    "x" * 300,
    "word " * 100,
    "�",
]
CLIP = TextSpec(context=77, pad_id=49407, bos_id=49406, eos_id=49407)


@pytest.fixture(scope="module")
def captions(shared: Path) -> list[str]:
    lines = (shared / "flickr8k_1k" / "captions.jsonl").read_text().splitlines()[:60]
    return [caption for line in lines for caption in json.loads(line)["captions"]]


@pytest.fixture(scope="module")
def openai_folder(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("openai")
    source = shared / "tokenizers" / "clip_bpe_simple_vocab_16e6.txt.gz"
    shutil.copy(source, folder / "bpe_simple_vocab_16e6.txt.gz")
    return folder


@pytest.fixture(scope="module")
def clip_folder(openai_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same vocabulary in the layout of the Hub."""
    name = "bpe_simple_vocab_16e6.txt.gz"
    made = read_definition({name: (openai_folder / name).read_bytes()})
    assert made is not None
    folder = tmp_path_factory.mktemp("clip")
    (folder / "vocab.json").write_text(json.dumps(made["model"]["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(made["model"]["merges"]) + "\n")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "CLIPTokenizer", "model_max_length": 77}')
    return folder


def _load(folder: Path) -> Tokenizer:
    tokenizer = load_tokenizer(folder)
    assert tokenizer is not None
    return tokenizer


def test_clip_equals_transformers(clip_folder, captions):
    from transformers import CLIPTokenizer

    theirs = CLIPTokenizer.from_pretrained(clip_folder)
    texts = NASTY + captions
    tokens, mask = TextPipeline(_load(clip_folder), CLIP)(texts)
    expected = theirs(texts, padding=True, truncation=True, return_tensors="pt")
    assert torch.equal(tokens, expected["input_ids"])
    assert torch.equal(mask, expected["attention_mask"].bool())
    ours = TextPipeline(_load(clip_folder), CLIP).decode(tokens[:, 1:])
    assert ours == theirs.batch_decode(expected["input_ids"], skip_special_tokens=True)


def test_clip_equals_open_clip(openai_folder, captions):
    import open_clip

    theirs = open_clip.tokenizer.SimpleTokenizer()
    spec = replace(CLIP, pad_id=0, pad_to_context=True, clean=True, lower=True)
    nasty = ["&amp;lt; “quotes” Ã©", "ΣΑΣ", "<|endoftext|> <|startoftext|>", "a <b> & c"]
    texts = NASTY + nasty + captions
    tokens, _ = TextPipeline(_load(openai_folder), spec)(texts)
    assert torch.equal(tokens, theirs(texts))


# What ftfy changes: curly quotes, full width, ligatures, mojibake, half-width kana, control characters, line breaks.
MENDED = [
    "“curly” ‘quotes’ and „low“ ones",
    "ｆｕｌｌ　ｗｉｄｔｈ １２３！",
    "ﬁre ﬂow eﬃcient ĳ",
    "â€œmojibakeâ€\x9d, cafÃ©, naÃ¯ve, âœ” done",
    "the MÃƒÂ¼nchen of twice",
    "ﾊﾝｶｸ",
    "a\x1b[31mred\x1b[0m cat\ufeff",
    "one\u2028two\x85three\u2029four",
    "&lt;b&gt; &amp;quot;x&amp;quot; &#39;y&#39; &EACUTE;",
    "e\u0301 a\u0308 n\u0303",
    "L’été, l´accent, 5 ′ feet",
    "soft\u00adhyphen and \u200ejoiners\u200f",
]


@pytest.mark.parametrize("clean_as", ["lower", "whitespace", "canonicalize"])
def test_mended_texts_have_the_ids_of_open_clip(tmp_path, clean_as):
    import open_clip
    from open_clip.tokenizer import default_bpe, get_clean_fn

    shutil.copy(default_bpe(), tmp_path / "bpe_simple_vocab_16e6.txt.gz")
    config = {"model_cfg": {"text_cfg": {"tokenizer_kwargs": {"clean": clean_as}}}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    default = TextSpec(context=77, pad_id=0, bos_id=49_406, eos_id=49_407, pad_to_context=True, clean=True, lower=True)
    text = load_processor(tmp_path, None, default).text
    assert text is not None
    mended = [get_clean_fn(clean_as)(one) for one in MENDED]
    assert [text.prepare(one) for one in MENDED] == mended
    assert sum(theirs != " ".join(one.split()) for theirs, one in zip(mended, MENDED, strict=True)) > 10
    if clean_as != "whitespace":  # ours reads OpenAI's vocabulary in lower case, as its models were trained
        assert torch.equal(text(MENDED)[0], open_clip.tokenizer.SimpleTokenizer(clean=clean_as)(MENDED))


def test_bert_equals_transformers(shared, tmp_path, captions):
    from transformers import BertTokenizer

    shutil.copy(shared / "tokenizers" / "bert_base_uncased_vocab.txt", tmp_path / "vocab.txt")
    theirs = BertTokenizer.from_pretrained(tmp_path, model_max_length=64)
    texts = NASTY + captions
    tokens, mask = TextPipeline(_load(tmp_path), TextSpec(context=64, pad_id=0, bos_id=101, eos_id=102))(texts)
    expected = theirs(texts, padding=True, truncation=True, return_tensors="pt")
    assert torch.equal(tokens, expected["input_ids"])
    assert torch.equal(mask, expected["attention_mask"].bool())


@pytest.mark.parametrize("name", ["gpt2", "florence2_bart"])
def test_byte_bpe_equals_the_library(shared, tmp_path, captions, name):
    import tokenizers

    packed = (shared / "tokenizers" / f"{name}_tokenizer.json.gz").read_bytes()
    (tmp_path / "tokenizer.json").write_bytes(gzip.decompress(packed))
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    ours = _load(tmp_path)
    for text in NASTY + captions:
        ids = ours.encode(text)
        assert ids == theirs.encode(text, add_special_tokens=False).ids
        assert ours.decode(ids) == theirs.decode(ids) == text


def _trained(texts: list[str], **options: Any) -> bytes:
    import sentencepiece

    model = io.BytesIO()
    settings = {"vocab_size": 500, "minloglevel": 2, "num_threads": 1} | options
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(texts), model_writer=model, **settings)
    return model.getvalue()


@pytest.mark.parametrize(
    "kind, byte_fallback, squeeze, prefix",
    list(itertools.product(["unigram", "bpe"], [False, True], [True, False], [True, False])),
)
def test_sentencepiece_models_equal_the_package(tmp_path, captions, kind, byte_fallback, squeeze, prefix):
    import sentencepiece

    model = _trained(
        captions,
        model_type=kind,
        byte_fallback=byte_fallback,
        remove_extra_whitespaces=squeeze,
        add_dummy_prefix=prefix,
        hard_vocab_limit=kind == "bpe",
        normalization_rule_name="identity" if squeeze else "nmt_nfkc_cf",
        control_symbols=["[SEP]"],
        user_defined_symbols=["dogand", "##"],
        pad_id=3,
    )
    (tmp_path / "tokenizer.model").write_bytes(model)
    theirs, ours = sentencepiece.SentencePieceProcessor(model_proto=model), _load(tmp_path)
    typed = ["</s><s><unk><pad> [SEP]", "<0x0A><0x41>", "▁a▁▁b", "a \n b", "a cat,dogand## horse"]
    for text in NASTY + typed + captions:
        if not squeeze:  # the tokenizers library reads "\r\n" as one character where a file maps each
            text = text.replace("\r", "")
        ids = ours.encode(text)
        assert ids == theirs.encode(text), text
        if theirs.unk_id() not in ids and squeeze:
            assert ours.decode(ids) == theirs.decode(ids)
    assert ours.special_ids == {i for i in range(len(theirs)) if theirs.is_control(i) or theirs.is_unknown(i)}


def test_siglip_equals_transformers(tmp_path, captions):
    from transformers import SiglipTokenizer

    model = _trained(captions, hard_vocab_limit=False, unk_id=2, eos_id=1, bos_id=-1, pad_id=0, pad_piece="<pad>")
    (tmp_path / "spiece.model").write_bytes(model)
    theirs = SiglipTokenizer(str(tmp_path / "spiece.model"), model_max_length=16)
    spec = TextSpec(context=16, pad_id=1, eos_id=1, pad_to_context=True, lower=True, canonical=True)
    texts = [text.replace("_", " ") for text in NASTY] + captions
    tokens, _ = TextPipeline(_load(tmp_path), spec)(texts)
    expected = theirs(texts, padding="max_length", truncation=True, return_tensors="pt")["input_ids"]
    assert torch.equal(tokens, expected)


@pytest.mark.parametrize("file", ["spiece.model", "tokenizer.json"])
def test_t5_equals_transformers(tmp_path, captions, file):
    """The sentencepiece file of the first releases, which holds no sentinels, and the converted one."""
    from transformers import T5Tokenizer

    from rebus.backbones.text import t5_layouts

    model = _trained(
        captions, hard_vocab_limit=False, unk_id=2, eos_id=1, bos_id=-1, pad_id=0, pad_piece="<pad>", vocab_size=400
    )
    (tmp_path / "spiece.model").write_bytes(model)
    theirs = T5Tokenizer.from_pretrained(str(tmp_path), model_max_length=512)
    if file == "tokenizer.json":
        theirs.save_pretrained(tmp_path / "saved")
    spec = replace(t5_layouts.text_spec(t5_layouts.PRESETS["small"]), vocab_size=None)
    folder = tmp_path / "saved" if file == "tokenizer.json" else tmp_path
    processor = load_processor(folder, None, spec)
    assert processor.text is not None
    assert (folder / file).is_file()
    texts = NASTY + captions[:200]
    tokens, mask = processor.text(texts)
    expected = theirs(texts, padding=True, return_tensors="pt")
    assert torch.equal(tokens, expected["input_ids"])
    assert torch.equal(mask, expected["attention_mask"].bool())
    sentinels = [f"<extra_id_{i}>" for i in range(100)]
    ids = [processor.text.tokenizer.id_of(name) for name in sentinels]
    assert ids == theirs.convert_tokens_to_ids(sentinels)
    assert ids == [ids[0] - i for i in range(100)]
    typed = processor.text(["a <extra_id_0>"])[0][0].tolist()
    assert ids[0] not in typed  # what is typed is text


def test_canonical_form_equals_open_clip(captions):
    from open_clip.tokenizer import canonicalize_text

    for text in NASTY + captions:
        assert canonical(text).lower() == canonicalize_text(text)


@pytest.fixture(scope="module")
def gemma(shared: Path) -> dict[str, Any]:
    """The first 12,000 pieces of the real tokenizer and all single characters, numbered anew."""
    made = json.loads(gzip.decompress((shared / "tokenizers" / "gemma_tokenizer.json.gz").read_bytes()))
    kept_pieces = (piece for piece, i in made["model"]["vocab"].items() if i < 12_000 or len(piece) == 1)
    vocab = {piece: i for i, piece in enumerate(kept_pieces)}
    pairs = (merge.split(" ") for merge in made["model"]["merges"])
    kept = [[a, b] for a, b in pairs if a in vocab and b in vocab and a + b in vocab]
    made["model"] |= {"vocab": vocab, "merges": kept}
    return made


def _gemma_folder(folder: Path, made: dict[str, Any], **config: Any) -> Path:
    (folder / "tokenizer.json").write_text(json.dumps(made))
    settings = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"padding_side": "right"} | config))
    return folder


def test_siglip2_equals_transformers(tmp_path, gemma, captions):
    from transformers import Siglip2Tokenizer

    theirs = Siglip2Tokenizer(
        vocab=gemma["model"]["vocab"], merges=[tuple(m) for m in gemma["model"]["merges"]], padding_side="right"
    )
    _gemma_folder(tmp_path, gemma)
    spec = TextSpec(context=64, pad_id=0, eos_id=1, pad_to_context=True, lower=True)
    texts = [text for text in NASTY if "İ" not in text] + captions
    tokens, _ = TextPipeline(_load(tmp_path), spec)(texts)
    for row, text in zip(tokens, texts, strict=True):
        body = theirs(text, add_special_tokens=False)["input_ids"][:63] + [1]
        assert row.tolist() == body + [0] * (64 - len(body)), text


PROMPTS = [
    "caption en",
    "answer en where is the cow?",
    "",
    "detect cat ; dog",
    "naïve 日本語 😀 12345",
    "  two  spaces ",
]
ANSWERS = [
    "a cow",
    "<loc0001><loc0002><loc0003><loc1023> cat ; <loc0000><loc0010><loc0020><loc0300> dog",
    "<loc0001><loc0002><loc0003><loc1023><seg000><seg127> cat",
    "",
    "x\n\ny",
    "don't 42 日本",
]


@pytest.fixture(scope="module")
def paligemma_folder(gemma: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Places, masks and the placeholder appended as the released files have them; only the last is special."""
    size = len(gemma["model"]["vocab"])
    names = [f"<loc{i:04d}>" for i in range(1024)] + [f"<seg{i:03d}>" for i in range(128)]
    added = [{**added_token(name, size + i, special=False), "normalized": True} for i, name in enumerate(names)]
    added.append(added_token("<image>", size + len(names)))
    made = {**gemma, "added_tokens": gemma["added_tokens"] + added}
    folder = _gemma_folder(
        tmp_path_factory.mktemp("paligemma"),
        made,
        tokenizer_class="PreTrainedTokenizerFast",
        extra_special_tokens={"image_token": "<image>"},
    )
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "image_processor_type": "SiglipImageProcessor",
                "processor_class": "PaliGemmaProcessor",
                "size": {"height": 28, "width": 28},
                "image_seq_length": 4,
                "image_mean": [0.5] * 3,
                "image_std": [0.5] * 3,
                "resample": 3,
            }
        )
    )
    return folder


def _paligemma(folder: Path) -> Processor:
    image = _load(folder).id_of("<image>")
    assert image is not None
    spec = TextSpec(
        context=128,
        vocab_size=image + 64,
        generates=True,
        pad_id=0,
        bos_id=2,
        eos_id=1,
        separator="\n",
        image_token_id=image,
        num_image_tokens=4,
    )
    return load_processor(folder, ImageSpec(size=(28, 28)), spec)


def _reference(folder: Path) -> Any:
    from transformers import AutoImageProcessor, AutoTokenizer, PaliGemmaProcessor

    images = AutoImageProcessor.from_pretrained(folder, backend="pil")
    return PaliGemmaProcessor(images, AutoTokenizer.from_pretrained(folder))


def test_paligemma_prompts_and_answers_equal_transformers(paligemma_folder, captions):
    ours, theirs = _paligemma(paligemma_folder), _reference(paligemma_folder)
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    # Short ones: this cut of the vocabulary spells most words in letters.
    short = [caption for caption in captions if len(caption) < 60]
    prompts, answers = PROMPTS + short[:20], ANSWERS + short[20:40]
    batch = ours(images=[picture] * len(prompts), texts=prompts, targets=answers)
    for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        marked = "<image>" + prompt
        expected = theirs(images=[[picture]], text=[marked], suffix=[answer], return_tensors="pt")
        ids, suffix = expected["input_ids"][0], expected["token_type_ids"][0].bool()
        assert torch.equal(batch["tokens"][i][batch["mask"][i]], ids[~suffix]), prompt
        target = batch["targets"][i]
        assert torch.equal(target[target >= 0], ids[suffix]), answer
        assert torch.equal(target[target >= 0], expected["labels"][0][suffix])
        assert torch.equal(batch["pixels"][i], expected["pixel_values"][0])
    assert ours.decode(batch["targets"]) == answers


def test_paligemma_several_pictures_equal_transformers(paligemma_folder):
    ours, theirs = _paligemma(paligemma_folder), _reference(paligemma_folder)
    pictures = [Image.new("RGB", (40, 30), (value, 0, 0)) for value in (10, 200)]
    batch = ours(images=[pictures], texts="caption en")
    expected = theirs(images=[pictures], text=["<image><image>caption en"], return_tensors="pt")
    assert torch.equal(batch["tokens"], expected["input_ids"])
    assert torch.equal(batch["pixels"][0], expected["pixel_values"])


def test_paligemma_typed_control_tokens_are_text(paligemma_folder):
    """Here the reference differs on purpose: it obeys what the user types."""
    tokenizer = _load(paligemma_folder)
    for text in ("<loc0001>", "<image>", "<bos>", "<seg001>", "<eos>", "a<loc0001><pad>"):
        ids = tokenizer.encode(text)
        assert max(ids) < (tokenizer.id_of("<loc0000>") or 0)
        assert min(ids) > 3
        assert tokenizer.decode(ids) == text


def _reread(processor: Processor, folder: Path, texts: list[str]) -> None:
    from transformers import AutoTokenizer

    processor.save(folder)
    theirs = AutoTokenizer.from_pretrained(folder)
    assert processor.text is not None
    spec = processor.text.spec
    padding = "max_length" if spec.pad_to_context else True
    expected = theirs(texts, padding=padding, truncation=True, max_length=spec.context, return_tensors="pt")
    tokens, mask = processor.text(texts)
    assert torch.equal(tokens, expected["input_ids"])
    if spec.pad_id != spec.eos_id:
        assert torch.equal(mask, expected["attention_mask"].bool())


def test_saved_openai_vocabulary_opens_in_transformers(openai_folder, tmp_path, captions):
    _reread(Processor(None, TextPipeline(_load(openai_folder), CLIP)), tmp_path, NASTY + captions)


def test_saved_clip_opens_in_transformers(clip_folder, tmp_path, captions):
    _reread(Processor(None, TextPipeline(_load(clip_folder), CLIP)), tmp_path, NASTY + captions)


def test_saved_bert_opens_in_transformers(shared, tmp_path, captions):
    shutil.copy(shared / "tokenizers" / "bert_base_uncased_vocab.txt", tmp_path / "vocab.txt")
    spec = TextSpec(context=64, pad_id=0, bos_id=101, eos_id=102)
    _reread(Processor(None, TextPipeline(_load(tmp_path), spec)), tmp_path / "new", NASTY + captions)


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_saved_sentencepiece_opens_in_transformers(tmp_path, captions, kind):
    (tmp_path / "spiece.model").write_bytes(
        _trained(captions, model_type=kind, hard_vocab_limit=kind == "bpe", pad_id=3)
    )
    spec = TextSpec(context=16, pad_id=3, eos_id=2, pad_to_context=True, lower=True, canonical=True)
    _reread(Processor(None, TextPipeline(_load(tmp_path), spec)), tmp_path / "new", NASTY + captions)


def test_saved_word_level_opens_in_transformers(tmp_path, captions):
    words = list(dict.fromkeys(word for caption in captions[:50] for word in caption.lower().replace(".", "").split()))
    made = word_level_tokenizer([w for w in words if w.isalpha()], locations=4, bos=True, eos=True)
    spec = TextSpec(context=20, pad_id=0, bos_id=2, eos_id=1)
    _reread(Processor(None, TextPipeline(made, spec)), tmp_path, [t for t in NASTY if "İ" not in t] + captions)


@pytest.mark.parametrize("resize", ["shorter", "exact"])
def test_saved_preprocessor_opens_in_transformers(tmp_path, resize):
    from transformers import AutoImageProcessor

    from rebus.codec.images import ImagePipeline

    processor = Processor(ImagePipeline(ImageSpec(size=(16, 16), resize=resize)), None)
    processor.save(tmp_path)
    noise = np.random.default_rng(1).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    theirs = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    expected = theirs(Image.fromarray(noise), return_tensors="pt")["pixel_values"]
    assert torch.equal(processor(images=noise)["pixels"], expected)
