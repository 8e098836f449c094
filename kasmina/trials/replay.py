"""Replay: of a frozen host only what comes after a site need run again.

What is done before a site's output does not depend on the candidate there, and is the same
whenever the batch is the same. It is recorded in one bare pass; in a trial's pass the modules hand
out what was recorded, so that only the glue between them and the tail are computed. The user's own
code runs as ever. `kasmina.trials.proof` finds out for which sites that gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kasmina.sites.output import main_tensor, with_main
from kasmina.trials.calls import Call, standing_in
from kasmina.trials.flops import FlopLedger
from kasmina.trials.recording import Recording, fresh, played, record
from kasmina.trials.shadow import Shadow

Act = Callable[[Tensor], Tensor]
"""What happens to the main tensor of a site's output."""


@dataclass(frozen=True)
class Plan:
    """What is replayed for one site."""

    calls: tuple[Call, ...]
    """In the order of the pass, the site's own last."""
    needed: frozenset[Call]
    """Those whose value the rest of the pass looks at."""
    tail_size_bytes: int
    """What the modules after the site put out for the first batch."""
    precision: float
    """Machine epsilon of the coarsest dtype in the pass."""

    @property
    def own(self) -> Call:
        """The call of the site itself."""
        return self.calls[-1]


@dataclass
class Replay:
    """Recordings of some batches, in train or in eval mode, and passes that replay them.

    Recordings are kept while they fit and made anew when they do not.

    Args:
        max_size_bytes: what recordings may take; one more batch's for the length of a pass.
    """

    shadow: Shadow
    batches: Sequence[Any]
    ledger: FlopLedger
    training: bool
    max_size_bytes: int
    plans: dict[str, Plan] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    """Why a site's trials run through the whole host."""
    calls: frozenset[Call] = frozenset()
    """What is recorded, for all sites together."""
    order: tuple[Call, ...] = ()
    """The calls of the recorded modules in a pass over the first batch."""
    peak_size_bytes: int = 0
    _kept: dict[int, Recording] = field(default_factory=dict)

    def recording(self, index: int) -> Recording | None:
        """What was or now is recorded for a batch; None if its calls are others."""
        if index not in self._kept:
            self._keep(index, self.record(self.batches[index]))
        recording = self._kept[index]
        return recording if recording.order == self.order else None

    def record(self, batch: Any, *, hollow: bool = False) -> Recording:
        """Run one bare pass over a batch for all sites.

        Args:
            hollow: keep the shapes alone.
        """
        needed = () if hollow else self.needed()
        with torch.set_grad_enabled(self.training):
            return self.ledger.run_bare(
                ("bare", self.training),
                lambda: record(
                    self.shadow.model, lambda: self.shadow.loss(batch), self.calls, needed
                ),
            )

    def loss(self, site: str, recording: Recording, batch: Any, act: Act | None) -> Tensor:
        """The loss of one batch with something done to the site's output."""

        def hand(call: Call) -> Any:
            """A copy of what was recorded, changed at the site."""
            output = fresh(recording.outputs[call])
            return output if call.module != site or act is None else acted(output, act)

        return self.run(site, batch, hand)

    def run(self, site: str, batch: Any, hand: Callable[[Call], Any]) -> Tensor:
        """The loss of one batch, with what is done before a site handed out."""
        forwards = played(self.shadow.model, self.plans[site].calls, hand)
        with torch.set_grad_enabled(self.training), standing_in(forwards):
            return self.shadow.loss(batch)

    def whole_loss(self, site: str, batch: Any, act: Act) -> Tensor:
        """The loss with something done to the site's output, through the whole host."""
        module = self.shadow.model.get_submodule(site)
        forward = module.forward
        forwards = {module: lambda *args, **kwargs: acted(forward(*args, **kwargs), act)}
        with torch.set_grad_enabled(self.training), standing_in(forwards):
            return self.shadow.loss(batch)

    def bare_flops(self) -> int:
        """FLOPs of a bare pass over the first batch."""
        return self.ledger.of(("bare", self.training))

    def tail_flops(self, site: str) -> int:
        """FLOPs of what comes after a site, forward; its backward pass takes as many again."""
        return self.ledger.of(("tail", site, self.training))

    def needed(self) -> set[Call]:
        """The calls whose values are kept."""
        return {call for plan in self.plans.values() for call in plan.needed}

    def refuse(self, site: str, reason: str) -> None:
        """Replay nothing for a site."""
        self.plans.pop(site, None)
        self.refused[site] = reason

    def keep_only(self, sites: Collection[str]) -> None:
        """Let go of what only other sites need."""
        self.plans = {site: plan for site, plan in self.plans.items() if site in sites}
        needed = self.needed()
        self._kept = {index: kept.only(needed) for index, kept in self._kept.items()}

    def _keep(self, index: int, recording: Recording) -> None:
        held = sum(kept.size_bytes for kept in self._kept.values())
        self.peak_size_bytes = max(self.peak_size_bytes, held + recording.size_bytes)
        while self._kept and held + recording.size_bytes > self.max_size_bytes:
            # Batches go round: of those kept, the newest is needed again last.
            held -= self._kept.popitem()[1].size_bytes
        self._kept[index] = recording


def acted(output: Any, act: Act) -> Any:
    """An output with its main tensor changed."""
    main = main_tensor(output)
    assert main is not None, "the survey takes no site that returns no tensor"
    return with_main(output, act(main))
