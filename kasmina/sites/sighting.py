"""Sightings: what the dry runs of a survey saw of each module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from kasmina.sites.layout import Layout, layout_of
from kasmina.sites.output import main_tensor, output_flaw
from kasmina.sites.tap import Tap

TRAIN, EVAL, EVAL_WITHOUT_GRAD = range(3)
"""The modes of the dry runs, in their order."""


@dataclass
class Sighting:
    """One module in the dry runs."""

    calls: list[int] = field(default_factory=lambda: [0, 0, 0])
    """In each mode."""
    learns: bool = False
    """Whether a call in training could have recorded a gradient."""
    has_autocast: bool = False
    flaw: str | None = None
    """Why a seed could not extend an output it returned."""
    output: Tensor | None = None
    """The main tensor of its last output in training; held, so that its id stays its own."""
    shape: tuple[int, ...] = ()
    """Of the last output in training, as the dtype."""
    dtype: torch.dtype = torch.float32
    shapes: set[tuple[int, ...]] = field(default_factory=set)
    """Of every main tensor, in all modes."""

    def note(self, output: Any, mode: int) -> None:
        """Look at one output."""
        self.calls[mode] += 1
        self.flaw = self.flaw or output_flaw(output)
        main = main_tensor(output)
        if main is None:
            return
        if not main.is_meta:
            self.has_autocast |= torch.is_autocast_enabled(main.device.type)
        if not main.is_nested:
            self.shapes.add(tuple(main.shape))
        if mode == TRAIN and not main.is_nested:
            self.learns |= torch.is_grad_enabled()
            self.output, self.shape, self.dtype = main, tuple(main.shape), main.dtype

    def reason_against(self, near: nn.Parameter | None) -> str | None:
        """Say why the module is no site, or None.

        Args:
            near: the parameter whose device and dtype a seed here would have.
        """
        if not any(self.calls):
            return "it is never called: it is not used, or only its weights are"
        if len(set(self.calls)) != 1:
            train, eval_grad, eval_no_grad = self.calls
            return (
                f"it is called {train} times in training, {eval_grad} in eval and {eval_no_grad} "
                "in eval without gradients: a seed would be bypassed"
            )
        if self.flaw is not None:
            return self.flaw
        assert self.output is not None
        if not self.learns:
            return (
                "it is called without gradients in training, so a seed there would never learn; "
                "leave out torch.no_grad, or checkpoint with use_reentrant=False"
            )
        if len({len(shape) for shape in self.shapes}) > 1:
            return f"its output has other axes from call to call: {sorted(self.shapes)}"
        if near is not None and near.device != self.output.device:
            return f"its output is on {self.output.device}, its parameters are on {near.device}"
        if near is not None and near.dtype != self.output.dtype and not self.has_autocast:
            return f"its output is {self.output.dtype}, its parameters are {near.dtype}"
        return None


class Watch:
    """Sees the candidates of a survey and the layers of known kinds in the dry runs."""

    def __init__(self, model: nn.Module, candidates: Mapping[str, nn.Module]):
        self.sightings = {name: Sighting() for name in candidates}
        self.modules: dict[str, nn.Module] = dict(candidates)
        self._layouts = {
            name: layout for name, m in model.named_modules() if (layout := layout_of(m))
        }
        self._called: list[tuple[str, int]] = []

    def tap(self, mode: int) -> Tap:
        """Look at every output of one dry run, and pass it on."""

        def look(name: str, output: Any) -> Any:
            """Note one output; it goes on as it is."""
            self.sightings[name].note(output, mode)
            main = main_tensor(output)
            if mode == TRAIN and name in self._layouts and main is not None:
                self._called.append((name, main.dim()))
            return output

        return look

    def layouts_inside(self, name: str) -> list[tuple[Layout, int]]:
        """The known layers called in a module or its submodules, in order, with their axes."""
        return [
            (self._layouts[called], num_axes)
            for called, num_axes in self._called
            if called == name or called.startswith(name + ".")
        ]
