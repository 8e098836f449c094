"""The control of a race: what the host would gain by itself in as many steps.

A host that is still learning fast gains more by training on than by any seed, and what a seed
seems to bring it then would have come anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor

from kasmina.rng import isolated_rng
from kasmina.trials.flops import FlopLedger
from kasmina.trials.shadow import HELD_OUT_RNG_SEED, Shadow, paired_gain, train_batch
from kasmina.trials.trial import OptimizerRecipe


def control_gain(
    shadow: Shadow,
    train_batches: Sequence[Any],
    held_out: Sequence[Any],
    before: Tensor,
    recipe: OptimizerRecipe,
    num_steps: int,
    ledger: FlopLedger,
) -> tuple[float, float]:
    """Train what the live run trains of the host, on a copy, as a candidate is trained.

    Args:
        shadow: the race's, which has done its work: it is trained.
        before: held-out losses of the host as it is, [num_pieces].
        num_steps: as many as the last candidates of the race had.

    Returns:
        (gain, standard error) in the loss's unit; (0, 0) for a host that is not trained at all.
    """
    trained = shadow.thaw()
    if not trained:
        return 0.0, 0.0
    optimizer = recipe.build(trained)
    shadow.mode(training=True)
    shadow.restore_buffers()
    with isolated_rng(HELD_OUT_RNG_SEED):
        for step in range(num_steps):
            batch = train_batches[step % len(train_batches)]
            ledger.run("control", partial(train_batch, shadow, batch, shadow.model, optimizer))
    with isolated_rng(HELD_OUT_RNG_SEED):
        after = shadow.held_out_losses(held_out)
    ledger.total += ledger.of("held out")
    return paired_gain(before, after)
