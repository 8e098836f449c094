"""The commands. Each imports its work when it is called, so that `--help` answers at once."""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import click

_RUN = click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
_TARGET = click.argument("target", required=False, metavar="[CONFIG.toml | package.module:Model]")
_SETTINGS = (
    click.option(
        "--data",
        metavar="NAME",
        help="digits, mnist1d, fashion-mnist, or package.module:DataModule.",
    ),
    click.option("--data-dir", metavar="DIR", help="Where a data set that is not shipped lies."),
    click.option("--epochs", type=int, metavar="N", help="Epochs to train."),
    click.option("--threads", type=int, metavar="N", help="Threads for torch (small sets: 1)."),
    click.option(
        "--rng-seed",
        type=int,
        metavar="N",
        help="Seed of all randomness, 0 to 2**63 - 1 (default 0).",
    ),
    click.option(
        "--run-dir", metavar="DIR", help="Directory of the run (default: a dated one in runs/)."
    ),
    click.option(
        "--telemetry", metavar="URL", help="embedded (default), memory, off, or a server's URL."
    ),
    click.option(
        "--policy", metavar="NAME", help="heuristic (default), schedule, random, hold, or your own."
    ),
)


def _with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the target and the options that say what is trained, and how."""
    for option in reversed((_TARGET, *_SETTINGS)):
        command = option(command)
    return command


def _say_versions(context: click.Context, _: click.Parameter, asked: bool) -> None:
    """Print them without an import that takes seconds, and end."""
    if asked:
        versions = [
            ("esper", "esper-morphogenesis"),
            ("torch", "torch"),
            ("lightning", "lightning"),
        ]
        for name, package in versions:
            click.echo(f"{name} {metadata.version(package)}")
        click.echo(f"python {platform.python_version()}")
        context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_say_versions,
    help="Print the versions of esper, torch, lightning and python.",
)
def esper() -> None:
    """Let a PyTorch network grow new modules while it trains, without disturbing the run."""


@esper.command(short_help="Write a config and a script to begin with.")
@click.argument(
    "directory", required=False, metavar="[DIR]", default=".", type=click.Path(path_type=Path)
)
def init(directory: Path) -> None:
    """Write a commented config and a script that runs as it is, to begin with."""
    from tolaria.commands.init import init

    init(directory)


@esper.command()
@_with_settings
@click.option(
    "--dry-run", is_flag=True, help="Stop before the first step and say what would happen."
)
@click.option("--resume", is_flag=True, help="Go on with an interrupted run (default: the newest).")
@click.option(
    "--compare",
    is_flag=True,
    help="Then train the host alone: same epochs, same FLOPs (as much work again).",
)
def train(target: str | None, **options: Any) -> None:
    """Train and grow a network. Without arguments: the handwritten digits, in under a minute."""
    from tolaria.commands.train import run_command

    run_command(target, **options)


@esper.group(short_help="Show the settings that a run would have.")
def config() -> None:
    """What settings a run would have."""


@config.command()
@_with_settings
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def show(target: str | None, *, as_json: bool, **options: Any) -> None:
    """Print every setting that a run with these arguments would have, and where it comes from."""
    from tolaria.commands.config_show import show_config
    from tolaria.commands.spec import divided

    given, overrides = divided(options)
    show_config(target, given, overrides, as_json=as_json)


@esper.command(short_help="Follow a live run through its bus.")
@click.argument("run", metavar="RUN|URL")
def watch(run: str) -> None:
    """Follow a live run through its bus, or see again one that has ended."""
    from tolaria.commands.watch import watch_run

    watch_run(run)


@esper.command()
@_RUN
@click.option("--json", "as_json", is_flag=True, help="Machine-readable, the bus ledger included.")
def inspect(run: Path, *, as_json: bool) -> None:
    """Print a run's seeds and decisions."""
    from tolaria.commands.inspection import inspect_run

    inspect_run(run, as_json=as_json)


@esper.command(short_help="Write the grown network to a file.")
@_RUN
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="A .pt2 or .safetensors file.",
)
@click.option("--seeds-only", is_flag=True, help="The seeds without their host (.safetensors).")
def export(run: Path, output: Path, *, seeds_only: bool) -> None:
    """Write the grown network: .pt2 runs with torch alone, .safetensors holds the weights."""
    from tolaria.commands.export import export_run

    export_run(run, output, seeds_only=seeds_only)


