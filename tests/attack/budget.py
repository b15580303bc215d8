"""Tries to overspend: gateways, stores and clocks are attacked while clients spend as fast as they can.

    python -m tests.attack.budget --seeds 100

For each seed: 4 gateway processes, 64 clients, one store (by the seed: one server, a Sentinel pair, a Cluster), two
tenants under the same budget, one of which fails open. Random kills and freezes of gateways, kills, freezes, failovers
and empty restarts of the store, clock steps and disconnects. Afterwards has to hold, for each seed:

- what the backend counted for the tenant that fails closed, and what is booked for it, is within its limit; for the
  other within the limit and the allowance of each gateway process that ran;
- each entry of the usage log is what the backend counted for that request; an expired one is not less;
  what a backend generated for a client that had left is estimated, and compared as such (`unseen`);
- no hold is left when the leases have ended.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import msgspec

from gateway.budgets.allowance import SHARE
from gateway.budgets.books import Books
from gateway.budgets.ledger import Ledger
from gateway.budgets.limit import Limit
from gateway.budgets.terms import tenant_keys
from gateway.errors import StoreUnavailable
from gateway.store.client import Store
from tests.attack.backend import CountingBackend
from tests.attack.gateways import KEYS, LEASE_S, LIBFAKETIME, Gateway, write_policy
from tests.attack.stores import KINDS, AttackedStore

GATEWAYS, CLIENTS = 4, 64
FEWEST_CALLS, FEWEST_ANSWERS = 100, 40
"""Of the backend in one attack, and for each tenant (a refusal for its budget is one too): on a busy machine it goes on
until then, three times as long at most."""
RESPITE_S = 8.0
"""How long the store is left alone, at most, until both tenants are served again: else little is spent, or proved."""
STEPS_S = (-86_400 * 40, -3_600, -60, 0, 60, 3_600, 86_400 * 40)


@dataclass
class Outcome:
    """What came of one seed; `broken` says each rule that did not hold."""

    seed: int
    kind: str
    limit: int
    broken: list[str] = field(default_factory=list)
    notes: dict = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    books: dict[str, list[str]] = field(default_factory=dict)
    """Counters and usage log of each tenant, to be kept where a rule did not hold."""


class Attack:
    """One seed."""

    def __init__(self, seed: int, *, seconds: float, kind: str | None) -> None:
        self.rng = random.Random(seed)
        self.kind = kind or KINDS[seed % len(KINDS)]
        self.seconds = seconds
        self.limit = self.rng.randrange(1_500, 8_000)  # spent in seconds: a budget that lasts proves nothing
        self.outcome = Outcome(seed, self.kind, self.limit)
        self.tags: dict[str, str] = {}
        """Request id -> tag, of the requests whose response head arrived."""
        self.statuses: dict[int, int] = {}
        self.answered = dict.fromkeys(KEYS, 0)
        """How often each tenant's budget could be asked."""
        self.over = False

    async def run(self, folder: Path) -> Outcome:
        async with (
            CountingBackend(self.outcome.seed) as self.backend,
            AttackedStore(self.kind, folder / "store", self.rng) as self.store,
        ):
            write_policy(folder / "policies", self.backend.base_url, self.limit)
            self.gateways = [
                Gateway(folder / f"gateway-{number}", folder / "policies", self.store.url) for number in range(GATEWAYS)
            ]
            try:
                await asyncio.gather(*(gateway.start() for gateway in self.gateways))
                await self._fight()
                await self.store.heal()
                await self._serves_again()
                for gateway in self.gateways:
                    gateway.signal(signal.SIGCONT)
                    gateway.step_clock(0)
                await asyncio.sleep(LEASE_S * 1.5)  # the gateways that are left end the leases of those that died
                await asyncio.gather(*(gateway.end() for gateway in self.gateways))
                await self._judge()
            finally:
                for gateway in self.gateways:
                    await gateway.kill()
        return self.outcome

    # --- the fight --------------------------------------------------------------------------------------------

    async def _fight(self) -> None:
        timeout = aiohttp.ClientTimeout(total=8)
        async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
            clients = [asyncio.create_task(self._client(session, number)) for number in range(CLIENTS)]
            attackers = [asyncio.create_task(self._attack_store())]
            attackers += [asyncio.create_task(self._attack_gateways(self.gateways[half::2])) for half in (0, 1)]
            await asyncio.sleep(self.seconds)
            ends = time.monotonic() + 2 * self.seconds
            while not self._is_enough() and time.monotonic() < ends:
                await asyncio.sleep(0.1)
            self.over = True
            await asyncio.gather(*attackers)
            done, late = await asyncio.wait(clients, timeout=10)
            for client in late:
                client.cancel()
            for client in done:
                client.result()

    def _is_enough(self) -> bool:
        return self.backend.calls >= FEWEST_CALLS and min(self.answered.values()) >= FEWEST_ANSWERS

    async def _client(self, session: aiohttp.ClientSession, number: int) -> None:
        rng, turn = random.Random(f"{self.outcome.seed}-{number}"), 0
        while not self.over:
            turn += 1
            await asyncio.sleep(rng.random() * 0.4)
            gateway = rng.choice(self.gateways)
            if not gateway.url:
                continue
            try:
                await self._ask(session, gateway, f"t{number}-{turn}", rng)
            except (aiohttp.ClientError, OSError, TimeoutError, json.JSONDecodeError):
                continue

    async def _ask(self, session: aiohttp.ClientSession, gateway: Gateway, tag: str, rng: random.Random) -> None:
        tenant = rng.choice(list(KEYS))
        tag = f"{tenant}-{tag}"
        body = {
            "model": "large",
            "messages": [{"role": "user", "content": f"{tag} please answer"}],
            "stream": rng.random() < 0.7,
        }
        if rng.random() < 0.8:
            body["max_tokens"] = rng.choice([1, 20, 100, 400])
        headers = {"authorization": f"Bearer {KEYS[tenant]}"}
        async with session.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers) as response:
            self.statuses[response.status] = self.statuses.get(response.status, 0) + 1
            self.answered[tenant] += response.status in {200, 429}
            self.tags[response.headers.get("x-request-id", "")] = tag
            if rng.random() < 0.15:
                await response.content.read(rng.randrange(1, 2_000))
                response.close()
            else:
                await response.read()

    async def _attack_store(self) -> None:
        while not self.over:
            await asyncio.sleep(self.rng.uniform(0.1, 1.2))
            if not self.over:
                with contextlib.suppress(TimeoutError, StoreUnavailable, StopIteration, RuntimeError):
                    self.outcome.events.append(await self.rng.choice(self.store.attacks)())
                if self.rng.random() < 0.7:
                    await self._respite()

    async def _respite(self) -> None:
        before, ends = dict(self.answered), time.monotonic() + RESPITE_S
        while not self.over and time.monotonic() < ends:
            if all(self.answered[tenant] > count for tenant, count in before.items()):
                return
            await asyncio.sleep(0.05)

    async def _attack_gateways(self, gateways: list[Gateway]) -> None:
        while not self.over:
            await asyncio.sleep(self.rng.uniform(0.1, 0.6))
            gateway = self.rng.choice(gateways)
            match self.rng.choice(["kill", "freeze", "clock"]):
                case "kill":
                    await gateway.kill()
                    self.outcome.events.append("gateway killed")
                    await gateway.start()
                case "freeze":
                    gateway.signal(signal.SIGSTOP)
                    seconds = self.rng.choice([0.2, 1.0, LEASE_S * 1.3])
                    await asyncio.sleep(seconds)
                    gateway.signal(signal.SIGCONT)
                    self.outcome.events.append(f"gateway frozen for {seconds:.1f} s")
                case _:
                    gateway.step_clock(self.rng.choice(STEPS_S))
                    self.outcome.events.append("clock stepped")

    async def _serves_again(self) -> None:
        """A pair that is being put together again refuses for a while: gateways that end meanwhile tell nobody."""
        async with Store(self.store.url, timeout_s=2.0) as store, asyncio.timeout(60):
            for tenant in KEYS:
                while True:
                    with contextlib.suppress(StoreUnavailable):
                        await store.command("ZADD", tenant_keys(tenant)[4], 1, "nobody")
                        break
                    await asyncio.sleep(0.2)

    # --- the judgement ----------------------------------------------------------------------------------------

    async def _judge(self) -> None:
        limit = Limit(amount=self.limit, unit="tokens", per="rolling 24h", rolling_s=86_400)
        processes = sum(gateway.starts for gateway in self.gateways)
        async with Store(self.store.url, timeout_s=2.0) as store, Ledger(store, lease_s=LEASE_S) as ledger:
            for tenant in KEYS:
                bound = self.limit if tenant == "closed" else int(self.limit * (1 + SHARE * processes))
                [left] = await ledger.left(tenant, (limit,))
                await self._judge_tenant(tenant, bound, self.limit - left.left, store)
        self._must(not self.backend.unlimited, f"asked without a limit: {self.backend.unlimited[:3]}")
        self.outcome.notes |= {"calls": self.backend.calls, "answered": self.answered, "statuses": self.statuses}
        self.outcome.notes["processes"] = processes

    async def _judge_tenant(self, tenant: str, bound: int, booked: int, store: Store) -> None:
        billed = sum(count for tag, count in self.backend.billed.items() if tag.startswith(f"{tenant}-"))
        entries = await self._usage_log(store, tenant)
        counters = await Books(store).counters(tenant)
        self.outcome.books[tenant] = [str(row) for row in (*counters, *entries)]
        logged = sum(entry["counted"] for entry in entries)
        unseen = self._compare(tenant, entries)
        self.outcome.notes[tenant] = {"billed": billed, "booked": booked, "logged": logged, "unseen": unseen}
        # What a backend went on generating for somebody who had left is estimated, and may be a few tokens short.
        self._must(billed - unseen <= bound, f"{tenant}: billed {billed} (unseen {unseen}), bound {bound}")
        self._must(logged <= bound, f"{tenant}: the log says {logged}, bound {bound}")
        if tenant == "closed":  # no rule, but worth knowing: what the store lost, and nobody who lives could tell it
            self.outcome.notes["short"] = max(0, billed - unseen - booked)
        _, open_key, leases_key, *_ = tenant_keys(tenant)
        holds, leases = await store.command("HLEN", open_key), await store.command("ZCARD", leases_key)
        self._must(holds == 0 and leases == 0, f"{tenant}: {holds} holds and {leases} leases are left")

    def _compare(self, tenant: str, entries: list[dict]) -> int:
        """Hold each entry against the backend; returns what clients who left cost beyond their estimate."""
        unseen, seen = 0, set[str]()
        for entry in entries:
            tag = self.tags.get(entry["id"].split(".")[0])
            if entry["how"] in {"recalled", "extended"} or tag is None or entry["tokens"] == 0:
                continue
            billed, booked = self.backend.billed[tag], entry["tokens"]
            if entry["how"] == "expired":  # perhaps beside what was granted without the store
                self._must(booked >= billed or tag in seen, f"{tenant}: {tag} expired at {booked}, billed {billed}")
                continue
            self._must(tag not in seen, f"{tenant}: {tag} is booked twice")
            seen.add(tag)
            if entry["estimated"] or tag in self.backend.cut:
                unseen += max(0, billed - booked)
            else:
                self._must(booked == billed, f"{tenant}: {tag} is booked at {booked}, billed {billed}")
        return unseen

    async def _usage_log(self, store: Store, tenant: str) -> list[dict]:
        found = []
        for at, words in await store.command("XRANGE", tenant_keys(tenant)[3], "-", "+"):
            entry = dict(zip(words[::2], words[1::2], strict=True))
            found.append(
                {
                    "noted": at.decode(),
                    "taken_us": int(float(entry[b"taken_us"])),
                    "id": entry[b"id"].decode(),
                    "how": entry[b"how"].decode(),
                    "tokens": int(entry[b"tokens"]),
                    "counted": _counted(entry[b"at"]),
                    "estimated": entry[b"estimated"] == b"1",
                }
            )
        return found

    def _must(self, holds: bool, rule: str) -> None:
        if not holds:
            self.outcome.broken.append(rule)


