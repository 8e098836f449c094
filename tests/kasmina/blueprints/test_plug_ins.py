"""Plug-ins: blueprints of installed packages, found by entry point, left out when broken."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kasmina.blueprints import ENTRY_POINT_GROUP, Blueprint, Catalogue, Risk
from kasmina.blueprints.built_in import BUILT_IN
from kasmina.sites.shape import SiteShape
from leyline import BlueprintError
from tests.kasmina.blueprints import registering
from tests.kasmina.growing import rng_streams

FLAT = SiteShape((3, 12), -1)
GOOD = """
import torch
from torch import nn
from kasmina.blueprints import Blueprint, Risk

torch.rand(3)

def plain(shape):
    return nn.Linear(shape.channels, shape.channels)

careful = Blueprint("careful", plain, lambda shape: shape.channels > 2, Risk.MEDIUM)
number = 5
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path) -> Iterator[Install]:
    """Installs a package as pip would: a module, and a dist-info directory beside it."""
    modules: list[str] = []

    def make(package: str, source: str, **points: str) -> None:
        module = package.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name} = {module}{value}" for name, value in points.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[{ENTRY_POINT_GROUP}]", *lines]))
        modules.append(module)

    sys.path.insert(0, str(tmp_path))
    yield make
    sys.path.remove(str(tmp_path))
    for module in modules:
        sys.modules.pop(module, None)


def fresh() -> Catalogue:
    catalogue = Catalogue(ENTRY_POINT_GROUP)
    for blueprint in BUILT_IN:
        catalogue.register(blueprint)
    return catalogue


def test_a_factory_and_a_blueprint(install: Install) -> None:
    """A factory comes under the entry point's name at HIGH risk, a Blueprint as it is."""
    install("good-plants", GOOD, linear=":plain", another=":careful")
    streams = rng_streams()
    catalogue = fresh()
    assert catalogue["linear"].cost(FLAT).num_parameters == 156
    assert catalogue["linear"].risk is Risk.HIGH
    assert catalogue["careful"].risk is Risk.MEDIUM
    assert list(catalogue.by_name)[-2:] == ["careful", "linear"]
    assert rng_streams() == streams, "importing a plug-in draws from a stream of its own"


def test_nothing_is_imported_before_it_is_needed(install: Install) -> None:
    """A name that is there does not load plug-ins; the list does, once."""
    install("good-plants", GOOD, linear=":plain")
    catalogue = fresh()
    catalogue["conv"]
    assert "good_plants" not in sys.modules
    assert "linear" in catalogue.by_name
    assert sys.modules.pop("good_plants")
    assert "linear" in catalogue.by_name
    with pytest.raises(BlueprintError, match="'nowhere' is not registered"):
        catalogue["nowhere"]
    assert "good_plants" not in sys.modules


def test_a_module_whose_decorators_register(install: Install) -> None:
    """An entry point may name a module or a decorated factory: what it registers stays as it is."""
    source = GOOD + "\nfrom tests.kasmina.blueprints import registering as r\nr.add(careful)\n"
    catalogue = registering.catalogue = fresh()
    install("good-plants", source, careful=":plain", whole="")
    names = set(catalogue.by_name) - {blueprint.name for blueprint in BUILT_IN}
    assert names == {"careful"}
    assert catalogue["careful"].risk is Risk.MEDIUM


@pytest.mark.parametrize(
    ("source", "value", "reason"),
    [
        ("import nothing_of_the_kind", ":plain", "ModuleNotFoundError: No module named"),
        (GOOD, ":missing", "AttributeError"),
        (GOOD, ":number", "is a int, not a factory"),
        ("raise RuntimeError('no GPU')", ":plain", "RuntimeError: no GPU"),
    ],
)
def test_a_broken_plug_in_is_left_out_by_name(
    install: Install, caplog: pytest.LogCaptureFixture, source: str, value: str, reason: str
) -> None:
    """The log names entry point, package and cause; asked for, it is an error; the rest works."""
    install("bad-plants", source, broken=value)
    install("good-plants", GOOD, linear=":plain")
    catalogue = fresh()
    with caplog.at_level(logging.WARNING, "esper"):
        assert {"linear", "conv"} <= set(catalogue.by_name)
    assert "broken" not in catalogue.by_name
    (message,) = [record.getMessage() for record in caplog.records]
    for part in ("entry point 'broken'", "package 'bad-plants'", reason):
        assert part in message
    with pytest.raises(BlueprintError, match=r"'broken' is not to be had.*'bad-plants'"):
        catalogue["broken"]


def test_a_taken_name_stays_with_its_owner(
    install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither a built-in blueprint nor one registered by hand is replaced by a plug-in."""
    install("bad-plants", GOOD, conv=":plain", mine=":plain")
    catalogue = fresh()
    mine = Blueprint("mine", lambda shape: BUILT_IN[0].factory(shape))
    catalogue.register(mine)
    with caplog.at_level(logging.WARNING, "esper"):
        assert catalogue.by_name["mine"] is mine
    assert catalogue["conv"].built_in
    assert sum("is taken" in record.getMessage() for record in caplog.records) == 2
