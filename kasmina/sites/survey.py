"""The survey: find the sites of a model by dry runs on a copy, and say why the rest are none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, nn

from kasmina.compiled import nothing_compiled
from kasmina.rng import isolated_rng
from kasmina.sites.disturbance import Disturber, Stream, measure_axes
from kasmina.sites.layout import LEAVES, channel_axis, layout_of
from kasmina.sites.shape import SiteShape
from kasmina.sites.sighting import Sighting, Watch
from kasmina.sites.site import Site
from kasmina.sites.tap import tapped
from kasmina.sites.twins import twins
from kasmina.slots.slot import SLOT, refusal
from kasmina.trials.task import copy_module
from kasmina.work import count_work

_CONTAINERS: Final = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)


@dataclass
class Survey:
    """What a dry run saw: the sites, and why every other candidate is none."""

    sites: list[Site] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    """Every submodule that was looked at and is no site, with the reason."""
    example: tuple[Any, ...] | None = None
    """Positional arguments of the model's own forward in the dry run, if it was called so."""
    host_work: int = 0
    """Of a pass of the model, as `count_work` has it."""


def survey(model: nn.Module, example: tuple[Any, ...]) -> Survey:
    """Find the sites of a model, in the order of its submodules, and why the rest are none.

    The dry runs happen on a copy: the model's buffers, gradients and mode, and the random streams
    of the process, are left as they were. Nothing is compiled.

    Args:
        model: any module.
        example: the positional arguments of one forward call, as a tuple; a single tensor is
            taken for a tuple of one.

    Raises:
        TrialError: the model cannot be copied.
    """
    arguments = (example,) if isinstance(example, Tensor) else tuple(example)
    return survey_copy(copy_module(model), lambda copied: copied(*arguments))


def discover(model: nn.Module, example: tuple[Any, ...]) -> list[Site]:
    """The sites that `survey` finds."""
    return survey(model, example).sites


def survey_copy(model: nn.Module, run: Callable[[nn.Module], Any]) -> Survey:
    """Find the sites of a model by dry runs: train, eval with and without gradients.

    A site is called, equally often in all three, with gradients in training, and returns a
    floating tensor, alone or first. Of modules that return the very same tensor (a block and its
    last layer) the innermost is the site. Weights that two modules share do not matter, because a
    seed extends outputs and touches no weight of the host; a module that stands under two names
    does, because its seed would stand there twice.

    Args:
        model: a copy that may be run; its buffers and gradients change.
        run: calls the model once, as training does.
    """
    found = Survey()
    candidates = _candidates(model, found)
    if any(value.is_meta for value in (*model.parameters(), *model.buffers())):
        reason = "the model is on the meta device, which holds no values; give it real tensors"
        found.refused.update(dict.fromkeys(candidates, reason))
        return found
    watch = Watch(model, candidates)
    with nothing_compiled(), _example_kept(model, found):
        for mode, (training, grad) in enumerate([(True, True), (False, True), (False, False)]):
            model.train(training)
            tap = watch.tap(mode)
            with isolated_rng(0), torch.set_grad_enabled(grad), tapped(watch.modules, tap):
                run(model)
        model.train()  # in eval mode a transformer may be a single kernel, which hides its work
        with isolated_rng(0), torch.enable_grad():
            found.host_work = count_work(lambda: run(model))
        seen = watch.sightings
        _refuse_twins(model, seen, found)
        _refuse_unfit(model, candidates, seen, found)
        axes = _channel_axes(candidates, watch, found)
        _open(model, run, watch, axes, found)
    found.refused = {name: found.refused[name] for name in candidates if name in found.refused}
    return found


def _candidates(model: nn.Module, found: Survey) -> dict[str, nn.Module]:
    """The submodules to look at; those that cannot be sites whatever they do are refused here."""
    named = {n: m for n, m in model.named_modules(remove_duplicate=False) if _is_candidate(n, m)}
    first_name: dict[int, str] = {}
    for name, module in named.items():
        twin = first_name.setdefault(id(module), name)
        reason = refusal(module)
        if twin != name:
            found.refused[name] = found.refused[twin] = (
                f"one module under two names: {twin}, {name}"
            )
        elif reason is not None:
            found.refused[name] = reason
    return named


