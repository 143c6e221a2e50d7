"""The training loop: one, for every system, on one processor or many GPUs."""

import itertools
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rebus.codec.images import normalised
from rebus.core.atomic_write import write_bytes_atomically
from rebus.core.errors import BadCheckpoint, RebusError, UsageError
from rebus.core.machine import multiplies_bfloat16
from rebus.core.strict_json import to_json
from rebus.data.record_batches import Batches, MixedBatches, RecordBatches
from rebus.nn.frozen import round_frozen, unrounded
from rebus.objectives import Learner, Losses, backward, check_parts, measure, split
from rebus.objectives.losses import sum_of
from rebus.train import checkpoint, forgetting
from rebus.train.audit import audit, audit_words, show
from rebus.train.batch_norm import BatchNorms
from rebus.train.config import TrainConfig
from rebus.train.distributed import Ranks, average_replicated, clip_gradients, distribute, join_ranks
from rebus.train.ema import Average, averaged
from rebus.train.final_model import final_layout, save_final
from rebus.train.loss_spikes import LossGuard
from rebus.train.numbered_batches import NumberedBatches
from rebus.train.optim import make_optimisers, rate_at, set_rate
from rebus.train.prepare_blocks import prepare_blocks
from rebus.train.run_directory import check_claim, claim, cut
from rebus.train.setup import locations_of, open_data, resolved
from rebus.train.sharded_tensors import whole
from rebus.train.task_scores import task_scores
from rebus.train.trackers import Records, Watcher
from rebus.train.utilisation import Utilisation, memory_used
from rebus.train.warm_start import build, interpolate, starts_whole

log = logging.getLogger("rebus")

Report = Callable[[Mapping[str, Any]], None]


class Stopped(KeyboardInterrupt):
    """The run was interrupted (SIGTERM, Ctrl-C); the checkpoint of its last step is written."""


def train(config: TrainConfig, out: str | Path, report: Report | None = None) -> Path:
    """Start or resume a training run; returns the finished checkpoint's directory, `out/final`.

    `out` holds `config.json`, `metrics.jsonl`, `checkpoints/` and, at the end, `final/`. Called again with the same
    settings, or more `steps` where that changes nothing before, it resumes from the newest checkpoint, and the losses
    are those of a run that was never interrupted.
    `report` gets each line of the metrics. Under torchrun every rank calls it alike.

    Raises `UsageError` when `out` belongs to other settings or another run is at work in it, `RebusError` when the
    loss stays infinite or too much of the data is damaged, `Stopped` after SIGTERM or Ctrl-C.
    """
    out = Path(out)
    config = resolved(config)
    final_layout(config)  # or it would turn out at the end that the model cannot be saved
    with join_ranks(config.devices) as place:
        _check_batch(config, place)
        place.first(lambda: check_claim(config, out))
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        with place.alone(out):
            run = Run(config, place, out)
            run.go_on_or_begin()
            place.first(lambda: claim(config, out))  # not before all that a run needs was there
            with _told_to_stop() as stop:
                try:
                    for line in run.steps(stop):
                        if report is not None and place.leads:
                            report(line)
                finally:
                    run.saver.finish()
            return run.finish()


