"""`firstdraft budget`: what tenants have spent, straight from the store; gateways may run meanwhile."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from gateway.errors import PolicyError, SettingsError
from gateway.settings import load_settings

if TYPE_CHECKING:
    from gateway.budgets.books import Books, Counter
    from gateway.budgets.claim import Left
    from gateway.budgets.limit import Limit
    from gateway.store.client import Store

_TIME_LIMIT_S = 5.0
_NANOUSD_PER_USD = 1_000_000_000

T = TypeVar("T")


@click.group()
def budget() -> None:
    """What tenants have spent, and counters made anew."""


def _where(command: Callable[..., None]) -> Callable[..., None]:
    command = click.option("--state", metavar="DIR", help="The state folder of a gateway with an embedded store.")(
        command
    )
    return click.option("--redis-url", metavar="URL", help="The store that the gateways share.")(command)


@budget.command()
@click.argument("tenant")
@_where
@click.option("--policies", metavar="DIR", default="policies", show_default=True, help="Where the limits are named.")
@click.option("--log", "entries", type=click.IntRange(0, 5_000), default=0, help="Show so many of the last requests.")
def show(tenant: str, redis_url: str | None, state: str | None, policies: str, entries: int) -> None:
    """What TENANT has spent in the windows of now, and what is left where policy names a limit."""
    limits_of_policy = _limits(tenant, policies)

    async def look(store: Store, books: Books) -> None:
        from gateway.budgets.ledger import Ledger

        counters, held = await books.counters(tenant), await books.held(tenant)
        limits = await Ledger(store).left(tenant, limits_of_policy)
        if not counters and not limits:
            click.echo(f"{tenant}: nothing was ever held, and {policies} names no budget of it")
        for line in (*map(_limit_line, limits), *_counter_lines(counters, limits)):
            click.echo(line)
        click.echo(f"{held} requests hold a reservation now")
        for entry in await books.log(tenant, entries) if entries else ():
            mark = " estimated" if entry.estimated else ""
            cost = f"{entry.nanousd / _NANOUSD_PER_USD:.9f} USD"
            click.echo(f"{entry.at:%Y-%m-%d %H:%M:%S}  {entry.id}  {entry.how}  {entry.tokens:,} tokens  {cost}{mark}")

    _run(redis_url, state, look)


@budget.command()
@click.argument("tenant", required=False)
@click.option("--all", "every", is_flag=True, help="All tenants that ever held something.")
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
@_where
def rebuild(tenant: str | None, every: bool, dry_run: bool, redis_url: str | None, state: str | None) -> None:  # noqa: FBT001 click gives flags by name
    """Make the counters of TENANT anew from its usage log and what is held now.

    They are the same before and after, unless the store lost something. It is one step for the store: gateways may run.
    """
    if (tenant is None) != every:
        raise click.UsageError("name one TENANT, or say --all")

    async def mend(_store: Store, books: Books) -> None:
        for name in [tenant] if tenant is not None else await books.tenants():
            counters = await books.counters(name, rebuild=not dry_run)
            changed = [counter for counter in counters if counter.spent != counter.rebuilt]
            for counter in changed:
                unit = counter.field.partition(":")[0]
                arrow = "would become" if dry_run else "is now"
                click.echo(f"{name}  {counter.field}: {counter.spent:,} {arrow} {counter.rebuilt:,} {unit}")
            if not changed:
                click.echo(f"{name}: {len(counters)} counters, all as the usage log says")

    _run(redis_url, state, mend)


def _run(redis_url: str | None, state: str | None, work: Callable[[Store, Books], Awaitable[T]]) -> T:
    from gateway.budgets.books import Books
    from gateway.store.client import Store

    url = _store_url(redis_url, state)

    async def run() -> T:
        async with AsyncExitStack() as stack:
            store = Store(url, timeout_s=_TIME_LIMIT_S)
            stack.push_async_exit(store)
            await store.ping()
            return await work(store, Books(store))

    return asyncio.run(run())


def _store_url(redis_url: str | None, state: str | None) -> str:
    """As `serve` finds it: the flags, the environment, the embedded store of a gateway that runs."""
    from gateway.cli.serve import home
    from gateway.store.folder import StoreFolder

    here = str(Path.cwd())  # the policy folder is none of this command's business
    settings = load_settings({"redis_url": redis_url, "state": state, "policies": here}, os.environ, home=home())
    if settings.redis_url is not None and state is None:
        return settings.redis_url
    socket = StoreFolder(settings.state).socket_path()
    if not socket.exists():
        raise SettingsError(
            f"no gateway with an embedded store runs on the state folder {settings.state}: start it, "
            "or name the store with --redis-url (FIRSTDRAFT_REDIS_URL)"
        )
    return f"unix://{socket}"


def _limits(tenant: str, policies: str) -> tuple[Limit, ...]:
    """The limits of the policy; none where there is no policy, or it does not know the tenant."""
    from gateway.policy.load import load_policy

    if not Path(policies).is_dir():
        return ()
    try:
        policy = load_policy(Path(policies), os.environ)
    except PolicyError as error:
        click.echo(f"{policies}: {error.message}", err=True)
        return ()
    found = policy.tenants.get(tenant)
    return () if found is None else found.limits


def _limit_line(entry: Left) -> str:
    from gateway.budgets.claim import amount_text, describe

    limit = entry.limit
    share = 100 * (limit.amount - entry.left) // limit.amount
    used = amount_text(limit, limit.amount - entry.left)
    left = amount_text(limit, entry.left)
    return f"{describe(limit)}: {used} used or held ({share}%), {left} left, resets in {_duration(entry.resets_in_s)}"


def _duration(seconds: float) -> str:
    """In the two largest units that it has, as in `7 h 16 min`."""
    whole = round(seconds)
    for size, unit, smaller, smaller_unit in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {smaller_unit}" if rest else "")
    return f"{whole} s"


def _counter_lines(counters: list[Counter], limits: tuple[Left, ...]) -> list[str]:
    """Counters that no limit of the policy names: of limits that it had before."""
    from gateway.budgets.terms import field_of

    named = {field_of(entry.limit) for entry in limits}
    return [
        f"{counter.field}: {counter.spent:,} since {counter.start:%Y-%m-%d %H:%M:%S} UTC"
        for counter in counters
        if counter.field not in named
    ]
