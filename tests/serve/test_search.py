"""Searches of an indexed folder through a server: its route, `rebus search` that asks it, small copies of images."""

import io
import json
import os
import shutil
import socket
import threading

import httpx
import pytest
from PIL import Image

pytest.importorskip("lancedb")

import rebus
from rebus.cli import main
from rebus.cli.verbs import search as verb
from rebus.core.errors import RebusError
from rebus.index import Conditions, Options, Term, open_index, update_index
from rebus.index.running_server import ask_server
from rebus.serve import server
from rebus.serve.settings import ServeSettings
from tests.serve.conftest import ENCODER, data_url, file_of, image_of, load, running

ROUTE = "/v1/search/photos"


def asked(client, **body):
    response = client.post(ROUTE, json=body)
    assert response.status_code == 200, response.text
    return response.json()["data"]


def told(index, hits):
    """(path below the folder, score) of each."""
    return [(os.path.relpath(hit.path, index.root), pytest.approx(hit.score, abs=1e-5)) for hit in hits]


def test_texts_images_and_what_is_subtracted(client, index):
    found = client.post(ROUTE, json={"text": "a red circle", "top": 3}).json()
    assert (found["object"], found["model"]) == ("list", ENCODER)
    assert [(one["path"], one["score"]) for one in found["data"]] == told(index, index.search("a red circle", number=3))
    first = found["data"][0]
    assert first["image"] == {"width": 96, "height": 96}
    assert first["size"] == os.path.getsize(index.root / first["path"])
    terms = [Term(text="a red circle"), Term(image=image_of(3), weight=2.0), Term(text="blue", weight=-0.5)]
    body = {"texts": ["a red circle"], "image": data_url(file_of(image_of(3))), "minus": ["blue"], "weights": [1, 2]}
    assert [(one["path"], one["score"]) for one in asked(client, **body)] == told(index, index.search(terms))
    assert asked(client, image=data_url(file_of(image_of(7))), top=1)[0]["path"] == "deep/07.png"


def test_conditions_hold_together(client, index):
    found = asked(client, text="a circle", under="deep", types=["png"], larger="90x90", since="2020", until=4e9)
    assert sorted(one["path"] for one in found) == [f"deep/{number:02d}.png" for number in (1, 3, 5, 7, 9, 11)]
    assert asked(client, text="a circle", larger="97x97") == []
    newest = [one["taken"] for one in asked(client)]
    assert len(newest) == 12
    assert newest == sorted(newest, reverse=True)


def test_what_is_indexed_is_listed(client):
    assert client.get("/v1/search").json() == {
        "object": "list",
        "data": [{"id": "photos", "object": "index", "model": ENCODER, "images": 12}],
    }


@pytest.mark.parametrize(
    "body, code, param",
    [
        ({"query": "a dog"}, "unknown_parameter", "query"),
        ({"texts": "a dog"}, "invalid_value", "texts"),
        ({"texts": ["a"] * 65}, "invalid_value", "texts"),
        ({"texts": ["a"] * 40, "minus": ["b"] * 40}, "limit_exceeded", None),
        ({"image": "/etc/passwd"}, "bad_image_url", None),
        ({"minus": ["a"]}, "invalid_value", "minus"),
        ({"text": "a", "weights": [1, 1]}, "invalid_value", "weights"),
        ({"text": "a", "weights": [-1]}, "invalid_value", "weights.0"),
        ({"top": 0}, "invalid_value", "top"),
        ({"top": True}, "invalid_value", "top"),
        ({"sort": "size"}, "invalid_value", "sort"),
        ({"larger": "big"}, "invalid_value", None),
        ({"labels": ["a=1"]}, "invalid_value", None),
        ({"labels": ["a>0.5"]}, "invalid_value", None),
        ({"since": "yesterday"}, "invalid_value", None),
    ],
)
def test_what_cannot_be_is_refused_by_name(client, body, code, param):
    response = client.post(ROUTE, json=body)
    error = response.json()["error"]
    assert 400 <= response.status_code < 500
    assert (error["code"], error["param"]) == (code, param)


def test_copies_of_images_of_the_index_alone(client, index):
    (hit,) = asked(client, image=data_url(file_of(image_of(7))), top=1)
    whole = client.get(f"{ROUTE}/images/{hit['id']}")
    assert whole.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(whole.content)).size == (96, 96)
    small = client.get(f"{ROUTE}/images/{hit['id']}?side=40").content
    assert Image.open(io.BytesIO(small)).size == (40, 40)
    for id in ("99", "-1", "07", "7.0", "deep%2F07.png", "..%2F..%2Findex", "%2e%2e", "9" * 30):
        response = client.get(f"{ROUTE}/images/{id}")
        assert (id == "07") == (response.status_code == 200)
        assert response.status_code in (200, 404)
    for query in ("side=0", "side=4096", "side=a", "size=40"):
        assert client.get(f"{ROUTE}/images/1?{query}").status_code == 400
    assert client.get("/v1/search/elsewhere/images/1").status_code == 404


