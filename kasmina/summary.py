"""A grown model at a glance: which seeds hang where, how large they are, how far blended in."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from kasmina.slots.slot import every_seed


@dataclass(frozen=True)
class SeedLine:
    """One seed of a model."""

    seed: str
    site: str
    blueprint: str
    parameters: int
    alpha: float
    trainable: bool


@dataclass(frozen=True)
class ModelSummary:
    """Sizes of the host and of every seed; `str()` gives a table."""

    host_parameters: int
    grown_parameters: int
    seeds: tuple[SeedLine, ...]

    def __str__(self) -> str:
        """Plain text, one line per seed."""
        total = self.host_parameters + self.grown_parameters
        seeds = "1 seed" if len(self.seeds) == 1 else f"{len(self.seeds)} seeds"
        lines = [f"{self.host_parameters:,} -> {total:,} parameters, {seeds}"]
        width = max((len(line.seed) for line in self.seeds), default=0)
        lines += [
            f"  {line.seed:<{width}}  {line.blueprint:<16} {line.parameters:>9,} parameters  "
            f"alpha {line.alpha:.2f}  {'trainable' if line.trainable else 'frozen'}"
            for line in self.seeds
        ]
        return "\n".join(lines)


def summary(model: nn.Module) -> ModelSummary:
    """Summarise a model, grown or not."""
    lines = tuple(
        SeedLine(
            seed=seed.seed,
            site=site,
            blueprint=seed.blueprint,
            parameters=sum(p.numel() for p in seed.parameters()),
            alpha=float(seed.alpha),
            trainable=any(p.requires_grad for p in seed.parameters()),
        )
        for site, _, seed in every_seed(model)
    )
    grown = sum(line.parameters for line in lines)
    total = sum(parameter.numel() for parameter in model.parameters())
    return ModelSummary(total - grown, grown, lines)
