"""`firstdraft edge`: the draft model's formats: what there is, making them, and measuring which to keep."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from gateway.cli.serve import home
from gateway.edge import hub
from gateway.edge.formats import LADDER, SOURCE, TUNED
from gateway.edge.model_files import SHIPPED_FORMAT, SHIPPED_MODEL, Formats, find_model, write_whole
from gateway.errors import EdgeUnavailable
from gateway.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.progress import Progress

    from gateway.edge.formats import Measured
    from gateway.edge.tuning import Reading
    from gateway.modes.confidence import Calibration

_STATE = click.option("--state", metavar="DIR", help="The gateway's state folder. [FIRSTDRAFT_STATE]")
_MODEL = click.argument("model", default=SHIPPED_MODEL)
_MEGABYTE = 1e6
_TARGETS = (0.2, 0.1, 0.05)


@click.group()
def edge() -> None:
    """The draft model: its formats, the fastest here, and how sure it is."""


def _formats(model: str, state: str | None) -> Formats:
    settings = load_settings({"state": state, "policies": "."}, os.environ, home=home())
    if model.startswith(hub.PREFIX):
        model = str(hub.fetch(model, settings.state / "hub", lambda told: click.echo(told, err=True)))
    return Formats(find_model(model), settings.state)


def _names(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip().lower() for name in value.split(",") if name.strip()))
    unknown = [name for name in names if name not in LADDER]
    if unknown or not names:
        raise click.BadParameter(f"{', '.join(unknown) or 'nothing'} is no format; there are {', '.join(LADDER)}")
    return names


@edge.command("formats")
@_MODEL
@_STATE
def formats(*, model: str, state: str | None) -> None:
    """Show which formats of a model there are, and which is loaded.

    MODEL is the shipped model's name (the default), the path of a .gguf file, or hf://….
    """
    found = _formats(model, state)
    chosen = _loaded(found, model)
    for name in (SOURCE, *LADDER):
        path = found.made(name)
        size = f"{path.stat().st_size / _MEGABYTE:8.1f} MB" if path else "          -"
        mark = "loaded at the next start" if name == chosen else ""
        click.echo(f"{name:<8}{size}   {mark}".rstrip())


@edge.command("quantize")
@_MODEL
@click.option("--to", "names", required=True, callback=_names, help=f"Formats, with commas: {', '.join(LADDER)}.")
@_STATE
def quantize(*, model: str, names: tuple[str, ...], state: str | None) -> None:
    """Make formats of a model, in the state folder."""
    found = _formats(model, state)
    for name in names:
        path = _make(found, name)
        click.echo(f"{name:<8}{path.stat().st_size / _MEGABYTE:8.1f} MB   {path}")


def _make(found: Formats, name: str) -> Path:
    from gateway.edge import quantization

    try:
        return found.make(name, quantization.quantize)
    except (OSError, RuntimeError) as error:
        raise EdgeUnavailable(f"{name} could not be made: {error}") from error


@edge.command("tune")
@_MODEL
@click.option(
    "--max-quality-loss",
    "most_loss",
    type=click.FloatRange(0, 1),
    default=0.03,
    show_default=True,
    help="How much larger the perplexity may get: 0.03 is 3 %.",
)
@click.option("--to", "names", default=",".join(TUNED), show_default=True, callback=_names, help="Formats to try.")
@click.option("--threads", type=click.IntRange(1, 256), default=1, show_default=True, help="Threads to measure with.")
@click.option("--dry-run", is_flag=True, help="Measure, and keep what was chosen before.")
@_STATE
def tune(
    *, model: str, most_loss: float, names: tuple[str, ...], threads: int, dry_run: bool, state: str | None
) -> None:
    """Measure the formats of a model here, and keep the fastest that is good enough.

    Each format is made, if it is not there, and measured on a text that comes with the gateway: speed, memory,
    perplexity, and how often it finds the same token the likeliest as the model's file does. The fastest whose
    perplexity is not larger than the file's by more than --max-quality-loss is loaded from the next start on; faster
    ones that lose more are rolled back.
    """
    from gateway.edge.formats import choose

    found = _formats(model, state)
    measured = _measure(found, names, threads)
    choice = choose(measured, most_loss)
    source = measured[0]
    click.echo("format    prefill/s  decode/s        MB  perplexity      loss  agreement   draft of 500+64")
    for one in measured:
        click.echo(_row(one, source) + ("   kept" if one is choice.kept else ""))
    for one in choice.rolled_back:
        click.echo(f"{one.name} is faster and loses {one.loss(source):.1%}, over {most_loss:.1%}: rolled back")
    if dry_run:
        click.echo(f"{choice.kept.name} would be kept")
        return
    found.choose(choice.kept.name)
    click.echo(f"{choice.kept.name} is kept: the edge loads it at its next start")


def _row(one: Measured, source: Measured) -> str:
    speeds = f"{one.name:<8}{one.prefill_rate:>11.0f}{one.decode_rate:>10.0f}{one.model_bytes / _MEGABYTE:>10.1f}"
    quality = f"{one.perplexity:>12.3f}{one.loss(source):>10.1%}{one.agreement:>11.1%}"
    return f"{speeds}{quality}{one.draft_s:>15.2f} s"


def _measure(found: Formats, names: tuple[str, ...], threads: int) -> list[Measured]:
    """The source, and then each format; with a bar for each where somebody watches."""
    from rich.console import Console
    from rich.progress import Progress

    from gateway.edge import tuning

    with Progress(console=Console(stderr=True), transient=True) as bars:
        source = _reading(bars, SOURCE, partial(tuning.read, found.source, threads))
        measured = [tuning.measured(SOURCE, source, source)]
        for name in names:
            path = _make(found, name)
            reading = _reading(bars, name, partial(tuning.read, path, threads))
            measured.append(tuning.measured(name, reading, source))
    if source.plain:
        click.echo(
            "measured with plain kernels: this build of llama.cpp has faster ones, which cannot run here", err=True
        )
    return measured


def _reading(bars: Progress, name: str, read: Callable[[Callable[[float], None]], Reading]) -> Reading:
    bar = bars.add_task(name, total=1.0)
    try:
        return read(lambda share: bars.update(bar, completed=share))
    except RuntimeError as error:
        raise EdgeUnavailable(str(error)) from error
    finally:
        bars.update(bar, completed=1.0)


@edge.command("calibrate")
@click.argument("pairs", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--model", default=SHIPPED_MODEL, show_default=True, help="The model that gave the answers.")
@click.option("--format", "name", default=None, help="The format it had; the one that is loaded, if not given.")
@click.option("--dry-run", is_flag=True, help="Tell what would be learnt, and keep what was learnt before.")
@_STATE
def calibrate(*, pairs: tuple[Path, ...], model: str, name: str | None, dry_run: bool, state: str | None) -> None:
    """Learn from verdicts how far to trust the draft model.

    PAIRS are files of JSON lines: the gateway's own log, whose drafts have their features and their verdict (confirmed
    is good, revised and replaced are not), or lines {"features": [...], "good": true}. All figures are cross-validated.
    From then on complete drafts have a `confidence`, for this model in this format; a running gateway reads it at once.
    """
    from gateway.modes import calibration
    from gateway.modes.confidence import calibration_file

    found = _formats(model, state)
    fingerprint = f"{found.key}-{name or _loaded(found, model)}"
    known, without = calibration.read_pairs(line for path in pairs for line in path.open("rb"))
    try:
        report = calibration.calibrate(known)
    except ValueError as error:
        raise EdgeUnavailable(f"nothing can be learnt: {error}") from error
    learnt = report.calibration
    click.echo(f"{learnt.pairs} answers, {report.good_share:.1%} good; {without} lines without one")
    click.echo(f"AUC    {learnt.auc:.3f}   (0.5 knows nothing, 1 everything)")
    click.echo(f"Brier  {learnt.brier:.3f}   (always saying {report.good_share:.1%}: {report.brier_of_share:.3f})")
    click.echo("the surest   bad among them")
    for coverage, risk in report.risks:
        click.echo(f"{coverage:>10.0%}{risk:>15.1%}")
    for target in _TARGETS:
        click.echo(_standing(learnt, target))
    if learnt.brier >= report.brier_of_share:
        click.echo("it knows no more than the share of good ones: not kept")
    elif dry_run:
        click.echo("not kept")
    else:
        write_whole(calibration_file(found.folder.parent, fingerprint), msgspec.json.encode(learnt))
        click.echo(f"kept for {fingerprint}")


def _standing(learnt: Calibration, target: float) -> str:
    """What a cascade with this `target_error` would do."""
    threshold = learnt.threshold(target)
    share = next((point.coverage for point in learnt.curve if point.threshold == threshold), 0.0)
    if not share:
        return f"target_error {target:g}: no threshold is sure enough, nothing would stand"
    return f"target_error {target:g}: threshold {threshold:.3f}, {share:.0%} would stand"


def _loaded(found: Formats, model: str) -> str:
    return found.chosen or (SHIPPED_FORMAT if model == SHIPPED_MODEL else SOURCE)
