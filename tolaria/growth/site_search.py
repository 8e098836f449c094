"""The site search: where this model may grow, by dry runs on a copy and by what was asked for."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from torch import nn

from kasmina import (
    Executor,
    Site,
    SiteFilter,
    Survey,
    Task,
    choose,
    copy_module,
    live_untouched,
    survey_copy,
)
from kasmina.guard import attempt, describe
from leyline import ConfigError, SitesFound, TrialError
from tolaria.config import EsperConfig
from tolaria.growth.batch_source import BatchSource
from tolaria.growth.rollout import arms
from tolaria.session import Session

_LOG = logging.getLogger("esper")
_MAX_NUM_REASONS: Final = 1_000
"""Refused modules that an event names; a message has a largest size."""


class Sighted(NamedTuple):
    """What a survey found, and what of it the config asks for."""

    survey: Survey
    grows: list[Site]
    control: list[Site]
    """Those that are left as they are, to compare with."""

    def event(self, epoch: int, rollout_percentage: int) -> SitesFound:
        """What a run says of it."""
        refused = self.survey.refused
        return SitesFound(
            epoch=epoch,
            grows=tuple(site.name for site in self.grows),
            control=tuple(site.name for site in self.control),
            rollout_percentage=rollout_percentage,
            num_refused=len(refused),
            refused=dict(itertools.islice(refused.items(), _MAX_NUM_REASONS)),
        )


class SiteSearch:
    """Surveys a copy of the model, chooses sites as the config asks, and opens them."""

    def __init__(
        self,
        model: nn.Module,
        executor: Executor,
        task: Task,
        source: BatchSource,
        config: EsperConfig,
        example: tuple[Any, ...] | None,
    ):
        self._model = model
        self._executor = executor
        self._task = task
        self._source = source
        self._config = config
        self.site_filter: SiteFilter | None = None
        """Chooses the sites instead of the config's patterns."""
        self.example = example
        """Positional arguments of the model's forward, for exports; None if it never was called."""

    def find(self, session: Session, epoch: int) -> None:
        """Find the sites by a dry run on a copy, and open those that are asked for.

        Raises:
            SiteError, ConfigError: the config or the schedule names a site that there is not.
        """
        try:
            sighted = self.look(session.run.run_id)
        except TrialError as error:
            self._executor.trials_waived = str(error)
            _LOG.warning("growth finds no sites: %s", error)
            return
        session.record(sighted.event(epoch, self._config.rollout_percentage))
        _LOG.info(
            "%d of %d sites may grow%s; %d modules are no sites, `esper inspect %s` says why",
            len(sighted.grows),
            len(sighted.survey.sites),
            f", {len(sighted.control)} are the control arm" if sighted.control else "",
            len(sighted.survey.refused),
            session.run.path,
        )

    def look(self, run_id: str) -> Sighted:
        """Find the sites and open those that the config asks for, but for the control arm.

        Args:
            run_id: what the control arm is drawn from.

        Raises:
            SiteError, ConfigError: the config or the schedule names a site that there is not.
            TrialError: the sites cannot be found here.
        """
        with live_untouched(self._model):
            found = self._survey()
        config = self._config
        chosen = choose(
            found.sites,
            self.site_filter or config.sites,
            exclude=config.exclude_sites,
            max_sites=config.max_sites,
            refused=found.refused,
        )
        grows, control = arms(chosen, run_id, config.rollout_percentage)
        self._executor.grounds.host_work = found.host_work
        self._open(grows, control)
        return Sighted(found, grows, control)

    def _survey(self) -> Survey:
        if self.example is not None:
            arguments = self.example
            host = copy_module(self._model)
            found = attempt(lambda: survey_copy(host, lambda copied: copied(*arguments)))
            if isinstance(found, Exception):
                raise ConfigError(
                    f"example: {type(self._model).__name__} cannot be called with it: "
                    f"{describe(found)}; give the positional arguments of one forward call, "
                    "as a tuple"
                ) from found
            return found
        batch, task = self._source.example(), self._task
        if batch is None:
            raise TrialError("no example of a forward call is known; give example= or data=")
        host = task.copy()
        with task.context():
            found = attempt(lambda: survey_copy(host, lambda copied: task.dry_run(copied, batch)))
        if isinstance(found, TrialError):
            raise found
        if isinstance(found, Exception):
            raise TrialError(f"no trial: the loss fails on a copy: {describe(found)}") from found
        self.example = found.example
        return found

    def _open(self, sites: list[Site], control: Sequence[Site] = ()) -> None:
        """Give the executor its sites and check the schedule against them.

        Args:
            control: sites that a schedule may name although they never grow.
        """
        sites = [site.divided(self._config.chunks) for site in sites]
        self._executor.grounds.open(sites)
        known = {site.name: site for site in (*sites, *control)}
        for epoch, name, blueprint in self._config.schedule:
            if name not in known:
                raise ConfigError(
                    f"schedule: epoch {epoch} plants at {name!r}, which is not a site; "
                    f"sites are {', '.join(known) or 'none'}"
                )
            if not known[name].accepts(blueprint):
                raise ConfigError(
                    f"schedule: blueprint {blueprint!r} does not fit {name!r} of shape "
                    f"{tuple(known[name].shape)}; choose another blueprint or site"
                )
