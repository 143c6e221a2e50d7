"""Who leaves frees a place, wherever the answer is on its way."""

import json
import socket
import time

import pytest

from tests.serve.conftest import GENERATIVE, chat, image_of, load, running
from tests.serve.test_batcher import Slow, wait_for

STEP = 0.05
MOST = 2.0  # seconds: on an idle core it is a step and less than 0.2 s


@pytest.fixture(scope="module")
def small():
    with running(GENERATIVE, max_batch=1) as (url, app):
        yield int(url.rpartition(":")[2]), app.state.service.models.get(GENERATIVE).batcher


def ask(port, **more):
    """A connection on which a chat was asked for."""
    body = json.dumps(chat(image_of(), **{"max_tokens": 400, "temperature": 50, "seed": 1, **more})).encode()
    sock = socket.create_connection(("127.0.0.1", port))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    sock.sendall(head.encode() + body)
    return sock


@pytest.mark.parametrize("stream", [True, False])
def test_while_an_answer_is_generated(small, stream):
    port, batcher = small
    with Slow(load(GENERATIVE), STEP) as slow:
        sock = ask(port, stream=stream)
        wait_for(lambda: slow.steps > 2)
        sock.close()
        begun = time.monotonic()
        wait_for(lambda: batcher.running == 0)
        assert time.monotonic() - begun < MOST


def test_while_the_prompt_is_read(small, monkeypatch):
    port, batcher = small
    network, reading = load(GENERATIVE).network, []
    start = network.start

    def slow(**batch):
        reading.append(1)
        time.sleep(0.3)
        return start(**batch)

    monkeypatch.setattr(network, "start", slow)
    with Slow(load(GENERATIVE), STEP) as steps:
        sock = ask(port)
        wait_for(lambda: reading)
        sock.close()
        wait_for(lambda: batcher.running == 0 and batcher.waiting == 0 and not batcher._rows.rows)
        time.sleep(0.4)
        wait_for(lambda: batcher.running == 0)
        assert steps.steps <= 1


def test_while_it_waits(small):
    port, batcher = small
    with Slow(load(GENERATIVE), STEP):
        first = ask(port)
        wait_for(lambda: batcher.running)
        second = ask(port)
        wait_for(lambda: batcher.waiting == 1)
        second.close()
        begun = time.monotonic()
        wait_for(lambda: batcher.waiting == 0)
        assert time.monotonic() - begun < MOST
        assert batcher.running == 1
        first.close()
        wait_for(lambda: batcher.running == 0)
