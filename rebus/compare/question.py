"""What all models of a comparison are asked of each image, and the answer as JSON has it."""

from dataclasses import dataclass
from typing import Any

from rebus.core.errors import UsageError, unknown

NEEDS = {  # task → what it cannot be asked without
    "classify": "labels",
    "caption": None,
    "ask": "question",
    "detect": "labels",
    "segment": "phrase",
    "read": None,
}


@dataclass(frozen=True, kw_only=True)
class Question:
    """One task with its inputs, the same for every image and model."""

    task: str
    labels: tuple[str, ...] = ()  # of classify and detect
    question: str | None = None  # of ask
    phrase: str | None = None  # of segment
    threshold: float | None = None  # of detect: boxes below this score do not count

    def check(self) -> None:
        """Raise `UnknownName` for a task that cannot be compared, `UsageError` for an input that it lacks or that
        another task has."""
        if self.task not in NEEDS:
            raise unknown("task to compare", self.task, NEEDS, f"There are: {', '.join(NEEDS)}.")
        need = NEEDS[self.task]
        for name in ("labels", "question", "phrase"):
            given = bool(getattr(self, name))
            if name == need and not given:
                raise UsageError(f"comparing {self.task} needs {name}: --{name} …")
            if name != need and given:
                raise UsageError(f"--{name} is not for {self.task}")
        if self.threshold is not None and self.task != "detect":
            raise UsageError(f"--threshold is not for {self.task}")
        if len(set(self.labels)) < len(self.labels):
            raise UsageError("--labels: a label is there twice")

    def answer(self, model: Any, image: str) -> Any:
        """What a model says of an image: a text, or labels with probabilities, boxes, masks or lines as JSON."""
        if self.task == "classify":
            return model.classify(image, list(self.labels)).to_json()
        if self.task == "caption":
            return model.caption(image)
        if self.task == "ask":
            return model.ask(image, self.question)
        if self.task == "detect":
            found = model.detect(image, list(self.labels), threshold=self.threshold)
        elif self.task == "segment":
            found = model.segment(image, self.phrase)
        else:
            found = model.read(image)
        return [one.to_json() for one in found]

    def said(self, answer: Any) -> str:
        """The answer in one line."""
        if self.task == "classify":
            best = answer[0]
            return f"{best['label']} {best['probability']:.1%}" if best["probability"] is not None else best["label"]
        if self.task == "read":
            return " / ".join(line["text"] for line in answer) or "nothing"
        if isinstance(answer, str):
            return answer
        return ", ".join(one["label"] for one in answer) or "nothing"
