"""The settings of a run made whole, and the data that it learns from."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rebus import catalog
from rebus.codec.processor import Processor
from rebus.core.config import from_dict
from rebus.core.errors import UsageError
from rebus.data.file_records import Files, Mixture, file_batches, mixed_batches
from rebus.data.record_batches import Batches, RecordBatches
from rebus.data.scene_captions import SceneCaptions
from rebus.data.scene_readings import SceneCaptionPairs, SceneQuestions
from rebus.data.scene_tasks import SceneTasks
from rebus.objectives import check_trained
from rebus.open_checkpoint import processor_in
from rebus.train.config import TrainConfig
from rebus.train.warm_start import opened_once, starts_of


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
            raise UsageError("start_from says which model is to be trained: --set start_from=DIR, or a catalogue name")
        opened = opened_once(config.start_from)
        config = replace(config, system=config.system or opened.system.name, model=config.model or opened.config)
    system = catalog.system(str(config.system))
    check_trained(system)
    if not 0 <= config.wise_ft <= 1 or (config.wise_ft < 1 and not starts_of(config)):
        raise UsageError(f"wise_ft={config.wise_ft:g}: a share between 0 and 1, of a run that has a start_from")
    wanted = system.config
    if not isinstance(config.model, wanted):
        raise UsageError(
            f"system={config.system} wants a {wanted.__name__} as its model; got a {type(config.model).__name__}"
        )
    return config


def open_data(config: TrainConfig, data: Any = None) -> Batches:
    """What gives the batches of `data`, by default the recipe's own. Raises what the data set raises."""
    measured = data is not None or config.eval_every > 0
    data, system = config.data if data is None else data, catalog.system(str(config.system))
    if isinstance(data, Files):
        processor = processor_of(config)
        answers = _answers_of(config, data, processor)
        return file_batches(data, processor, system.prompts, system.locations, measured, answers)
    if isinstance(data, Mixture):
        return mixed_batches(data, processor_of(config), system.prompts, system.locations, measured)
    if isinstance(data, SceneCaptions):
        return _of_scenes(config, data.open())
    if isinstance(data, SceneTasks | SceneCaptionPairs | SceneQuestions):
        if system.text_spec is None:
            raise UsageError(f"{config.system} reads no text, which data.kind={data.kind!r} is made of")
        text = system.text_spec(config.model)
        if isinstance(data, SceneTasks):
            return _of_scenes(config, data.open(text, system.prompts, system.locations))
        if isinstance(data, SceneCaptionPairs):
            return _of_scenes(config, data.open(text))
        if "answers" not in system.companions:
            raise UsageError(f"{config.system} picks no answers from a list, as data.kind={data.kind!r} wants it to")
        return _of_scenes(config, data.open(text, system.prompts, system.companions["answers"].file))
    batches: Batches = data
    return batches


def _answers_of(config: TrainConfig, files: Files, processor: Processor) -> list[str] | None:
    """The list of a network that picks its answers from one: `files.answers`, which is saved with the model, or that
    beside the weights it starts from. Raises `UsageError` where it has another number of answers than the network."""
    system = catalog.system(str(config.system))
    companion = system.companions.get("answers")
    if companion is None or (system.tasks is not None and "ask" not in system.tasks(config.model)):
        return None
    folder = opened_once(config.start_from).folder if config.start_from is not None else None
    path = Path(files.answers) if files.answers is not None else folder and folder / companion.file
    if path is None or not path.is_file():
        raise UsageError(f"the answers that are picked from: --set data.answers=FILE, such as {companion.file}")
    answers: list[str] = companion.load(path)
    number = getattr(config.model, "num_answers", len(answers))
    if number != len(answers):
        raise UsageError(f"{path} lists {len(answers):,} answers, the network scores {number:,}")
    processor.sources[companion.file] = path.read_bytes()
    return answers


def _of_scenes(config: TrainConfig, batches: RecordBatches) -> RecordBatches:
    """The batches, of which a model with another vocabulary or image size would learn nonsense."""
    model: Any = config.model
    assert batches.images is not None
    tokens, size = batches.text.tokenizer.vocab_size, batches.images.spec.size[0]
    if model.text.vocab_size != tokens:
        raise UsageError(
            f"scenes are told in the {tokens:,} tokens of their own world; the model has {model.text.vocab_size:,}. "
            "Write them to a folder and learn from that (`rebus data`), or train a model of the scenes world"
        )
    if getattr(model.image, "image_size", size) != size:
        raise UsageError(f"the scenes have {size} pixels a side, the model's images {model.image.image_size}")
    return batches


def processor_of(config: TrainConfig) -> Processor:
    """The tokenizer and preprocessor that the recipe names, or those of the checkpoint that it starts from."""
    name = config.processor or config.start_from
    if name is None:
        raise UsageError("processor says whose tokenizer and preprocessor are used: --set processor=DIR")
    opened = opened_once(name)
    if opened.folder is None or (opened.system.name, opened.config) == (config.system, config.model):
        return opened.processor()
    system = catalog.system(str(config.system))
    fixed = system.image_spec is not None and not system.any_image_size and system.image_spec(config.model)
    side = fixed.size[0] if fixed and fixed.resize != "patches" else None
    return processor_in(opened.folder, system, config.model, image_size=side)
