"""Single objects of scenes with a phrase each: what a dual encoder learns from that is to teach a detector."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from PIL import Image

from rebus.core.specs import TextSpec
from rebus.data.forms import Example, TextRow
from rebus.data.model_inputs import ModelInputs
from rebus.data.record import Record
from rebus.data.record_batches import Plan, RecordBatches
from rebus.data.scene_records import SceneRecords
from rebus.data.scene_tokenizer import BOS, EOS, PAD, scenes_processor
from rebus.data.scenes import NOVEL_LABELS, Scene, SceneObject
from rebus.data.scenes.language import PHRASES

SENTENCES = (  # what people write round a phrase; most of these words are unknown to the scenes world
    "{}",
    "a {}",
    "the {}",
    "a photo of a {}.",
    "itap of my {}.",
    "there is one {} in the scene.",
    "this is a toy {}.",
    "a cropped photo of the small {}.",
    "a black and white photo of a {}.",
    "a photo of the large {} in the scene.",
)
JITTER = 0.06  # of a box's sides, standard deviation: proposals are not exact


@dataclass(frozen=True)
class SceneCrops:
    """One object an image, cut out at its box or with half as much around it, and a phrase that fits it.

    Objects come from all classes, the novel ones as well (`SceneRecords`): the pairs of image and text that such a
    model learns from know no split. `named`: how often the phrase is colour and shape. `size`: pixels of a side.
    """

    kind: Literal["scene crops"] = "scene crops"
    size: int = 64
    context: int = 16
    named: float = 0.5
    scene_size: ClassVar[int] = 96

    def open(self, inputs: ModelInputs) -> RecordBatches:
        """The batches: `pixels` uint8, `tokens`, `mask`."""
        spec = TextSpec(context=self.context, pad_id=PAD, eos_id=EOS, bos_id=BOS, pad_to_context=True)
        source = SceneRecords(self.scene_size, self._plan, fields=(), novel=True)
        return RecordBatches(source, scenes_processor(spec, self.size))

    def _plan(self, index: int, batch_size: int, split: str) -> Plan:
        return Plan(range(index * batch_size, (index + 1) * batch_size), self._make)

    def _make(self, record: Record, rng: np.random.Generator) -> Example:
        scene: Scene = record.facts["scene"]
        novel = [o for o, label in zip(scene.objects, scene.labels, strict=True) if label in NOVEL_LABELS]
        among = novel if novel and rng.random() < 0.5 else scene.objects
        one = among[int(rng.integers(len(among)))]
        image = self._crop(scene, one, rng)
        text = PHRASES[2](one) if rng.random() < self.named else PHRASES[int(rng.integers(len(PHRASES)))](one)
        sentence = SENTENCES[int(rng.integers(len(SENTENCES)))]
        return Example((image,), (TextRow(None, sentence.format(text)),))

    def _crop(self, scene: Scene, one: SceneObject, rng: np.random.Generator) -> np.ndarray:
        left, top, right, bottom = one.box
        around = 0.5 * (rng.random() < 0.5) / 2
        width, height = right - left, bottom - top
        shift = rng.normal(0, JITTER, size=4) + np.array([-around, -around, around, around])
        box = np.array(one.box) + shift * np.array([width, height, width, height])
        small = scene.image.crop(tuple(box.round().astype(int).tolist()))
        return np.asarray(small.resize((self.size, self.size), Image.Resampling.BICUBIC))
