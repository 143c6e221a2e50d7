"""Florence-2: many tasks in one model, against one model each.

Xiao et al., "Florence-2: Advancing a Unified Representation for a Variety of Vision Tasks", 2024.
"""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from rebus.backbones.text.bart import BARTConfig
from rebus.backbones.vision.davit import DaViTConfig
from rebus.generation import generate
from rebus.models.unified.florence2 import Florence2
from rebus.models.unified.florence2_config import Florence2Config
from rebus.objectives import NextTokenLoss
from rebus.reproduce import located_world as world
from rebus.reproduce.claim import Claim, Line, Plot, Read, Statement
from rebus.reproduce.train_in_memory import fit, rows_at
from rebus.train.config import Optim
from rebus.train.warm_start import grid_waves

SETTINGS = ("together", "apart, same compute", "apart, same steps")


@dataclass(frozen=True, kw_only=True)
class Budget:
    steps: int = 1100  # of the model of all tasks
    batch_size: int = 32
    images: int = 5000
    test: int = 400  # images, of which each task is asked
    lr: float = 1e-3
    width: int = 64
    waves: float = 3.0  # length of the waves in the positions, as in the recipes of scenes


def network(budget: Budget) -> Florence2:
    """The library's Florence-2 in the small. Its layers begin as torch's: with deviations of 0.02, as the release has
    them, so few channels carry next to nothing of the image. Positions begin as waves."""
    width = budget.width
    made = Florence2(
        Florence2Config(
            image=DaViTConfig(
                widths=(width // 2, width),
                depths=(1, 1),
                num_heads=(2, 2),
                num_groups=(2, 2),
                patch_sizes=(7, 3),
                strides=(4, 2),
                paddings=(3, 1),
                window=4,
                mlp_ratio=2.0,
                drop_path=0.0,
                image_size=world.SIZE,
            ),
            text=BARTConfig(
                width=width,
                num_layers=2,
                num_decoder_layers=2,
                num_heads=2,
                mlp_width=2 * width,
                vocab_size=world.VOCAB_SIZE,
                context=64,
                pad_id=world.PAD,
                bos_id=world.START,
                eos_id=world.END,
                start_id=world.END,
            ),
            num_positions=8,
            num_frames=1,
            image_id=world.IMAGE,
        )
    )
    for module in made.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.reset_parameters()
    nn.init.orthogonal_(made.image_proj.weight)
    rows, columns = made.cfg.image.grid
    waves = budget.waves * grid_waves(rows, columns, width).unflatten(0, (rows, columns))
    with torch.no_grad():
        made.columns.weight[:columns] = waves[0, :, : width // 2]
        made.rows.weight[:rows] = waves[:, 0, width // 2 :]
    return made


def measure(budget: Budget, setting: str, seed: int) -> dict[str, float]:
    """Accuracy on each task, and their mean."""
    pixels, things = world.draw(seed, budget.images)
    groups = [world.TASKS] if setting == "together" else [(task,) for task in world.TASKS]
    steps = budget.steps // len(world.TASKS) if setting == "apart, same compute" else budget.steps
    found: dict[str, float] = {}
    for tasks in groups:
        torch.manual_seed(seed)
        made = network(budget)
        num_image = made.cfg.num_image_tokens

        def batch(index: int, tasks: tuple[str, ...] = tasks, num_image: int = num_image) -> dict[str, Tensor]:
            rows = rows_at(seed, index, budget.batch_size, budget.images)
            some = world.Things(*([part[row] for row in rows.tolist()] for part in things))
            asked = [tasks[i % len(tasks)] for i in range(len(rows))]
            given, _ = world.texts(some, asked, np.random.default_rng([seed, index]), num_image)
            return {"pixels": pixels[rows], **given}

        fourth = steps // 4
        optim = Optim(lr=budget.lr, warmup=min(100, fourth), matrices="muon", schedule="constant", cooldown=fourth)
        fit(made, NextTokenLoss(places=world.PLACES), batch, optim, steps)
        found |= {task: _share_right(budget, made, task, seed) for task in tasks}
    return {**found, "mean": sum(found.values()) / len(found)}


def _share_right(budget: Budget, made: Florence2, task: str, seed: int) -> float:
    pixels, things = world.draw(1000 + seed, budget.test)
    given, right = world.texts(things, [task] * budget.test, np.random.default_rng(seed), made.cfg.num_image_tokens)
    given.pop("targets")
    batch = {"pixels": pixels, **given}
    written = generate(cast(Any, made), batch, eos_id=world.END, pad_id=world.PAD, max_new_tokens=world.ANSWER)
    answers = written.tolist()
    return float(np.mean([world.is_right(task, *pair) for pair in zip(answers, right, strict=True)]))


BUDGET = Budget()


def florence2(budget: Budget = BUDGET) -> Claim:
    together, same_compute, same_steps = SETTINGS
    figures = (*world.TASKS, "mean")
    return Claim(
        name="florence2",
        paper="Xiao et al., 2024 (Florence-2), the comparison of pre-training tasks (recalled, not re-read).",
        says="One model with one set of weights learns tasks of every granularity, of the whole image and of its "
        "regions, and what it learns of one serves the others: trained on all it transfers better than on some.",
        here="The library's Florence-2 in the small (a DaViT of two stages, a BART of two layers each side, width 64) "
        "learns to name the colours of two or three things from left to right, to find the box of a colour, and to "
        "name the colour in a box. One model of all three is compared with one model each, which share its steps, and "
        "with one model each of as many steps, which cost three times as much.",
        settings=SETTINGS,
        seeds=(4, 5, 6),
        budget=budget,
        measure=measure,
        table=figures,
        statements=(
            Statement(
                "For the same compute one model of all tasks answers better, in the mean of the tasks.",
                Read(together, "mean"),
                Read(same_compute, "mean"),
            ),
            Statement(
                "It finds boxes better than a model that is trained on nothing else, for the same compute.",
                Read(together, "find"),
                Read(same_compute, "find"),
            ),
            Statement(
                "With a third of the compute it is within five points of one model each, in the mean of the tasks.",
                Read(together, "mean"),
                Read(same_steps, "mean"),
                least=-0.05,
            ),
        ),
        plots=(
            Plot(
                title="Florence-2: one model, or one a task",
                x="task",
                y="accuracy",
                lines=tuple(Line(way, tuple((task, Read(way, task)) for task in figures)) for way in SETTINGS),
            ),
        ),
        minutes=16.5,
    )
