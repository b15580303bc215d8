import pytest

from gateway.edge.formats import LADDER, TUNED, Measured, choose
from gateway.edge.quantization import _FILE_TYPES


def measured(name: str, speed: float, perplexity: float) -> Measured:
    return Measured(
        name=name, prefill_rate=speed, decode_rate=speed, model_bytes=1, perplexity=perplexity, agreement=0.9
    )


SOURCE = measured("source", 100, 10.0)
GOOD = measured("q8_0", 200, 10.2)
FAIR = measured("q5_0", 300, 10.5)
BAD = measured("q4_0", 400, 12.0)


@pytest.mark.parametrize(
    ("most_loss", "kept", "rolled_back"),
    [
        (0.0, "source", ["q4_0", "q5_0", "q8_0"]),
        (0.03, "q8_0", ["q4_0", "q5_0"]),
        (0.06, "q5_0", ["q4_0"]),
        (0.5, "q4_0", []),
    ],
)
def test_the_fastest_that_is_good_enough_is_kept(most_loss, kept, rolled_back):
    """Faster ones that lose more than is allowed are rolled back, the fastest first."""
    choice = choose([SOURCE, FAIR, BAD, GOOD], most_loss)
    assert choice.kept.name == kept
    assert [one.name for one in choice.rolled_back] == rolled_back


def test_a_slower_format_is_not_kept():
    """Where the file as it is is the fastest, it stays."""
    assert choose([SOURCE, measured("q8_0", 50, 9.0)], 0.1).kept is SOURCE


def test_what_is_on_the_ladder_can_be_made():
    """llama.cpp knows each format that we name."""
    assert set(_FILE_TYPES) == set(LADDER)
    assert set(TUNED) <= set(LADDER)