def _counted(packed: bytes) -> int:
    """What an entry adds to the tokens spent: after a failover it may repeat what others had told of already."""
    booked = msgspec.msgpack.decode(packed)
    return sum(amount for name, _, _, amount in booked if name.startswith("tokens:"))


async def attack(seed: int, *, seconds: float, kind: str | None, keep: Path | None = None) -> Outcome:
    """Run one seed; what it wrote is kept in `keep` where a rule did not hold."""
    with tempfile.TemporaryDirectory(prefix="fd-attack-") as name:
        folder = Path(name)
        outcome = await Attack(seed, seconds=seconds, kind=kind).run(folder)
        if outcome.broken and keep is not None:
            await asyncio.to_thread(_keep_logs, folder, keep, outcome)
    return outcome


def _keep_logs(folder: Path, keep: Path, outcome: Outcome) -> None:
    keep.mkdir(parents=True, exist_ok=True)
    for log in folder.glob("gateway-*/log"):
        (keep / f"seed-{outcome.seed}-{log.parent.name}.log").write_bytes(log.read_bytes())
    for tenant, rows in outcome.books.items():
        (keep / f"seed-{outcome.seed}-books-{tenant}.txt").write_text("\n".join(rows) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=8.0, help="of attack, for each seed")
    parser.add_argument("--kind", choices=KINDS)
    parser.add_argument("--keep", type=Path, help="folder for the logs of seeds that broke a rule")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no server outlives the program
    clocks = "stepped by libfaketime" if LIBFAKETIME.exists() else "NOT touched: libfaketime is not installed"
    print(f"clocks of gateways are {clocks}; process {os.getpid()}", flush=True)
    broken = spent = 0
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        started = time.monotonic()
        try:
            outcome = asyncio.run(attack(seed, seconds=arguments.seconds, kind=arguments.kind, keep=arguments.keep))
        except (RuntimeError, TimeoutError) as fault:  # something that it needs did not start
            kind = arguments.kind or KINDS[seed % len(KINDS)]
            outcome = Outcome(seed, kind, 0, broken=[str(fault) or f"{type(fault).__name__}: a store did not start"])
        verdict = "broken" if outcome.broken else "held"
        broken += bool(outcome.broken)
        spent += outcome.notes.get("statuses", {}).get(429, 0) > 0
        print(
            f"seed {seed} {outcome.kind}: {verdict}, limit {outcome.limit}, {outcome.notes}, "
            f"{len(outcome.events)} attacks, {time.monotonic() - started:.0f} s",
            flush=True,
        )
        for rule in outcome.broken[:20]:
            print(f"    {rule}", flush=True)
        if outcome.broken:
            print(f"    {'; '.join(outcome.events)}", flush=True)
    print(f"{arguments.seeds - broken} of {arguments.seeds} seeds held; budgets were spent in {spent}", flush=True)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