class Run:
    """A training run in progress."""

    def __init__(self, config: TrainConfig, place: Ranks, out: Path):
        self.config, self.place, self.out = config, place, out
        torch.manual_seed(config.seed)
        self.data = open_data(config)
        network, self.copied = build(config)
        self.learner = Learner(self._objective(), network)
        self.network = self.learner.network
        self.bf16 = config.bf16 and (place.device.type != "cpu" or multiplies_bfloat16())
        if config.bf16 and not self.bf16 and place.leads:
            log.warning("this processor has no bfloat16 products: bf16=true is ignored, float32 is many times as fast")
        if self.bf16:
            round_frozen(self.network)
        self.norms = BatchNorms(self.learner, config.batch_norm, place)
        self.norms.train()
        check_parts(self.learner, config.accumulate)
        prepare_blocks(self.network, config.devices)
        self.starts_anew = not starts_whole(config)
        self.folder = out / "checkpoints"
        self.saver = checkpoint.Saver(self.folder, config.keep, place.leads)
        self.guard = LossGuard(config.spike, config.seed, config.optim.lr)
        self.utilisation = Utilisation(config, place)
        self.records = Records(self.data.most_damaged)
        self.start = 0

    def _objective(self) -> Any:
        """The recipe's; one that has to know the data first is shown its batches and the processor."""
        config = self.config
        prepared = getattr(config.objective, "prepared", None)
        if prepared is None:
            return config.objective
        batches = (self.data.batch(config.seed, i, config.batch_size) for i in itertools.count())
        return prepared(self.data.processor, batches)

    def go_on_or_begin(self) -> None:
        """Take the weights of the newest checkpoint, or set those of the beginning."""
        self.start = self.place.first(lambda: checkpoint.newest(self.folder))
        begin = getattr(self.config.objective, "begin", None)
        if not self.start and begin is not None and self.starts_anew:
            begin(self.network, self.data.batch(self.config.seed, 0, self.config.batch_size))
        distribute(self.learner, self.place, self.bf16)
        self.optimisers = make_optimisers(self.network, self.config.optim)
        self.average = Average(self.network, self.config.ema) if self.config.ema else None
        self.state = checkpoint.State(self.network, self.optimisers, self.average)
        if self.start:
            if self.start > self.config.steps:
                raise BadCheckpoint(
                    f"{self.folder}: a checkpoint of step {self.start:,}; the run has {self.config.steps:,}"
                )
            facts = checkpoint.load(self.folder, self.start, self.state)
            try:
                self.guard.restore(facts["guard"])
                self.records.restore(facts["records"])
                if self.average is not None:
                    self.average.steps = int(facts["averaged"])
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                where = f"{self.folder}: {checkpoint.STATE} of step {self.start:,}"
                raise BadCheckpoint(f"{where} is damaged ({error!r}). Remove that folder") from None
        if self.place.leads:
            self.out.mkdir(parents=True, exist_ok=True)
            if self.copied:  # parameter → the checkpoint that it was taken from
                record = to_json(self.copied, indent=2, ensure_ascii=False) + "\n"
                write_bytes_atomically(self.out / "started_from.json", record.encode())
            cut(self.out / "metrics.jsonl", self.start)
        if not self.start:
            self._look_before()

    def _look_before(self) -> None:
        """Show the first batch and search it for leaks; measure what a fine-tuning starts from."""
        if self.data.processor is not None:
            batch = _first(self.data.batch(self.config.seed, 0, self.config.batch_size))
            if self.place.leads:
                show(batch, self.data.processor, self.out / "first_batch")
            if isinstance(self.data, RecordBatches | MixedBatches):
                audit_words(self.data.texts(self.config.seed, 0, self.config.batch_size), self.data.processor)
            audit(batch, self.data.processor)
        if self.config.start_from is not None and self.config.eval_every:
            scores = self._scores()
            if self.place.leads:
                forgetting.write_before(self.out, scores)

    def _scores(self) -> dict[str, dict[str, float]]:
        """Held-out losses and scores of the task on the new data, and on what must not be forgotten."""
        other = self.config.retention
        sets = {"new": self.data} | ({} if other is None else {"retention": open_data(self.config, other)})
        return {name: self.held_out(data) | self._task_scores(data) for name, data in sets.items()}

    def _task_scores(self, data: Batches) -> dict[str, float]:
        """Of one process: texts end at different steps, so that ranks would wait for one another."""
        batches = self._batches(data, "val", 0, range(self.config.eval_batches), workers=0)
        with self._autocast():
            each = (own for batch in batches for own in self._mixture(batch, data)) if self.place.ranks == 1 else ()
            return task_scores(self.learner, each, data.processor, locations_of(self.config))

    def steps(self, stop: list[bool]) -> Iterator[dict[str, Any]]:
        """Every step as a line of the metrics, which is also written down."""
        config = self.config
        watcher = Watcher(config.watch, self.out, self.start) if self.place.leads else None
        lines = (self.out / "metrics.jsonl").open("a") if self.place.leads else None
        try:
            for line in self._learn():
                step = line["step"]
                if config.eval_every and (step % config.eval_every == 0 or step == config.steps):
                    with averaged(self.average):
                        line |= {f"val_{name}": value for name, value in self.held_out(self.data).items()}
                        self._draw(step)
                if lines is not None and watcher is not None:
                    lines.write(to_json(line) + "\n")
                    lines.flush()
                    watcher.write(line)
                ends = self.place.any(stop[0])
                if step % config.save_every == 0 or step == config.steps or ends:
                    self.save(step)
                self.saver.poll()
                yield line
                if ends and step < config.steps:
                    raise Stopped
        finally:
            if lines is not None:
                lines.close()
            if watcher is not None:
                watcher.close()

    def _learn(self) -> Iterator[dict[str, Any]]:
        config = self.config
        self.norms.train()
        began = waited_from = time.monotonic()
        numbers = range(self.start, config.steps)
        for step, batch in enumerate(self._batches(self.data, "train", config.seed, numbers), start=self.start + 1):
            waited = time.monotonic() - waited_from
            damaged = self.records.count(batch.pop("damaged", []), config.batch_size // self.place.parts)
            torch.manual_seed(config.seed + step)  # dropout and the like depend on the step alone
            self.norms.before_step()
            losses, norm = self._gradients(batch)
            rate = rate_at(config.optim, step, config.steps)
            loss = float(losses.total)
            line: dict[str, Any] = {"step": step, "loss": loss}
            if self.guard.accepts(step, loss, norm):
                self._move(rate)
                self.norms.after_step()
            else:
                self.norms.leave_out()
                line["skipped"] = self.guard.skipped
            line |= {k: float(v) for k, v in losses.parts.items()} | {"lr": rate, "norm": norm}
            line |= {"damaged": damaged} if damaged else {}
            now = time.monotonic()
            line |= {"seconds": round(now - began, 3), "waited": round(waited, 4)}
            speed = config.batch_size / max(now - waited_from, 1e-9)
            line |= {"examples_per_second": round(speed, 2), **self.utilisation.of(speed)}
            line |= memory_used(self.place.device)
            yield line
            waited_from = time.monotonic()

    def _gradients(self, batch: dict[str, Tensor]) -> tuple[Losses, float]:
        self.learner.zero_grad(set_to_none=True)
        try:
            batches = [split(own, self.config.accumulate) for own in self._mixture(batch, self.data)]
            losses = sum_of([backward(self.learner, parts, self._autocast) for parts in batches])
        except torch.OutOfMemoryError as error:
            raise RebusError(
                f"out of memory at batch_size={self.config.batch_size} in {self.config.accumulate} parts; try "
                f"--set accumulate={2 * self.config.accumulate} or --set devices.recompute=true"
            ) from error
        average_replicated(self.learner, self.place)
        return losses, clip_gradients(self.learner, self.config.optim.clip_norm)

    def _move(self, rate: float) -> None:
        set_rate(self.optimisers, rate)
        for optimiser in self.optimisers:
            optimiser.step()
        if self.average is not None:
            self.average.update()

    def held_out(self, data: Batches) -> dict[str, float]:
        """Mean losses over the same few batches of the split "val" each time."""
        self.learner.eval()
        sums: dict[str, float] = {}
        for batch in self._batches(data, "val", 0, range(self.config.eval_batches), workers=0):
            batch.pop("damaged", None)
            with self._autocast():
                losses = sum_of([measure(self.learner, own) for own in self._mixture(batch, data)])
            for key, value in {"loss": losses.total, **losses.parts}.items():
                sums[key] = sums.get(key, 0.0) + float(value) / self.config.eval_batches
        self.norms.train()
        return sums

    def _draw(self, step: int) -> None:
        if not self.config.watch.gallery or self.data.processor is None:
            return
        from rebus.train.gallery import draw

        self.learner.eval()
        number = self.config.watch.gallery + self.config.watch.gallery % 2  # rows that swap captions come in pairs
        batch = _first(self.data.batch(0, 0, number, "val"))
        out = self.out if self.place.leads else None
        with self._autocast():
            draw(self.learner, self._ready(batch, self.data), self.data.processor, out, step)
        self.norms.train()

    def save(self, step: int) -> None:
        """Begin to write the checkpoint of a step."""
        averaged_steps = self.average.steps if self.average is not None else 0
        facts = {"guard": self.guard.state(), "records": self.records.state(), "averaged": averaged_steps}
        self.saver.save(step, self.state, facts)

    def finish(self) -> Path:
        """Write `final/`."""
        final = self.out / "final"
        with averaged(self.average):
            interpolate(self.network, self.config, self.copied)
            if forgetting.was_measured(self.out):
                scores = self._scores()
                if self.place.leads:
                    forgetting.write_report(self.out, scores)
            network = self._gathered()
            if self.place.leads:
                save_final(self.config, network, self.data.processor, final)
        self.place.wait()
        return final

    def _gathered(self) -> nn.Module:
        """The network in one piece, on the processor of the leading rank, with the frozen weights as they were."""
        rounded = any(parameter.dtype == torch.bfloat16 for parameter in self.network.parameters())
        if self.place.ranks == 1 and not rounded:
            network: nn.Module = self.network.cpu()
            return network
        weights = {name: whole(value).cpu() for name, value in self.network.state_dict().items()}
        network = build(self.config).network
        network.load_state_dict(unrounded(weights, network.state_dict()))
        return network

    def _batches(
        self, data: Batches, split: str, seed: int, numbers: range, workers: int | None = None
    ) -> Iterator[dict[str, Any]]:
        share, pinned = (self.place.part, self.place.parts), self.place.device.type == "cuda"
        batches = NumberedBatches(data, seed, self.config.batch_size, split, share)
        return batches.of(numbers, self.config.workers if workers is None else workers, pinned)

    def _mixture(self, batch: Mapping[str, Any], data: Batches) -> list[dict[str, Tensor]]:
        """The batch, or those of all data sets that a step learns from together."""
        if "mixture" not in batch:
            return [self._ready(batch, data)]
        return [
            {**self._ready(own, data), "weight": torch.tensor(weight, device=self.place.device)}
            for weight, own in batch["mixture"]
        ]

    def _ready(self, batch: Mapping[str, Any], data: Batches) -> dict[str, Tensor]:
        found = {n: v.to(self.place.device, non_blocking=True) for n, v in batch.items() if isinstance(v, Tensor)}
        if "pixels" in found and found["pixels"].dtype == torch.uint8:
            assert data.processor is not None
            assert data.processor.image is not None
            found["pixels"] = normalised(found["pixels"], data.processor.image.spec)
        return found

    def _autocast(self) -> torch.autocast:
        """For one rank. On several FSDP casts, or each would keep bfloat16 copies of weights that it has a share of."""
        bf16 = self.bf16 and self.place.mesh is None
        return torch.autocast(self.place.device.type, torch.bfloat16, enabled=bf16)


def _first(batch: dict[str, Any]) -> dict[str, Any]:  # of a mixture the batch of its first data set
    return batch["mixture"][0][1] if "mixture" in batch else batch


def _check_batch(config: TrainConfig, place: Ranks) -> None:
    parts = place.parts * config.accumulate
    if config.accumulate < 1 or config.batch_size % parts:
        over = f" on each of {place.parts} ranks" if place.parts > 1 else ""
        raise UsageError(
            f"a batch_size of {config.batch_size} does not divide into {config.accumulate} equal parts "
            f"(accumulate){over}"
        )
    objective = config.objective
    if place.parts > 1 and not hasattr(objective, "compare") and not hasattr(objective, "examples"):
        raise UsageError(f"the objective {objective.kind!r} needs the whole batch on one rank: start one process")


@contextmanager
def _told_to_stop() -> Iterator[list[bool]]:
    """A flag that SIGTERM and Ctrl-C set; a second Ctrl-C interrupts at once. In a thread that is not the main one,
    signals stay as they are."""
    flag = [False]

    def told(number: int, _: Any) -> None:
        if flag[0] and number == signal.SIGINT:
            raise KeyboardInterrupt
        flag[0] = True

    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = {number: signal.signal(number, told) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
