"""The models of a server: loaded one after another while it answers its probes, each behind a `Batcher`."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from rebus.core.errors import RebusError
from rebus.nn.quantized import is_quantized
from rebus.serve.batcher import Batcher
from rebus.serve.failures import Refusal
from rebus.serve.indexes import ServedIndexes
from rebus.serve.metrics import Metrics
from rebus.serve.settings import ServeSettings
from rebus.tasks.explain import can_explain

log = logging.getLogger("rebus")
_PATIENCE = 30.0  # seconds, at the end, for what is being loaded


@dataclass(frozen=True)
class Served:
    """A model under the name by which it is asked for. `dimensions`: of its vectors; None where it has none."""

    name: str
    model: Any
    batcher: Batcher
    dimensions: int | None
    since: int  # seconds since 1970

    def to_json(self) -> dict[str, Any]:
        card = self.model.card
        return {
            "id": self.name,
            "object": "model",
            "created": self.since,
            "owned_by": "rebus",
            "tasks": sorted(self.model.tasks),
            "license": card.license,
            "domain": card.domain,
            "dimensions": self.dimensions,
            "sees_images": sees_images(self.model),
            "explains": sees_images(self.model) and can_explain(self.model),
            "weights_bytes": sum(tensor.nbytes for tensor in self.model.network.state_dict().values()),
        }


@dataclass(frozen=True)
class BatchedEncoder:
    """`embed_images` of a served model, whose images share batches and cached features with other requests."""

    batcher: Batcher

    def embed_images(self, images: Sequence[Any]) -> torch.Tensor:
        """(N, E) of unit length. Raises what `Batcher.submit` and its tickets raise."""
        tickets = [self.batcher.submit("embed_images", image) for image in images]
        return torch.stack([torch.as_tensor(ticket.result()) for ticket in tickets])


def sees_images(model: Any) -> bool:
    return model.processor.image is not None


class ServedModels:
    """`load(source)` gives a model. `phase` says how far the loading of models and indexes is; None once all are."""

    def __init__(
        self,
        sources: Sequence[str],
        load: Callable[[str], Any],
        settings: ServeSettings,
        metrics: Metrics,
        indexes: ServedIndexes,
    ):
        self.sources, self.load, self.settings, self.metrics = list(dict.fromkeys(sources)), load, settings, metrics
        self.indexes = indexes
        self.phase: str | None = "starting"
        self.failed: RebusError | None = None
        self._served: dict[str, Served] = {}
        self._closed = False
        self._loader: threading.Thread | None = None

    def start(self, failed: Callable[[RebusError], None] = lambda error: None) -> None:
        """Load in a separate thread. `failed`: called with the error that ends it."""
        self._loader = threading.Thread(target=self._load_all, args=(failed,), name="rebus loader", daemon=True)
        self._loader.start()

    def __iter__(self) -> Any:
        return iter(list(self._served.values()))

    def get(self, name: str) -> Served:
        """Raises `Refusal`: 404 for a name that is not served, 503 while it is loading."""
        found = self._served.get(name)
        if found is not None:
            return found
        if name in self.sources:
            raise Refusal(503, f"the model is not loaded yet: {self.phase}", "loading", headers={"Retry-After": "5"})
        raise Refusal(404, "this server has no such model: GET /v1/models lists them", "model_not_found", "model")

    def image_encoder(self, name: str) -> "BatchedEncoder | None":
        """Of a model that is served as an index embeds: in float32, not quantised. None where there is none."""
        served = self._served.get(name)
        if served is None or is_quantized(served.model.network):
            return None
        kinds = {one.dtype for one in served.model.network.parameters() if one.is_floating_point()}
        return BatchedEncoder(served.batcher) if kinds <= {torch.float32} else None

    def close(self) -> None:
        self._closed = True
        if self._loader is not None:  # a process that ends while it loads is aborted
            self._loader.join(_PATIENCE)
        for served in self:
            served.batcher.close()

    def _load_all(self, failed: Callable[[RebusError], None]) -> None:
        try:
            for number, source in enumerate(self.sources, start=1):
                self.phase = f"loading model {number} of {len(self.sources)}"
                served = self._open(source)
                self._served[source] = served
                if self._closed:
                    served.batcher.close()
                    return
            for number, (name, _) in enumerate(self.indexes, start=1):
                self.phase = f"loading index {number} of {len(self.indexes)}"
                self.indexes.warm(name)
            self.phase = None
        except RebusError as error:
            self.phase, self.failed = "failed", error
            failed(error)
        except Exception:
            log.exception("a model could not be loaded")
            self.phase, self.failed = "failed", RebusError("a model could not be loaded")
            failed(self.failed)

    def _open(self, source: str) -> Served:
        begun = time.monotonic()
        model = self.load(source)
        batcher = Batcher(
            model,
            max_batch=self.settings.max_batch,
            max_queue=self.settings.max_queue,
            timeout=self.settings.timeout,
            observe=partial(self.metrics.observe, model=source),
        )
        self.metrics.gauge("waiting", source, lambda: batcher.waiting)
        self.metrics.gauge("running", source, lambda: batcher.running)
        self.metrics.gauge("image_cache_hits", source, lambda: batcher.features.hits)
        self.metrics.gauge("image_cache_misses", source, lambda: batcher.features.misses)
        log.info("%s is ready after %.1f s", source, time.monotonic() - begun)
        return Served(source, model, batcher, _dimensions(model, batcher), int(time.time()))


def _dimensions(model: Any, batcher: Batcher) -> int | None:
    if "embed_texts" not in model.tasks or not getattr(model.network, "is_dense", True):
        return None
    try:
        return len(batcher.submit("embed_texts", "a").result())
    except RebusError:  # no tokenizer
        return None
