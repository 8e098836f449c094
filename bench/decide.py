"""What the policy's answer costs beside its limit, by the number of seeds.

What is timed is all that the controller does with a packet: reading it, deciding, keeping the
policy's own state. The peer is the same on a packet without seeds, in the same process by turns.
"""

from __future__ import annotations

import array
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import leyline
from bench.harness import Effort, Peer, Quantiles, Row, Target
from leyline import Candidate, Schema, SiteInfo, Stage, StatePacket, limits
from tamiyo import Controller, HeuristicPolicy, HeuristicRules, Policy

TITLE = "decisions"
_NUM_ACTIVE: Final = 32
_NUM_DORMANT: Final = 10_000
_NUM_SITES: Final = 32
_KINDS: Final = ("conv", "low_rank", "norm", "depthwise")
_NUM_PAIRS: Final = 200
_EPOCH: Final = 20

At = tuple[StatePacket, Schema]


def boundary(num_dormant: int, **cells: float) -> At:
    """So many dormant seeds among 32 that have these cells."""
    num_active = _NUM_ACTIVE if cells else 0
    num_seeds = num_dormant + num_active
    every = max(1, num_seeds // max(1, num_active))
    active = [row * every for row in range(num_active)]
    columns: dict[str, memoryview] = {}
    for name, item in leyline.COLUMN_FORMATS.items():
        column = array.array(item, [0] * (2 if name == "metrics" else num_seeds))
        for row in active if name in cells else ():
            column[row] = int(cells[name]) if item in "iq" else cells[name]
        if name == "site":
            for row in range(num_seeds):
                column[row] = row % _NUM_SITES
        columns[name] = memoryview(column).toreadonly()
    sites = [f"layers.{number}" for number in range(_NUM_SITES)]
    schema = Schema(
        run_id="bench",
        schema_id=1,
        sites=tuple(SiteInfo(name=s, shape=(8, 64), channels=64, accepts=_KINDS) for s in sites),
        blueprints=_KINDS,
        candidates=tuple(
            Candidate(site=site, blueprint=kind, parameters=100, flops=200)
            for site in sites
            for kind in _KINDS
        ),
        metrics=("val_loss", "val_accuracy"),
        seeds=tuple(f"{sites[n % _NUM_SITES]}/{n // _NUM_SITES}" for n in range(num_seeds)),
    )
    packet = StatePacket(
        schema_id=1,
        epoch=_EPOCH,
        step=1000,
        num_epochs=100,
        host_parameters=100_000,
        grown_parameters=0,
        param_budget=100_000,
        trials_possible=True,
        **columns,
    )
    return packet, schema


_SETTLED: Final = {"stage": Stage.FOSSILIZED, "epochs_in_stage": 9, "alpha": 1.0}
RACED: Final = {
    "stage": Stage.TRAINING,
    "epochs_in_stage": 1,
    "trial_steps": 200,
    "trial_gain": 0.5,
    "trial_error": 0.01,
}


_CASES: Final[tuple[tuple[str, str, int, dict[str, float], float], ...]] = (
    ("race-32", "32 fossils, the first race is called", 0, _SETTLED, 0.5),
    ("judge-32", "32 candidates, their race is judged", 0, RACED, 0.5),
    (
        "race-10000",
        "32 fossils among 10,000 dormant, the first race is called",
        _NUM_DORMANT,
        _SETTLED,
        2.0,
    ),
    ("judge-10000", "32 candidates among 10,000 dormant, judged", _NUM_DORMANT, RACED, 2.0),
    ("later-10000", "32 fossils among 10,000 dormant, a later race", _NUM_DORMANT, _SETTLED, 2.0),
)
"""Id, what is decided, dormant seeds, cells of the others, and the goal for p95 in ms."""


def _answer_ms(at: At, policy: Callable[[], Policy]) -> float:
    """CPU time of one answer of a fresh policy: what others do on this machine is not ours."""
    controller = Controller(policy(), time.monotonic, deadline_ms=60_000.0)
    start_ns = time.thread_time_ns()
    decision = controller.decide(*at)
    took_ms = (time.thread_time_ns() - start_ns) / 1e6
    assert not decision.late
    return took_ms


def _row(
    effort: Effort, name: str, claim: str, num_dormant: int, cells: dict[str, Any], goal_ms: float
) -> Row:
    at, empty = boundary(num_dormant, **cells), boundary(0)

    def policy() -> Policy:
        made = HeuristicPolicy(HeuristicRules(plateau_epochs=3))
        if name.startswith("later"):
            ranking = [[each.site, each.blueprint] for each in at[1].candidates]
            made.load_state_dict({**made.state_dict(), "races": 1, "ranking": ranking})
        return made

    _answer_ms(at, policy), _answer_ms(empty, policy)
    num_pairs = effort.num(_NUM_PAIRS)
    pairs = [(_answer_ms(at, policy), _answer_ms(empty, policy)) for _ in range(num_pairs)]
    ours = Quantiles.of([mine for mine, _ in pairs])
    beside_ms = statistics.median(peer for _, peer in pairs)
    assert ours.p95 is not None
    return Row(
        id=f"decide/{name}",
        claim=claim,
        unit="ms",
        ours=ours,
        target=Target(p95=goal_ms),
        peer=Peer("the deadline", ours.p95 / limits.DECIDE_MS, limits.DECIDE_MS),
        note=f"without seeds {beside_ms:.3f}",
    )


def rows(effort: Effort) -> Iterator[Row]:
    """Every claim about decisions."""
    for case in _CASES:
        yield _row(effort, *case)
