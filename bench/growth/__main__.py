"""The evidence that growing pays: every arm on every task, the goals, and results.json.

Run it: python -m bench.growth --short. It may be stopped at any time and started again: only runs
under way are lost.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from statistics import fmean

import click
from rich.console import Console

from bench.growth import realised, table
from bench.growth.arms import ARMS
from bench.growth.arms.esper import ALGORITHM
from bench.growth.goals import goals
from bench.growth.page import page
from bench.growth.plan import Plan, Survey
from bench.growth.plots import plots
from bench.growth.store import RUNS, Job, Store
from bench.growth.task import Task
from bench.growth.tasks import TASKS, load
from bench.growth.workers import Workers, machine
from leyline import ConfigError

_HERE = Path(__file__).parent
_CHOICES = (*ARMS, realised.NAME)


@click.command(help=__doc__)
@click.option("--task", "tasks", multiple=True, type=click.Choice(list(TASKS)), help="default: all")
@click.option("--arm", "arms", multiple=True, type=click.Choice(_CHOICES), help="default: all")
@click.option("--rng-seeds", type=click.IntRange(1), help="of each arm; default: 5 or 3")
@click.option("--short", is_flag=True, help="Fashion-MNIST and bytes on less: about 4 core-hours")
@click.option("--jobs", type=click.IntRange(1), default=1, help="processes, one thread each")
@click.option(
    "--runs", "directory", type=click.Path(path_type=Path), default=RUNS, help="where runs are kept"
)
@click.option("--list", "only_list", is_flag=True, help="what is done and what is not")
@click.option("--report", "only_report", is_flag=True, help="tables, plots, results.json; no runs")
@click.option("--prune", is_flag=True, help="delete runs that this command would not use any more")
def main(
    tasks: tuple[str, ...],
    arms: tuple[str, ...],
    rng_seeds: int | None,
    short: bool,
    jobs: int,
    directory: Path,
    only_list: bool,
    only_report: bool,
    prune: bool,
) -> None:
    """Train what is missing, and print what growing is worth."""
    out = table.console()
    store = Store(directory)
    plan = Plan(_tasks(out, tasks or tuple(TASKS), short), arms or _CHOICES, rng_seeds, store)
    for task in plan.tasks:
        for arm in plan.arms:
            if (reason := arm.refusal(task.name)) is not None:
                out.print(f"{task.name}: no {arm.name}: {reason}")
    if prune:
        survey = plan.survey()
        if survey.ready or survey.num_waiting:
            sys.exit("what is not used any more is only known when no run is missing; see --list")
        out.print(f"{store.prune(job for job, _ in survey.done)} files deleted")
        return
    if only_list:
        _list(out, plan.survey())
        return
    num_failed = 0 if only_report else _do_all(out, plan, store, jobs, short=short)
    _report(out, plan, whole=not (tasks or arms or rng_seeds) and directory == RUNS, short=short)
    sys.exit(1 if num_failed else 0)


def _tasks(out: Console, names: tuple[str, ...], short: bool) -> list[Task]:
    """Those whose data are on this machine."""
    found = []
    for name in names:
        try:
            found.append(load(name, short=short))
        except ConfigError as error:
            out.print(f"{name} is left out: {error}")
    return found


def _absent(task: Task) -> dict[str, str]:
    """Why some arms have no run on a task."""
    refused = {arm.name: arm.refusal(task.name) for arm in ARMS.values()}
    return {name: why for name, why in refused.items() if why is not None}


def _list(out: Console, survey: Survey) -> None:
    for title, runs in (("done", [job for job, _ in survey.done]), ("missing", survey.ready)):
        for job in runs:
            out.print(f"{title} {_words(job)}")
    out.print(_progress(survey))


def _words(job: Job) -> str:
    rate = job.settings["learning_rate"]
    return f"{job.task}/{job.arm}, RNG seed {job.rng_seed}, rate {rate:g}"


def _progress(survey: Survey) -> str:
    """How far it is, and a guess at the time left from the runs that are done."""
    left_s = 0.0
    took_s: dict[tuple[str, ...], list[float]] = {}
    for job, result in survey.done:
        for key in ((job.task, job.arm), (job.task,), ()):
            took_s.setdefault(key, []).append(result.wall_s)
    for job in survey.ready:
        # What is not known yet most likely has the budget of a grown run.
        keys: tuple[tuple[str, ...], ...] = ((job.task, job.arm), (job.task, "esper"), (job.task,))
        left_s += next((fmean(took_s[key]) for key in keys if key in took_s), 0.0)
    left_s += survey.num_waiting * fmean(took_s.get((), [0.0]))
    num_left = len(survey.ready) + survey.num_waiting
    return (
        f"{len(survey.done)} runs are done, {num_left} are missing, {survey.num_waiting} of them "
        f"wait for others; about {left_s / 60:.0f} minutes of one process left"
    )


def _do_all(out: Console, plan: Plan, store: Store, jobs: int, *, short: bool) -> int:
    """Do what can be done until nothing is left; returns how many runs failed."""
    workers = Workers(jobs, store, short=short)
    failed: list[Job] = []
    started_s = time.monotonic()
    try:
        while True:
            survey = plan.survey()
            busy = workers.busy_with
            ready = [job for job in survey.ready if job not in busy and job not in failed]
            while ready and workers.has_idle:
                workers.begin(ready.pop(0))
            if not workers.busy_with:
                return len(failed)
            job, took_s = workers.next_done()
            if took_s is None or plan.get(job) is None:
                failed.append(job)  # or it would be tried again and again
            took = "failed, see above" if took_s is None else f"{took_s:.0f} s"
            minutes = (time.monotonic() - started_s) / 60
            out.print(f"{minutes:6.1f} min  {_words(job)}: {took}")
            out.print(f"            {_progress(plan.survey())}")
    except KeyboardInterrupt:
        out.print("stopped; the same command goes on from here")
        return len(failed)
    finally:
        workers.stop()


def _report(out: Console, plan: Plan, *, whole: bool, short: bool) -> None:
    """Print the tables; results.json and plots are only written for the whole benchmark."""
    summaries, found = table.arms(plan), goals(plan)
    table.show_arms(out, summaries)
    table.show_goals(out, found)
    if whole:
        results = {
            "machine": machine(),
            "algorithm": ALGORITHM,
            "short": short,
            "goals": found,
            "arms": summaries,
            "rates": {task.name: ", ".join(map(str, task.learning_rates)) for task in plan.tasks},
            "absent": {task.name: _absent(task) for task in plan.tasks},
        }
        path = _HERE / "results.json"
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        (_HERE / "results.md").write_text(page(results), encoding="utf-8")
        out.print(f"{path}, results.md; {plots(plan, summaries, _HERE)}")


if __name__ == "__main__":
    main()
