"""How many images with text the known collections hold, or a data set on this machine."""

import re
from dataclasses import dataclass
from pathlib import Path

from rebus.core.errors import UsageError, unknown

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}
_MOST = 10**13


@dataclass(frozen=True)
class Collection:
    """`examples`: what one epoch sees."""

    name: str
    examples: int
    what: str
    source: str


DATA = {
    data.name: data
    for data in (
        Collection("coyo-700m", 746_972_269, "pairs from web pages", "Byeon et al., COYO-700M, 2022"),
        Collection("laion-2b", 2_320_000_000, "English pairs from web pages", "Schuhmann et al., LAION-5B, 2022"),
        Collection("laion-400m", 413_000_000, "English pairs from web pages", "Schuhmann et al., LAION-400M, 2021"),
        Collection("datacomp-1b", 1_400_000_000, "pairs, the best filter's choice", "Gadre et al., DataComp, 2023"),
        Collection("wit-400m", 400_000_000, "CLIP's pairs, never released", "Radford et al., CLIP, 2021"),
        Collection("align-1.8b", 1_800_000_000, "ALIGN's noisy pairs, never released", "Jia et al., ALIGN, 2021"),
        Collection("webli", 10_000_000_000, "images in 109 languages, not released", "Chen et al., PaLI, 2022"),
        Collection("yfcc15m", 14_829_396, "CLIP's English part of YFCC100M", "Radford et al., CLIP, 2021"),
        Collection("cc12m", 12_423_374, "pairs from web pages", "Changpinyo et al., Conceptual 12M, 2021"),
        Collection("cc3m", 3_318_333, "pairs from web pages", "Sharma et al., Conceptual Captions, 2018"),
        Collection("sbu", 1_000_000, "pairs from Flickr", "Ordonez et al., SBU, 2011"),
        Collection("coco", 591_753, "captions of the 118,287 images of train2017", "Chen et al., COCO Captions, 2015"),
        Collection("flickr30k", 145_000, "captions of 29,000 training images", "Young et al., Flickr30k, 2014"),
        Collection("vqav2", 443_757, "training questions", "Goyal et al., VQA v2, 2017"),
    )
}


def read_data(text: str) -> Collection:
    """A known name, a number of examples like `10M`, or a data set on this machine in any layout that `rebus data
    inspect` reads, whose records are counted. Raises `UnknownName`, `UsageError` or what reading raises."""
    name = text.strip().lower()
    if name in DATA:
        return DATA[name]
    if (re.match(r"\d", name) and not Path(text).exists()) or name.startswith(("-", ".")):
        number = read_count(name, "--data")
        return Collection(f"{number:,} examples", number, "", "as given")
    if Path(text).exists():
        from rebus.data.layouts import open_layout

        number = sum(open_layout(Path(text), "auto", None, None).sizes)
        return Collection(text, number, "records, counted", "on this machine")
    raise unknown(
        "data set", name, DATA, see=f"Known: {', '.join(DATA)}; or give a number of examples, like 10M, or a folder."
    )


def read_count(text: str, option: str) -> int:
    """`12.8B` → 12,800,000,000. Raises `UsageError`."""
    found = re.fullmatch(r"(\d[\d_,]*\.?\d*)([kmb]?)", text.strip().lower())
    number = float(found[1].replace(",", "").replace("_", "")) * _UNITS[found[2]] if found else 0
    if found is None or not 1 <= number <= _MOST:
        raise UsageError(f"{option} expects a number like 400000, 10M or 12.8B; got {text!r}")
    return round(number)
