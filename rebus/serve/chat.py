"""Messages of a chat as one of the model's tasks. There are no templates: what a model was not trained on is refused.

A model that answers questions gets the text as its question about the image. One that writes captions gets it as what
the caption begins with. One that continues documents gets all parts in order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rebus.serve import bodies
from rebus.serve.failures import Refusal


@dataclass(frozen=True)
class Call:
    """`task` of the images at the addresses `images`; `parts`: texts, and None where an image stands."""

    task: str
    images: tuple[str, ...]
    parts: tuple[str | None, ...]

    @property
    def text(self) -> str:
        return "\n".join(part for part in self.parts if part is not None)

    def arguments(self, images: Sequence[Any]) -> tuple[Any, ...]:
        """What `Batcher.submit` takes, with the images decoded."""
        if self.task == "complete":
            left = iter(images)
            return ([next(left) if part is None else part for part in self.parts],)
        text = self.text.strip()
        return (images[0], text) if text else (images[0],)


def call_of(model: Any, messages: Sequence[bodies.Message]) -> Call:
    """Raises `Refusal` where the model has no task for such messages."""
    tasks = model.tasks & {"ask", "caption", "complete"}
    if not tasks:
        raise Refusal(400, "this model generates no text: GET /v1/models lists what each can do", "unsupported_task")
    parts: list[str | None] = []
    images: list[str] = []
    for message in messages:
        if isinstance(message.content, str):
            parts.append(message.content)
            continue
        for part in message.content:
            if isinstance(part, bodies.TextPart):
                parts.append(part.text)
            else:
                parts.append(None)
                images.append(part.image_url.url)
    alone = len(messages) == 1 and messages[0].role == "user"
    has_text = any(part is not None and part.strip() for part in parts)
    if alone and len(images) == 1 and tasks & {"ask", "caption"}:
        task = "ask" if "ask" in tasks and (has_text or "caption" not in tasks) else "caption"
        if task == "ask" and not has_text:
            raise Refusal(400, "a question about the image is missing: add a part of type text", "invalid_value")
        if task in tasks:
            return Call(task, tuple(images), tuple(parts))
    if "complete" in tasks:
        if not parts or not (has_text or images):
            raise Refusal(400, "the messages are empty", "invalid_value", "messages")
        return Call("complete", tuple(images), tuple(part for part in parts if part is None or part))
    if not alone:
        raise Refusal(
            400,
            "this model answers one message of a user about one image and knows nothing of earlier ones: send the last "
            "alone, with its image",
            "unsupported_messages",
            "messages",
        )
    raise Refusal(
        400, f"this model takes one image in a message; got {len(images)}", "unsupported_messages", "messages"
    )


def options_of(body: bodies.Chat) -> dict[str, Any]:
    """Decoding options of a request. Without a temperature the model decodes as it does by default; 0 is greedy."""
    options: dict[str, Any] = {"max_new_tokens": body.max_completion_tokens or body.max_tokens, "stop": body.stop}
    if body.max_tokens is not None and body.max_completion_tokens is not None:
        raise Refusal(400, "give max_completion_tokens or max_tokens, not both", "invalid_value", "max_tokens")
    if body.temperature == 0:
        options["strategy"] = "greedy"
    elif body.temperature is not None or body.top_p is not None:
        options |= {"strategy": "sample", "temperature": body.temperature, "top_p": body.top_p, "seed": body.seed}
    return {name: value for name, value in options.items() if value is not None}
