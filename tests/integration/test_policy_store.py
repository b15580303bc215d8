"""The watched folder: edits on a real disk, swapped in or refused."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from gateway.errors import PolicyError
from gateway.inference.deployment import Secret
from gateway.policy.facts import Facts
from gateway.policy.store import PolicyStore
from gateway.routing.decide import decide
from tests.policy_folder import ENVIRON, FILES, write_folder

POLL_S = 0.02


async def until(condition, timeout_s: float = 5.0) -> None:
    """Wait until the store has seen a change."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(POLL_S / 2)


async def test_edit_is_swapped_in(tmp_path: Path):
    """A changed file becomes a new policy with a new version; who took the old one keeps it whole."""
    write_folder(tmp_path)
    async with PolicyStore(tmp_path, ENVIRON, poll_s=POLL_S) as store:
        before = store.current
        write_folder(tmp_path, routes="routes: [{name: only, mode: cloud_only}]")
        await until(lambda: store.current is not before)
        assert store.current.version != before.version
        assert [route.name for route in store.current.routes] == ["only"]
        assert len(before.routes) == 3
        assert store.refused is None


async def test_broken_edit_is_refused_and_the_old_policy_keeps_serving(tmp_path: Path):
    """A mistake changes nothing but `refused`, which names it; mending the file clears it."""
    write_folder(tmp_path)
    async with PolicyStore(tmp_path, ENVIRON, poll_s=POLL_S) as store:
        before = store.current
        write_folder(tmp_path, routes="routes: [{name: only, mode: clod_only}]")
        await until(lambda: store.refused)
        assert "did you mean `cloud_only`?" in store.refused
        assert store.current is before
        write_folder(tmp_path, routes="routes: [{name: only, mode: cloud_only}]")
        await until(lambda: store.refused is None)
        assert store.current.version != before.version


async def test_broken_edit_that_is_taken_back_is_no_longer_refused(tmp_path: Path):
    """When the folder is again what is in force, there is nothing refused, and the version is the same."""
    write_folder(tmp_path)
    async with PolicyStore(tmp_path, ENVIRON, poll_s=POLL_S) as store:
        version = store.current.version
        (tmp_path / "more.yaml").write_text("rutes: []")
        await until(lambda: store.refused)
        (tmp_path / "more.yaml").unlink()
        await until(lambda: store.refused is None)
        assert store.current.version == version


async def test_folder_that_goes_away_is_refused(tmp_path: Path):
    """A deleted folder is a mistake like any other: the policy in force stays."""
    folder = write_folder(tmp_path / "policies")
    async with PolicyStore(folder, ENVIRON, poll_s=POLL_S) as store:
        before = store.current
        folder.rename(tmp_path / "elsewhere")
        await until(lambda: store.refused)
        assert store.current is before
        (tmp_path / "elsewhere").rename(folder)
        await until(lambda: store.refused is None)


async def test_file_replaced_by_one_of_the_same_size_and_time_is_noticed(tmp_path: Path):
    """Configuration tools swap files by renaming; another file under the same name is a change."""
    write_folder(tmp_path)
    async with PolicyStore(tmp_path, ENVIRON, poll_s=POLL_S) as store:
        before = store.current
        old = tmp_path / "tenants.yaml"
        new = tmp_path / "tenants.new"
        new.write_text(old.read_text().replace("region: eu", "region: us"))
        os.utime(new, ns=(old.stat().st_atime_ns, old.stat().st_mtime_ns))
        new.replace(old)
        await until(lambda: store.current is not before)
        assert store.current.tenants["acme"].tenant.region == "us"


async def test_rotated_key_file_is_taken_up(tmp_path: Path):
    """A key in a `file:` is watched like the policy itself."""
    (tmp_path / "gpu.key").write_text("old")
    write_folder(tmp_path, backends=FILES["backends.yaml"].replace("${GPU_KEY}", "file:gpu.key"))
    async with PolicyStore(tmp_path, ENVIRON, poll_s=POLL_S) as store:
        assert store.current.backends["gpu-eu"].api_key == Secret("old")
        (tmp_path / "gpu.key").write_text("new one")
        await until(lambda: store.current.backends["gpu-eu"].api_key == Secret("new one"))


async def test_key_file_that_comes_late_ends_the_refusal(tmp_path: Path):
    """A policy refused for want of a key's file is taken up when that is there, without another edit."""
    write_folder(tmp_path)
    async with PolicyStore(tmp_path, ENVIRON, poll_s=POLL_S) as store:
        write_folder(tmp_path, backends=FILES["backends.yaml"].replace("${GPU_KEY}", "file:late.key"))
        await until(lambda: store.refused)
        (tmp_path / "late.key").write_text("late")
        await until(lambda: store.refused is None)
        assert store.current.backends["gpu-eu"].api_key == Secret("late")


async def test_store_does_not_start_with_a_broken_folder(tmp_path: Path):
    """At start there is no old policy to keep: the mistakes are raised."""
    write_folder(tmp_path, routes="routes: 1")
    with pytest.raises(PolicyError, match="`routes` is a list"):
        async with PolicyStore(tmp_path, ENVIRON):
            pass


async def test_no_decision_mixes_two_policies_while_files_change(tmp_path: Path):
    """Under edits, each decision is wholly of one version, and none fails."""
    texts = [
        "routes: [{name: a, mode: cloud_only, models: [large]}]",
        "routes: [{name: b, mode: edge_only, models: [small]}]",
    ]
    write_folder(tmp_path, routes=texts[0])
    facts = Facts(tenant_name="acme", model="large", edge_ready=True)
    seen: dict[str, set[tuple[str, str]]] = {}
    async with PolicyStore(tmp_path, ENVIRON, poll_s=0.005) as store:
        for number in range(400):
            if number % 40 == 0:
                (tmp_path / "routes.yaml").write_text(texts[number // 40 % 2])
            decision = decide(store.current, facts)
            seen.setdefault(decision.policy_version, set()).add((decision.route, decision.deployments[0].backend.type))
            await asyncio.sleep(0.001)
    assert set().union(*seen.values()) == {("a", "openai"), ("b", "edge")}
    assert all(len(outcomes) == 1 for outcomes in seen.values())


async def test_watch_ends_with_the_store(tmp_path: Path):
    """Leaving the store leaves no task behind."""
    write_folder(tmp_path)
    before = asyncio.all_tasks()
    async with PolicyStore(tmp_path, ENVIRON, poll_s=POLL_S):
        assert len(asyncio.all_tasks()) == len(before) + 1
    assert asyncio.all_tasks() == before
