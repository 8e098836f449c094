"""`esper bench`: the latency benches of the checkout that Esper is installed from."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

from leyline import ConfigError


def measure(arguments: Sequence[str]) -> None:
    """Run `python -m bench` with these arguments in this process.

    Raises:
        ConfigError: Esper was installed without the benches, which come with the repository.
    """
    if find_spec("bench") is None or find_spec("bench.harness") is None:
        raise ConfigError(
            "there are no benches beside this Esper: they come with the repository, not with the "
            "package; clone it, and run make bench there"
        )
    command = import_module("bench.__main__").main
    command.main(list(arguments), prog_name="esper bench", standalone_mode=False)
