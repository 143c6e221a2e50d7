"""Our own routes, and the Hub's tasks by the unmodified `InferenceClient`."""

import base64
import io

import httpx
import numpy as np
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from PIL import Image

from rebus.codec.decode_image import open_image
from tests.serve.conftest import DETECTOR, ENCODER, GENERATIVE, chat, data_url, file_of, image_of, load

LABELS = ["red circle", "blue square", "green cross"]
QUERY = f"labels={','.join(LABELS)}"


@pytest.fixture(scope="module")
def hub():
    return InferenceClient(token="unused")


def test_classify(client):
    image = image_of()
    body = {"model": ENCODER, "image": data_url(file_of(image)), "labels": LABELS}
    found = client.post("/v1/classify", json=body).json()
    size = {"width": image.width, "height": image.height}
    assert found["object"] == "list"
    assert [entry["image"] for entry in found["data"]] == [size]
    wanted = load(ENCODER).classify(image, LABELS)
    given = found["data"][0]["predictions"]
    assert [one["label"] for one in given] == list(wanted.labels)
    np.testing.assert_allclose([one["probability"] for one in given], wanted.probabilities, atol=1e-4)
    query = {"model": ENCODER, "labels": ",".join(LABELS), "threshold": given[1]["probability"]}
    headers = {"Content-Type": "image/png"}
    raw = client.post("/v1/classify", params=query, content=file_of(image), headers=headers).json()
    assert raw["data"][0]["predictions"] == given[:2]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools
def test_detect_and_segment(client):
    image = image_of(20_011)
    body = {"model": DETECTOR, "image": data_url(file_of(image))}
    found = client.post("/v1/detect", json={**body, "labels": LABELS}).json()["data"][0]["predictions"]
    wanted = [box.to_json() for box in load(DETECTOR).detect(image, LABELS)]
    assert [one["label"] for one in found] == [one["label"] for one in wanted]
    np.testing.assert_allclose([one["xyxy"] for one in found], [one["xyxy"] for one in wanted], atol=0.02)
    phrases = {**body, "phrases": ["red circle", "blue square"]}
    lengths = client.post("/v1/segment", json=phrases).json()["data"][0]["predictions"]
    drawn = client.post("/v1/segment", json={**phrases, "mask_format": "png"}).json()["data"][0]["predictions"]
    masks = [mask for phrase in phrases["phrases"] for mask in load(DETECTOR).segment(image, phrase)]
    assert len(lengths) == len(drawn) == len(masks) > 0
    from pycocotools import mask as coco

    for run, one, mask in zip(lengths, drawn, masks, strict=True):
        counts = {"size": run["size"], "counts": run["counts"]}
        np.testing.assert_array_equal(coco.decode(coco.frPyObjects(counts, *run["size"])).astype(bool), mask.mask)
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(one["png"]))))
        np.testing.assert_array_equal(pixels == 255, mask.mask)


def test_match(client):
    images = [image_of(seed) for seed in (1, 2)]
    body = {"model": ENCODER, "images": [data_url(file_of(image)) for image in images], "texts": LABELS}
    found = client.post("/v1/match", json=body).json()["data"]
    scores = [[one["score"] for one in entry["predictions"]] for entry in found]
    np.testing.assert_allclose(scores, load(ENCODER).match(images, LABELS).numpy(), atol=1e-5)


def test_a_bad_image_among_others_fails_alone(client):
    good, bad = data_url(file_of(image_of())), data_url(b"no image at all")
    body = {"model": ENCODER, "images": [good, bad, good], "labels": LABELS}
    found = client.post("/v1/classify", json=body).json()["data"]
    assert [sorted(entry) for entry in found] == [
        ["image", "index", "predictions"],
        ["error", "index"],
        ["image", "index", "predictions"],
    ]
    assert found[1]["error"]["code"] == "bad_image"
    assert client.post("/v1/classify", json={**body, "images": [bad]}).status_code == 400


@pytest.mark.parametrize(
    "more, code, param",
    [
        ({"labels": []}, "invalid_value", "labels"),
        ({"labels": [" "]}, "bad_text", None),
        ({"treshold": 0.5}, "unknown_parameter", "treshold"),
        ({"threshold": 2}, "invalid_value", "threshold"),
        ({"image": None}, "missing_parameter", "image"),
        ({"images": []}, "missing_parameter", "image"),
    ],
)
def test_what_cannot_be_is_refused_by_name(client, more, code, param):
    body = {"model": ENCODER, "image": data_url(file_of(image_of())), "labels": LABELS, **more}
    response = client.post("/v1/classify", json=body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["code"], error["param"]) == (code, param)


def test_the_hub_client_classifies(hub, url):
    data = file_of(image_of())
    wanted = load(ENCODER).classify(image_of(), LABELS)
    address = f"{url}/hf/zero-shot-image-classification/{ENCODER}"
    found = hub.zero_shot_image_classification(data, candidate_labels=LABELS, model=address)
    assert [one.label for one in found] == list(wanted.labels)
    np.testing.assert_allclose([one.score for one in found], wanted.probabilities, atol=1e-4)
    address = f"{url}/hf/image-classification/{ENCODER}?labels={','.join(LABELS)}"
    assert [one.label for one in hub.image_classification(data, model=address)] == list(wanted.labels)
    assert len(hub.image_classification(data, model=address, top_k=2)) == 2
    with pytest.raises(HfHubHTTPError, match="no labels of its own"):
        hub.image_classification(data, model=address.partition("?")[0])


