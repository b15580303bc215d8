import asyncio
import threading
import time

from gateway.edge import minilm
from gateway.edge.shared_minilm import SharedMiniLM


async def test_all_who_ask_at_once_share_one_model_in_a_few_threads(monkeypatch):
    """It is loaded with the first use, once, however many come first together; no more than two work at a time."""
    made, names = [], set()

    class Slow:
        def __init__(self):
            time.sleep(0.05)
            made.append(self)

    def use(number):
        names.add(threading.current_thread().name)
        return shared.loaded(), number

    monkeypatch.setattr(minilm, "MiniLM", Slow)
    shared = SharedMiniLM()
    assert made == []
    found = await asyncio.gather(*(shared.run(use, number) for number in range(8)))
    assert [number for _, number in found] == list(range(8))
    assert {id(model) for model, _ in found} == {id(made[0])}
    assert len(made) == 1
    assert len(names) <= 2
    shared.close()
