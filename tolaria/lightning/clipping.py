"""Gradient clipping under Lightning: by the host's own norm, whatever seeds there are."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl

from tolaria.rates.groups import SEED_KEY


class ClippedApart:
    """Has a trainer's precision plugin clip the host, and every seed, by themselves.

    Lightning clips all parameters of an optimizer by one norm, so the gradients of a seed would
    change the host's. Whoever clips through Lightning comes by the plugin: `gradient_clip_val`,
    a module's own `configure_gradient_clipping`, and `self.clip_gradients` in steps by hand.
    """

    def __init__(self, trainer: pl.Trainer):
        self._plugin: Any = trainer.precision_plugin
        self._clip = self._plugin.clip_gradients
        vars(self._plugin)["clip_gradients"] = self._clip_parts

    def remove(self) -> None:
        """Put the plugin's own clipping back."""
        vars(self._plugin).pop("clip_gradients", None)

    def _clip_parts(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        groups = optimizer.param_groups
        held = list(groups)
        seeds = [[group] for group in held if SEED_KEY in group]
        host = [group for group in held if SEED_KEY not in group]
        try:
            # The optimizer itself, for plugins that ask what it is, with one part of its groups.
            for groups[:] in (host, *seeds):
                if not seeds or _has_gradients(groups):  # without any, torch refuses to clip
                    self._clip(optimizer, *args, **kwargs)
        finally:
            groups[:] = held


def _has_gradients(groups: list[dict[str, Any]]) -> bool:
    return any(parameter.grad is not None for group in groups for parameter in group["params"])
