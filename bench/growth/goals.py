"""The eight goals, each stated as won, tied or lost with its figure and interval."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import stdev
from typing import Any, Final

from bench.growth import verdicts
from bench.growth.arms.static import ESPER
from bench.growth.comparisons import growing, of_esper, runs, versus
from bench.growth.plan import Plan
from bench.growth.results import Result
from bench.growth.statistics import Estimate, mean, spearman
from bench.growth.task import Task
from bench.growth.verdicts import Part

_SPATIAL: Final = frozenset(
    {"conv", "conv_two_layers", "depthwise_conv", "depthwise_conv_k5", "dilated_depthwise_conv"}
)
_LEAST_CORRELATION: Final = 0.8
_LEAST_GRAFTS: Final = 30
_MOST_SEARCH: Final = 1 / 3
_MOST_PARAMETERS: Final = 2 / 3
_MOST_RISE: Final = 0.02
_MOST_OVERHEAD: Final = 0.05
_NOISE_DEVIATIONS: Final = 2.0


def goals(plan: Plan) -> list[dict[str, Any]]:
    """Every goal with its parts, as plain values: id, verdict, figure, interval and text."""
    tasks = {task.name: task for task in plan.tasks}
    found = []
    for number, parts_of in enumerate(_GOALS, 1):
        parts = [part for task in tasks.values() for part in parts_of(plan, task)]
        if parts:
            whole = verdicts.worst([part.verdict for part in parts])
            deciding = next(part for part in parts if part.verdict == whole)
            text = "; ".join(f"{part.id}: {part.verdict}" for part in parts)
            found.append(_plain(Part(str(number), whole, deciding.estimate, text)))
            found += [_plain(part._replace(id=f"{number}/{part.id}")) for part in parts]
    return found


def _plain(part: Part) -> dict[str, Any]:
    estimate = part.estimate
    return {
        "id": part.id,
        "verdict": part.verdict,
        "figure": None if estimate is None else estimate.figure,
        "interval": None if estimate is None else [estimate.low, estimate.high],
        "text": part.text,
    }


def _beats_peers(plan: Plan, task: Task) -> Iterator[Part]:
    if task.name == "fashion":
        for arm in ("perforated_ai", "gromo", "random_place"):
            goal = f"better than {arm} by 0.5 points or more"
            yield versus(plan, task, arm, lambda gain: verdicts.better_by(gain, 0.5), goal)


def _finds_convolutions(plan: Plan, task: Task) -> Iterator[Part]:
    if task.name != "mnist1d":
        return
    goal = "20 points or more over the wider host of as many parameters and FLOPs"
    yield versus(plan, task, "widened_flops", lambda gain: verdicts.better_by(gain, 20.0), goal)

    def chosen(grown: list[Result]) -> Part:
        """In how many runs a convolution is in the final network."""
        having = sum(any(b in _SPATIAL for _, b in growing(run).structure) for run in grown)
        share = mean([having / len(grown)])
        text = f"convolutions chosen in {having} of {len(grown)} runs"
        return Part("", verdicts.always(having == len(grown)), share, text)

    yield of_esper(plan, task, ", choice", chosen)
    goal = "within 1 point of the hand-picked network at equal FLOPs, search included"
    yield versus(plan, task, "hand_flops", lambda gain: verdicts.not_below(gain, 1.0), goal)


def _beats_random_search(plan: Plan, task: Task) -> Iterator[Part]:
    goal = "better than the best of a random search for the same FLOPs"
    yield versus(plan, task, "random_search", verdicts.better_by, goal)


def _keeps_up(plan: Plan, task: Task) -> Iterator[Part]:
    if task.name == "fashion":
        goal = "not below the hand-picked network at equal FLOPs"
        yield versus(plan, task, "hand_flops", verdicts.not_below, goal)
        rows = runs(plan, task, ESPER, "hand")
        name = "fashion, parameters"
        if rows is None:
            yield Part(name, "missing", None, "runs are missing")
            return
        share = mean([ours.num_parameters / hand.num_parameters for ours, hand in rows])
        text = f"its parameters are {share} of those of the hand-picked network; 2/3 at most"
        yield Part(name, verdicts.at_most(share, _MOST_PARAMETERS), share, text)
    if task.name == "bytes":
        goal = "not below its own final network, trained from scratch, at equal FLOPs"
        yield versus(plan, task, "found_flops", verdicts.not_below, goal)


def _searches_cheaply(plan: Plan, task: Task) -> Iterator[Part]:
    def judge(grown: list[Result]) -> Part:
        """The share of FLOPs in trials and counterfactuals."""
        share = mean([run.search_flops / run.flops for run in grown])
        text = f"search took {share} of all FLOPs; 1/3 at most"
        return Part("", verdicts.at_most(share, _MOST_SEARCH), share, text)

    yield of_esper(plan, task, "", judge)


def _trials_tell(plan: Plan, task: Task) -> Iterator[Part]:
    pairs = gains(plan, task)
    if len(pairs) < _LEAST_GRAFTS:
        text = f"{len(pairs)} grafts of {_LEAST_GRAFTS} or more are done"
        yield Part(task.name, "missing", None, text)
        return
    trial, realised_gains, sizes = zip(*pairs, strict=True)
    ours, null = spearman(trial, realised_gains), spearman(sizes, realised_gains)
    text = f"over {len(pairs)} grafts {ours}; the null, more parameters are better: {null}"
    verdict = verdicts.ranks_well(ours, null, _LEAST_CORRELATION)
    yield Part(task.name, verdict, ours, text)


def gains(plan: Plan, task: Task) -> list[tuple[float, float, int]]:
    """(trial gain, realised gain, parameters) of every candidate grafted from the one state."""
    done = plan.realised(task)
    if not done:
        return []
    (_, control), *others = done
    pairs = []
    for _, result in others:
        for graft in growing(result).grafts:
            if graft.trial_gain is not None:
                gain = control.val_loss - result.val_loss
                pairs.append((graft.trial_gain, gain, graft.num_parameters))
    return pairs


def _does_no_harm(plan: Plan, task: Task) -> Iterator[Part]:
    def rise(grown: list[Result]) -> Part:
        """The worst of all grafts, and beside it that of culls."""
        most = max(growing(run).worst_rise for run in grown)
        by_cull = max(growing(run).worst_rise_of_cull for run in grown)
        in_ramp = max(growing(run).worst_rise_in_ramp for run in grown)
        text = (
            f"a graft raised validation loss by {most:.2%} at most, 2 % are allowed; "
            f"taking one out that was not surely of use: {by_cull:.2%}; "
            f"between two validations while an alpha rose: {in_ramp:.2%}, training included"
        )
        return Part("", verdicts.always(most <= _MOST_RISE), Estimate(most, most, most), text)

    def tracking(grown: list[Result]) -> Part:
        """Parameters that no optimizer held."""
        most = max(growing(run).num_untracked for run in grown)
        text = f"the optimizer missed {most} parameters at most"
        return Part("", verdicts.always(most == 0), Estimate(most, most, most), text)

    def overhead(grown: list[Result]) -> Part:
        """Time in Esper outside races."""
        share = mean([growing(run).overhead for run in grown])
        text = f"overhead outside races {share} of training and validation; 0.05 at most"
        return Part("", verdicts.at_most(share, _MOST_OVERHEAD), share, text)

    yield of_esper(plan, task, ", rise", rise)
    yield of_esper(plan, task, ", optimizer", tracking)
    yield of_esper(plan, task, ", overhead", overhead)


def _is_never_worse(plan: Plan, task: Task) -> Iterator[Part]:
    rows = runs(plan, task, ESPER, "host")
    if rows is None:
        yield Part(task.name, "missing", None, "runs are missing")
        return
    found = [task.gain(ours.test_metric, host.test_metric) for ours, host in rows]
    noise = _NOISE_DEVIATIONS * _deviation([host.test_metric for _, host in rows])
    text = f"the worst of {len(found)} runs is {min(found):+.3g} {task.unit}; noise {noise:.3g}"
    yield Part(task.name, verdicts.never_worse(found, noise), mean(found), text)


def _deviation(values: list[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


_GOALS: Final = (
    _beats_peers,
    _finds_convolutions,
    _beats_random_search,
    _keeps_up,
    _searches_cheaply,
    _trials_tell,
    _does_no_harm,
    _is_never_worse,
)
