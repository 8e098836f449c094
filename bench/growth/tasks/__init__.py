"""The tasks by name."""

from __future__ import annotations

from functools import cache
from types import MappingProxyType

from bench.growth.task import Task
from bench.growth.tasks.byte_model import byte_model
from bench.growth.tasks.fashion import fashion
from bench.growth.tasks.mnist1d import mnist1d

TASKS = MappingProxyType({"mnist1d": mnist1d, "fashion": fashion, "bytes": byte_model})


@cache
def load(name: str, *, short: bool) -> Task:
    """A task with its data, made once in a process; ConfigError if its data are not here."""
    return TASKS[name](short=short)
