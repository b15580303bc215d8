import pytest

from gateway.edge import threads
from gateway.edge.threads import candidates, choose, fastest


@pytest.mark.parametrize(
    ("cores", "counts"), [(1, [1]), (2, [1]), (3, [1, 2]), (4, [1, 2, 3]), (9, [1, 2, 4, 8]), (64, [1, 2, 4, 8, 16])]
)
def test_the_gateway_keeps_a_core(cores, counts):
    """What is tried never takes all cores, and is not more than a small model is worth."""
    assert candidates(cores) == counts


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ({1: 1.0, 2: 0.6, 4: 0.4}, 4),
        ({1: 1.0, 2: 0.6, 4: 0.58}, 2),
        ({1: 1.0, 2: 0.95, 4: 0.92}, 1),
        ({1: 1.0, 2: 1.5, 4: 0.5}, 4),
    ],
)
def test_more_threads_have_to_be_worth_it(seconds, best):
    """A step up counts when it saves a tenth of the time."""
    assert fastest(seconds) == best


def test_what_was_said_is_not_measured(monkeypatch):
    """A number is taken as it is; where there is only one candidate, nothing is measured either."""

    def never(count: int) -> float:
        raise AssertionError(count)

    assert choose(3, never) == 3
    monkeypatch.setattr(threads, "usable_cores", lambda: 2)
    assert choose(0, never) == 1
    monkeypatch.setattr(threads, "usable_cores", lambda: 4)
    assert choose(0, {1: 1.0, 2: 0.5, 3: 0.49}.__getitem__) == 2
