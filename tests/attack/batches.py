"""Kills gateways while they work a batch off: each line is answered once, and the budget is right.

    python -m tests.attack.batches --lines 1000 --kills 10

Gateways over one store work on one batch; one of them, picked at random, is killed (SIGKILL) at random moments, and
started again. Afterwards has to hold:

- each line stands once in the results or in the errors, under its custom_id, and the counts of the batch say so;
- each result is booked once, at what the backend counted for it: its request's id stands in the usage log; one whose
  gateway was killed before it had settled it, at what was reserved;
- all that is settled is no more than what the backend counted, and with what was booked for attempts that were killed
  (their leases ended), no less;
- no hold is left, and no ticket in the queue.
"""

import argparse
import asyncio
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from gateway.budgets.terms import tenant_keys
from gateway.errors import StoreUnavailable
from gateway.store.client import Store
from tests.attack.backend import CountingBackend
from tests.attack.gateways import KEYS, LEASE_S, Gateway, write_policy
from tests.store_servers import Server, free_ports

GATEWAYS = 2
_AUTH = {"authorization": f"Bearer {KEYS['closed']}"}
_CHAT = "/v1/chat/completions"


@dataclass
class Outcome:
    """What came of it; `broken` says each rule that did not hold."""

    broken: list[str] = field(default_factory=list)
    notes: dict = field(default_factory=dict)


