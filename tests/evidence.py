"""Evidence for the guards of the lifecycle."""

from __future__ import annotations

from leyline import Evidence

SATISFIED = Evidence(
    epochs_in_stage=1,
    blueprint_proven=True,
    trial_settled=True,
    alpha=1.0,
    counterfactual_gain=0.1,
    embargo_epochs_left=0,
)
"""Every guard and every minimum stay is content with it."""
