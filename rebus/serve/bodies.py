"""What requests hold, as closed schemas: a field that is not here is refused by its name."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from rebus.index.running_server import MOST, MOST_TERMS


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())


Name = Annotated[str, Field(min_length=1, max_length=256, description="a model that is served")]
Source = Annotated[str, Field(description="an image: a data URL, or base64 alone")]


class ImageURL(Body):
    url: Annotated[str, Field(description="a data URL; a web address only of hosts that the server was started with")]
    detail: Literal["auto", "low", "high"] = "auto"


class TextPart(Body):
    type: Literal["text"]
    text: str


class ImagePart(Body):
    type: Literal["image_url"]
    image_url: ImageURL


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class Message(Body):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[Part], Field(max_length=10_000)]
    name: str | None = None


class StreamOptions(Body):
    include_usage: bool = False


class Chat(Body):
    """POST /v1/chat/completions"""

    model: Name
    messages: Annotated[list[Message], Field(min_length=1, max_length=1000)]
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1, le=100_000)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=100_000)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stop: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=16)]
        | None
    ) = None
    n: Literal[1] = 1
    user: str | None = None


class Embeddings(Body):
    """POST /v1/embeddings: texts, images as `input` with modality "image", or the parts of `messages`."""

    model: Name
    input: str | list[str] | None = None
    messages: list[Message] | None = None
    modality: Literal["text", "image"] = "text"
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None
    user: str | None = None


class Images(Body):
    """POST /v1/images/generations"""

    model: Name
    prompt: Annotated[str, Field(min_length=1)]
    n: Annotated[int, Field(ge=1, le=8)] = 1
    size: str | None = None
    response_format: Literal["b64_json"] = "b64_json"
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    user: str | None = None


class OfImages(Body):
    model: Name
    image: Source | None = None
    images: list[Source] | None = None


class Classify(OfImages):
    """POST /v1/classify"""

    labels: Annotated[list[str], Field(min_length=1)]
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.0


class Detect(OfImages):
    """POST /v1/detect"""

    labels: Annotated[list[str], Field(min_length=1)] | None = None
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.0


class Segment(OfImages):
    """POST /v1/segment"""

    phrases: Annotated[list[str], Field(min_length=1, max_length=64)]
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.0
    mask_format: Literal["png", "rle"] = "rle"


class Match(OfImages):
    """POST /v1/match"""

    texts: Annotated[list[str], Field(min_length=1)]


class Explain(OfImages):
    """POST /v1/explain"""

    texts: Annotated[list[str], Field(min_length=1, max_length=16)]


class Search(Body):
    """POST /v1/search/{index}: what `rebus search` takes. Texts and images are added, `minus` is subtracted; `weights`
    in that order. Dates are like 2024-05-31, or seconds since 1970."""

    text: str | None = None
    texts: Annotated[list[str], Field(max_length=MOST_TERMS)] | None = None
    image: Source | None = None
    images: Annotated[list[Source], Field(max_length=MOST_TERMS)] | None = None
    minus: Annotated[list[str], Field(max_length=MOST_TERMS)] | None = None
    weights: list[Annotated[float, Field(gt=0, lt=1e6)]] | None = None
    top: Annotated[int, Field(ge=1, le=MOST)] = 20
    sort: Literal["score", "date"] = "score"
    since: str | Annotated[float, Field(ge=-1e12, le=1e12)] | None = None
    until: str | Annotated[float, Field(ge=-1e12, le=1e12)] | None = None
    under: str | None = None
    larger: str | None = None
    types: list[str] | None = None
    labels: list[str] | None = None


class HFParameters(Body):
    """The parameters of the Hub's tasks; each task lists its own."""

    candidate_labels: Annotated[list[str], Field(min_length=1)] | None = None
    hypothesis_template: str | None = None
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=1)] | None = None
    subtask: Literal["semantic", "instance", "panoptic"] | None = None


class HFImage(Body):
    """POST /hf/{task}/{model} with parameters beside the image, which is base64."""

    inputs: Source
    parameters: HFParameters | None = None


class HFQuestionInputs(Body):
    image: Source
    question: str


class HFQuestion(Body):
    """POST /hf/visual-question-answering/{model}; the Hub's client sends image and question twice over."""

    inputs: Source | HFQuestionInputs
    parameters: HFParameters | None = None
    question: str | None = None
    image: Source | None = None
