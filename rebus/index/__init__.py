"""An index of the images in a folder, and queries to it.

Each image is a unit vector of a dual encoder, so that a search is one product of a matrix and a vector, whether the
query is a text, an image, or a sum of both. The source of truth is a LanceDB table with a row for each file, which a
run over the folder updates (`update_index`); searches read a snapshot of it (`open_index`), for which neither LanceDB
nor the image encoder is loaded.

    update_index(Path("photos"), Options(model="asif/starter"))
    for hit in open_index("photos").search("a dog on a beach", number=5):
        print(hit.score, hit.path)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rebus.index.clusters import Cluster as Cluster
    from rebus.index.clusters import clusters as clusters
    from rebus.index.conditions import Conditions as Conditions
    from rebus.index.duplicates import duplicates as duplicates
    from rebus.index.report import Options as Options
    from rebus.index.report import Progress as Progress
    from rebus.index.report import Report as Report
    from rebus.index.search import Hit as Hit
    from rebus.index.search import Index as Index
    from rebus.index.search import Term as Term
    from rebus.index.search import open_index as open_index
    from rebus.index.text_encoder import load_text_encoder as load_text_encoder
    from rebus.index.update import update_index as update_index

_FROM = {
    "Cluster": "clusters",
    "Conditions": "conditions",
    "Hit": "search",
    "Index": "search",
    "Options": "report",
    "Progress": "report",
    "Report": "report",
    "Term": "search",
    "load_text_encoder": "text_encoder",
    "open_index": "search",
    "update_index": "update",
}
__all__ = [*_FROM, "clusters", "duplicates"]


def __getattr__(name: str) -> Any:
    if name in _FROM:
        return getattr(import_module(f"rebus.index.{_FROM[name]}"), name)
    raise AttributeError(f"module 'rebus.index' has no attribute {name!r}")
