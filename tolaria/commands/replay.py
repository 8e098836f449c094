"""`esper replay`: a run's decisions made again from its journal, and what differs."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from leyline import ConfigError, Event, RunStarted
from tamiyo.policies import SHARED
from tolaria.commands.explain import with_journal
from tolaria.config import EsperConfig, load_config
from tolaria.disk.journal import read
from tolaria.growth.policies import build_policy
from tolaria.growth.policy_kinds import policy_kind
from tolaria.resume.redecide import Redecided, Turn, redecide
from tolaria.show.output import Output
from tolaria.show.redecided import redecided_dict, redecided_table, summary_lines


def replay_run(
    path: Path, *, policy: str | None = None, settings: Sequence[str] = (), as_json: bool = False
) -> None:
    """Decide every boundary of a run again and show what differs.

    The process ends with exit code 1 if the run's own policy decides otherwise than it did.

    Args:
        path: the run's directory; nothing is written there.
        policy: the name of another policy to ask instead of the run's own.
        settings: NAME=VALUE, options of that policy or settings that policies are built from.
        as_json: one JSON object a line instead of a table.

    Raises:
        RunError: there is no run at `path`, or its journal is lost or cannot be read.
        ConfigError: there is no such policy or option, or its value is none.
    """
    given = _parsed(settings)
    run = with_journal(path)
    is_live = run.is_held()
    events = list(read(run.journal))
    own = _own_settings(events)
    if policy is None:
        _refuse_missing(_policy_of(own))
    config = _config(own, policy, given)
    is_own = not given and policy in (None, _policy_of(own))
    rows = list(redecide(events, build_policy(config, in_time=False), is_own=is_own))
    if as_json:
        for row in rows:
            sys.stdout.write(json.dumps(redecided_dict(row)) + "\n")
    else:
        _show(rows, is_own=is_own, is_live=is_live)
    if is_own and any(row.verdict == "different" for row in _boundaries(rows)):
        sys.exit(1)


def _refuse_missing(own: str) -> None:
    """Refuse a run whose own policy is not known here."""
    try:
        policy_kind(own)
    except ConfigError as error:
        raise ConfigError(
            f"the run's own policy {own!r} is not installed here: install the package that it is "
            "from, or ask another one, as with --policy heuristic"
        ) from error


def _show(rows: Sequence[Redecided | Turn], *, is_own: bool, is_live: bool) -> None:
    console = Output()
    if not rows:
        console.print("no boundary has been passed" + (" yet" if is_live else ""))
        return
    console.print(redecided_table(rows))
    console.print()
    for line in summary_lines(rows, is_own=is_own, is_live=is_live):
        console.print(line, markup=False, soft_wrap=True)


def _boundaries(rows: Iterable[Redecided | Turn]) -> Iterator[Redecided]:
    return (row for row in rows if isinstance(row, Redecided))


def _policy_of(settings: dict[str, Any]) -> str:
    return str(settings.get("policy", EsperConfig().policy))


def _own_settings(events: Iterable[Event]) -> dict[str, Any]:
    """The settings that the run, or its last resumed part, was started with."""
    told = next((e.settings for e in reversed([*events]) if isinstance(e, RunStarted)), {})
    return {name: json.loads(value) for name, value in told.items()}


def _config(own: dict[str, Any], policy: str | None, given: dict[str, Any]) -> EsperConfig:
    """The config of the policy that is asked; the environment says nothing of a run that was."""
    values = dict(own)
    if policy is not None and policy != _policy_of(own):
        for name in ("enabled", "schedule", "policy_options"):
            values.pop(name, None)  # those were meant for the other one
        values["policy"] = policy
    options = dict(values.get("policy_options", {}))
    for name, value in given.items():
        (values if name in SHARED else options)[name] = value
    if options:
        values["policy_options"] = options
    return load_config(values, environment={})


def _parsed(settings: Sequence[str]) -> dict[str, Any]:
    """What --set says, by name.

    Raises:
        ConfigError: it is not NAME=VALUE, or the value is not one of TOML.
    """
    given = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"--set {setting!r} is not NAME=VALUE, such as min_gain=0.01")
        try:
            (given[name.strip()],) = tomllib.loads(f"value = {text}").values()
        except (tomllib.TOMLDecodeError, ValueError) as error:
            raise ConfigError(
                f"--set {setting!r}: {text!r} is not a value as TOML has them, such as 0.01, true, "
                f"'\"text\"' or [1, 2]"
            ) from error
    return given
