"""The Hub's tasks, as `huggingface_hub.InferenceClient` asks for them: `model="http://HOST/hf/TASK/MODEL"`.

Classification, detection and segmentation there know nothing of labels that a user chooses; ours are given in the
address: `…/hf/object-detection/vild/scenes?labels=circle,square`.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Any

from fastapi import FastAPI
from PIL import Image

from rebus.core.answers import Box, Mask
from rebus.core.strict_json import finite_or_none
from rebus.serve import bodies
from rebus.serve.exchange import Exchange, endpoint
from rebus.serve.failures import Refusal
from rebus.serve.masks import mask_png
from rebus.serve.openapi import takes
from rebus.serve.served import Served
from rebus.serve.task_routes import RAW, is_sure, listed


def add_hub_routes(app: FastAPI) -> None:
    tags: list[str | Enum] = ["Hugging Face"]
    for task, handler, query in (
        ("image-classification", image_classification, ["labels"]),
        ("zero-shot-image-classification", zero_shot_image_classification, []),
        ("object-detection", object_detection, ["labels"]),
        ("image-segmentation", image_segmentation, ["labels"]),
        ("image-to-text", image_to_text, []),
    ):
        takes_image = app.post(f"/hf/{task}/{{model:path}}", tags=tags, **takes(bodies.HFImage, RAW, query))
        takes_image(endpoint(handler))
    takes_question = app.post("/hf/visual-question-answering/{model:path}", tags=tags, **takes(bodies.HFQuestion))
    takes_question(endpoint(visual_question_answering))


async def image_classification(exchange: Exchange) -> Any:
    """Labels with scores, best first."""
    served, image, given = await _read(exchange, "top_k")
    ranking = await exchange.ask(served, "classify", image, _labels(exchange))
    return [{"label": label, "score": score} for label, score in ranking][: given.top_k or 5]


async def zero_shot_image_classification(exchange: Exchange) -> Any:
    """The given labels with scores, best first."""
    served, image, given = await _read(exchange, "candidate_labels", "hypothesis_template")
    if given.candidate_labels is None:
        raise Refusal(400, "parameters.candidate_labels is missing", "missing_parameter", "candidate_labels")
    template = given.hypothesis_template
    ranking = await exchange.ask(served, "classify", image, given.candidate_labels, templates=template)
    return [{"label": label, "score": score} for label, score in ranking]


async def object_detection(exchange: Exchange) -> Any:
    """Boxes in pixels of the upright image."""
    served, image, given = await _read(exchange, "threshold")
    boxes: Sequence[Box] = await exchange.ask(served, "detect", image, _labels(exchange, needed=False))
    return [
        {
            "label": box.label,
            "score": finite_or_none(box.score, 6),
            "box": dict(zip(("xmin", "ymin", "xmax", "ymax"), map(round, box.xyxy), strict=True)),
        }
        for box in boxes
        if is_sure(box.score, given.threshold or 0)
    ]


async def image_segmentation(exchange: Exchange) -> Any:
    """Masks as PNG, 255 inside, each as large as the upright image."""
    served, image, given = await _read(exchange, "threshold", "subtask")
    tickets = [await exchange.submit(served, "segment", image, label) for label in _labels(exchange) or ()]
    masks: list[Mask] = [mask for ticket in tickets for mask in await exchange.answer(ticket)]
    masks = [mask for mask in masks if is_sure(mask.score, given.threshold or 0)]
    return [{"label": mask.label, "score": finite_or_none(mask.score, 6), "mask": mask_png(mask)} for mask in masks]


async def image_to_text(exchange: Exchange) -> Any:
    """A caption."""
    served, image, _ = await _read(exchange)
    return [{"generated_text": await exchange.ask(served, "caption", image)}]


async def visual_question_answering(exchange: Exchange) -> Any:
    """The answer to a question about the image."""
    body = await exchange.json(bodies.HFQuestion)
    _check(body.parameters, "top_k")
    served = exchange.service.models.get(exchange.request.path_params["model"])
    if isinstance(body.inputs, bodies.HFQuestionInputs):
        source, question = body.inputs.image, body.inputs.question
    else:
        source, question = body.inputs, body.question or ""
    image = await exchange.image(source, served)
    return [{"answer": await exchange.ask(served, "ask", image, question), "score": None}]


async def _read(exchange: Exchange, *parameters: str) -> tuple[Served, Image.Image, bodies.HFParameters]:
    """The model, the image, and the parameters, of which those named may be given."""
    data = await exchange.read()
    served = exchange.service.models.get(exchange.request.path_params["model"])
    if exchange.media_type != "application/json":  # the Hub's client does not say what a file is
        return served, await exchange.image(data, served), bodies.HFParameters()
    body = exchange.parse(bodies.HFImage, data)
    return served, await exchange.image(body.inputs, served), _check(body.parameters, *parameters)


def _check(given: bodies.HFParameters | None, *known: str) -> bodies.HFParameters:
    given = given or bodies.HFParameters()
    for name in type(given).model_fields:
        if getattr(given, name) is not None and name not in known:
            raise Refusal(400, f"there is no parameter {name} here", "unknown_parameter", name)
    return given


def _labels(exchange: Exchange, needed: bool = True) -> list[str] | None:
    given = exchange.request.query_params.get("labels")
    if given is None and needed:
        raise Refusal(400, "this model knows no labels of its own: add ?labels=a,b,c", "missing_parameter", "labels")
    return None if given is None else listed(given)
