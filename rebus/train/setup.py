"""The settings of a run made whole, and the data that it learns from."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from rebus import catalog
from rebus.codec.images import ImagePipeline
from rebus.codec.processor import Processor
from rebus.codec.text import check_end
from rebus.core.config import from_dict
from rebus.core.errors import MissingFile, UsageError
from rebus.core.places import LocationNotation
from rebus.core.system import System
from rebus.data.detection_batches import SCENES, Detection, DetectionBatches, DetectionRecords
from rebus.data.file_records import Files, Mixture, file_batches, mixed_batches
from rebus.data.model_inputs import ModelInputs
from rebus.data.record_batches import Batches, RecordBatches
from rebus.data.scene_kinds import SceneData
from rebus.data.scene_tokenizer import scenes_text
from rebus.objectives import check_trained
from rebus.open_checkpoint import processor_in
from rebus.tasks.classify import label_vectors
from rebus.tasks.prompts import templates_of
from rebus.train.config import TrainConfig
from rebus.train.warm_start import build, opened_once, starts_of


def config_from_dict(data: Mapping[str, Any], where: str = "config") -> TrainConfig:
    """The settings of a run out of its `config.json`. Raises `BadConfig` naming every field that does not fit."""
    config = from_dict(TrainConfig, data, where)
    if isinstance(config.model, Mapping):
        model: Any = from_dict(catalog.system(str(config.system)).config, config.model, f"{where}.model")
        config = replace(config, model=model)
    return config


def resolved(config: TrainConfig) -> TrainConfig:
    """The recipe with `system` and `model` filled in from `start_from` where it leaves them open.

    Raises `UsageError` where there is nothing to take them from, or the model is not one of the system.
    """
    if config.system is None or config.model is None:
        if config.start_from is None:
            raise UsageError("start_from, the model to train, is missing: --set start_from=DIR, or a catalogue name")
        opened = opened_once(config.start_from)
        config = replace(config, system=config.system or opened.system.name, model=config.model or opened.config)
    system = catalog.system(str(config.system))
    if config.system in catalog.SYSTEMS:  # a network of one input learns whatever its recipe says
        check_trained(system)
    if not 0 <= config.wise_ft <= 1 or (config.wise_ft < 1 and not starts_of(config)):
        raise UsageError(f"wise_ft={config.wise_ft:g}: expected a fraction between 0 and 1, with start_from")
    wanted = system.config
    if not isinstance(config.model, wanted):
        raise UsageError(
            f"system={config.system} expects a {wanted.__name__} as its model; got a {type(config.model).__name__}"
        )
    return config


def locations_of(config: TrainConfig) -> LocationNotation | None:
    """How the texts of the model of a recipe state places."""
    return catalog.system(str(config.system)).suited_to(config.model).locations


def open_data(config: TrainConfig, data: Any = None) -> Batches:
    """What gives the batches of `data`, by default the recipe's own. Raises what the data set raises."""
    measured = data is not None or config.eval_every > 0
    data = config.data if data is None else data
    system = catalog.system(str(config.system)).suited_to(config.model)
    if isinstance(data, Files):
        processor = processor_of(config, system)
        answers = _answers_of(config, system, data, processor)
        return file_batches(data, processor, system.prompts, system.locations, measured, answers)
    if isinstance(data, Mixture):
        if data.mix == "steps" and not hasattr(config.objective, "examples"):
            raise UsageError(
                f"data.mix=steps sums the losses of data sets, and {config.objective.kind!r} is not a sum over examples"
            )
        return mixed_batches(data, processor_of(config, system), system.prompts, system.locations, measured)
    if isinstance(data, Detection):
        return _of_regions(config, system, data, measured)
    if isinstance(data, SceneData):
        batches = data.open(ModelInputs.of(system, config.model))
        return _fitting(config, system, batches) if isinstance(batches, RecordBatches) else batches
    given: Batches = data
    return given


