"""Disturbances: what axes of a sequence mean, measured by changing one entry and looking where.

A sequence is disturbed at its source, the first module that puts one out, once at one example of
the batch and once at the last position, in eval mode without gradients. Where only one index along
an axis has changed that axis is the batch; where no earlier position has changed the output does
not look ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from kasmina.equality import changed
from kasmina.guard import attempt
from kasmina.rng import isolated_rng
from kasmina.sites.output import main_tensor, with_main
from kasmina.sites.tap import tapped

_MAX_SOURCES: Final = 4
"""Token and position embeddings of an encoder and of a decoder."""


@dataclass(frozen=True)
class Stream:
    """A module that puts out a sequence: three axes, of which one carries the channels."""

    channel_axis: int
    """1 or -1."""
    declared_batch_axis: int | None
    """None for a module that leaves the batch where it was."""


@dataclass
class Axes:
    """What was found out about one stream."""

    batch_axis: int = 0
    causal: bool = True
    """No seed may look ahead here. So it is where nothing could be found out: a seed that does not
    look ahead is safe anywhere."""


class Disturber:
    """Runs a model with one sequence disturbed and compares every stream with the undisturbed."""

    def __init__(
        self,
        model: nn.Module,
        run: Callable[[nn.Module], Any],
        modules: Mapping[str, nn.Module],
        streams: Mapping[str, Stream],
    ):
        self._model = model
        self._run = run
        self._modules = modules
        self._streams = streams
        self._buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        self.ends_in_sequence = False
        """Whether the last module to be called puts out a sequence: there may be a prediction for
        each position."""
        self._before = self._pass(None)
        again = self._pass(None)
        self.steady = [
            name
            for name, output in self._before.items()
            if name in again and not bool(changed(output, again[name]).any())
        ]
        """Streams that come out the same twice, in order of their first calls."""

    def shape(self, stream: str) -> torch.Size:
        """The shape of a stream's output."""
        return self._before[stream].shape

    def disturb(self, source: str, axis: int, index: int) -> dict[str, Tensor]:
        """Disturb one slice of a stream.

        Returns:
            For every steady stream that it reaches, where it has changed, as booleans; empty if
            the model cannot be run so.
        """
        after = attempt(lambda: self._pass((source, axis, index)))
        if isinstance(after, Exception):
            return {}
        changes = {
            name: changed(self._before[name], after[name])
            for name in self.steady
            if name in after and after[name].shape == self._before[name].shape
        }
        return {name: change for name, change in changes.items() if bool(change.any())}

    def _pass(self, disturbed: tuple[str, int, int] | None) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = {}

        def tap(name: str, output: Any) -> Any:
            """Note a stream's output, disturbed if it is the source."""
            main = main_tensor(output)
            self.ends_in_sequence = main is not None and main.ndim == 3
            if name not in self._streams or main is None or main.is_nested or main.ndim != 3:
                return output
            if disturbed is not None and name == disturbed[0]:
                main = _disturbed(main, *disturbed[1:])
                output = with_main(output, main)
            outputs[name] = main.clone()
            return output

        with torch.no_grad():
            for name, buffer in self._model.named_buffers():
                buffer.copy_(self._buffers[name])
            # The same stream each time, so that a model that draws numbers draws the same.
            with isolated_rng(0), tapped(self._modules, tap):
                self._run(self._model.eval())
        return outputs


def _disturbed(main: Tensor, axis: int, index: int) -> Tensor:
    disturbed = main.clone()
    part = disturbed.select(axis, index)
    noise = torch.randn(part.shape, generator=torch.Generator().manual_seed(0))
    part.add_(noise.to(part) * (1 + main.abs().mean()))
    return disturbed