class Attack:
    """One batch."""

    def __init__(self, lines: int, kills: int, *, seed: int, most_s: float) -> None:
        self.lines = lines
        self.kills = kills
        self.most_s = most_s
        self.rng = random.Random(seed)
        self.outcome = Outcome()

    async def run(self, folder: Path) -> Outcome:
        async with (
            CountingBackend(self.rng.randrange(2**30), most_s=self.most_s) as self.backend,
            Server(folder / "store", free_ports(1)[0]) as server,
            httpx.AsyncClient(timeout=10, headers=_AUTH) as self.client,
        ):
            write_policy(folder / "policies", self.backend.base_url, 10**9)
            self.gateways = [
                Gateway(folder / f"gateway-{number}", folder / "policies", server.url) for number in range(GATEWAYS)
            ]
            try:
                await asyncio.gather(*(gateway.start() for gateway in self.gateways))
                began = time.monotonic()
                batch = await self._begin()
                await self._kill(batch["id"])
                batch = await self._until_over(batch["id"])
                self.outcome.notes["seconds"] = round(time.monotonic() - began)
                results = await self._judge_files(batch)
                await asyncio.sleep(LEASE_S * 2)  # what the dead had reserved is booked by those that live
                async with Store(server.url, timeout_s=2.0) as store:
                    await self._judge_queue(store)
                    await asyncio.gather(*(gateway.end() for gateway in self.gateways))
                    await self._judge_budget(store, results)
            finally:
                for gateway in self.gateways:
                    await gateway.kill()
        return self.outcome

    # --- the fight --------------------------------------------------------------------------------------------

    async def _begin(self) -> dict:
        lines = [
            {
                "custom_id": f"line-{number}",
                "method": "POST",
                "url": _CHAT,
                "body": {
                    "model": "large",
                    "messages": [{"role": "user", "content": f"line-{number} please"}],
                    "max_tokens": self.rng.choice([1, 20, 100]),
                },
            }
            for number in range(self.lines)
        ]
        content = "\n".join(json.dumps(line) for line in lines).encode()
        file = await self._ask("POST", "/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", content)})
        wanted = {"input_file_id": file["id"], "endpoint": _CHAT, "completion_window": "24h"}
        return await self._ask("POST", "/batches", json=wanted)

    async def _kill(self, batch_id: str) -> None:
        """Kill at random moments, spread over the batch, as long as it is not over."""
        killed = 0
        async with asyncio.TaskGroup() as starting:
            while killed < self.kills:
                batch = await self._ask("GET", f"/batches/{batch_id}")
                done = batch["request_counts"]["completed"] / self.lines
                if batch["status"] not in {"validating", "in_progress"}:
                    break
                alive = [gateway for gateway in self.gateways if gateway.running and gateway.url]
                if done < killed / (self.kills + 1) or not alive:
                    await asyncio.sleep(0.1)
                    continue
                await asyncio.sleep(self.rng.uniform(0.0, 0.5))
                gateway = self.rng.choice(alive)
                await gateway.kill()
                killed += 1
                starting.create_task(gateway.start())
        self.outcome.notes["kills"] = killed
        self._must(killed == self.kills, f"the batch was over after {killed} kills")

    async def _until_over(self, batch_id: str) -> dict:
        async with asyncio.timeout(300):
            while True:
                batch = await self._ask("GET", f"/batches/{batch_id}")
                if batch["status"] not in {"validating", "in_progress", "finalizing"}:
                    return batch
                await asyncio.sleep(0.2)

    async def _ask(self, method: str, path: str, **more) -> dict:
        answer = await self._answer(method, path, **more)
        return answer.json()

    async def _answer(self, method: str, path: str, **more) -> httpx.Response:
        """Ask any gateway that lives; a store that is slow on a busy machine is asked again."""
        async with asyncio.timeout(60):
            while True:
                gateway = self.rng.choice([one for one in self.gateways if one.running and one.url] or self.gateways)
                try:
                    answer = await self.client.request(method, f"{gateway.url}/v1{path}", **more)
                    if answer.status_code not in {503, 500}:
                        answer.raise_for_status()
                        return answer
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.1)

    # --- the judgement ----------------------------------------------------------------------------------------

    async def _judge_files(self, batch: dict) -> list[dict]:
        found: dict[str, list[dict]] = {}
        for name in ("output_file_id", "error_file_id"):
            if batch[name] is None:
                found[name] = []
                continue
            content = (await self._answer("GET", f"/files/{batch[name]}/content")).text
            found[name] = [json.loads(line) for line in content.splitlines()]
        results, errors = found["output_file_id"], found["error_file_id"]
        ids = Counter(line["custom_id"] for line in results + errors)
        counts = batch["request_counts"]
        self._must(batch["status"] == "completed", f"the batch is {batch['status']}")
        self._must(set(ids) == {f"line-{number}" for number in range(self.lines)}, f"{len(ids)} lines have an answer")
        self._must(max(ids.values()) == 1, f"answered more than once: {[one for one, n in ids.items() if n > 1][:5]}")
        self._must(
            (counts["completed"], counts["failed"]) == (len(results), len(errors)),
            f"counts {counts} are not the files'",
        )
        self._must(not errors, f"errors: {errors[:3]}")
        for line in results:
            text = line["response"]["body"]["choices"][0]["message"]["content"]
            self._must(text.startswith("token"), f"{line['custom_id']} got {text[:40]!r}")
        self.outcome.notes["calls"] = self.backend.calls
        return results

    async def _judge_queue(self, store: Store) -> None:
        async with asyncio.timeout(30):
            while tickets := await store.command("XLEN", "fd1:batch-queue"):
                await asyncio.sleep(0.5)
        self._must(tickets == 0, f"{tickets} tickets are left in the queue")

    async def _judge_budget(self, store: Store, results: list[dict]) -> None:
        entries, by_request = [], {}
        for _, words in await self._patiently(store, "XRANGE", tenant_keys("closed")[3], "-", "+"):
            entry = {
                name.decode(): value.decode(errors="replace")
                for name, value in zip(words[::2], words[1::2], strict=True)
            }
            entries.append(entry)
            by_request.setdefault(entry["id"].split(".")[0], []).append((entry["how"], int(entry["tokens"])))
        settled = sum(int(entry["tokens"]) for entry in entries if entry["how"] == "settled")
        expired = sum(int(entry["tokens"]) for entry in entries if entry["how"] == "expired")
        billed = sum(self.backend.billed.values())
        self.outcome.notes |= {"billed": billed, "settled": settled, "expired": expired}
        self.outcome.notes["killed attempts"] = sum(entry["how"] == "expired" for entry in entries)
        self._must(settled <= billed <= settled + expired, f"billed {billed}, settled {settled}, expired {expired}")
        for line in results:
            booked = by_request.get(line["response"]["request_id"], [])
            used = line["response"]["body"]["usage"]["total_tokens"]
            is_right = len(booked) == 1 and (booked[0] == ("settled", used) or booked[0][0] == "expired")
            self._must(is_right and booked[0][1] >= used, f"{line['custom_id']} is booked as {booked}, used {used}")
        _, open_key, leases_key, *_ = tenant_keys("closed")
        for command, key in (("HLEN", open_key), ("ZCARD", leases_key)):
            left = await self._patiently(store, command, key)
            self._must(left == 0, f"{left} holds are left")

    async def _patiently(self, store: Store, *words):
        for _ in range(50):
            try:
                return await store.command(*words)
            except StoreUnavailable:
                await asyncio.sleep(0.2)
        raise TimeoutError

    def _must(self, holds: bool, rule: str) -> None:
        if not holds:
            self.outcome.broken.append(rule)


async def attack(lines: int, kills: int, *, seed: int = 0, most_s: float = 1.5) -> Outcome:
    """One batch; answers take `most_s` seconds at most."""
    with tempfile.TemporaryDirectory(prefix="fd-batches-") as name:
        return await Attack(lines, kills, seed=seed, most_s=most_s).run(Path(name))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=1_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1.5, help="that an answer takes at most")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no server outlives the program
    outcome = asyncio.run(attack(arguments.lines, arguments.kills, seed=arguments.seed, most_s=arguments.seconds))
    print(outcome.notes)
    for rule in outcome.broken[:20]:
        print(f"    broken: {rule}")
    print("held" if not outcome.broken else f"{len(outcome.broken)} rules broken")
    return int(bool(outcome.broken))


if __name__ == "__main__":
    sys.exit(main())
