"""Rows: the candidates of one site in one pass, each on its own copy of the batch's rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor

from kasmina.guard import attempt, describe
from kasmina.rng import isolated_rng
from kasmina.sites.output import main_tensor, with_main
from kasmina.trials.batches import map_tensors, tensors_in
from kasmina.trials.calls import Call
from kasmina.trials.proof import Nudge, loss_and_gradient, nudge, proof_indices
from kasmina.trials.recording import Recording, is_hollow, rng_streams
from kasmina.trials.replay import Act, Replay
from kasmina.trials.shadow import HELD_OUT_RNG_SEED
from leyline import TrialError

GRADIENT_TOLERANCE: Final = 1e-4
"""How far a gradient may be from that of a pass alone, relative to its length, in float32."""
_EPSILONS: Final = 4.0
"""The same in machine epsilons of the coarsest dtype of the pass, where that is more."""


@dataclass(frozen=True)
class Rows:
    """How the rows of one site's candidates are laid out, proven on the first batches."""

    replay: Replay
    site: str
    axes: dict[Call, list[int | None]]
    """For each tensor of each recorded output the axis that grows with the batch, if any."""
    is_mean: bool
    """Whether the loss is a mean over rows; else it is their sum."""

    def loss(self, recording: Recording, batch: Any, acts: Sequence[Act]) -> Tensor:
        """The sum of the losses that each act would have in a pass of its own."""
        num = len(acts)

        def hand(call: Call) -> Any:
            """What was recorded, for the rows of all; at the site with each one's own act."""
            output = recording.outputs[call]
            if call.module != self.site:
                return self._repeated(call, output, num)
            host = main_tensor(output)
            assert host is not None
            host = host.clone()
            version = host._version
            grown = torch.cat([act(host) for act in acts], self.site_axis)
            if host._version != version:
                raise TrialError("a candidate changes the site's output in place")
            if isinstance(output, Tensor):
                return grown
            return with_main(self._repeated(call, output, num), grown)

        loss = self.replay.run(self.site, repeated(batch, num), hand)
        return loss * num if self.is_mean else loss

    @property
    def site_axis(self) -> int:
        """The axis of the site's main tensor along which the rows are."""
        axis = self.axes[self.replay.plans[self.site].own][0]
        assert axis is not None
        return axis

    def _repeated(self, call: Call, output: Any, num: int) -> Any:
        axes = iter(self.axes[call])

        def copies(tensor: Tensor) -> Tensor:
            """A tensor as often as there are candidates, along the axis of its rows."""
            axis = next(axes)
            if axis is None:
                return tensor if is_hollow(tensor) else tensor.clone()
            if is_hollow(tensor):
                sizes = list(tensor.shape)
                sizes[axis] *= num
                return tensor.as_strided(sizes, [0] * len(sizes))
            return torch.cat([tensor] * num, axis)

        return map_tensors(copies, output)


def repeated(batch: Any, num: int) -> Any:
    """A batch several times over, one after the other along the first axis.

    Raises:
        TrialError: its tensors do not share their first size, so no axis holds the rows.
    """
    if num == 1:
        return batch
    if len({tensor.shape[0] if tensor.ndim else 0 for tensor in tensors_in(batch)}) != 1:
        raise TrialError("the batch's tensors do not share their first size")
    return map_tensors(lambda tensor: torch.cat([tensor] * num), batch)


def prove_rows(replay: Replay, site: str, num: int) -> Rows | str:
    """Lay out the rows of several candidates and prove that they do not see one another.

    With a random change of its own on the rows of each, the gradient of every change must be that
    of a pass alone, for the first batches. A norm over the batch or a contrastive loss fails.

    Returns:
        The layout, or why every candidate needs a pass of its own.
    """
    replay.shadow.mode(training=replay.training)
    with isolated_rng(HELD_OUT_RNG_SEED):
        streams = rng_streams()
        rows = attempt(lambda: _proven(replay, site, num))
        if rng_streams() != streams:
            return "a pass with repeated rows draws random numbers"
    return describe(rows) if isinstance(rows, Exception) else rows


def _proven(replay: Replay, site: str, num: int) -> Rows | str:
    axes = _axes(replay, site)
    if axes[replay.plans[site].own][0] is None:
        return "its output does not grow with the batch"
    precision = replay.plans[site].precision
    tolerance = max(GRADIENT_TOLERANCE, _EPSILONS * precision)
    layouts = [Rows(replay, site, axes, is_mean) for is_mean in (True, False)]
    for index in proof_indices(replay.batches):
        recording, batch = replay.recording(index), replay.batches[index]
        if recording is None:
            continue
        recording = recording.only(replay.plans[site].needed)
        output = recording.outputs[replay.plans[site].own]
        acts = [nudge(output, index * num + number) for number in range(num)]
        apart = [_gradient(replay, site, recording, batch, act) for act in acts]
        layouts = [
            rows
            for rows in layouts
            if _agree(_gradients(rows, recording, batch, acts), apart, tolerance)
        ]
    if not layouts:
        return "the rows of a batch are not independent in the loss"
    if len(layouts) > 1:
        return "no gradient of the loss arrives there, by which its scale could be told"
    return layouts[0]


def _axes(replay: Replay, site: str) -> dict[Call, list[int | None]]:
    """Where each recorded output grows when the batch is repeated."""
    batch = replay.batches[0]
    once = replay.record(batch, hollow=True).outputs
    twice = replay.record(repeated(batch, 2), hollow=True).outputs
    return {
        call: list(map(_axis, tensors_in(once[call]), tensors_in(twice[call])))
        for call in replay.plans[site].calls
    }


def _axis(once: Tensor, twice: Tensor) -> int | None:
    grown = [n for n, (a, b) in enumerate(zip(once.shape, twice.shape, strict=True)) if a != b]
    if not grown:
        return None
    if len(grown) > 1 or twice.shape[grown[0]] != 2 * once.shape[grown[0]]:
        raise TrialError(
            f"an output of shape {tuple(once.shape)} has shape {tuple(twice.shape)} "
            "for twice the rows"
        )
    return grown[0]


def _gradient(replay: Replay, site: str, recording: Recording, batch: Any, act: Nudge) -> Tensor:
    replay.ledger.total += 2 * replay.tail_flops(site)
    return loss_and_gradient(replay, act, partial(replay.loss, site, recording, batch, act))[1]


def _gradients(
    rows: Rows, recording: Recording, batch: Any, acts: Sequence[Nudge]
) -> Sequence[Tensor]:
    rows.replay.ledger.total += 2 * len(acts) * rows.replay.tail_flops(rows.site)
    loss = rows.loss(recording, batch, acts)
    return torch.autograd.grad(loss, [act.change for act in acts])


def _agree(found: Sequence[Tensor], apart: Sequence[Tensor], tolerance: float) -> bool:
    """Whether every gradient is as near to that of a pass alone as rounding allows."""
    for one, other in zip(found, apart, strict=True):
        length = float(other.double().norm())
        if not math.isfinite(length):
            return False
        if float((one.double() - other.double()).norm()) > tolerance * length:
            return False
    return True
