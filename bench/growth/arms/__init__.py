"""The arms by name, in the order of the table."""

from __future__ import annotations

from types import MappingProxyType
from typing import cast

from bench.growth.arms.arm import Arm
from bench.growth.arms.esper import ESPERS
from bench.growth.arms.gradient import Gradient
from bench.growth.arms.peers import PEERS
from bench.growth.arms.random_place import RandomPlace
from bench.growth.arms.random_search import RandomSearch
from bench.growth.arms.static import STATICS

_ALL = (*STATICS, RandomSearch(), RandomPlace(), *ESPERS, Gradient(), *PEERS)
ARMS = MappingProxyType({arm.name: cast(Arm, arm) for arm in _ALL})
