import pytest

from gateway.budgets.claim import Charge, Claim, Hold, Left, applying, grant_headers, worst_case
from gateway.budgets.limit import Limit
from gateway.inference.deployment import FREE, Price
from gateway.inference.usage import Usage

DAY = Limit(amount=100, unit="tokens", per="day")
RESERVED = Charge(tokens=30, nanousd=7, input_tokens=10, output_tokens=20, estimated=True)


def claim(price=FREE) -> Claim:
    return Claim(
        id="r", tenant="t", feature="", limits=(), rate=None, input_tokens=1_000, output_tokens=10, price=price
    )


def test_worst_case_is_rounded_up():
    """A part of a nano-dollar is reserved as a whole one, for input and output each."""
    price = Price(input_nanousd=1, output_nanousd=1, cached_input_nanousd=0)
    assert worst_case(claim(price), 10).nanousd == 2
    assert worst_case(claim(price), 10).tokens == 1_010


def test_tokens_with_prices_of_their_own():
    """Reasoning, audio and rejected predictions cost what policy says, and never more tokens than there are."""
    price = Price(
        input_nanousd=10**6,
        output_nanousd=2 * 10**6,
        cached_input_nanousd=5 * 10**5,
        audio_input_nanousd=10 * 10**6,
        reasoning_nanousd=3 * 10**6,
        audio_output_nanousd=20 * 10**6,
        rejected_prediction_nanousd=0,
    )
    cost = price.cost_nanousd(
        input_tokens=100,
        cached_input_tokens=40,
        audio_input_tokens=10,
        output_tokens=100,
        reasoning_tokens=20,
        audio_output_tokens=10,
        rejected_prediction_tokens=30,
    )
    assert cost == 50 + 20 + 100 + 40 * 2 + 60 + 200
    assert price.cost_nanousd(input_tokens=0, output_tokens=5, reasoning_tokens=10**9) == 15
    assert worst_case(claim(price), 10).nanousd == 1_000 * 10 + 10 * 20


def test_cached_input_that_costs_more():
    """The worst case takes the dearer of the two prices of input."""
    price = Price(input_nanousd=1_000_000, output_nanousd=0, cached_input_nanousd=2_000_000)
    assert claim(price).fixed_nanousd == 2_000


def test_last_charge_counts():
    """What was said last is booked; nothing said means all that was reserved; released means nothing."""
    hold = Hold(hold_id="h", claim=claim(), output_tokens=20, reserved=RESERVED)
    assert hold.charged == RESERVED
    hold.charge(Usage(input_tokens=5, output_tokens=1), 3)
    hold.charge(Usage(input_tokens=5, output_tokens=2, estimated=True), 4)
    assert hold.charged == Charge(tokens=7, nanousd=4, input_tokens=5, output_tokens=2, estimated=True)
    hold.release()
    assert (hold.charged.tokens, hold.charged.nanousd) == (0, 0)


def test_backend_that_reports_less_than_nothing():
    """Nobody earns by being answered."""
    hold = Hold(hold_id="h", claim=claim(), output_tokens=20, reserved=RESERVED)
    hold.charge(Usage(input_tokens=-50, output_tokens=3), -1)
    assert hold.charged == Charge(tokens=0, nanousd=0, input_tokens=0, output_tokens=3, estimated=False)


def test_limits_that_apply():
    """The tenant's own and those of the feature; of two that measure the same, the smaller."""
    smaller = Limit(amount=50, unit="tokens", per="day")
    money = Limit(amount=50, unit="nanousd", per="day")
    chat = Limit(amount=10, unit="tokens", per="day", feature="chat")
    limits = (DAY, smaller, money, chat)
    assert applying(limits, "") == (smaller, money)
    assert applying(limits, "chat") == (smaller, money, chat)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.0121, "12ms"), (1, "1s"), (59.6, "1m0s"), (360, "6m0s"), (3_600, "1h0m0s"), (90_061, "25h1m1s")],
)
def test_reset_as_openai_writes_it(seconds, text):
    """Headers name durations as OpenAI's do."""
    headers = grant_headers((Left(DAY, 7, seconds),), None, None)
    assert headers == {
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "7",
        "x-ratelimit-reset-tokens": text,
    }
