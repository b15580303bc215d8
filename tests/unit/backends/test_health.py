from __future__ import annotations

import pytest

from gateway.backends.breaker import FAILURES_TO_OPEN, FIRST_OPEN_S
from gateway.backends.health import Health
from gateway.errors import (
    BackendBroken,
    BackendBusy,
    BackendCredentials,
    BackendCut,
    BackendRefused,
    BackendTimeout,
    BackendUnreachable,
    ClientGone,
    InvalidRequest,
)
from gateway.inference.deployment import FREE, Backend, Deployment


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def told() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def health(clock, told) -> Health:
    return Health(clock, lambda deployment, state: told.append((deployment, state)))


def at(backend: str, model: str = "m") -> Deployment:
    place = Backend(name=backend, type="openai", base_url="http://127.0.0.1:9/v1", region="eu")
    return Deployment(id=f"{backend}/{model}", backend=place, model=model, price=FREE)


A = at("a")


def end(health: Health, error: Exception | None, times: int = 1) -> None:
    for _ in range(times):
        trial = health.begin_anyway(A)
        trial.succeeded() if error is None else trial.failed(error)


@pytest.mark.parametrize(
    ("error", "opens"),
    [
        (BackendUnreachable("no"), True),
        (BackendTimeout("late"), True),
        (BackendTimeout("no place", is_ours=True), False),
        (BackendBroken("html"), True),
        (BackendCut("cut"), True),
        (BackendBusy("queue"), False),
        (BackendRefused("500", status=500), True),
        (BackendRefused("529", status=529), True),
        (BackendRefused("400", status=400), False),
        (BackendRefused("404", status=404), False),
        (BackendRefused("422", status=422), False),
        (InvalidRequest("no word for it"), False),
        (ClientGone("left"), False),
    ],
)
def test_what_is_the_deployments_fault(health, error, opens):
    """Its own trouble opens the breaker; the client's mistakes, the client's leaving and our own queue do not."""
    end(health, error, FAILURES_TO_OPEN)
    assert (A.id in health.unhealthy()) is opens


def test_a_key_that_is_refused_shuts_that_deployment_alone(health):
    """A 401 is told by the first attempt; another deployment, also on that backend, serves on."""
    health.know({A.id: A, "a/other": at("a", "other")})
    end(health, BackendCredentials("401"))
    assert health.unhealthy() == {A.id}
    assert health.begin(A) is None
    assert health.begin(at("a", "other")) is not None


def test_unhealthy_ends_by_itself_for_one_probe(health, clock, told):
    """When the open time is over the deployment is a candidate again; while its probe runs, for nobody else."""
    end(health, BackendUnreachable("no"), FAILURES_TO_OPEN)
    clock.now = FIRST_OPEN_S
    assert health.unhealthy() == frozenset()
    assert health.report()[A.id]["state"] == "half_open"  # nobody is told that it is well before it has answered
    probe = health.begin(A)
    assert health.unhealthy() == {A.id}
    assert health.begin(A) is None
    probe.answers()
    assert health.report() == {}
    assert health.unhealthy() == frozenset()
    assert [state for _, state in told] == ["open", "half_open", "probing", "closed"]


def test_a_429_is_a_pause_as_long_as_the_backend_says(health, clock):
    """No call before `retry-after`, not even as the last resort; what the client is told has the rest of the time."""
    end(health, BackendRefused("slow down", status=429, retry_after_s=8.0))
    clock.now = 3.0
    assert health.unhealthy() == {A.id}
    refusal = health.refusal(A)
    assert (refusal.status, refusal.retry_after_s) == (429, 5.0)
    clock.now = 8.0
    assert health.unhealthy() == frozenset()
    assert health.refusal(A) is None


def test_a_429_without_a_time_only_lets_others_go_first(health, clock):
    """Nobody asked for silence: where nothing else is left, it is asked."""
    end(health, BackendRefused("slow down", status=429, retry_after_s=8.0))
    clock.now = 8.0
    end(health, BackendRefused("slow down", status=429))
    assert health.unhealthy() == {A.id}
    assert health.refusal(A) is None
    clock.now = 9.0
    assert health.unhealthy() == frozenset()


def test_a_503_with_a_time_is_both(health, clock):
    """It counts as a failure, and nobody calls before the time is over."""
    end(health, BackendRefused("loading", status=503, retry_after_s=2.0))
    assert health.refusal(A).status == 503
    clock.now = 2.0
    end(health, BackendUnreachable("no"), FAILURES_TO_OPEN - 1)
    assert health.report()[A.id]["state"] == "open"


def test_checks_take_a_backend_out_and_back(health, clock):
    """Two failed checks in a row take all its deployments out, one good one brings them back."""
    health.know({A.id: A, "b/m": at("b")})
    health.checked("a", "status 503")
    assert health.unhealthy() == frozenset()
    health.checked("a", "status 503")
    assert health.unhealthy() == {A.id}
    assert health.report() == {A.id: {"state": "down", "reason": "status 503"}}
    health.checked("a", "")
    assert health.unhealthy() == frozenset()


def test_a_good_check_lets_the_probe_come_at_once(health):
    """An open breaker does not wait when the backend is seen to be back."""
    end(health, BackendUnreachable("no"), FAILURES_TO_OPEN)
    health.checked("a", "")
    assert health.begin(A) is not None


def test_deployments_that_policy_dropped_are_forgotten(health, told):
    """A newer policy's deployments keep their state, all others are gone, and no gauge is left standing."""
    end(health, BackendUnreachable("no"), FAILURES_TO_OPEN)
    health.know({A.id: A})
    assert health.unhealthy() == {A.id}
    health.know({"b/m": at("b")})
    assert health.unhealthy() == frozenset()
    assert told[-1] == (A.id, "closed")
