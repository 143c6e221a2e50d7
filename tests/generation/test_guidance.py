import pytest
import torch

from rebus.core.errors import UsageError
from rebus.generation import Guidance, generate
from rebus.generation.guidance import GuidedWriter
from tests.generation.tiny_writer import EOS, PAD, PROMPTS, TinyWriter


def test_scores_go_from_the_second_prompt_through_the_first():
    network, other = TinyWriter(), PROMPTS.flip(0)
    writer = GuidedWriter(network, Guidance(scale=3.0, batch={"tokens": other}))
    step = writer.start(room=2, tokens=PROMPTS)
    step = writer.step(torch.full((6,), 4), step.cache.select(torch.arange(6)))

    def after(prompt):
        return network.step(torch.full((6,), 4), network.start(room=2, tokens=prompt).cache).logits.log_softmax(-1)

    torch.testing.assert_close(step.logits, after(other) + 3.0 * (after(PROMPTS) - after(other)))


def test_the_second_prompt_may_be_one_for_all():
    network = TinyWriter()
    for_all = Guidance(scale=2.0, batch={"tokens": PROMPTS[:1]})
    for_each = Guidance(scale=2.0, batch={"tokens": PROMPTS[:1].expand(6, -1)})
    a, b = (
        generate(network, {"tokens": PROMPTS}, eos_id=EOS, pad_id=PAD, max_new_tokens=5, guidance=g)
        for g in (for_all, for_each)
    )
    assert torch.equal(a, b)


def test_another_number_of_rows_is_refused():
    guidance = Guidance(scale=2.0, batch={"tokens": PROMPTS[:2]})
    with pytest.raises(UsageError, match="second prompt of 6 rows or one; got 2"):
        generate(TinyWriter(), {"tokens": PROMPTS}, eos_id=EOS, pad_id=PAD, guidance=guidance)
