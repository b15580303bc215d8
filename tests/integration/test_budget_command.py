"""`firstdraft budget` beside running gateways."""

import asyncio

import pytest
from click.testing import CliRunner

from gateway.budgets.claim import Claim
from gateway.budgets.ledger import Ledger
from gateway.budgets.limit import Limit
from gateway.budgets.terms import tenant_keys
from gateway.cli.main import firstdraft
from gateway.inference.deployment import FREE
from gateway.inference.usage import Usage
from gateway.store.client import Store
from gateway.store.embedded import EmbeddedValkey

pytestmark = pytest.mark.store

LIMIT = Limit(amount=1_000, unit="tokens", per="month", warn_at=0.5)
ROLLING = Limit(amount=2_000, unit="tokens", per="rolling 1h", rolling_s=3_600, key="prod")
POLICY = """
backends: {edge: {type: edge, model: smollm2-135m-instruct}}
models: {small: [{backend: edge}]}
routes: [{name: r, mode: edge_only, models: [small]}]
tenants:
  acme:
    keys: [{name: prod, sha256: %s}]
    budgets: [{tokens: 1000, per: month}]
""" % ("ab" * 32)


async def spend(ledger: Ledger, tokens: int) -> None:
    claim = Claim(
        id="r",
        tenant="acme",
        feature="",
        key="prod",
        limits=(LIMIT, ROLLING),
        rate=None,
        input_tokens=100,
        output_tokens=100,
        price=FREE,
    )
    async with ledger.hold(claim) as hold:
        hold.charge(Usage(input_tokens=tokens), 0)
    await ledger._settler.flush(2.0)


async def run(*arguments: str):
    return await asyncio.to_thread(CliRunner().invoke, firstdraft, ["budget", *arguments], catch_exceptions=False)


async def test_show_and_rebuild(store, valkey_url, tmp_path):
    """What was spent is shown with what is left and the last requests; counters that were lost are made anew."""
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "policy.yaml").write_text(POLICY)
    async with Ledger(store) as ledger:
        for _ in range(3):
            await spend(ledger, 50)
        shown = await run("show", "acme", "--redis-url", valkey_url, "--policies", str(folder), "--log", "2")
        assert "1,000 tokens per month: 150 tokens used or held (15%), 850 tokens left" in shown.output
        assert "tokens:rolling-3600:@prod: 150 since" in shown.output
        assert shown.output.count("settled  50 tokens") == 2
        ledger_key = tenant_keys("acme")[0]
        await store.command("HDEL", ledger_key, "tokens:month", "tokens:rolling-3600:@prod")
        dry = await run("rebuild", "acme", "--dry-run", "--redis-url", valkey_url)
        assert "tokens:month: 0 would become 150 tokens" in dry.output
        done = await run("rebuild", "acme", "--redis-url", valkey_url)
        assert "tokens:month: 0 is now 150 tokens" in done.output
        again = await run("rebuild", "acme", "--redis-url", valkey_url)
        assert "2 counters, all as the usage log says" in again.output
        assert [entry.left for entry in await ledger.left("acme", (LIMIT, ROLLING))] == [850, 1_850]


async def test_embedded_store(tmp_path):
    """The store of a running gateway is found by its state folder; without one it is said what to do."""
    async with EmbeddedValkey(tmp_path) as server, Store(server.url, timeout_s=2.0) as store, Ledger(store) as ledger:
        await spend(ledger, 50)
        shown = await run("show", "acme", "--state", str(tmp_path), "--policies", str(tmp_path / "none"))
        assert "tokens:month: 50 since" in shown.output
    result = await asyncio.to_thread(CliRunner().invoke, firstdraft, ["budget", "show", "a", "--state", str(tmp_path)])
    assert "no gateway with an embedded store runs" in result.exception.message
