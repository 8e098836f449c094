"""The grounds: which blueprint can be planted at which site, and how large it would be."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from kasmina.blueprints import Cost, catalogue
from kasmina.sites.site import Site
from leyline import BlueprintError, Candidate, SiteError, SiteInfo

_LOG = logging.getLogger("esper")


class Grounds:
    """Sites and blueprints by the numbers under which the state table knows them."""

    def __init__(self) -> None:
        self._sites: dict[str, Site] = {}
        self._numbers: dict[str, int] = {}
        self._in_order: tuple[Site, ...] = ()
        self._blueprints: list[str] = list(catalogue.by_name)
        self._costs: dict[tuple[str, str], Cost] = {}
        self._raced: frozenset[str] | None = None
        self.host_work = 0
        """Of a pass of the host as `count_work` has it, to compare costs with; 0: not known."""

    def restrict(self, blueprints: Sequence[str]) -> None:
        """Let none but these blueprints race; an empty list lets all. Schedules may use any.

        Raises:
            BlueprintError: there is no such blueprint.
        """
        self._raced = frozenset(catalogue[name].name for name in blueprints) or None

    def open(self, sites: Sequence[Site]) -> None:
        """Say where seeds may be planted; until then there is nowhere.

        Costs are counted here, because building a blueprint to count it does not fit into a
        boundary; sites of one shape share the count. A blueprint that fails for a shape is named
        in the log and left out there.
        """
        self._sites = {site.name: site for site in sites}
        self._numbers = {name: number for number, name in enumerate(self._sites)}
        self._in_order = tuple(self._sites.values())
        self._blueprints += [name for name in catalogue.by_name if name not in self._blueprints]
        known: dict[tuple[str, str], Cost | None] = {}
        self._costs = {}
        for site in sites:
            for name in self._blueprints:
                alike = name, repr(site.seed_shape.to_dict())
                if alike not in known:
                    known[alike] = _cost(site, name)
                cost = known[alike]
                if cost is not None:
                    self._costs[site.name, name] = cost

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites, in the order of their numbers."""
        return self._in_order

    @property
    def blueprints(self) -> tuple[str, ...]:
        """Names of the blueprints, in the order of their numbers."""
        return tuple(self._blueprints)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Every (site, blueprint) pair that fits and may race, with what it would add."""
        return tuple(
            Candidate(
                site=site,
                blueprint=blueprint,
                parameters=cost.num_parameters,
                flops=cost.num_flops,
                step_cost=cost.work / self.host_work if self.host_work else 0.0,
            )
            for (site, blueprint), cost in self._costs.items()
            if self._raced is None or blueprint in self._raced
        )

    def site_infos(self) -> tuple[SiteInfo, ...]:
        """The sites as the contract describes them."""
        return tuple(
            SiteInfo(
                name=site.name,
                shape=tuple(site.shape),
                channels=site.shape.channels,
                accepts=tuple(b for b in self._blueprints if (site.name, b) in self._costs),
                num_chunks=site.num_chunks,
            )
            for site in self._sites.values()
        )

    def size(self, site: str, blueprint: str) -> int:
        """Parameters that a blueprint would add at a site.

        Raises:
            SiteError: there is no such site, or the blueprint does not fit there.
            BlueprintError: there is no such blueprint.
        """
        catalogue[blueprint]
        if site not in self._sites:
            known = ", ".join(self._sites) or "none"
            raise SiteError(
                f"{site!r} is not a site that may grow (it is none, was not chosen, or is in the "
                f"control arm); sites are {known}"
            )
        if (site, blueprint) not in self._costs:
            raise SiteError(
                f"blueprint {blueprint!r} does not fit site {site!r} of shape "
                f"{tuple(self._sites[site].shape)}; choose another blueprint or site"
            )
        return self._costs[site, blueprint].num_parameters

    def site_index(self, site: str) -> int:
        """The number of a site."""
        return self._numbers[site]

    def blueprint_index(self, blueprint: str) -> int:
        """The number of a blueprint."""
        return self._blueprints.index(blueprint)

    def at(self, site: int, blueprint: int) -> tuple[Site, str]:
        """The site and the blueprint of these numbers."""
        return self._in_order[site], self._blueprints[blueprint]

    def renumber(self, blueprints: Sequence[str]) -> None:
        """Number blueprints as a saved run did.

        Raises:
            BlueprintError: one of them is not registered here.
        """
        for name in blueprints:
            catalogue[name]
        if list(blueprints) == self._blueprints:
            return  # as when a run goes back: counting what every one of them costs takes long
        self._blueprints = list(blueprints)
        self.open(self.sites)


def _cost(site: Site, blueprint: str) -> Cost | None:
    """What a blueprint would add at a site; None where it does not fit or cannot be built."""
    try:
        return site.cost(blueprint) if site.accepts(blueprint) else None
    except BlueprintError as error:
        _LOG.warning("blueprint left out: %s", error)
        return None
