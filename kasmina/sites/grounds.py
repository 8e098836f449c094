"""The grounds: which blueprint can be planted at which site, and how large it would be."""

from __future__ import annotations

from collections.abc import Sequence

from kasmina.blueprints import catalogue
from kasmina.sites.site import Site
from leyline import Candidate, SiteError, SiteInfo


class Grounds:
    """Sites and blueprints by the numbers under which the state table knows them."""

    def __init__(self) -> None:
        self._sites: dict[str, Site] = {}
        self._blueprints: list[str] = list(catalogue.by_name)
        self._sizes: dict[tuple[str, str], int] = {}

    def open(self, sites: Sequence[Site]) -> None:
        """Say where seeds may be planted; until then there is nowhere.

        Sizes are counted here, because building a blueprint to count it does not fit into a
        boundary.
        """
        self._sites = {site.name: site for site in sites}
        self._blueprints += [name for name in catalogue.by_name if name not in self._blueprints]
        self._sizes = {
            (site.name, name): site.num_parameters(name)
            for site in sites
            for name in self._blueprints
            if site.accepts(name)
        }

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites, in the order of their numbers."""
        return tuple(self._sites.values())

    @property
    def blueprints(self) -> tuple[str, ...]:
        """Names of the blueprints, in the order of their numbers."""
        return tuple(self._blueprints)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Every (site, blueprint) pair that fits, with the parameters it would add."""
        return tuple(
            Candidate(site=site, blueprint=blueprint, parameters=size)
            for (site, blueprint), size in self._sizes.items()
        )

    def site_infos(self) -> tuple[SiteInfo, ...]:
        """The sites as the contract describes them."""
        return tuple(
            SiteInfo(
                name=site.name,
                shape=tuple(site.shape),
                channels=site.shape.channels,
                accepts=tuple(b for s, b in self._sizes if s == site.name),
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
            raise SiteError(f"{site!r} is not a site of this model; sites are {known}")
        if (site, blueprint) not in self._sizes:
            raise SiteError(
                f"blueprint {blueprint!r} does not fit site {site!r} of shape "
                f"{tuple(self._sites[site].shape)}; choose another blueprint or site"
            )
        return self._sizes[site, blueprint]

    def site_index(self, site: str) -> int:
        """The number of a site."""
        return list(self._sites).index(site)

    def blueprint_index(self, blueprint: str) -> int:
        """The number of a blueprint."""
        return self._blueprints.index(blueprint)

    def at(self, site: int, blueprint: int) -> tuple[Site, str]:
        """The site and the blueprint of these numbers."""
        return self.sites[site], self._blueprints[blueprint]

    def renumber(self, blueprints: Sequence[str]) -> None:
        """Number blueprints as a saved run did.

        Raises:
            BlueprintError: one of them is not registered here.
        """
        for name in blueprints:
            catalogue[name]
        self._blueprints = list(blueprints)
        self.open(self.sites)