def _is_candidate(name: str, module: nn.Module) -> bool:
    if not name or SLOT in name.split(".") or isinstance(module, _CONTAINERS):
        return False
    has_own = any(parameter is not None for parameter in module._parameters.values())
    return isinstance(module, LEAVES) or has_own or any(True for _ in module.children())


@contextmanager
def _example_kept(model: nn.Module, survey: Survey) -> Iterator[None]:
    """Remember the first positional call of the model's own forward; an export needs one."""
    original, own = model.forward, "forward" in model.__dict__

    def forward(*args: Any, **kwargs: Any) -> Any:
        """The model's own, its first arguments noted."""
        if survey.example is None and args and not kwargs:
            survey.example = args
        return original(*args, **kwargs)

    model.__dict__["forward"] = forward
    try:
        yield
    finally:
        del model.__dict__["forward"]
        if own:
            model.__dict__["forward"] = original


def _refuse_twins(model: nn.Module, seen: dict[str, Sighting], found: Survey) -> None:
    paired = twins(model, {name: sum(record.calls) for name, record in seen.items()})
    for name in seen:
        for original, twin in paired.items():
            if name == original or name.startswith(original + "."):
                found.refused[name] = (
                    f"{twin} is a copy of {original}, as an average or a target network is: "
                    "a seed in one of them would break the pairing"
                )


def _refuse_unfit(
    model: nn.Module,
    candidates: dict[str, nn.Module],
    seen: dict[str, Sighting],
    found: Survey,
) -> None:
    """Refuse by what was seen, and all but the innermost of modules with the same output."""
    elsewhere = next(model.parameters(), None)
    innermost: dict[int, str] = {}
    for name in sorted(candidates, key=lambda n: n.count("."), reverse=True):
        if name in found.refused:
            continue
        near = next(candidates[name].parameters(), elsewhere)
        reason = seen[name].reason_against(near)
        if reason is None:
            twin = innermost.setdefault(id(seen[name].output), name)
            reason = f"its output is that of {twin}" if twin != name else None
        if reason is not None:
            found.refused[name] = reason
    for record in seen.values():
        record.output = None  # a whole graph of activations hangs on them


def _channel_axes(candidates: dict[str, nn.Module], watch: Watch, found: Survey) -> dict[str, int]:
    axes = {}
    for name, module in candidates.items():
        if name in found.refused:
            continue
        record = watch.sightings[name]
        axis = channel_axis(module, record.shape, watch.layouts_inside(name))
        if isinstance(axis, str):
            found.refused[name] = axis
        elif len({shape[axis] for shape in record.shapes}) > 1:
            found.refused[name] = (
                f"its output has other channels from call to call: {sorted(record.shapes)}"
            )
        else:
            axes[name] = axis
    return axes


def _open(
    model: nn.Module,
    run: Callable[[nn.Module], Any],
    watch: Watch,
    channel_axes: dict[str, int],
    found: Survey,
) -> None:
    """Measure what the axes of sequences mean, and write the sites down."""
    streams, seen = {}, watch.sightings
    for name, axis in channel_axes.items():
        if len(seen[name].shape) == 3:
            layout = layout_of(model.get_submodule(name))
            declared = 0 if axis == 1 else layout.batch_axis if layout is not None else None
            streams[name] = Stream(axis, declared)
    measured = (
        measure_axes(Disturber(model, run, watch.modules, streams), streams) if streams else {}
    )
    for name, axis in channel_axes.items():
        meaning = measured.get(name)
        shape = SiteShape(
            seen[name].shape,
            axis,
            batch_axis=0 if meaning is None else meaning.batch_axis,
            causal=meaning is not None and meaning.causal,
        )
        found.sites.append(Site(name, shape, seen[name].dtype))
