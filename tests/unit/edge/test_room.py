import pytest

from gateway.edge import room
from gateway.edge.room import BESIDE_BYTES, Room
from gateway.errors import EdgeUnavailable


def test_a_model_that_does_not_fit_is_refused_with_the_figures(monkeypatch):
    """What it needs and of what, and what is left: of the machine, or of the bound that was set."""
    monkeypatch.setattr(room, "available_bytes", lambda: 500_000_000)
    Room().check("small.gguf", 200_000_000, 100_000_000)
    with pytest.raises(EdgeUnavailable, match=r"large\.gguf does not fit: it needs 580 MB .* 500 MB of this machine"):
        Room().check("large.gguf", 400_000_000, 100_000_000)
    Room().check("loaded.gguf", 400_000_000, 100_000_000, loaded=True)
    Room(200_000_000 + BESIDE_BYTES).check("small.gguf", 100_000_000, 100_000_000)
    with pytest.raises(EdgeUnavailable, match=r"weights 101 MB, KV cache 100 MB.* 280 MB of --edge-memory-mb"):
        Room(200_000_000 + BESIDE_BYTES).check("small.gguf", 101_000_000, 100_000_000)


def test_memory_that_is_left_is_known():
    """It is that of this machine, or of its control group."""
    assert 1_000_000 < room.available_bytes() < 10**14
