import pytest

from gateway.errors import (
    BackendBusy,
    BackendCredentials,
    BackendCut,
    BackendRefused,
    BackendTimeout,
    BackendUnreachable,
    EdgeCrashed,
)
from gateway.modes.retries import FIRST_WAIT_S, LONGEST_WAIT_S, again_after_s


def refused(status, *, retry_after_s=None, should_retry=None):
    headers = {} if should_retry is None else {"x-should-retry": should_retry}
    return BackendRefused("no", status=status, retry_after_s=retry_after_s, passed_headers=headers)


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (BackendUnreachable("reset"), True),
        (BackendCut("cut"), True),
        (BackendTimeout("late"), False),
        (BackendBusy("full"), False),
        (BackendCredentials("401"), False),
        (EdgeCrashed("gone"), False),
        (refused(500), True),
        (refused(503), True),
        (refused(400), False),
        (refused(429), False),
        (refused(500, should_retry="false"), False),
        (refused(400, should_retry="true"), True),
        (refused(429, should_retry="true"), True),
        (refused(429, retry_after_s=1.0), True),
        (refused(429, retry_after_s=60.0), False),
    ],
)
def test_which_failures_are_tried_again_on_the_same_deployment(error, tries):
    """What passes is; what is late, full or refused by right is not; the backend's own word comes first."""
    assert (again_after_s(error, 0, most=None, is_alone=True, draw=0.5) is not None) is tries


def test_waits_are_drawn_from_limits_that_double():
    """Full jitter: from 0 up to a limit that doubles with each try, and stays bounded."""
    error = BackendUnreachable("reset")
    assert again_after_s(error, 0, most=9, is_alone=True, draw=0.0) == 0
    waits = [again_after_s(error, tried, most=9, is_alone=True, draw=1.0) for tried in range(7)]
    assert waits == [FIRST_WAIT_S, 0.2, 0.4, 0.8, 1.6, LONGEST_WAIT_S, LONGEST_WAIT_S]


def test_tries_are_bounded():
    """So many as the policy says; without a word one, and none while another deployment could answer."""
    error = BackendUnreachable("reset")
    assert again_after_s(error, 2, most=2, is_alone=True, draw=0.5) is None
    assert again_after_s(error, 1, most=None, is_alone=True, draw=0.5) is None
    assert again_after_s(error, 0, most=None, is_alone=False, draw=0.5) is None


def test_retry_after_is_waited_for_only_where_nobody_else_could_answer():
    """A short one, by the only deployment that is left; never less than was asked."""
    error = refused(503, retry_after_s=1.0)
    assert again_after_s(error, 0, most=2, is_alone=False, draw=0.5) is None
    assert again_after_s(error, 0, most=2, is_alone=True, draw=0.5) >= 1.0