def test_the_hub_client_detects_and_segments(hub, url):
    image = image_of(20_011)
    data, model = file_of(image), load(DETECTOR)
    address = f"{url}/hf/object-detection/{DETECTOR}?labels={','.join(LABELS)}"
    found, wanted = hub.object_detection(data, model=address), model.detect(image, LABELS)
    assert [one.label for one in found] == [box.label for box in wanted]
    assert (found[0].box.xmin, found[0].box.ymax) == (round(wanted[0].xyxy[0]), round(wanted[0].xyxy[3]))
    few = hub.object_detection(data, model=address, threshold=0.3)
    assert [one.score for one in few] == pytest.approx([box.score for box in wanted if box.score >= 0.3], abs=1e-4)
    address = f"{url}/hf/image-segmentation/{DETECTOR}?labels=red circle"
    masks = hub.image_segmentation(data, model=address)
    for one, mask in zip(masks, model.segment(image, "red circle"), strict=True):
        np.testing.assert_array_equal(np.asarray(one.mask) == 255, mask.mask)


def test_the_hub_client_captions_and_asks(hub, url):
    image, model = image_of(), load(GENERATIVE)
    found = hub.image_to_text(file_of(image), model=f"{url}/hf/image-to-text/{GENERATIVE}")
    assert found.generated_text == model.caption(image)
    address = f"{url}/hf/visual-question-answering/{GENERATIVE}"
    (answer,) = hub.visual_question_answering(file_of(image), "what is red?", model=address)
    assert answer.answer == model.ask(image, "what is red?")


def test_the_hub_client_chats(url):
    body = chat(image_of(), "what is red?")
    client = InferenceClient(base_url=f"{url}/v1", token="unused")
    found = client.chat_completion(body["messages"], model=GENERATIVE)
    assert found.choices[0].message.content == load(GENERATIVE).ask(image_of(), "what is red?")
    pieces = client.chat_completion(body["messages"], model=GENERATIVE, stream=True)
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces)
    assert text == found.choices[0].message.content


def to_hub(client, path, data):
    return client.post(f"/hf/{path}", content=data, headers={"Content-Type": "application/octet-stream"})


ROUTES = {
    "chat": lambda client, data: client.post(
        "/v1/chat/completions",
        json={
            "model": GENERATIVE,
            "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": data_url(data)}}]}],
        },
    ),
    "embeddings": lambda client, data: client.post(
        "/v1/embeddings", json={"model": ENCODER, "input": data_url(data), "modality": "image"}
    ),
    "classify": lambda client, data: client.post(
        "/v1/classify", json={"model": ENCODER, "image": data_url(data), "labels": LABELS}
    ),
    "match": lambda client, data: client.post(
        "/v1/match", json={"model": ENCODER, "image": data_url(data), "texts": LABELS}
    ),
    "explain": lambda client, data: client.post(
        "/v1/explain", json={"model": ENCODER, "image": data_url(data), "texts": LABELS[:1]}
    ),
    "search": lambda client, data: client.post("/v1/search/photos", json={"image": data_url(data), "top": 3}),
    "detect": lambda client, data: client.post(
        "/v1/detect", json={"model": DETECTOR, "image": data_url(data), "labels": LABELS}
    ),
    "segment, raw": lambda client, data: client.post(
        f"/v1/segment?model={DETECTOR}&phrases=red circle", content=data, headers={"Content-Type": "image/jpeg"}
    ),
    "hub, captions": lambda client, data: to_hub(client, f"image-to-text/{GENERATIVE}", data),
    "hub, labels": lambda client, data: to_hub(
        client, f"image-classification/{ENCODER}?labels={','.join(LABELS)}", data
    ),
    "hub, boxes": lambda client, data: to_hub(client, f"object-detection/{DETECTOR}?{QUERY}", data),
    "hub, masks": lambda client, data: to_hub(client, f"image-segmentation/{DETECTOR}?labels=red circle", data),
    "hub, labels as JSON": lambda client, data: client.post(
        f"/hf/zero-shot-image-classification/{ENCODER}",
        json={"inputs": base64.b64encode(data).decode(), "parameters": {"candidate_labels": LABELS}},
    ),
    "hub, questions": lambda client, data: client.post(
        f"/hf/visual-question-answering/{GENERATIVE}",
        json={"inputs": {"image": base64.b64encode(data).decode(), "question": "what is red?"}},
    ),
}
TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # EXIF orientation → the transpose of Pillow that it undoes


def asked(client, route, data):
    response = ROUTES[route](client, data)
    assert response.status_code == 200
    found = response.json()
    return next((found[name] for name in ("data", "choices") if name in found), found)


@pytest.mark.parametrize("route", ROUTES)
def test_orientations_and_formats_answer_like_the_upright_png(client, route):
    if route == "search" and not client.get("/v1/search").json()["data"]:
        pytest.skip("lancedb is not installed")
    image = image_of(20_013)
    wanted = asked(client, route, file_of(image))
    for orientation in range(1, 9):
        turned = image if orientation == 1 else image.transpose(Image.Transpose(TURNS[orientation]))
        exif = Image.Exif()
        exif[0x0112] = orientation
        assert asked(client, route, file_of(turned, exif=exif)) == wanted, orientation
    for form, options in {"BMP": {}, "TIFF": {}, "PPM": {}, "WEBP": {"lossless": True}}.items():
        assert asked(client, route, file_of(image, form, **options)) == wanted, form
    photo = file_of(image, "JPEG", quality=100)
    assert asked(client, route, photo) == asked(client, route, file_of(open_image(photo)))


def test_names_of_the_address_are_decoded(client):
    response = client.post("/hf/image-to-text/nobody%2Fknows", content=b"x", headers={"Content-Type": "image/png"})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")
    assert httpx.get(f"{client.base_url}/v1/models/paligemma%2Fscenes").json()["id"] == GENERATIVE
