"""Conversations about an image as questions with answers: LLaVA's and The Cauldron's turns, PaliGemma's prefixes."""

from collections.abc import Mapping, Sequence
from typing import Any

from rebus.data.record import BadRecord, Question

IMAGE = "<image>"  # where LLaVA's texts have the image
_USERS, _ASSISTANTS = ("human", "user"), ("gpt", "assistant")


def prompt_and_answer(row: Mapping[str, Any], key: str) -> Question:
    """PaliGemma's `prefix`, which is the whole prompt and may be empty, and its `suffix`. Raises `BadRecord`."""
    prefix, suffix = row.get("prefix"), row["suffix"]
    if not isinstance(prefix, str | None) or not isinstance(suffix, str):
        raise BadRecord(key, "prefix and suffix must be texts")
    return Question(text=prefix or "", answers=(suffix,), is_prompt=True)


def questions_of(turns: Sequence[Any], key: str) -> list[Question]:
    """The turns of a conversation, each answered turn as a question of its own.

    `turns`: LLaVA's {"from": "human" | "gpt", "value"} or {"role": "user" | "assistant", "content"} in turn, or The
    Cauldron's {"user", "assistant"}. What a later turn takes from those before it is lost. Raises `BadRecord`.
    """
    asked: str | None = None
    found = []
    for at, turn in enumerate(turns):
        if isinstance(turn, Mapping) and {"user", "assistant"} <= turn.keys():
            pair = [("user", turn["user"]), ("assistant", turn["assistant"])]
        else:
            pair = [_said(turn, f"turn {at}", key)]
        for role, value in pair:
            if not isinstance(value, str):
                raise BadRecord(key, f"turn {at} of its conversation is no text")
            text = value.replace(IMAGE, "").strip()
            if role in _USERS:
                asked = text
            elif role in _ASSISTANTS and asked is not None:
                found.append(Question(text=asked, answers=(text,)))
                asked = None
            elif role in _ASSISTANTS:
                raise BadRecord(key, f"turn {at} of its conversation answers nothing")
    return found


def _said(turn: Any, where: str, key: str) -> tuple[Any, Any]:
    for role, value in (("from", "value"), ("role", "content")):
        if isinstance(turn, Mapping) and {role, value} <= turn.keys():
            return turn[role], turn[value]
    raise BadRecord(key, f"{where} of its conversation should have from and value; got {str(turn)[:80]}")