def measure_axes(disturber: Disturber, streams: Mapping[str, Stream]) -> dict[str, Axes]:
    """Find the batch axis of every stream, and whether a seed there may look ahead.

    A stream that several sources reach is causal if it is so for one of them: what a decoder sees
    of the encoder lies in no future of its own.
    """
    found = {
        name: Axes(batch_axis=stream.declared_batch_axis or 0) for name, stream in streams.items()
    }
    sources: list[str] = []
    reached: dict[str, bool] = {}
    for _ in range(_MAX_SOURCES):
        known = {*sources, *reached}
        source = next((name for name in disturber.steady if name not in known), None)
        if source is None:
            break
        sources.append(source)
        for name, axis in _batch_axes(disturber, streams, source).items():
            if name not in reached:
                found[name].batch_axis = axis
        along = {name: _sequence_axis(streams[name], found[name]) for name in streams}
        for name, is_causal in _causal(disturber, source, along).items():
            reached[name] = reached.get(name, False) or is_causal
    for name, is_causal in reached.items():
        found[name].causal = is_causal
    return found


def _causal(disturber: Disturber, source: str, along: Mapping[str, int]) -> dict[str, bool]:
    """For every stream that a source reaches, whether a seed there may not look ahead.

    It may where the stream itself or a later one does. Where none looks back either, positions
    have not met yet: it may if they are all one in the end, as when they are flattened for a
    classifier, but not if there is an output for each of them.

    Args:
        along: the sequence axis of every stream.
    """
    last = disturber.shape(source)[along[source]] - 1
    looks_ahead, looks_back = set(), set()
    after_last = disturber.disturb(source, along[source], last)
    for name, change in after_last.items():
        # A longer or shorter sequence: its part that the last position of the source is.
        first_of_last = last * change.shape[along[name]] // (last + 1)
        if bool(change.narrow(along[name], 0, first_of_last).any()):
            looks_ahead.add(name)
    for name, change in disturber.disturb(source, along[source], 0).items():
        length = change.shape[along[name]]
        end_of_first = -(-length // (last + 1))
        if bool(change.narrow(along[name], end_of_first, length - end_of_first).any()):
            looks_back.add(name)
    in_order = [name for name in disturber.steady if name in after_last]
    causal = {}
    for place, name in enumerate(in_order):
        onwards = set(in_order[place:])
        meets = bool(onwards & looks_back) or disturber.ends_in_sequence
        causal[name] = meets and not onwards & looks_ahead
    return causal


def _sequence_axis(stream: Stream, axes: Axes) -> int:
    return next(a for a in (0, 1, 2) if a not in (axes.batch_axis, stream.channel_axis % 3))


def _batch_axes(disturber: Disturber, streams: Mapping[str, Stream], source: str) -> dict[str, int]:
    """The batch axis of a source and of every stream that it reaches."""
    stream = streams[source]
    if stream.declared_batch_axis is not None:
        trials: Sequence[int] = (stream.declared_batch_axis,)
    elif stream.channel_axis == 1 or not any(s.declared_batch_axis for s in streams.values()):
        return {}  # the batch comes first unless a module says otherwise
    else:
        trials = (0, 1)
    for axis in trials:
        changes = disturber.disturb(source, axis, 0)
        confined = {name: _confined(change) for name, change in changes.items()}
        declared = [
            streams[name].declared_batch_axis in axes
            for name, axes in confined.items()
            if streams[name].declared_batch_axis is not None and name != source
        ]
        if (declared and all(declared)) or len(trials) == 1:
            return {
                name: own if own is not None else axes[0] if len(axes) == 1 else axis
                for name, axes in confined.items()
                for own in (streams[name].declared_batch_axis,)
            }
    return _by_sizes(disturber, streams)


def _by_sizes(disturber: Disturber, streams: Mapping[str, Stream]) -> dict[str, int]:
    """For one example or one position: what has the sizes of a sequence-first output is one."""
    sequence_first = {
        disturber.shape(name)[:2] for name in disturber.steady if streams[name].declared_batch_axis
    }
    return {
        name: 1
        for name in disturber.steady
        if streams[name].declared_batch_axis is None and disturber.shape(name)[:2] in sequence_first
    }


def _confined(change: Tensor) -> list[int]:
    """The axes along which only the first index has changed."""
    return [
        axis
        for axis in (0, 1)
        if change.shape[axis] > 1 and not bool(change.narrow(axis, 1, change.shape[axis] - 1).any())
    ]
