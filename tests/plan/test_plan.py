"""Steps, time and money; what is refused; and the published runs of docs/tasks/plan.md."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from rebus.core.errors import RebusError, UnknownName, UsageError
from rebus.plan import GPUS, Learning, Settings, plan, read_count, read_data, read_gpus
from rebus.plan.configuration import configuration

DOCS = Path(__file__).parents[2] / "docs" / "tasks" / "plan.md"


def settings(name="clip/b32", data="10M", gpus="8xh100", **changed):
    number, gpu = read_gpus(gpus)
    return Settings(name=name, data=read_data(data), number=number, gpu=gpu, **changed)


def test_time_and_money_follow_from_the_arithmetic():
    found = plan(settings(batch=8192, epochs=2))
    forward_and_back = sum(p.forward + p.backward for p in found.parts) + found.loss_flops
    assert found.steps == 2442  # 20M / 8192, rounded up
    assert found.step_flops == found.model_flops == 8192 * forward_and_back
    products = found.step_flops / (8 * 989.4e12 * 0.4)
    update = 28 * 151_277_313 / 3350e9
    assert found.step_seconds == pytest.approx(products + update)
    assert found.gpu_hours == pytest.approx(8 * found.seconds / 3600)
    assert found.cost == pytest.approx(2.5 * found.gpu_hours)
    assert found.model_utilisation < 0.4
    assert plan(settings(batch=8192, examples=20_000_000)).seconds == found.seconds
    assert plan(settings(batch=8192, epochs=2, utilisation=0.2)).seconds > 1.9 * found.seconds
    assert plan(settings(batch=8192, epochs=2, price=5.0)).cost == pytest.approx(2 * found.cost)


def test_a_batch_that_does_not_fit_goes_in_parts():
    found = plan(settings(gpus="8x4090", batch=32_768))
    assert found.rounds > 1
    assert found.at_a_time * found.rounds * 8 == 32_768
    assert found.at_a_time <= found.most
    assert found.memory.total <= found.available
    assert found.step_flops - found.model_flops == 32_768 * sum(p.forward for p in found.parts)  # vectors first
    once = plan(settings(gpus="8x4090", batch=32_768, checkpointing=True))
    assert once.at_a_time > found.at_a_time


def test_what_does_not_fit_is_said():
    assert not plan(settings("paligemma/v2-28b-pt-224", gpus="h100")).fits
    assert plan(settings("paligemma/3b-pt-224", gpus="h100", learning=Learning(rank=8, lora=("text",)))).fits


def test_sharding_is_chosen_where_copies_leave_no_room():
    assert plan(settings("clip/b32")).division.sharding == "ddp"
    assert plan(settings("paligemma/3b-pt-224")).division.sharding == "fsdp"
    assert plan(settings("paligemma/3b-pt-224", gpus="h100")).division.sharding == "ddp"


def test_tensor_parallelism_repeats_what_lies_outside_of_blocks():
    alone = plan(settings("paligemma/3b-pt-224", batch=64))
    shared = plan(settings("paligemma/3b-pt-224", batch=64, tensor_parallel=4, sharding="fsdp+tp"))
    repeated = shared.step_flops - alone.step_flops
    scores = 3 * 2 * (128 - 16) * 2048 * 257_152  # of the next tokens, forward and back
    assert 64 * 3 * scores < repeated < 64 * 3 * 1.3 * scores  # and one head of keys, and the patches


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"batch": 1001}, "1,000 or 1,008"),
        ({"gpus": "10xh100", "tensor_parallel": 5}, "12 heads"),
        ({"learning": Learning(frozen=("imag",))}, '"image"'),
        ({"learning": Learning(frozen=("image", "image_proj", "text", "text_proj", "log_scale"))}, "nothing is left"),
        ({"gpus": "8xtpu-v4", "bf16": False}, "float32 peak"),
        ({"name": "paligemma/3b-pt-224", "gpus": "9xh100", "tensor_parallel": 3}, "16 heads"),
        ({"name": "paligemma/3b-pt-224", "gpus": "9xh100", "tensor_parallel": 2}, "do not divide"),
    ],
)
def test_refusals(changed, said):
    with pytest.raises(UsageError, match=said):
        plan(settings(**changed))


def test_gpus_and_data_are_read():
    assert read_gpus("64xh100") == (64, GPUS["h100"])
    assert read_gpus("4090") == (1, GPUS["4090"])
    assert read_gpus("8 × A100-80") == (8, GPUS["a100-80"])
    assert read_count("12.8B", "--examples") == 12_800_000_000
    assert read_data("10M").examples == 10_000_000
    assert read_data("COYO-700M").examples == 746_972_269
    for text, said in (("64xh10", '"h100"'), ("0xh100", "from 1"), ("x", "no GPU"), ("", "like 64xh100")):
        with pytest.raises(UsageError, match=said):
            read_gpus(text)
    for text in ("0", "1Q", "1e30", "-5", "9" * 40):
        with pytest.raises(UsageError, match="number like"):
            read_data(text)
    with pytest.raises(UnknownName, match='"coco"'):
        read_data("cocoo")
    with pytest.raises(UsageError, match="put together"):
        plan(settings("asif/starter"))


@pytest.mark.parametrize("gpu", GPUS.values(), ids=lambda gpu: gpu.name)
def test_every_gpu_plans(gpu):
    found = plan(settings(gpus=f"2x{gpu.name}", batch=64))
    assert found.fits
    assert found.assumptions[-1].endswith(gpu.source)


@dataclass(frozen=True)
class Run:
    """A run whose hardware and time were published."""

    name: str
    gpus: str
    examples: float
    hours: float
    source: str
    checkpointing: bool = False
    batch: int | None = None


OPENAI, OPEN_CLIP = "Radford et al. 2021, Sec. 2.5", "open_clip, docs/PRETRAINED.md"
RUNS = [
    Run("clip/l14", "256xv100", 12.8e9, 12 * 24, OPENAI, True),
    Run("clip/rn50x64", "592xv100", 12.8e9, 18 * 24, OPENAI, True),
    Run("clip/b32-laion2b", "128xa100-40", 13e9, 36, OPEN_CLIP),
    Run("clip/b16-laion2b", "176xa100-40", 13e9, 61, OPEN_CLIP, batch=33_792),
    Run("clip/b16-plus-240", "224xa100-40", 13e9, 61, OPEN_CLIP, batch=35_840),
    Run("clip/l14-laion2b", "400xa100-40", 13e9, 127, OPEN_CLIP, True, 38_400),
    Run("clip/bigg14", "512xa100-80", 2e9, 2e9 / 10_450 / 3600, "laion.ai/blog/giant-openclip", True),
    Run("clip/g14", "8xa100-80", 1e9, 1e9 / 559 / 3600, "NVIDIA NeMo, CLIP performance"),
    Run("clip/g14", "8xh100", 1e9, 1e9 / 935 / 3600, "NVIDIA NeMo, CLIP performance"),
    Run("paligemma/3b-pt-224", "256xtpu-v5e", 1e9, 384e9 / (5189 * 256) / 3600, "Beyer et al. 2024", True),
]
HEAD = "| run | examples | published | planned at 40 % | the published time means | source |\n" + "| --- " * 6 + "|"


def row(run: Run) -> str:
    number, gpu = read_gpus(run.gpus)
    found = plan(
        settings(run.name, "1B", run.gpus, examples=int(run.examples), checkpointing=run.checkpointing, batch=run.batch)
    )
    work = found.step_flops * found.steps
    if found.rounds > 1 and found.trace.contrast:  # they had room for a whole batch
        work -= sum(p.forward for p in found.parts) * found.batch * found.steps
    ours = work / (number * gpu.peak(True) * 0.4) / 3600
    share = work / (run.hours * 3600) / (number * gpu.peak(True))
    twice = ", checkpointing" if run.checkpointing else ""
    return (
        f"| {run.name}, {number} × {gpu.title}{twice} | {run.examples / 1e9:.3g}B | {_time(run.hours)} | "
        f"{_time(ours)} | {share:.0%} | {run.source} |"
    )


def _time(hours: float) -> str:
    return f"{hours:.0f} h" if hours < 100 else f"{hours / 24:.1f} days"


@pytest.mark.slow
def test_the_published_runs_in_the_docs_are_those_of_the_plan():
    table = "\n".join([HEAD, *map(row, RUNS)])
    assert table in DOCS.read_text(), f"the table in docs/tasks/plan.md should read:\n{table}"


def test_errors_are_one_line():
    with pytest.raises(RebusError) as error:
        configuration("clip/b23")
    assert "\n" not in str(error.value)
    assert '"clip/b32"' in str(error.value)
