"""The state of a run as columns, from Tolaria and Kasmina to Tamiyo."""

from __future__ import annotations

import math
from collections.abc import Mapping
from struct import calcsize
from types import MappingProxyType
from typing import Any, Final, cast

from leyline.errors import ContractError
from leyline.messages.base import Message

COLUMN_FORMATS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "metrics": "d",
        "stage": "i",
        "blueprint": "i",
        "epochs_in_stage": "i",
        "grafting_strategy": "i",
        "error_count": "i",
        "site": "i",
        "embargo_epochs_left": "i",
        "trial_steps": "i",
        "parameters": "q",
        "alpha": "f",
        "trial_gain": "f",
        "trial_error": "f",
        "counterfactual_gain": "f",
        "counterfactual_error": "f",
    }
)
"""Item format (struct module) of every column in a StatePacket."""


class StatePacket(Message, frozen=True, tag="state"):
    """All that a policy may know, as columns; row i is the seed named by Schema.seeds[i].

    Timings and free memory are left out on purpose: nothing measured in seconds may choose
    structure, or a resumed run would differ from an undisturbed one.
    """

    schema_id: int
    epoch: int
    step: int
    num_epochs: int
    """Epochs the run will have; 0 when unknown."""
    host_parameters: int
    grown_parameters: int
    """Parameters that growth has added to the live model so far."""
    param_budget: int
    """Parameters that growth may add in all."""
    trials_possible: bool
    metrics: memoryview
    stage: memoryview
    blueprint: memoryview
    epochs_in_stage: memoryview
    grafting_strategy: memoryview
    error_count: memoryview
    site: memoryview
    embargo_epochs_left: memoryview
    trial_steps: memoryview
    parameters: memoryview
    alpha: memoryview
    trial_gain: memoryview
    trial_error: memoryview
    counterfactual_gain: memoryview
    counterfactual_error: memoryview
    risk_level: int = 0
    """A RiskLevel. What of it time, memory or chance brought about is on record, so that a resumed
    run meets it again."""
    host_gain: float = math.nan
    """What the host itself gained in as many steps as the finalists of the race that has just been
    run, in the loss's unit; NaN if there was none."""
    host_gain_error: float = math.nan
    """Standard error of that."""
    step_flops: int = 0
    """Of one training step of the live network as it is; 0, as the next two, if not known."""
    training_flops: int = 0
    """Of all training steps so far."""
    search_flops: int = 0
    """Of all trials and counterfactuals so far."""

    def __post_init__(self) -> None:
        num_seeds = self.stage.nbytes // calcsize(COLUMN_FORMATS["stage"])
        uneven = [
            name
            for name, item in COLUMN_FORMATS.items()
            if name != "metrics" and getattr(self, name).nbytes != num_seeds * calcsize(item)
        ]
        if self.metrics.nbytes % calcsize(COLUMN_FORMATS["metrics"]):
            uneven.append("metrics")
        if uneven:
            raise ContractError(
                f"state packet of {num_seeds} seeds refused: {', '.join(uneven)} must hold whole "
                "items of the format in COLUMN_FORMATS, one for each seed"
            )

    def column(self, name: str) -> memoryview:
        """The column as typed items, for a live packet and for a decoded one alike."""
        view: memoryview = getattr(self, name)
        return view.cast("B").cast(cast(Any, COLUMN_FORMATS[name]))