@pytest.fixture
def own(tmp_path):
    """An index of three images that a test may change."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for number in range(3):
        image_of(number).save(folder / f"{number}.png")

    def update():
        update_index(folder, Options(model=ENCODER, batch=4, threads=1))

    update()
    return folder, update


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("REBUS_HOME", str(tmp_path / "home"))


def test_links_that_lead_out_and_files_that_are_gone(home, own, tmp_path):
    folder, _ = own
    image_of(9).save(tmp_path / "secret.png")
    (folder / "0.png").unlink()
    (folder / "0.png").symlink_to(tmp_path / "secret.png")
    (folder / "1.png").unlink()
    with running(indexes=[open_index(folder)]) as (url, _):
        found = httpx.post(f"{url}/v1/search/mine", json={}).json()["data"]
        answers = {one["path"]: httpx.get(f"{url}/v1/search/mine/images/{one['id']}") for one in found}
        assert {path: response.status_code for path, response in answers.items()} == {
            "0.png": 404,
            "1.png": 404,
            "2.png": 200,
        }
        assert str(folder) not in "".join(response.text for response in answers.values() if response.status_code > 200)


def test_an_index_that_was_updated_is_opened_anew(home, own):
    folder, update = own
    with running(indexes=[open_index(folder)]) as (url, app):
        image_of(5).save(folder / "new\udcff.png")  # a name that is no UTF-8
        before = app.state.service.indexes.get("mine")
        update()
        found = httpx.post(f"{url}/v1/search/mine", json={"text": "a circle"}).json()["data"]
        assert sorted(one["path"] for one in found) == ["0.png", "1.png", "2.png", "new\udcff.png"]
        assert app.state.service.indexes.get("mine").text_encoder is before.text_encoder
        shutil.rmtree(before.place.folder)
        assert httpx.post(f"{url}/v1/search/mine", json={"text": "a circle"}).status_code == 200


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_served_model_of_an_index_is_not_loaded_twice(home, own, monkeypatch, dtype):
    """In another precision it is: an index is of float32."""
    folder, _ = own
    model, loads = rebus.load(ENCODER, dtype=dtype), []
    monkeypatch.setattr("rebus.api.load", lambda source: loads.append(source) or load(source))
    image = image_of(9)  # not in the folder
    expected = open_index(folder).search([Term(image=image)])
    loads.clear()
    with running(ENCODER, indexes=[open_index(folder)], load_with=lambda name: model) as (url, _):
        for _ in range(2):
            found = httpx.post(f"{url}/v1/search/mine", json={"image": data_url(file_of(image))}).json()["data"]
            assert [(os.path.join(folder, one["path"]), one["score"]) for one in found] == [
                (hit.path, pytest.approx(hit.score, abs=1e-5)) for hit in expected
            ]
    assert loads == ([] if dtype == "float32" else [ENCODER])


@pytest.fixture
def running_serve(home, tmp_path, monkeypatch):
    """`serve(indexes, settings)` in a thread, ended after the test."""
    servers, threads = [], []

    def registered():
        return list((tmp_path / "home" / "servers").iterdir())

    class Kept(server.Server):
        def __init__(self, *args):
            super().__init__(*args)
            servers.append(self)

        async def shutdown(self, sockets=None):
            assert registered()
            await super().shutdown(sockets)
            assert not registered()  # now: the signal that ends a server may end the process

    monkeypatch.setattr(server, "Server", Kept)

    def start(indexes, **settings):
        listening = threading.Event()
        args = ([], ServeSettings(port=0, **settings), load, listening.set, indexes)
        threads.append(threading.Thread(target=server.serve, args=args, daemon=True))
        threads[-1].start()
        assert listening.wait(60)
        models = servers[-1].config.app.state.service.models
        while models.phase is not None:
            assert models.failed is None

    yield start
    for one in servers:
        one.should_exit = True
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def document(capsys, command):
    capsys.readouterr()
    assert main([*command, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_running_server_is_asked_by_rebus_search(home, own, running_serve, tmp_path, capsys, monkeypatch):
    """By the file in which it says what it serves; nothing is loaded here, and the answer is the same."""
    folder, _ = own
    command = ["search", str(folder), "a red circle", *"--minus blue --type png --since 2020 --top 2".split()]
    expected = document(capsys, command)
    running_serve([open_index(folder)], api_key="a-key-that-nobody-guesses")
    (about,) = (tmp_path / "home" / "servers").iterdir()
    assert about.stat().st_mode & 0o077 == 0  # it holds the key

    def never(*args):
        raise AssertionError("the index was opened here")

    monkeypatch.setattr(verb, "open_index", never)
    found = document(capsys, command)
    assert [one["path"] for one in found["results"]] == [one["path"] for one in expected["results"]]
    assert [one["score"] for one in found["results"]] == pytest.approx([one["score"] for one in expected["results"]])
    for one, other in zip(found["results"], expected["results"], strict=True):
        assert {**one, "score": 0} == {**other, "score": 0}
    assert ask_server(folder, [Term(image=image_of(1))], Conditions(), 3, False) is None
    assert ask_server(folder, [Term(text="a", weight=1e7)], Conditions(), 3, False) is None


def test_folders_that_are_called_the_same(home, own):
    folder, _ = own
    with running(indexes=[open_index(folder), open_index(folder)]) as (url, _):
        names = [one["id"] for one in httpx.get(f"{url}/v1/search").json()["data"]]
        assert names == ["mine", "mine-2"]


def test_something_is_to_be_served(capsys):
    assert main(["serve"]) == 2
    assert "--index" in capsys.readouterr().err
    assert main(["serve", "--index", "/nowhere"]) == 1
    assert "no index" in capsys.readouterr().err


def test_a_port_that_is_taken_is_said_before_anything_is_loaded(home, own):
    folder, _ = own
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = ServeSettings(port=taken.getsockname()[1])
        with pytest.raises(RebusError, match="cannot be listened on"):
            server.serve([ENCODER], settings, lambda name: pytest.fail("loaded"), indexes=[open_index(folder)])
