"""Many streams at once, small: the benchmark's own measurement, with bounds that a busy machine keeps."""

import pytest

from tests.benchmarks.streams import measure

pytestmark = pytest.mark.slow


async def test_open_streams_cost_little_memory_and_leave_nothing():
    """100 open streams take a few MB, a few timers each however many tokens come, and none when they go."""
    found = await measure(100, 3.0)
    assert found["more_mb"] < 15
    assert found["timers"] - found["timers_before"] < 600
    assert found["timers_after"] - found["timers_before"] < 100
