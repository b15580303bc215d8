import pytest

from gateway.budgets.claim import Claim, Left
from gateway.budgets.limit import Limit, Rate
from gateway.budgets.refusal import budget_spent, larger_than_rate, rate_limited
from gateway.inference.deployment import Price

CLAIM = Claim(
    id="r",
    tenant="acme",
    feature="chat",
    limits=(),
    rate=Rate(requests=600, tokens=200_000, per_s=60),
    input_tokens=1_500,
    output_tokens=1_000,
    price=Price(input_nanousd=10**9, output_nanousd=10**9, cached_input_nanousd=0),
)


@pytest.mark.parametrize(
    ("limit", "left", "parts"),
    [
        (
            Limit(amount=2_000_000, unit="tokens", per="day"),
            12,
            ["2,000,000 tokens per day:", "12 tokens left", "at least 1,501 tokens", "1970-01-02 00:00:00 UTC"],
        ),
        (
            Limit(amount=50_000_000_000, unit="nanousd", per="month", feature="chat"),
            1_250_000,
            ["50.00 USD per month for feature 'chat'", "0.00125 USD left", "at least 0.001501 USD"],
        ),
    ],
)
def test_spent_budget(limit, left, parts):
    """The sentence names tenant, budget, what is left, what is needed and when it resets."""
    error = budget_spent(CLAIM, Left(limit, left, 400.0), 86_000)
    for part in ["'acme'", *parts]:
        assert part in error.message


def test_rate():
    """The sentence names tenant, rate and when to try again; the header says the same in whole seconds."""
    assert rate_limited(CLAIM, 1.1).headers == {"retry-after": "2"}  # who comes in time is not refused again
    error = rate_limited(CLAIM, 1.5)
    assert "'acme'" in error.message
    assert "600 requests and 200,000 tokens in 60 s" in error.message
    assert "1.5 s" in error.message
    assert error.headers == {"retry-after": "2"}


def test_larger_than_the_rate():
    """Waiting would not help, so no time is named, and SDKs do not try again."""
    error = larger_than_rate(CLAIM)
    assert "1,501 tokens" in error.message
    assert error.headers == {"x-should-retry": "false"}
