"""The unmodified `openai` client on every route of its API."""

import base64
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
from openai import APIStatusError, BadRequestError, NotFoundError, OpenAI
from PIL import Image

from rebus.tasks.methods import Tasks
from tests.serve.conftest import (
    DETECTOR,
    ENCODER,
    GENERATIVE,
    LOADED,
    chat,
    data_url,
    file_of,
    image_of,
    load,
    running,
)
from tests.tasks.toys import IMAGE_TOKENS, ImageWriter, ToyModel, toy


@pytest.fixture(scope="module")
def openai(url):
    with OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0, timeout=60) as client:
        yield client


def test_chat_answers_a_question_and_captions(openai):
    image, model = image_of(), load(GENERATIVE)
    found = openai.chat.completions.create(**chat(image, "what is left of the circle?"), temperature=0)
    assert found.choices[0].message.content == model.ask(image, "what is left of the circle?")
    assert found.choices[0].message.role == "assistant"
    assert found.choices[0].finish_reason == "stop"
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens
    assert found.usage.completion_tokens > 0
    assert found.model == GENERATIVE
    found = openai.chat.completions.create(**chat(image))
    assert found.choices[0].message.content == model.caption(image)
    found = openai.chat.completions.create(**chat(image), max_tokens=2)
    assert found.choices[0].finish_reason == "length"
    assert found.usage.completion_tokens == 2


def test_chat_streams(openai):
    image = image_of(20_007)
    whole = load(GENERATIVE).caption(image)
    stream = openai.chat.completions.create(**chat(image), stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    assert len({chunk.id for chunk in chunks}) == 1
    assert len({chunk.created for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == whole
    assert len(chunks) > 5
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 2) + ["stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens > 1
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_a_stream_ends_with_done(client):
    with client.stream("POST", "/v1/chat/completions", json=chat(image_of(), stream=True)) as response:
        lines = [line for line in response.iter_lines() if line]
    assert response.headers["content-type"].startswith("text/event-stream")
    assert lines[-1] == "data: [DONE]"
    assert all("usage" not in json.loads(line[6:]) for line in lines[:-1])


def test_a_stream_that_cannot_begin_is_an_error(openai):
    with pytest.raises(APIStatusError) as error:
        openai.chat.completions.create(**chat(image_of(), "what is red? " * 10_000), stream=True)
    assert (error.value.status_code, error.value.body["code"]) == (413, "limit_exceeded")


def test_sampling_is_repeated_by_its_seed(openai):
    body = chat(image_of(), "what is red?")
    texts = [
        openai.chat.completions.create(**body, temperature=50.0, top_p=0.99, seed=seed).choices[0].message.content
        for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]
    assert texts[0] == load(GENERATIVE).ask(
        image_of(), "what is red?", strategy="sample", temperature=50.0, top_p=0.99, seed=1
    )


@pytest.mark.parametrize("form", ["float", "base64"])
def test_embeddings_of_texts(openai, form):
    texts = ["a red circle", "a blue square", "a green cross"]
    found = openai.embeddings.create(model=ENCODER, input=texts, encoding_format=form)
    vectors = [row.embedding for row in found.data]
    if form == "base64":
        vectors = [np.frombuffer(base64.b64decode(row), "<f4") for row in vectors]
    np.testing.assert_allclose(np.array(vectors), load(ENCODER).embed_texts(texts).numpy(), atol=1e-5)
    assert [row.index for row in found.data] == [0, 1, 2]
    assert found.usage.prompt_tokens > 3


def test_embeddings_of_images(openai, client):
    images = [image_of(seed) for seed in (1, 2)]
    wanted = load(ENCODER).embed_images(images).numpy()
    inputs = [data_url(file_of(image)) for image in images]
    found = openai.embeddings.create(model=ENCODER, input=inputs, extra_body={"modality": "image"})
    np.testing.assert_allclose(np.array([row.embedding for row in found.data]), wanted, atol=1e-5)
    parts = [{"type": "image_url", "image_url": {"url": inputs[1]}}]
    body = {"model": ENCODER, "messages": [{"role": "user", "content": parts}]}
    found = client.post("/v1/embeddings", json=body).json()
    np.testing.assert_allclose(found["data"][0]["embedding"], wanted[1], atol=1e-5)


def test_models(openai):
    models = {model.id: model for model in openai.models.list()}
    assert set(models) == {GENERATIVE, ENCODER, DETECTOR}
    assert models[ENCODER].dimensions == load(ENCODER).embed_texts(["a"]).shape[1]
    assert models[GENERATIVE].dimensions is None
    assert models[GENERATIVE].license == "Apache-2.0"
    assert "ask" in models[GENERATIVE].tasks
    assert openai.models.retrieve(ENCODER).id == ENCODER
    with pytest.raises(NotFoundError):
        openai.models.retrieve("nobody/knows")


@pytest.mark.parametrize(
    "more, code, param",
    [
        ({"temperature": -1}, "invalid_value", "temperature"),
        ({"tools": []}, "unknown_parameter", "tools"),
        ({"n": 2}, "invalid_value", "n"),
        ({"max_tokens": 0}, "invalid_value", "max_tokens"),
        ({"max_tokens": 3, "max_completion_tokens": 3}, "invalid_value", "max_tokens"),
        ({"messages": []}, "invalid_value", "messages"),
        ({"model": "nobody/knows"}, "model_not_found", "model"),
        ({"model": ENCODER}, "unsupported_task", None),
    ],
)
def test_what_cannot_be_is_refused_by_name(client, more, code, param):
    response = client.post("/v1/chat/completions", json={**chat(image_of()), **more})
    assert response.status_code in (400, 404)
    error = response.json()["error"]
    assert (error["code"], error["param"]) == (code, param)
    assert error["type"] == "invalid_request_error"


def test_messages_that_a_model_has_no_use_for(client):
    body = chat(image_of(), "what is red?")
    for messages in (
        [{"role": "system", "content": "be brief"}, *body["messages"]],
        [{"role": "user", "content": "no image"}],
        [{"role": "user", "content": [*body["messages"][0]["content"], body["messages"][0]["content"][0]]}],
    ):
        error = client.post("/v1/chat/completions", json={**body, "messages": messages}).json()["error"]
        assert error["code"] == "unsupported_messages"


def test_a_model_that_draws_nothing_says_who_does(client):
    body = {"model": ENCODER, "prompt": "a red circle"}
    response = client.post("/v1/images/generations", json=body)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "unsupported_task")


class Drawing(ToyModel, Tasks):
    """No bundled model draws: a toy whose every code is as likely as any other."""

    tasks = frozenset({"imagine"})
    card = SimpleNamespace(name="toy", license="none", domain="shapes")

    def _can(self, task):
        return self


def test_images_are_drawn():
    toys = toy(ImageWriter(lambda prompt: "a cat"), image_tokens=lambda config: IMAGE_TOKENS)
    LOADED["drawing"] = model = Drawing(**vars(toys))
    with running("drawing") as (url, _), OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as openai:
        found = openai.images.generate(
            model="drawing", prompt="red", n=2, response_format="b64_json", extra_body={"seed": 4}
        )
        images = [Image.open(io.BytesIO(base64.b64decode(one.b64_json))) for one in found.data]
        wanted = [model.imagine("red", seed=seed) for seed in (4, 5)]
        assert [image.tobytes() for image in images] == [image.tobytes() for image in wanted]
        with pytest.raises(BadRequestError) as error:
            openai.images.generate(model="drawing", prompt="red", size="256x256")
        assert error.value.param == "size"
