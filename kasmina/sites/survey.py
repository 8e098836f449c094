"""The survey: find the sites of a model by dry runs on a copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, nn

from kasmina.rng import isolated_rng
from kasmina.sites.shape import SiteShape, channel_axis_of
from kasmina.sites.site import Site
from kasmina.sites.twins import twins
from kasmina.slots.slot import SLOT, refusal
from kasmina.trials.task import copy_module

_LEAVES: Final = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.MultiheadAttention,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
)


@dataclass
class Survey:
    """What a dry run saw: the sites, and why every other candidate is none."""

    sites: list[Site] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    example: tuple[Any, ...] | None = None
    """Positional arguments of the model's own forward in the dry run, if it was called so."""


@dataclass
class _Seen:
    """Calls of one module in each mode, its last output in train mode, any nested one."""

    calls: list[int] = field(default_factory=lambda: [0, 0, 0])
    output: Any = None
    nested: bool = False


def _is_candidate(name: str, module: nn.Module) -> bool:
    if not name or SLOT in name.split("."):
        return False
    is_block = any(True for _ in module.children()) and not isinstance(
        module, nn.ModuleList | nn.ModuleDict
    )
    return isinstance(module, _LEAVES) or is_block


@contextmanager
def _observed(modules: dict[str, nn.Module], seen: dict[str, _Seen], mode: int) -> Iterator[None]:
    """Count calls by patching `forward` on the copy: a hook would switch off fast paths."""

    def wrap(module: nn.Module, record: _Seen) -> Callable[..., Any]:
        original = module.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            output = original(*args, **kwargs)
            record.calls[mode] += 1
            record.nested |= isinstance(output, Tensor) and output.is_nested
            if mode == 0:
                record.output = output
            return output

        return forward

    patched = [m for m in modules.values() if "forward" not in m.__dict__]
    for name, module in modules.items():
        if module in patched:
            module.__dict__["forward"] = wrap(module, seen[name])
    try:
        yield
    finally:
        for module in patched:
            del module.__dict__["forward"]


@contextmanager
def _example_kept(model: nn.Module, survey: Survey) -> Iterator[None]:
    """Remember the first positional call of the model's own forward; an export needs one."""
    original = model.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        if survey.example is None and args and not kwargs:
            survey.example = args
        return original(*args, **kwargs)

    model.__dict__["forward"] = forward
    try:
        yield
    finally:
        del model.__dict__["forward"]


def survey(model: nn.Module, run: Callable[[nn.Module], Any]) -> Survey:
    """Find the sites of a model by three dry runs: train, eval with and without gradients.

    A site is called, equally often in all three, and returns one floating tensor. Of modules that
    return the very same tensor (a block and its last layer) the innermost is the site.

    Args:
        model: a copy that may be run; its buffers and gradients change.
        run: calls the model once, as training does.
    """
    named = {n: m for n, m in model.named_modules(remove_duplicate=False) if _is_candidate(n, m)}
    found = Survey()
    first_name: dict[int, str] = {}
    for name, module in list(named.items()):
        twin = first_name.setdefault(id(module), name)
        reason = refusal(module)
        if twin != name:
            found.refused[name] = found.refused[twin] = (
                f"one module under two names: {twin}, {name}"
            )
        elif reason is not None:
            found.refused[name] = reason
    candidates = {n: m for n, m in named.items() if n not in found.refused}
    seen = {name: _Seen() for name in candidates}
    with isolated_rng(0), _example_kept(model, found):
        for mode, (training, grad) in enumerate([(True, True), (False, True), (False, False)]):
            model.train(training)
            with torch.set_grad_enabled(grad), _observed(candidates, seen, mode):
                run(model)
    paired = twins(model, {name: sum(record.calls) for name, record in seen.items()})
    for name in candidates:
        for original, twin in paired.items():
            if name == original or name.startswith(original + "."):
                found.refused[name] = (
                    f"{twin} is a copy of {original}, as an average or a target network is: "
                    "a seed in one of them would break the pairing"
                )
    outputs: dict[int, str] = {}
    for name in sorted(candidates, key=lambda n: n.count("."), reverse=True):
        reason = _reason_against(seen[name])
        if reason is None and name not in found.refused:
            twin = outputs.setdefault(id(seen[name].output), name)
            reason = f"its output is that of {twin}" if twin != name else None
        if reason is not None:
            found.refused[name] = reason
    for name, module in candidates.items():
        if name not in found.refused:
            output: Tensor = seen[name].output
            shape = SiteShape(output.shape, channel_axis_of(module, output.ndim))
            found.sites.append(Site(name, shape, output.dtype))
    return found


def _reason_against(seen: _Seen) -> str | None:
    if not any(seen.calls):
        return "it is never called"
    if len(set(seen.calls)) != 1:
        train, eval_grad, eval_no_grad = seen.calls
        return (
            f"it is called {train} times in training, {eval_grad} in eval and {eval_no_grad} in "
            "eval without gradients: a seed would be bypassed"
        )
    if seen.nested:
        return "it returns a nested tensor, which has no one shape to extend"
    if not isinstance(seen.output, Tensor):
        return f"it returns a {type(seen.output).__name__}, not one tensor"
    if not seen.output.is_floating_point() or seen.output.ndim < 2:
        return f"its output is {seen.output.dtype} of {seen.output.ndim} axes"
    return None


def discover(model: nn.Module, example: tuple[Any, ...]) -> list[Site]:
    """List the sites of a model, in the order of its submodules.

    The dry run happens on a copy: the model's buffers, gradients and mode, and the random streams
    of the process, are left as they were.

    Args:
        model: any module.
        example: the positional arguments of one forward call, as a tuple; a single tensor is
            taken for a tuple of one.

    Raises:
        TrialError: the model cannot be copied.
    """
    arguments = (example,) if isinstance(example, Tensor) else tuple(example)
    return survey(copy_module(model), lambda copied: copied(*arguments)).sites
