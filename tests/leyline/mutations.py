"""Valid messages of every type, and ways to damage them."""

from __future__ import annotations

import math
import random
from typing import Any

import leyline
from tests.leyline.test_codec import STEP, framed, packet, started


def valid_messages() -> list[bytes]:
    """One message of every type, and a few larger ones."""
    site = leyline.SiteInfo(name="conv1", shape=(8, 3, 4, 4), channels=3, accepts=("conv", "norm"))
    candidate = leyline.Candidate(site="conv1", blueprint="conv", parameters=90, flops=1800)
    score = leyline.Score(
        seed="conv1/0",
        site="conv1",
        blueprint="conv",
        parameters=90,
        gain=0.25,
        gain_error=math.nan,
        threshold=0.01,
        steps=200,
        chosen=True,
    )
    germinate = leyline.Germinate(seed="conv1/0", site="conv1", blueprint="conv", cause="race 1")
    advance = leyline.Advance(seed="conv1/0", to=3, cause="it won")
    cull = leyline.Cull(seed="conv1/0", cause="no gain", embargo_epochs=15)
    about = {"epoch": 3, "seed": "conv1/0", "site": "conv1", "blueprint": "conv", "parameters": 90}
    events: list[Any] = [
        leyline.Schema(
            run_id="r",
            schema_id=1,
            sites=(site,),
            blueprints=("conv",),
            candidates=(candidate,),
            metrics=("loss",),
            seeds=("conv1/0",),
        ),
        packet(3),
        leyline.Decision(
            epoch=3,
            policy="heuristic",
            cause="graft",
            commands=(germinate, advance, cull),
            scores=(score, score),
        ),
        leyline.SeedReport(**about, was=2, now=3, alpha=0.5, cause="it won", refused=""),
        leyline.FieldReport(
            **about,
            expected_gain=0.2,
            expected_error=0.1,
            counterfactual_gain=0.3,
            counterfactual_error=0.1,
            verdict="FINE_TUNING",
        ),
        started("Net"),
        STEP,
        leyline.EpochMetrics(
            epoch=3,
            num_epochs=9,
            step=60,
            metrics={"loss": 0.5, "accuracy": 0.75},
            parameters=190,
            stages={"TRAINING": 2},
        ),
        leyline.BoundaryTiming(
            epoch=3, gather_ms=0.1, decide_ms=0.2, apply_ms=0.3, outside_ms={"race": 900.0}
        ),
        leyline.Fault(epoch=3, step=60, where="race", what="loss nan", action="restored"),
        leyline.LifecycleMetrics(
            epoch=3,
            stages={"TRAINING": 2},
            transitions=2,
            mean_alpha=math.nan,
            seed_checkpoints=2,
            faults=0,
            refusals=1,
        ),
        leyline.LatencyAlert(
            epoch=3, part="apply", p95_ms=12.0, limit_ms=10.0, num_boundaries=20, resolved=False
        ),
        leyline.LearningRates(epoch=3, step=60, host=(0.1, 0.01), seeds={"conv1/0": 0.1}),
        leyline.BreakerChange(
            epoch=3, step=60, name="bus", was="closed", now="open", why="x", hold=1.0, unit="s"
        ),
        leyline.RiskChanged(epoch=3, step=60, was=0, now=2, causes=("3 spikes",)),
        leyline.SitesFound(
            epoch=3,
            grows=("conv1",),
            control=("conv2",),
            rollout_percentage=50,
            num_refused=1,
            refused={"fc": "not called"},
        ),
        leyline.BusReport(
            epoch=3,
            offered=9,
            delivered=5,
            dropped=1,
            queued=3,
            dropped_by_type={"StepMetrics": 1},
            latency_ms={"send": (0.1, 0.2, 0.3)},
        ),
        leyline.DropsCounted(dropped_by_type={"StepMetrics": 1}),
        leyline.RunEnded(run_id="r", epoch=9, status="finished", parameters=190, metrics={}),
    ]
    wrapped = [
        leyline.Envelope(run_id="r", sequence=n, priority=1, monotonic_ns=5, wall_ns=6, event=event)
        for n, event in enumerate(events, start=1)
    ]
    alone = [germinate, advance, cull, score, site, candidate]
    return [leyline.encode(message) for message in [*events, *wrapped, *alone]]


def mutate(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Change some bytes, cut, extend, repeat or cross with another message."""
    changed = bytearray(data)
    kind = rng.randrange(6)
    place = rng.randrange(len(changed))
    if kind == 0:
        for _ in range(rng.randint(1, 4)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    elif kind == 1:
        changed[place] ^= 1 << rng.randrange(8)
    elif kind == 2:
        del changed[place:]
    elif kind == 3:
        changed += rng.randbytes(rng.randint(1, 30))
    elif kind == 4:
        changed[place:place] = changed[rng.randrange(len(changed)) :][: rng.randint(1, 20)]
    else:
        other = rng.choice(others)
        changed = changed[:place] + other[rng.randrange(len(other)) :]
    return bytes(changed)


def hostile(originals: list[bytes], number: int, rng: random.Random) -> bytes:
    """A damaged message; every second one is damaged below a header that fits what is left."""
    data = rng.choice(originals)
    if number % 2:
        return framed(mutate(data[16:], [other[16:] for other in originals], rng))
    return mutate(data, originals, rng)