@esper.command()
@_RUN
def report(run: Path) -> None:
    """Write a run's HTML report again."""
    from tolaria.commands.inspection import write_report

    write_report(run)


@esper.command(short_help="Check all that a run has on disk.")
@click.argument("run", metavar="RUN|STORE")
def verify(run: str) -> None:
    """Check every digest and structure that a run has on disk; exit code 1 if something is bad.

    A STORE, sqlite:PATH or postgresql://..., is an audit trail by itself.
    """
    from tolaria.commands.verify import verify_run, verify_store

    if run.startswith(("sqlite:", "postgresql:", "postgres:")):
        verify_store(run)
    else:
        verify_run(Path(run))


@esper.command(short_help="Check a server for telemetry.")
@click.argument("url", required=False, metavar="[URL]")
def doctor(url: str | None) -> None:
    """Look at a server's version, speed, rights, TLS and memory, and say what to mend.

    Without a URL: the server that a run starts by itself. Exit code 1 if something is to mend.
    """
    from tolaria.commands.doctor import examine_server

    examine_server(url)


@esper.command(
    short_help="Measure what Esper costs, beside limits and peers.",
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench(arguments: tuple[str, ...]) -> None:
    """Run the benches of the checkout that Esper is installed from; --help tells their options."""
    from tolaria.commands.bench import measure

    measure(arguments)


@esper.command(short_help="Search a run's audit trail.")
@click.argument("run", metavar="RUN|STORE")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    metavar="KIND",
    help="Only events of this kind, such as decision, seed_report, fault, step; may be repeated.",
)
@click.option("--seed", metavar="NAME", help="Only events about this seed, such as block2/3.")
@click.option("--since", metavar="WHEN", help="90s, 10m, 2h or 7d ago; or 2026-11-21T10:00.")
@click.option("--epoch", type=int, metavar="N", help="Only events of this epoch.")
@click.option("--limit", type=int, metavar="N", help="Only the newest so many.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, with all it says.")
@click.option(
    "--export",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write them to a .jsonl or .parquet file instead.",
)
def events(run: str, **options: Any) -> None:
    """Search the audit trail of a run, live or over: every event, chained, kept for good.

    A STORE, sqlite:PATH or postgresql://..., is what `esper collect` has filled.
    """
    from tolaria.commands.events import show_events

    show_events(run, **options)


@esper.command(short_help="Keep a run's events in an audit trail, as they come.")
@click.argument("target", metavar="RUN|URL")
@click.option(
    "--store",
    metavar="STORE",
    help="sqlite:PATH or postgresql://USER@HOST/DATABASE (default: audit.db in the run).",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    metavar="N",
    help="Serve /metrics on 127.0.0.1:N (0: any port).",
)
def collect(target: str, **options: Any) -> None:
    """Write events to an audit trail as they come, until the run has ended, or Ctrl-C."""
    from tolaria.commands.collect import collect_run

    collect_run(target, **options)


@esper.command(short_help="Go back to an earlier checkpoint.")
@_RUN
@click.option("--to", "step", required=True, type=int, metavar="STEP", help="Checkpoint's step.")
def rollback(run: Path, *, step: int) -> None:
    """Have the next resume go on from an earlier checkpoint; later ones are set aside."""
    from tolaria.commands.rollback import roll_back_run

    roll_back_run(run, step)


@esper.command(short_help="Decide a run's boundaries again.")
@_RUN
@click.option("--policy", metavar="NAME", help="Ask another policy than the run's own.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="An option of the policy, such as min_gain=0.01, or a setting it goes by (veto=false).",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, scores included.")
def replay(run: Path, **options: Any) -> None:
    """Decide every boundary of a run again from its journal, and show what differs.

    Exit code 1 if the run's own policy decides otherwise than it did. Nothing is trained.
    """
    from tolaria.commands.replay import replay_run

    replay_run(run, **options)


@esper.command(short_help="Tell a seed's life in plain sentences.")
@_RUN
@click.argument("seed", required=False, metavar="[SEED]")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def explain(run: Path, seed: str | None, *, as_json: bool) -> None:
    """Tell what a seed is, whom it raced, what was expected of it and what came of it.

    Without SEED: a line for each that was grafted.
    """
    from tolaria.commands.explain import explain_run

    explain_run(run, seed, as_json=as_json)
