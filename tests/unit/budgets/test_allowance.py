import pytest

from gateway.budgets.allowance import Allowance
from gateway.budgets.claim import Claim, worst_case
from gateway.budgets.limit import Limit
from gateway.errors import StoreUnavailable
from gateway.inference.deployment import Price

TOKENS = Limit(amount=2_000, unit="tokens", per="day")
MONEY = Limit(amount=1_000_000, unit="nanousd", per="day")
PRICE = Price(input_nanousd=10**8, output_nanousd=10**9, cached_input_nanousd=0)
"""100 nano-dollars an input token, 1,000 an output token."""


def claim(**changes) -> Claim:
    defaults = {"input_tokens": 10, "output_tokens": 500, "price": PRICE, "tenant": "acme"}
    return Claim(id="r", feature="", limits=(), rate=None, **(defaults | changes))


def test_a_twentieth_of_each_limit():
    """The output is clamped to what a twentieth of the tightest limit leaves, then nothing is granted any more."""
    allowance = Allowance()
    assert (
        allowance.take(claim(), (TOKENS, MONEY), (0, 0)) == 49
    )  # 50,000 nano-dollars less 1,000; tokens would leave 90
    assert allowance.used("acme", TOKENS) == 59
    assert allowance.used("acme", MONEY) == 50_000
    with pytest.raises(StoreUnavailable, match="acme"):
        allowance.take(claim(), (TOKENS, MONEY), (0, 0))
    assert allowance.used("acme", TOKENS) == 59
    assert allowance.take(claim(tenant="globex"), (TOKENS,), (0,)) == 90


def test_what_was_reported_may_be_used_again():
    """The allowance bounds what the store does not know of yet."""
    allowance = Allowance()
    granted = worst_case(claim(), allowance.take(claim(), (TOKENS,), (0,)))
    allowance.change("acme", (TOKENS,), granted, -1)
    assert allowance.used("acme", TOKENS) == 0
    assert allowance.take(claim(), (TOKENS,), (0,)) == 90


def test_fewest_output_tokens():
    """Less than the request can use is not granted."""
    with pytest.raises(StoreUnavailable):
        Allowance().take(claim(min_output_tokens=91), (TOKENS,), (0,))


def test_free_output():
    """Money bounds no output that costs nothing; only its input has to fit."""
    free = Price(input_nanousd=10**8, output_nanousd=0, cached_input_nanousd=0)
    assert Allowance().take(claim(price=free), (MONEY,), (0,)) == 500
    with pytest.raises(StoreUnavailable):
        Allowance().take(claim(price=free, input_tokens=501), (MONEY,), (0,))


def test_tenant_that_only_has_a_rate():
    """Rates are not enforced without the store."""
    assert Allowance().take(claim(), (), ()) == 500


def test_what_the_store_said_last():
    """Beyond the limit a process spends its twentieth once, however often the store goes and comes."""
    allowance = Allowance()
    assert allowance.take(claim(), (TOKENS,), (1_950,)) == 90
    with pytest.raises(StoreUnavailable):
        allowance.take(claim(), (TOKENS,), (1_950,))
    allowance.change("acme", (TOKENS,), worst_case(claim(), 90), -1)  # it is reported: the store says 2,050
    assert allowance.take(claim(), (TOKENS,), (2_050,)) == 40
    with pytest.raises(StoreUnavailable):
        Allowance().take(claim(), (TOKENS,), (2_100,))
