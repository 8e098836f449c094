"""What Esper costs on a GPU, on a transformer of 124 million parameters, timed by CUDA's events.

Where there is no GPU its rows say so. A goal that is a share of a limit is asked of the ratio.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn

from bench.harness import Effort, Row
from bench.harness.effort import Comparison
from bench.stages import Batch, go_on, growing, step_of
from bench.towers import attached
from leyline import Stage
from tolaria import Orchestrator
from tolaria.disk.staging import Staging
from tolaria.rollback.arena import Arena

TITLE = "On a GPU: a transformer of 124 million parameters and AdamW"
_CLAIMS: Final = {
    "snapshot": ("snapshot of model and moments", "one flat copy on the device", 1.25),
    "restore": ("restore of model and moments", "one flat copy on the device", 1.25),
    "staging": ("a checkpoint's copy to the host", "one flat copy to pinned memory", 1.25),
    "overlap": ("a step, then a snapshot", "the snapshot on a stream beside the step", None),
    "step/dormant": ("step, every block a dormant site", "the bare host", 1.02),
    "step/training": ("step, a candidate in every block", "the bare host", 1.02),
    "step/grafting": ("step, a graft in every block", "the bare host", None),
    "step/fossilized": ("step, a fossil in every block", "the bare host", None),
}
"""By the end of the row's id: the claim, the peer, and the most that the ratio may be."""


@dataclass(frozen=True)
class Size:
    """Of the transformer and its batch."""

    num_blocks: int = 12
    width: int = 768
    num_heads: int = 12
    vocabulary: int = 50_257
    batch_size: int = 16
    length: int = 256


class Transformer(nn.Module):
    """Token embeddings and pre-norm blocks: with the usual sizes it is GPT-2's smallest."""

    def __init__(self, size: Size):
        super().__init__()
        self.embedding = nn.Embedding(size.vocabulary, size.width)
        block = partial(
            nn.TransformerEncoderLayer,
            *(size.width, size.num_heads, 4 * size.width),
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.blocks = nn.ModuleList(block() for _ in range(size.num_blocks))

    def forward(self, tokens: Tensor) -> Tensor:
        hidden: Tensor = self.embedding(tokens)
        for block in self.blocks:
            hidden = block(hidden)
        return hidden


def rows(effort: Effort) -> Iterator[Row]:
    """Of the GPU that there is."""
    if torch.cuda.is_available():
        yield from rows_on(torch.device("cuda"), Size(), effort)
        return
    for name, (claim, _, _) in _CLAIMS.items():
        yield Row(id=f"gpu/{name}", claim=claim, unit="ms", missing="no GPU here")


def rows_on(device: torch.device, size: Size, effort: Effort) -> Iterator[Row]:
    """On any device, so that the bench itself can be tested without a GPU."""
    effort = Effort(effort.is_quick, clock_of(device))
    torch.manual_seed(0)
    shape = size.batch_size, size.length
    tokens = torch.randint(size.vocabulary, shape, device=device)
    batch = tokens, torch.randn(*shape, size.width, device=device)
    model = Transformer(size).to(device)
    optimizer = torch.optim.AdamW(model.parameters())
    step = step_of(model, batch, optimizer)
    step()
    for name, (ours, peer) in _copies(device, model, optimizer, step).items():
        yield _row(name, effort.compare(ours, peer, num_pairs=15))
    del optimizer, step
    bare = step_of(Transformer(size).to(device), batch)
    for stage, ours in _steps(model, batch, size.num_blocks):
        for _ in range(3):  # each of a seed's first steps does more
            ours(), bare()
        yield _row(f"step/{stage.name.lower()}", effort.compare(ours, bare, num_pairs=15))


def _row(name: str, found: Comparison) -> Row:
    claim, peer, most = _CLAIMS[name]
    return Row.timed(f"gpu/{name}", claim, "ms", found, peer=peer, most=most)


def _copies(
    device: torch.device, model: nn.Module, optimizer: torch.optim.Optimizer, step: Any
) -> Mapping[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Ours and its limit, of every way in which a run's state is copied."""
    moments = [v for held in optimizer.state.values() for v in held.values()]
    tensors = {str(n): t.detach() for n, t in enumerate((*model.parameters(), *moments))}
    arena, staging = Arena(), Staging()
    sides = [arena.take(tensors), arena.take(tensors)]
    size_bytes = sides[0].size_bytes
    source = torch.ones(size_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    host = torch.empty(size_bytes, dtype=torch.uint8, pin_memory=device.type == "cuda")
    beside = torch.cuda.Stream(device) if device.type == "cuda" else None

    def snapshot() -> None:
        arena.release(sides.pop(0))
        sides.append(arena.take(tensors))

    def in_turn() -> None:
        step()
        snapshot()

    def at_once() -> None:
        with torch.cuda.stream(beside):  # does nothing where there is no stream
            snapshot()
        step()
        if beside is not None:
            torch.cuda.current_stream(device).wait_stream(beside)

    def flat() -> object:
        return target.copy_(source)

    return {
        "snapshot": (snapshot, flat),
        "restore": (lambda: sides[0].pour(tensors), flat),
        "staging": (lambda: staging.stage({"state_dict": tensors}), lambda: host.copy_(source)),
        "overlap": (in_turn, at_once),
    }


def _steps(
    model: nn.Module, batch: Batch, num_blocks: int
) -> Iterator[tuple[Stage, Callable[[], None]]]:
    """A run's step while its seeds, one in every block, are in each of the stages."""
    settings = growing([f"blocks.{number}" for number in range(num_blocks)], batch)
    with attached(model, example=batch[:1], **settings) as esper:
        ours = _step_in(esper, batch)
        for stage in (Stage.DORMANT, Stage.TRAINING, Stage.GRAFTING, Stage.FOSSILIZED):
            go_on(esper, ours, stage)
            yield stage, ours


def _step_in(esper: Orchestrator, batch: Batch) -> Callable[[], None]:
    return step_of(esper.model, batch, esper.rates.optimizers[0], esper.after_step)


def clock_of(device: torch.device) -> Callable[[], int]:
    """Nanoseconds of the device's own time, once all that was asked of it is done."""
    if device.type != "cuda":
        return time.perf_counter_ns
    first = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call] # torch's own
    first.record()

    def now_ns() -> int:
        now = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        now.record()
        now.synchronize()
        return round(first.elapsed_time(now) * 1e6)

    return now_ns
