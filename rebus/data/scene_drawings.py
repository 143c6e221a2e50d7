"""Scenes in both directions: captions of images, images for captions, and interleaved documents, for models that
generate both."""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from rebus.codec.images import ImagePipeline
from rebus.codec.processor import Processor
from rebus.codec.text import ImageMark, Pieces, Prompt, TextPipeline, Unfinished
from rebus.codec.tokenizers import Tokenizer
from rebus.core.errors import UsageError
from rebus.core.specs import Prompts
from rebus.data.forms import Example, TextRow, filled
from rebus.data.model_inputs import ModelInputs
from rebus.data.record import Record
from rebus.data.record_batches import Plan, RecordBatches, Turns
from rebus.data.scene_records import SceneRecords
from rebus.data.scene_tokenizer import SPECIALS, new_words, scenes_tokenizer
from rebus.data.scenes import Scene, scene
from rebus.data.scenes.language import naming, question_of_looks

BEGIN, END, FIRST_CODE = (len(SPECIALS) + i for i in (0, 1, 3))  # between them the separator


@dataclass(frozen=True)
class SceneDrawings:
    """Scenes of one to `most_objects` objects. Each batch is of one kind, so that its rows are alike long, and kinds
    take turns by these weights. `caption`: the caption of an image. `imagine`: the image of a caption; `named`: how
    often that says colours and shapes alone; `free`: how often nothing, which guidance compares with. `documents`: the
    reply to "what is a red circle and a blue star like?", which is the name of each and an image of it, in turn, in
    half as many rows.
    """

    kind: Literal["scene drawings"] = "scene drawings"
    size: int = 96
    most_objects: int = 2
    caption: float = 0.5
    imagine: float = 0.4
    documents: float = 0.1
    named: float = 0.3
    free: float = 0.1

    def open(self, inputs: ModelInputs) -> RecordBatches:
        """The batches: `pixels`, `image_mask`, `tokens`, `mask`, `targets`, `owners`. Raises `UsageError` for a model
        that writes no images, or whose tokens of images are others than those of `tokenizer`."""
        text, images = inputs.text_for(self.kind), inputs.image_tokens_for(self.kind)
        if (images.begin, images.end, images.first) != (BEGIN, END, FIRST_CODE):
            raise UsageError(
                f"tokens {BEGIN} and {END} begin and end the images of scenes, whose codes are those from {FIRST_CODE} "
                f"on; the model has {images.begin}, {images.end}, {images.first}"
            )
        tokenizer = self.tokenizer(inputs.prompts, text.separator, images.last - images.first + 1)
        processor = Processor(ImagePipeline(inputs.image_for(self.kind), threads=1), TextPipeline(tokenizer, text))
        source = SceneRecords(self.size, partial(self._plan, inputs.prompts), fields=(), most_objects=self.most_objects)
        return RecordBatches(source, processor)

    def tokenizer(self, prompts: Prompts, separator: str, num_codes: int) -> Tokenizer:
        """The tokenizer of models that learn from this, for a system's prompts, what ends them, and its codes."""
        controls = ("<begin_image>", "<end_image>", separator, *(f"<code{i:04d}>" for i in range(num_codes)))
        return scenes_tokenizer(more=new_words(prompts.caption or ""), controls=controls)

    def _plan(self, prompts: Prompts, index: int, batch_size: int, split: str) -> Plan:
        kinds = [(self.caption, _told), (self.imagine, self._drawn), (self.documents, _document)]
        weights, makes = zip(*((weight, make) for weight, make in kinds if weight), strict=True)
        make = makes[Turns(weights, len(makes)).at(index)[0]]
        rows = batch_size // 2 if make is _document else batch_size
        return Plan(range(index * batch_size, index * batch_size + rows), partial(make, prompts))

    def _drawn(self, prompts: Prompts, record: Record, rng: np.random.Generator) -> Example:
        s: Scene = record.facts["scene"]
        chance = rng.random()
        asked = "" if chance < self.free else naming(s.objects) if chance < self.free + self.named else s.captions[0]
        return Example((s.pixels,), (TextRow(_prompt(prompts, "imagine", prompt=asked), Pieces(ImageMark())),))


def _told(prompts: Prompts, record: Record, rng: np.random.Generator) -> Example:
    s: Scene = record.facts["scene"]
    return Example((s.pixels,), (TextRow(prompts.caption, s.captions[0]),))


def _document(prompts: Prompts, record: Record, rng: np.random.Generator) -> Example:
    s: Scene = record.facts["scene"]
    shown = [scene(int(seed), s.split, s.size, count=1) for seed in rng.integers(2**31, size=2)]
    question = question_of_looks([one.objects[0] for one in shown])
    reply = [part for one in shown for part in (naming(one.objects), ImageMark())]
    texts = (TextRow(_prompt(prompts, "complete", document=question), Pieces(*reply)),)
    return Example(tuple(one.pixels for one in shown), texts)


def _prompt(prompts: Prompts, task: str, **values: str) -> Prompt:
    text = filled(getattr(prompts, task), **values)
    return Unfinished(text) if task in prompts.unfinished else text