def _of_regions(config: TrainConfig, system: System, data: Detection, measured: bool) -> DetectionBatches:
    """The batches of a detector. One that starts anew on a data set has its own preprocessing, and reads no text."""
    model = config.model
    own = system.image_spec(model) if system.image_spec is not None else None
    if own is None or not hasattr(model, "embed"):
        raise UsageError(f"{config.system} cannot learn boxes, which data.kind={data.kind!r} consists of")
    if config.processor is not None or config.start_from is not None:
        processor = processor_of(config, system)
    else:
        text = scenes_text(model.text.context) if data.path == SCENES and model.text is not None else None
        processor = Processor(ImagePipeline(own, threads=1), text)
    if processor.image is None:
        raise MissingFile(f"the checkpoint has no {processor.image_missing}, without which it cannot process images")
    spec = processor.image.spec
    fill = [round(255 * mean) for mean in spec.mean]
    read = partial(_own_texts, config, system, processor) if config.start_from is not None else None
    records = DetectionRecords(data, spec.size[0], (fill[0], fill[1], fill[2]), measured, read)
    if records.taught is not None:
        records.taught.check_width(model.embed)
    return DetectionBatches(records, processor)


def _own_texts(config: TrainConfig, system: System, processor: Processor, labels: Sequence[str]) -> np.ndarray:
    """(C, E): labels as the text encoder of the network reads them that a run starts from."""
    network: Any = build(config).network.eval()
    model = SimpleNamespace(
        network=network,
        processor=processor,
        system=system,
        config=config.model,
        companions={},
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    sentences = templates_of(system.prompts.classify or "plain")
    found: np.ndarray = label_vectors(model, list(labels), sentences, average=True).numpy()
    return found


def _answers_of(config: TrainConfig, system: System, files: Files, processor: Processor) -> list[str] | None:
    """The list of a network that picks its answers from one: `files.answers`, which is saved with the model, or that
    beside the weights it starts from. Raises `UsageError` where it has another number of answers than the network."""
    companion = system.companions.get("answers")
    if companion is None or (system.tasks is not None and "ask" not in system.tasks(config.model)):
        return None
    folder = opened_once(config.start_from).folder if config.start_from is not None else None
    path = Path(files.answers) if files.answers is not None else folder and folder / companion.file
    if path is None or not path.is_file():
        raise UsageError(f"the answer list is missing: --set data.answers=FILE, such as {companion.file}")
    answers: list[str] = companion.load(path)
    number = getattr(config.model, "num_answers", len(answers))
    if number != len(answers):
        raise UsageError(f"{path} lists {len(answers):,} answers, the network scores {number:,}")
    processor.sources[companion.file] = path.read_bytes()
    return answers


def _fitting(config: TrainConfig, system: System, batches: RecordBatches) -> RecordBatches:
    """The batches of scenes, of which a model with another vocabulary or image size would learn nonsense."""
    model: Any = config.model
    size = None if batches.images is None else batches.images.spec.size[0]
    tokens = None if batches.text is None else batches.text.tokenizer.vocab_size
    text, image = getattr(model, "text", model), getattr(model, "image", model)  # of two inputs, or of one
    if tokens is not None and getattr(text, "vocab_size", tokens) != tokens:
        raise UsageError(
            f"scenes have {tokens:,} tokens of their own; the model has {text.vocab_size:,}. "
            "Write them to a folder and learn from that (`rebus data`), or train a model for synthetic scenes"
        )
    spec = system.image_spec(model) if system.image_spec else None
    wanted = getattr(image, "image_size", size) if spec is None else spec.size[0]
    if size is not None and wanted != size:
        raise UsageError(f"the scenes have {size} pixels a side, the model's images {wanted}")
    if system.text_spec is not None:  # scenes end their texts themselves
        check_end(batches.text.tokenizer, replace(batches.text.spec, read_at=system.text_spec(model).read_at))
    return batches


def processor_of(config: TrainConfig, system: System) -> Processor:
    """The tokenizer and preprocessor that the recipe names, or those of the checkpoint that it starts from. Where these
    are of a language model alone, images are seen as the system's own models see them."""
    name = config.processor or config.start_from
    if name is None:
        raise UsageError("processor, the source of tokenizer and preprocessor, is missing: --set processor=DIR")
    opened = opened_once(name)
    if opened.folder is None or (opened.system.name, opened.config) == (config.system, config.model):
        return opened.processor()
    fixed = system.image_spec is not None and not system.any_image_size and system.image_spec(config.model)
    side = fixed.size[0] if fixed and fixed.resize != "patches" else None
    if fixed and opened.system.image_spec is None:  # a language model's folder, whose tokenizer alone is meant
        text = processor_in(opened.folder, system, config.model).text
        return Processor(ImagePipeline(fixed), text)
    return processor_in(opened.folder, system, config.model, image_size=side)
