"""The files of the page, who gets them, and the two routes that it needs for itself."""

import base64
import gzip
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import rebus
from rebus.serve import page_routes
from tests.serve.conftest import DETECTOR, ENCODER, GENERATIVE, data_url, file_of, image_of, load
from tests.serve.test_guard import KEY, calling

FOLDER = Path(page_routes.__file__).with_name("page")
FILES = {file.name: file.read_bytes() for file in sorted(FOLDER.iterdir())}
OPENS = {"Accept": "text/html,*/*", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


def basic(password):
    return {"Authorization": "Basic " + base64.b64encode(f"anybody:{password}".encode()).decode()}


def test_the_page_is_small_and_whole():
    assert sum(len(gzip.compress(data)) for data in FILES.values()) < 100_000
    text = {name: data.decode() for name, data in FILES.items() if not name.endswith(".png")}
    addresses = {found for file in text.values() for found in re.findall(r"https?://[^\s\"')]+", file)}
    assert addresses == {"http://www.w3.org/2000/svg"}  # the name of a format, of which nothing is loaded
    named = re.findall(r"[\"'](?:/page/|\./)([\w.-]+)[\"']", "".join(text.values()))
    assert set(named) == set(FILES) - {"index.html"}


def test_what_comes_from_elsewhere_is_never_read_as_markup():
    for name, data in FILES.items():
        if name.endswith(".js"):
            assert not re.search(rb"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", data)
    assert not re.search(rb"<script(?! type=\"module\" src)|\son\w+=|\sstyle=|<style", FILES["index.html"])


@pytest.mark.anyio
async def test_files_and_their_headers():
    async with calling() as (client, _):
        page = await client.get("/")
        assert page.content == FILES["index.html"]
        assert page.headers["content-security-policy"].startswith("default-src 'self';")
        assert "unsafe" not in page.headers["content-security-policy"]
        kinds = {
            "html": "text/html",
            "css": "text/css",
            "js": "text/javascript",
            "svg": "image/svg",
            "png": "image/png",
        }
        for name, data in FILES.items():
            response = await client.get(f"/page/{name}")
            assert response.content == data
            assert response.headers["content-type"].startswith(kinds.get(name.rpartition(".")[2], "image/png"))
            assert response.headers["x-content-type-options"] == "nosniff"
            same = await client.get(f"/page/{name}", headers={"If-None-Match": response.headers["etag"]})
            assert (same.status_code, same.content) == (304, b"")
        for name in ("nothing.js", "..%2Fapp.py", "..%2F..%2Fapi.py", "page_routes.py"):
            assert (await client.get(f"/page/{name}")).status_code == 404


@pytest.mark.anyio
async def test_a_browser_is_asked_for_the_key():
    async with calling(api_key=KEY) as (client, _):
        refused = await client.get("/", headers=OPENS)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Basic ")
        for path in ("/", "/page/app.js", "/v1/models"):
            assert (await client.get(path)).headers["www-authenticate"] == "Bearer"  # no window for who is no browser
            for wrong in ("", "another-key-of-some-length", KEY[:-1]):
                assert (await client.get(path, headers=basic(wrong))).status_code == 401
            assert (await client.get(path, headers=basic(KEY))).status_code == 200
        for broken in ("Basic", "Basic é", "Basic /w==", f"Basic {KEY}"):
            assert (await client.get("/", headers={"Authorization": broken.encode()})).status_code == 401


@pytest.mark.anyio
async def test_a_link_on_another_site_leads_to_the_page_and_to_nothing_else():
    foreign = {**OPENS, "Sec-Fetch-Site": "cross-site"}
    async with calling() as (client, _):
        assert (await client.get("/", headers=foreign)).status_code == 200
        for method, path, more in (
            ("GET", "/", {"Sec-Fetch-Dest": "iframe"}),
            ("GET", "/", {"Sec-Fetch-Mode": "no-cors"}),
            ("GET", "/", {"Origin": "https://evil.example"}),
            ("POST", "/", {}),
            ("GET", "/page/app.js", {}),
            ("GET", "/v1/models", {}),
        ):
            response = await client.request(method, path, headers={**foreign, **more})
            assert response.status_code == 403, (method, path, more)


@pytest.mark.parametrize("form, orientation", [("TIFF", 1), ("PPM", 1), ("JPEG", 6)])
def test_what_no_browser_shows_is_drawn(client, form, orientation):
    image = image_of().resize((60, 40))
    options = {}
    if orientation > 1:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = orientation
    sent = {"content": file_of(image, form, **options), "headers": {"Content-Type": "application/octet-stream"}}
    response = client.post("/v1/preview", **sent)
    assert response.headers["content-type"] == "image/png"
    shown = Image.open(io.BytesIO(response.content))
    assert (shown.format, shown.size) == ("PNG", (60, 40) if orientation == 1 else (40, 60))
    if form != "JPEG":
        np.testing.assert_array_equal(np.asarray(shown), np.asarray(image))


def test_previews_are_bounded_and_of_images_alone(client):
    large = file_of(Image.new("L", (5000, 100)))
    raw = {"Content-Type": "image/png"}
    assert Image.open(io.BytesIO(client.post("/v1/preview", content=large, headers=raw).content)).size == (2048, 41)
    assert client.post("/v1/preview", content=b"no image", headers=raw).json()["error"]["code"] == "bad_image"
    assert client.post("/v1/preview", json={"image": data_url(large)}).status_code == 415


@pytest.mark.parametrize("name", [ENCODER, GENERATIVE])
def test_where_a_text_is_seen(client, name):
    """As `model.explain` says, with the cache of features out of its way, which answers as before afterwards."""
    image, texts = image_of(20_003), ["blue square", "yellow circle"]
    body = {"model": name, "image": data_url(file_of(image))}
    before = client.post("/v1/classify", json={**body, "labels": texts}).json()
    found = client.post("/v1/explain", json={**body, "texts": texts}).json()["data"][0]
    assert found["image"] == {"width": 96, "height": 96}
    seen = rebus.load(name).explain(image, texts)  # another network than the server's, which keeps features
    for wanted, one in zip(seen, found["predictions"], strict=True):
        heat = np.asarray(Image.open(io.BytesIO(base64.b64decode(one["png"]))))
        assert heat.max() == 255
        np.testing.assert_allclose(heat / 255, wanted.heat, atol=0.02)
        assert one["score"] == pytest.approx(wanted.score, abs=1e-3)
    assert client.post("/v1/classify", json={**body, "labels": texts}).json() == before


def test_who_cannot_explain_says_so(client):
    models = {one["id"]: one for one in client.get("/v1/models").json()["data"]}
    assert {name: one["explains"] for name, one in models.items()} == {GENERATIVE: True, ENCODER: True, DETECTOR: False}
    assert {one["domain"] for one in models.values()} == {"shapes"}
    weights = sum(tensor.nbytes for tensor in load(ENCODER).network.state_dict().values())
    assert models[ENCODER]["weights_bytes"] == weights
    body = {"model": DETECTOR, "image": data_url(file_of(image_of())), "texts": ["red circle"]}
    assert client.post("/v1/explain", json=body).json()["error"]["code"] == "unsupported_task"
