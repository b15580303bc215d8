import math

import numpy as np
import pytest

from gateway.edge.model import native_spread
from gateway.edge.sampling import TOP_K, Sampler, Surprise
from gateway.inference.request import Sampling

VOCABULARY = 1_000


def row(**logits: float) -> np.ndarray:
    values = np.full(VOCABULARY, -8.0, dtype=np.float32)
    for name, value in logits.items():
        values[int(name.removeprefix("t"))] = value
    return values


def test_llama_cpp_tells_the_same_spread_as_numpy():
    """Rows of any length, with ties, infinities and logits far from zero: the same token, and the same figures."""
    native = native_spread()
    if native is None:
        pytest.skip("llama.cpp was built for a processor for which there is none")
    random = np.random.default_rng(4)
    for length in (1, 2, 7, 15, 16, 17, 1_023, 1_024, 1_025, 2_049, 49_152):
        for scale, moved in ((3.0, 0.0), (0.0, 5.0), (30.0, -4_000.0), (1e-3, 70.0)):
            logits = (random.normal(size=length) * scale + moved).astype(np.float32)
            if length > 2:
                logits[random.integers(length, size=length // 3)] = -np.inf
                logits[random.integers(length)] = moved
            expected, found = Surprise(length)(np.nan_to_num(logits, neginf=-1e30)), native(logits)
            assert found.top == expected.top
            for name in ("log_total", "mean"):
                assert getattr(found, name) - moved == pytest.approx(
                    getattr(expected, name) - moved, rel=1e-3, abs=2e-3
                )
            assert found.margin == pytest.approx(expected.margin, abs=1e-5)


def test_the_likeliest_token_is_found_wherever_it_stands():
    """First or last, in a full vector or in the rest; so is the second, beside it or far off."""
    for length in (1, 16, 33, 1_024, 1_100, 3_000):
        native = native_spread() or Surprise(length)
        for top in {0, length // 2, length - 1}:
            for second in {0, min(top + 1, length - 1), length - 1} - {top}:
                logits = np.zeros(length, dtype=np.float32)
                logits[top], logits[second] = 9.0, 8.0
                spread = native(logits)
                assert spread.top == top
                assert spread.margin == pytest.approx(
                    (math.e**9 - math.e**8) / np.exp(logits, dtype=float).sum(), abs=1e-5
                )


def sampler(**sampling) -> Sampler:
    return Sampler(Sampling(**sampling), Surprise(VOCABULARY))


@pytest.mark.parametrize("temperature", [None, 0.0, -1.0])
def test_without_temperature_the_likeliest_token_is_taken(temperature):
    """Greedy: always the largest logit."""
    assert sampler(temperature=temperature).choose(row(t7=3.0, t8=2.9)).token == 7


def test_log_probability_entropy_and_margin_are_the_models_own():
    """They are those of the softmax over the whole row, whatever the sampling."""
    logits = row(t1=2.0, t2=1.0, t3=0.5)
    exact = logits.astype(np.float64)
    probabilities = np.exp(exact) / np.exp(exact).sum()
    for temperature in (0.0, 0.3, 2.0):
        choice = sampler(temperature=temperature, seed=1, presence_penalty=0.5).choose(logits)
        assert choice.logprob == pytest.approx(math.log(probabilities[choice.token]), abs=1e-4)
        assert choice.entropy == pytest.approx(-(probabilities * np.log(probabilities)).sum(), abs=1e-4)
        assert choice.margin == pytest.approx(probabilities[1] - probabilities[2], abs=1e-6)
        assert choice.top == ()


@pytest.mark.parametrize("all_by", [-5_000.0, -59.0, 55.0, 62.0, 5_000.0])
def test_logits_of_any_size_say_the_same(all_by):
    """Only differences count: the same row, moved as far as may be, is as sure of the same."""
    logits = row(t1=2.0, t2=1.0, t3=0.5)
    expected, choice = (sampler(top_logprobs=2).choose(moved) for moved in (logits, logits + np.float32(all_by)))
    assert choice.token == expected.token
    for name in ("logprob", "entropy", "margin"):
        assert getattr(choice, name) == pytest.approx(getattr(expected, name), abs=1e-3)
    assert dict(choice.top) == pytest.approx(dict(expected.top), abs=1e-3)


def test_alternatives_are_the_likeliest_with_their_log_probabilities():
    """As many as were asked for, in order, of the model's own distribution; never more than there are tokens."""
    logits = row(t1=2.0, t2=1.0, t3=0.5)
    exact = logits.astype(np.float64)
    logprobs = exact - math.log(np.exp(exact).sum())
    choice = sampler(top_logprobs=3, presence_penalty=1.0).choose(logits)
    assert [token for token, _ in choice.top] == [1, 2, 3]
    assert [logprob for _, logprob in choice.top] == pytest.approx([logprobs[1], logprobs[2], logprobs[3]], abs=1e-4)
    assert len(sampler(top_logprobs=10**6).choose(logits).top) == VOCABULARY
    assert (sampler(top_logprobs=0).tells, sampler().tells) == (True, False)


def test_equally_likely_tokens_have_no_margin():
    """The margin is 0 where two tokens share the first place, and nearly 1 where one has it all."""
    assert sampler().choose(row(t1=2.0, t2=2.0)).margin == 0.0
    assert sampler().choose(row(t1=90.0)).margin == pytest.approx(1.0)


def test_sampling_follows_the_distribution():
    """Over many draws, tokens come as often as temperature says."""
    chooser = sampler(temperature=1.0, seed=3)
    logits = row(t1=math.log(0.6) + 20, t2=math.log(0.3) + 20, t3=math.log(0.1) + 20)
    drawn = np.array([chooser.choose(logits).token for _ in range(4_000)])
    for token, share in ((1, 0.6), (2, 0.3), (3, 0.1)):
        assert (drawn == token).mean() == pytest.approx(share, abs=0.04)


def test_the_same_seed_draws_the_same_tokens():
    """A seed makes sampling repeatable; another seed makes another series."""
    logits = np.random.default_rng(1).normal(size=VOCABULARY).astype(np.float32)

    def series(seed: int) -> list[int]:
        chooser = sampler(temperature=1.5, seed=seed)
        return [chooser.choose(logits).token for _ in range(30)]

    assert series(5) == series(5) != series(6)


def test_a_small_top_p_leaves_only_the_likeliest():
    """Top-p keeps the fewest tokens that have so much probability together, and at least one."""
    chooser = sampler(temperature=5.0, top_p=0.01, seed=2)
    assert {chooser.choose(row(t4=2.0, t5=1.0)).token for _ in range(50)} == {4}


def test_only_the_top_tokens_are_drawn():
    """However flat the distribution, nothing beyond the k largest is ever drawn."""
    logits = np.arange(VOCABULARY, dtype=np.float32) / 1_000
    chooser = sampler(temperature=50.0, seed=2)
    assert min(chooser.choose(logits).token for _ in range(500)) >= VOCABULARY - TOP_K


def test_penalties_push_away_what_was_said():
    """A token that was chosen loses its lead by presence and by count."""
    chooser = sampler(frequency_penalty=0.6)
    logits = row(t1=2.0, t2=1.0)
    assert [chooser.choose(logits).token for _ in range(4)] == [1, 1, 2, 1]
    once = sampler(presence_penalty=1.5)
    assert [once.choose(logits).token for _ in range(3)] == [1, 2, 1]


@pytest.mark.parametrize(
    "extreme",
    [
        {"temperature": 1e300},
        {"temperature": 1e-300},
        {"temperature": 1.0, "top_p": -5.0},
        {"temperature": 1.0, "top_p": 1e9},
        {"presence_penalty": -1e300, "temperature": 1.0},
        {"frequency_penalty": 1e300},
        {"seed": -(2**70), "temperature": 1.0},
    ],
)
def test_extreme_settings_still_choose_a_token(extreme):
    """No setting that is a number breaks the sampler."""
    chooser = sampler(**extreme)
    for _ in range(5):
        choice = chooser.choose(row(t1=9.0, t2=8.0))
        assert 0 <= choice.token < VOCABULARY
        assert choice.logprob <= 0 <= choice.entropy


@pytest.mark.parametrize(("top_k", "found"), [(1, 1), (3, 3), (None, TOP_K), (0, 200), (-1, 200), (10**12, 200)])
def test_top_k_is_how_many_can_be_drawn(top_k, found):
    """As many of the likeliest as were asked for; all with 0 or -1."""
    logits = np.full(VOCABULARY, -1_000.0, dtype=np.float32)
    logits[:200] = np.linspace(1.0, 0.9, 200)
    drawing = sampler(temperature=2.0, seed=4, top_k=top_k)
    drawn = {drawing.choose(logits).token for _ in range(4_000)}
    assert len(drawn) == found
    assert max(drawn) == found - 1
