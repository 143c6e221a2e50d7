"""`asif/starter`: real photos, offline, from two small networks of the package index; no image is needed to join them.

The 1,000 rows of an ImageNet classifier are the image side of the pairs: each row is what its class looks like. The
text side are sentences about the classes (`rebus.backbones.starter_networks`).
"""

from collections.abc import Sequence
from typing import Any

import torch

from rebus.backbones.starter_networks import describe_classes, kept_texts, starter_networks
from rebus.codec.processor import Processor
from rebus.core.errors import UsageError
from rebus.core.system import Assembled
from rebus.models.training_free.asif import ASIF, ASIFConfig
from rebus.models.training_free.pairs import Pairs, PairsConfig
from rebus.weights.checkpoint_files import open_weights

# Chosen on training photos alone: recall on 700 of Flickr8k in seven folds, accuracy on 1,500 of CIFAR-10, how often
# the best of the 1,000 names is the classifier's own choice where it is sure.
CLASSES = {"k": 50, "p": 4.0, "temperature": 8.0}  # the 4th power of softmax(logits / 8) is that of logits / 2
PHOTOS = {"k": 3000, "p": 5.0}
SCALE = 15.0  # fitted by likelihood on the same images of CIFAR-10


def assemble_starter() -> Assembled:
    """The model behind `asif/starter`. Raises `MissingExtra` where its packages are not installed."""
    found = starter_networks("asif/starter")
    names = describe_classes()
    classes = PairsConfig(
        ids=tuple(names),
        captions=tuple(names.values()),
        image_width=1280,
        text_width=found.text.width,
        image_similarity="classifier",
        **CLASSES,  # type: ignore[arg-type]
    )
    tensors = dict(found.tensors)
    for name, source in (("image", "weight"), ("bias", "bias")):  # copies: the pairs are edited, the network is not
        tensors[f"tables.0.{name}"] = tensors[f"image.net.classifier.{source}"].load().clone()
    tensors["tables.0.text"] = found.names
    tensors["usual"] = open_weights(kept_texts().with_name("usual_image.safetensors"))["direction"].load().float()
    config = ASIFConfig(image=found.image, text=found.text, tables=(classes,), scale=SCALE, usual=1280)
    return Assembled(config, tensors, found.processor)


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
