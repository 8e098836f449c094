"""Seed reports: what the executor says of every transition, made or refused."""

from __future__ import annotations

from kasmina.lifecycle.seed_table import SeedTable
from kasmina.sites.grounds import Grounds
from leyline import Advance, Cull, Germinate, SeedReport, Stage


class Reports:
    """Words reports from the state table as it is when they are asked for."""

    def __init__(self, table: SeedTable, grounds: Grounds):
        self._table = table
        self._grounds = grounds

    def numbers(self, site: str, blueprint: str) -> tuple[int, int]:
        """The numbers under which the table knows a site and a blueprint.

        Raises:
            SiteError, BlueprintError: one of them is not known here.
        """
        self._grounds.size(site, blueprint)
        return self._grounds.site_index(site), self._grounds.blueprint_index(blueprint)

    def made(self, seed: str, was: Stage, epoch: int, cause: str) -> SeedReport:
        """A transition that has just been made."""
        numbers = self._table.get(seed, "site"), self._table.get(seed, "blueprint")
        site, blueprint = self._grounds.at(*numbers)
        return SeedReport(
            epoch=epoch,
            seed=seed,
            site=site.name,
            blueprint=blueprint,
            was=int(was),
            now=int(self._table.stage(seed)),
            parameters=self._table.get(seed, "parameters"),
            alpha=self._table.get(seed, "alpha"),
            cause=cause,
        )

    def refused(self, command: Germinate | Advance | Cull, epoch: int, reason: str) -> SeedReport:
        """A command that changed nothing."""
        known = command.seed in self._table
        stage = int(self._table.stage(command.seed)) if known else int(Stage.DORMANT)
        return SeedReport(
            epoch=epoch,
            seed=command.seed,
            site=command.site if isinstance(command, Germinate) else "",
            blueprint=command.blueprint if isinstance(command, Germinate) else "",
            was=stage,
            now=stage,
            parameters=0,
            alpha=0.0,
            cause=command.cause,
            refused=reason,
        )
