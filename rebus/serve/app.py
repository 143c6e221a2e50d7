"""The application: routes, the guard around them, and errors of one shape."""

import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from rebus import __version__
from rebus.core.errors import RebusError
from rebus.index.search import Index
from rebus.serve.exchange import Service
from rebus.serve.failures import Refusal
from rebus.serve.guard import Guard
from rebus.serve.hub_routes import add_hub_routes
from rebus.serve.indexes import ServedIndexes
from rebus.serve.metrics import Metrics
from rebus.serve.openai_routes import add_openai_routes
from rebus.serve.openapi import describe
from rebus.serve.page_routes import add_page
from rebus.serve.search_routes import add_search_routes
from rebus.serve.served import ServedModels
from rebus.serve.settings import ServeSettings
from rebus.serve.task_routes import add_task_routes

log = logging.getLogger("rebus")


def create_app(
    sources: Sequence[str],
    settings: ServeSettings,
    load: Callable[[str], Any],
    failed: Callable[[RebusError], None] = lambda error: None,
    indexes: Sequence[Index] = (),
) -> FastAPI:
    """An application that loads `sources` by `load`, and the text encoders of `indexes`, once it has started. `failed`:
    called when one cannot be loaded."""
    metrics = Metrics()
    searched = ServedIndexes(indexes)
    models = ServedModels(sources, load, settings, metrics, searched)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        models.start(failed)
        yield
        models.close()

    app = FastAPI(
        title="rebus",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.service = Service(settings, models, searched, metrics)
    app.add_middleware(Guard, settings=settings, metrics=metrics)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _our_fault)
    for add in (add_openai_routes, add_hub_routes, add_task_routes, add_search_routes, add_page):
        add(app)  # not as routers of their own: `app.routes` then lists every route
    _add_status(app, models, metrics)
    return app


def _add_status(app: FastAPI, models: ServedModels, metrics: Metrics) -> None:
    @app.get("/livez", tags=["status"])
    async def livez() -> Response:
        """The process answers."""
        return JSONResponse({"status": "ok"})

    @app.get("/readyz", tags=["status"])
    async def readyz() -> Response:
        """All models are loaded; 503 with the phase until then."""
        if models.phase is None:
            return JSONResponse({"status": "ok"})
        return Refusal(503, models.phase, "loading", headers={"Retry-After": "5"}).response()

    @app.get("/metrics", tags=["status"])
    async def metrics_text() -> Response:
        """Counters and histograms for Prometheus."""
        return PlainTextResponse(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/openapi.json", tags=["status"])
    async def openapi() -> Response:
        """This description."""
        return JSONResponse(describe(app))


async def _http_error(request: Request, error: Any) -> Response:
    messages = {404: ("there is no such route: GET /openapi.json lists them", "not_found")}
    messages[405] = ("this route is not called by this method", "method_not_allowed")
    message, code = messages.get(error.status_code, ("the request cannot be understood", "bad_request"))
    return Refusal(error.status_code, message, code, headers=error.headers).response()


async def _our_fault(request: Request, error: Exception) -> Response:
    return Refusal(500, "something went wrong here; the server's log says what", "failed").response()
