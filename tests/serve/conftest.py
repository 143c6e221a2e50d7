"""One real server for all tests, with bundled models, on a port of its own."""

import base64
import contextlib
import importlib.util
import io
import threading
import time

import httpx
import pytest

import rebus
from rebus.data.scenes import scene

pytest.importorskip("fastapi")
uvicorn = pytest.importorskip("uvicorn")

from rebus.serve.app import create_app  # noqa: E402
from rebus.serve.server import Server, configuration  # noqa: E402
from rebus.serve.settings import ServeSettings  # noqa: E402

GENERATIVE, ENCODER, DETECTOR = "paligemma/scenes", "clip/scenes", "vild/scenes"
LOADED = {}


@pytest.fixture(autouse=True)
def hub_client_online(monkeypatch):
    """The suite keeps the Hub's library offline; here its client talks to the server of these tests."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


def load(name):
    """Each model once for all servers, which then share its network one after another."""
    if name not in LOADED:
        LOADED[name] = rebus.load(name)
    return LOADED[name]


@contextlib.contextmanager
def running(*models, indexes=(), load_with=load, **settings):
    settings = ServeSettings(port=0, **settings)
    app = create_app(models, settings, load_with, indexes=indexes)
    listening = threading.Event()
    server = Server(configuration(app, settings), listening.set)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert listening.wait(120)
    port = server.servers[0].sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    try:
        while app.state.service.models.phase is not None:
            assert app.state.service.models.failed is None
            time.sleep(0.02)
        yield url, app
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="session")
def index(tmp_path_factory):
    """Of twelve drawn images in a folder "photos" and one below it; without their extra, None."""
    if importlib.util.find_spec("lancedb") is None:
        return None
    from rebus.index.report import Options
    from rebus.index.search import open_index
    from rebus.index.update import update_index

    home = tmp_path_factory.mktemp("indexed")
    folder = home / "photos"
    (folder / "deep").mkdir(parents=True)
    for number in range(12):
        image_of(number).save(folder / ("deep" if number % 2 else "") / f"{number:02d}.png")
    update_index(folder, Options(model=ENCODER, batch=4, threads=1), str(home / "index"))
    return open_index(folder, str(home / "index"))


@pytest.fixture(scope="session")
def served(index):
    with running(GENERATIVE, ENCODER, DETECTOR, indexes=[index] if index else []) as (url, app):
        yield url, app


@pytest.fixture(scope="session")
def url(served):
    return served[0]


@pytest.fixture(scope="session")
def client(url):
    with httpx.Client(base_url=url, timeout=60) as client:
        yield client


def image_of(seed=20_001):
    return scene(seed, split="test").image


def file_of(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


def data_url(data, media="image/png"):
    return f"data:{media};base64,{base64.b64encode(data).decode()}"


def chat(image, text=None, model=GENERATIVE, **more):
    """The body of a chat about one image."""
    parts = [{"type": "image_url", "image_url": {"url": data_url(file_of(image))}}]
    parts += [] if text is None else [{"type": "text", "text": text}]
    return {"model": model, "messages": [{"role": "user", "content": parts}], **more}


@pytest.fixture(scope="module")  # no longer: while it is open, an event loop runs in this thread
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    from tests.serve.browsing import BROWSER

    with playwright.sync_playwright() as started:
        options = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        browser = started.chromium.launch(executable_path=BROWSER, args=options)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, url):
    """`opened(**options of a context)`: the page, ready; `answers`: what some addresses answer instead. While it
    is open nothing may be asked of another host, no script may fail, no file be missing, and no policy be broken."""
    from tests.serve.browsing import expect

    wrong, contexts = [], []

    def start(answers=None, **options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(60_000)
        page.on("request", asked)
        page.on("response", loaded)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", logged)
        for address, answer in (answers or {}).items():
            page.route(address, lambda route, _, answer=answer: route.fulfill(**answer))
        page.goto(f"{url}/")
        expect(page.locator("#status")).to_contain_text("ready")
        return page

    def asked(request):
        if not request.url.startswith((f"{url}/", "blob:", "data:")):
            wrong.append(f"foreign: {request.url}")

    def loaded(response):
        if response.status >= 400 and response.request.resource_type != "fetch":
            wrong.append(f"{response.status}: {response.url}")

    def logged(message):
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            wrong.append(message.text)

    yield start
    for context in contexts:
        context.close()
    assert wrong == []
