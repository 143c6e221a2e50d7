import torch

from rebus.generation import generate
from rebus.generation.sampling import invert, shape
from tests.generation.tiny_writer import PAD, PROMPTS, TinyWriter


def sample(tokens, **options):
    network = TinyWriter(sharp=1.0)
    options = {"strategy": "sample", "max_new_tokens": 12} | options
    return generate(network, {"tokens": tokens}, eos_id=None, pad_id=PAD, **options)


def test_the_same_seed_gives_the_same_text_and_another_another():
    assert torch.equal(sample(PROMPTS, seed=3), sample(PROMPTS, seed=3))
    assert not torch.equal(sample(PROMPTS, seed=3), sample(PROMPTS, seed=4))


def test_a_list_of_seeds_gives_several_samples_of_one_prompt():
    prompts = PROMPTS[:1].expand(3, -1)
    tokens = sample(prompts, seed=[5, 6, 5])
    assert torch.equal(tokens[0], tokens[2])
    assert not torch.equal(tokens[0], tokens[1])
    assert torch.equal(tokens[1], sample(PROMPTS[:1], seed=6)[0])


def test_without_a_seed_the_global_generator_decides():
    torch.manual_seed(0)
    first = sample(PROMPTS)
    assert not torch.equal(first, sample(PROMPTS))
    torch.manual_seed(0)
    assert torch.equal(first, sample(PROMPTS))


def test_top_k_of_one_is_greedy():
    greedy = generate(TinyWriter(sharp=1.0), {"tokens": PROMPTS}, eos_id=None, pad_id=PAD, max_new_tokens=12)
    assert torch.equal(sample(PROMPTS, seed=0, top_k=1), greedy)


def test_draws_follow_the_distribution():
    scores = torch.tensor([[0.0, 1.0, -torch.inf, 2.0]]).expand(40_000, -1)
    uniform = torch.rand(40_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    drawn = invert(scores, uniform).bincount(minlength=4) / 40_000
    torch.testing.assert_close(drawn, scores[0].softmax(-1), atol=0.01, rtol=0)
    assert drawn[2] == 0


def test_the_ends_of_the_interval_draw_real_tokens():
    scores = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]]).expand(2, -1)
    assert invert(scores, torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)).tolist() == [1, 2]


def test_top_p_keeps_the_smallest_set_that_reaches_it():
    scores = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    assert (shape(scores, top_p=0.75) > -torch.inf).tolist() == [[True, True, False, False]]
    assert (shape(scores, top_p=0.1) > -torch.inf).tolist() == [[True, False, False, False]]
    assert (shape(scores, top_p=1.0) > -torch.inf).all()
