"""The rule that makes a seed's learning rate of its host group's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from torch import Tensor
from torch.nn.utils import get_total_norm

CONSTANT: Final = "constant"
VARIANCE_TRANSFER: Final = "variance_transfer"
_SMALLEST_RATIO: Final = 0.1
_LARGEST_RATIO: Final = 10.0


@dataclass
class SeedRate:
    """What the rate of one seed depends on, besides its host group's."""

    steps: int = 0
    """Training steps in which the seed was trained, counted to the end of its warm-up."""
    ratio: float = 1.0
    """Variance transfer's ratio of norms; 1 under the constant rule."""
    frozen: bool = False


@dataclass(frozen=True)
class RateRule:
    """How the rate of a seed follows from its host group's: a multiple of it, in every step."""

    factor: float = 1.0
    warmup_steps: int = 0
    """Steps from a seed's birth in which its rate rises to the full one, linearly."""
    kind: str = CONSTANT
    """CONSTANT or VARIANCE_TRANSFER."""

    def multiplier(self, seed: SeedRate) -> float:
        """The seed's rate as a multiple of its host group's; 0 while the seed is frozen."""
        if seed.frozen:
            return 0.0
        # A seed in its n-th step has n - 1 behind it: the first step has a rate above 0.
        warm = (seed.steps + 1) / self.warmup_steps if self.is_warming_up(seed) else 1.0
        return self.factor * seed.ratio * warm

    def is_warming_up(self, seed: SeedRate) -> bool:
        """Whether the seed's rate is still rising."""
        return seed.steps < self.warmup_steps


def norm_ratio(seed: Sequence[Tensor], host: Sequence[Tensor]) -> float:
    """Variance transfer's learning-rate ratio: the norm of what was added by that of its host.

    The rate of parameters W added later is `lr * ||W|| / ||W_0||`, with Frobenius norms and the
    parameters W_0 that were there before: Yuan, Savarese and Maire, "Accelerated Training via
    Incrementally Growing Neural Networks using Variance Transfer and Learning Rate Adaptation",
    NeurIPS 2023, arXiv:2306.12700. Kept within 0.1 to 10, which the paper does not do: its parts
    are of one layer, while a seed may be born with all its parameters at zero.
    """
    above, below = (float(get_total_norm([p.detach() for p in part])) for part in (seed, host))
    ratio = above / below if below else 1.0
    return min(_LARGEST_RATIO, max(_SMALLEST_RATIO, ratio))
