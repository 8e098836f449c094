"""`esper explain`: a seed's life in plain sentences."""

from __future__ import annotations

import difflib
import json
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from leyline import RunError
from tolaria.commands.history import read_view
from tolaria.disk.journal import read
from tolaria.disk.run import RunDirectory
from tolaria.show.output import Output
from tolaria.show.phrases import clean, counted
from tolaria.show.story import Story, stories, story_of
from tolaria.show.story_words import headline_of
from tolaria.show.told import story_dict, told
from tolaria.show.view import RunView

_NUM_CLOSE = 3
_NUM_NAMED = 12
_LIFE: Final = re.compile(r"(.+) \(life (\d{1,9})\)")
"""What tables call a seed whose place had others before it."""


def with_journal(path: Path) -> RunDirectory:
    """Open a run to read what its journal tells.

    Raises:
        RunError: there is no run at `path`, or it has lost its journal.
    """
    run = RunDirectory.open(path, lock=False)
    if not run.journal.is_file():
        raise RunError(
            f"{path} has no {run.journal.name}, so nothing of what it decided is known; if it is a "
            "copy, copy that too"
        )
    left = [run.report, *run.checkpoints.glob("active/*")]
    if any(file.exists() for file in left) and next(read(run.journal), None) is None:
        raise RunError(
            f"{run.journal} holds no event, though the run has left others: it has lost its "
            f"content; `esper verify {shlex.quote(str(path))}` says what else has"
        )
    return run


def explain_run(path: Path, seed: str | None, *, as_json: bool = False) -> None:
    """Tell every life of a seed; without one, name each seed that was grafted in one line.

    Args:
        path: the run's directory; nothing is written there.
        seed: its name, such as block2/3.
        as_json: print a list with an object for each life instead.

    Raises:
        RunError: as `with_journal`, or it never had a seed of that name.
    """
    run = with_journal(path)
    view = read_view(run)
    if seed is None:
        found = [story_of(view, life) for life in view.seeds if life.touched_host]
    else:
        found = _found(view, seed)
        if not found:
            raise RunError(_unknown(view, path, seed))
    if as_json:
        sys.stdout.write(json.dumps([story_dict(story) for story in found], indent=2) + "\n")
        return
    console = Output()
    if seed is None:
        _list(console, view, found, path)
        return
    for number, story in enumerate(found):
        if number:
            console.print()
        console.print(told(story))


def _found(view: RunView, seed: str) -> list[Story]:
    """Every life of a seed, or the one that its name has a number of, as in tables."""
    found = stories(view, seed)
    numbered = _LIFE.fullmatch(seed)
    if found or numbered is None:
        return found
    return [story for story in stories(view, numbered[1]) if story.life.life == int(numbered[2])]


def _list(console: Console, view: RunView, found: Sequence[Story], path: Path) -> None:
    for story in found:
        console.print(headline_of(story), markup=False, soft_wrap=True)
    others = [life.seed for life in view.seeds if not life.touched_host]
    if not found:
        console.print("no seed was grafted" + (" yet" if view.status == "running" else ""))
    example = found[-1].life.seed if found else others[-1] if others else ""
    if example:
        rest = f"; {counted(len(others), 'candidate')} that only raced can be asked for too"
        command = f"esper explain {shlex.quote(str(path))} {shlex.quote(clean(example))}"
        said = f"{command} tells all of it{rest if others else ''}"
        console.print(said, style="dim", markup=False, soft_wrap=True)


def _named(seeds: Sequence[str]) -> str:
    more = f" and {len(seeds) - _NUM_NAMED:,} more" if len(seeds) > _NUM_NAMED else ""
    return ", ".join(clean(name) for name in seeds[:_NUM_NAMED]) + more


def _unknown(view: RunView, path: Path, seed: str) -> str:
    known = list(dict.fromkeys(life.seed for life in view.seeds))
    if not known:
        return f"no seed is named {seed!r}: {path} has planted none"
    at_site = list(dict.fromkeys(life.seed for life in view.seeds if life.site == seed))
    if at_site:
        return f"{seed!r} is a site, which had {counted(len(at_site), 'seed')}: {_named(at_site)}"
    close = difflib.get_close_matches(seed, known, n=_NUM_CLOSE, cutoff=0.3) or known[:_NUM_CLOSE]
    names = ", ".join(clean(name) for name in close)
    listed = f"`esper explain {shlex.quote(str(path))}` lists those grafted"
    return f"no seed is named {seed!r}; there is {names}; {listed}"
