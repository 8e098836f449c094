"""Properties of the controller over all schedulers, transitions, resumes and foreign writes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import Optimizer

from kasmina import LiveSeed
from tests.tolaria.rates.torch_schedulers import SCHEDULERS, step_scheduler
from tolaria.rates import RateRule, UnifiedLRController
from tolaria.rates.groups import SEED_KEY

SITES = ("0", "1")
TRANSITIONS = ("graft", "freeze", "thaw", "cull")
ACTIONS = st.lists(
    st.sampled_from(
        [
            *[("step", "")] * 6,
            *[("resume", "")] * 2,
            *[(action, site) for action in TRANSITIONS for site in SITES],
        ]
    ),
    min_size=10,
    max_size=30,
)


class Run:
    """A model of two layers, each in a group of its own, with a seed that comes and goes at each;
    what its rates should be is worked out beside the controller."""

    def __init__(self, kind: str, rule: RateRule):
        self.kind, self.rule = kind, rule
        torch.manual_seed(0)
        self.layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
        self.live: dict[str, LiveSeed] = {}
        self.trained_steps: dict[str, int] = {}
        self.used: list[tuple[list[float], dict[str, float]]] = []
        self.told: list[Any] = []
        self.make([self.layers[0].parameters(), self.layers[1].parameters()])
        self.scheduler = SCHEDULERS[kind](self.optimizer)
        self.attach()

    def make(self, parameters: list[Any]) -> None:
        groups = [{"params": p, "lr": lr} for p, lr in zip(parameters, (0.05, 0.02), strict=True)]
        self.optimizer: Optimizer = torch.optim.SGD(groups, momentum=0.9)
        self.optimizer.register_step_post_hook(lambda *_: self.note())

    def attach(self) -> None:
        self.rates = UnifiedLRController(
            self.layers, [self.optimizer], [self.scheduler], rule=self.rule
        )

    def note(self) -> None:
        groups = self.optimizer.param_groups
        host = [g["lr"] for g in groups if SEED_KEY not in g]
        self.used.append((host, {g[SEED_KEY]: g["lr"] for g in groups if SEED_KEY in g}))

    def expected(self, site: str) -> float:
        name = f"{site}/0"
        if not self.live[name].trainable:
            return 0.0
        age = self.trained_steps[name]
        warm = min(1.0, (age + 1) / self.rule.warmup_steps) if self.rule.warmup_steps else 1.0
        return self.rule.factor * warm

    def do(self, action: str, site: str) -> None:
        name = f"{site}/0"
        if action == "step":
            self.step()
        elif action == "resume":
            self.resume()
        elif action == "write":
            for group in self.optimizer.param_groups:
                if group.get(SEED_KEY) == name:
                    group["lr"] = 7.0
        elif action == "graft":
            if name not in self.live:
                self.live[name] = LiveSeed(site, (nn.Parameter(torch.ones(2)),), True)
                self.trained_steps[name] = 0
        elif name in self.live and action == "cull":
            del self.live[name]
        elif name in self.live:
            self.live[name] = LiveSeed(site, self.live[name].parameters, action == "thaw")
        if action in TRANSITIONS:
            self.told += self.rates.take_foreign_writes()
            self.rates.reconcile(self.live, lambda _: ())

    def step(self) -> None:
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.ones_like(parameter)
        self.optimizer.step()
        host, seeds = self.used[-1]
        expected = {
            f"{site}/0": host[int(site)] * self.expected(site)
            for site in SITES
            if f"{site}/0" in self.live
        }
        assert seeds == pytest.approx(expected, rel=1e-12, abs=0)
        for name, seed in self.live.items():
            self.trained_steps[name] += seed.trainable
        self.rates.after_step()
        step_scheduler(self.scheduler)

    def resume(self) -> None:
        """Fresh objects over the grown model, in the order in which Lightning makes them."""
        saved = self.optimizer.state_dict(), self.scheduler.state_dict(), self.rates.state_dict()
        order = self.rates.group_order()
        self.rates.release()
        self.make(
            [
                [*layer.parameters(), *(p for s in self._at(site) for p in s.parameters)]
                for site, layer in zip(SITES, self.layers, strict=True)
            ]
        )
        self.scheduler = SCHEDULERS[self.kind](self.optimizer)
        self.attach()
        self.rates.regroup(self.live, order)
        self.rates.load_state_dict(saved[2])
        self.optimizer.load_state_dict(saved[0])
        self.scheduler.load_state_dict(saved[1])

    def _at(self, site: str) -> list[LiveSeed]:
        return [seed for seed in self.live.values() if seed.site == site]


@settings(max_examples=60, deadline=None)
@given(
    actions=ACTIONS,
    kind=st.sampled_from(sorted(SCHEDULERS)),
    factor=st.sampled_from([0.25, 1.0, 3.0]),
    warmup_steps=st.integers(0, 5),
)
def test_every_rate_is_the_rule_s_in_every_step(
    actions: list[tuple[str, str]], kind: str, factor: float, warmup_steps: int
) -> None:
    """Whatever comes, goes, is frozen or resumed: the seed's rate is the rule's, the host's rates
    are those of a run without seeds, resuming changes no rate, and nothing is told of as a foreign
    write."""
    rule = RateRule(factor, warmup_steps)
    run, unstopped, bare = (Run(kind, rule) for _ in range(3))
    for action, site in [("graft", "0"), *actions]:
        run.do(action, site)
        if action != "resume":
            unstopped.do(action, site)
        if action == "step":
            bare.do(action, site)
    assert run.used == unstopped.used
    assert [host for host, _ in run.used] == [host for host, _ in bare.used]
    assert not [*run.told, *unstopped.told]
    assert not [*run.rates.take_foreign_writes(), *unstopped.rates.take_foreign_writes()]


@settings(max_examples=12, deadline=None)
@given(
    kind=st.sampled_from(sorted(SCHEDULERS)),
    site=st.sampled_from(SITES),
    before=st.integers(1, 8),
    warmup_steps=st.integers(0, 5),
)
def test_a_foreign_write_is_always_told(
    kind: str, site: str, before: int, warmup_steps: int
) -> None:
    """After any number of steps of any scheduler, with what was found, what the rule gives, and
    for that seed alone; once."""
    run = Run(kind, RateRule(0.5, warmup_steps))
    for action, where in [("graft", "0"), ("graft", "1"), *[("step", "")] * before]:
        run.do(action, where)
    run.do("write", site)
    (told,) = run.rates.take_foreign_writes()
    host = run.optimizer.param_groups[int(site)]["lr"]
    assert (told.seed, told.found) == (f"{site}/0", 7.0)
    assert told.expected == pytest.approx(host * run.expected(site))
    run.do("step", "")
    assert not run.rates.take_foreign_writes()
