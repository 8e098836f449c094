"""Triggers: they see what is broken, and keep still in an ordinary noisy run."""

from __future__ import annotations

import math
import random

import pytest
import torch

from leyline import ConfigError, RiskLevel
from tamiyo.risk.engine import Assessment
from tolaria.config import EsperConfig
from tolaria.rollback.loss_watch import LossWatch
from tolaria.rollback.triggers import IN_A_ROW, MemoryLimit, NonFinite, Spike, memory_used_bytes
from tolaria.rollback.watch import Broken, Watch

DEVIATIONS = EsperConfig().spike_deviations


@pytest.mark.parametrize(
    ("loss", "seen"),
    [(1.5, 1.5), (2, 2.0), (torch.tensor(0.5), 0.5), (torch.tensor([0.25]), 0.25), (None, None)],
)
def test_one_number_in_any_form_is_a_loss(loss: object, seen: float | None) -> None:
    """A float, an int, a 0-dim tensor, a tensor of one item, or none at all."""
    assert LossWatch().observe(loss) == seen  # type: ignore[arg-type]


@pytest.mark.parametrize("loss", [torch.ones(3), "0.5", [1.0], torch.ones(0)])
def test_what_is_not_one_number_is_refused(loss: object) -> None:
    """The error names what was given and what to give."""
    with pytest.raises(ConfigError, match=r"grad_norm is .*give one number"):
        LossWatch("grad_norm").observe(loss)  # type: ignore[arg-type]


def test_a_loss_with_a_graph_does_not_keep_it() -> None:
    """Watching a loss leaves its graph to the caller."""
    weight = torch.ones(1, requires_grad=True)
    loss = (weight * 2).sum()
    LossWatch().observe(loss)
    loss.backward()
    assert weight.grad is not None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_seen_at_once(value: float) -> None:
    """And nothing else is."""
    trigger = NonFinite("loss")
    assert trigger.see(1e30) is None
    assert trigger.see(value) == f"loss is {value:g}"


def noisy(num_values: int, level: float = 1.0, share: float = 0.3) -> list[float]:
    stream = random.Random(0)  # noqa: S311
    return [level * math.exp(stream.gauss(0, share)) for _ in range(num_values)]


def judged(spike: Spike, values: list[float]) -> list[int]:
    return [i for i, value in enumerate(values) if spike.see(value) is not None]


def test_only_the_third_in_a_row_is_a_spike() -> None:
    """Two that stand out are noise; the third makes them a divergence."""
    assert IN_A_ROW == 3
    spike = Spike("loss", DEVIATIONS)
    assert judged(spike, noisy(40)) == []
    assert judged(spike, [1e3, 1e3, 1.0, 1e3, 1e3]) == []
    assert judged(spike, [1.0, 1e3, 1e3, 1e3]) == [3]


def test_what_stands_out_does_not_move_the_limit() -> None:
    """However many anomalies came before, the same value is one again."""
    spike = Spike("loss", DEVIATIONS)
    judged(spike, noisy(40))
    for _ in range(50):
        assert judged(spike, [1e3, 1e3, 1e3]) == [2]


ORDINARY = {
    "tiny batches": noisy(3000, share=1.0),
    "heavy tails": [min(abs(math.tan(v)), 1e3) for v in noisy(3000)],
    "warm-up": [10.0 * 0.99**i * v for i, v in enumerate(noisy(600))],
    "rate drops": [1.0 if i < 300 else 0.1 for i in range(600)],
    "a loss that becomes exactly zero": [0.9**i for i in range(300)] + [0.0] * 100,
    "negative": [-v for v in noisy(600)],
    "learnt by heart, in batches of one": [
        2.0 * max(0.99**i, 1e-3) * v ** (1.0 if i < 700 else 5.0)
        for i, v in enumerate(noisy(3000, share=0.5))
    ],
    "a harder curriculum": [0.98**i * v for i, v in enumerate(noisy(400))] + [4.0] * 50,
    "a batch in ten is hard": [5.0 * v if i % 10 == 0 else v for i, v in enumerate(noisy(600))],
}


@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_run_has_no_spike(name: str) -> None:
    """With the default threshold."""
    assert judged(Spike("loss", DEVIATIONS), ORDINARY[name]) == []


def test_a_network_that_has_learnt_its_data_is_seen_to_break_all_the_same() -> None:
    """However its losses are spread: ten times what it began with is no noise."""
    usual = ORDINARY["learnt by heart, in batches of one"]
    assert judged(Spike("loss", DEVIATIONS), [*usual, 30.0, 30.0, 30.0]) == [len(usual) + 2]


def test_a_spike_can_be_switched_off() -> None:
    """With 0 nothing finite ever is one."""
    assert judged(Spike("loss", 0.0), noisy(40) + [1e30] * 10) == []


def test_a_spikes_state_goes_on_where_it_was() -> None:
    """A resumed run judges as the undisturbed one does, also from within a row."""
    values = [*noisy(45), 1e3, 1e3, 1e3, 1.0, 1e3]
    for cut in (5, 30, 46, 47):
        first, second = Spike("loss", DEVIATIONS), Spike("loss", DEVIATIONS)
        seen = judged(first, values[:cut])
        second.load_state_dict(first.state_dict())
        rest = [cut + i for i in judged(second, values[cut:])]
        assert seen + rest == [47]


def test_memory_over_its_limit_is_seen() -> None:
    """At the limit it is not, without one never."""
    assert MemoryLimit(None, lambda: 10**15).see(1) is None
    assert MemoryLimit(100, lambda: 100).see(1) is None
    what = MemoryLimit(100, lambda: 1234).see(1)
    assert what is not None
    assert "1,234 bytes" in what


def test_memory_is_not_looked_at_again_where_a_resumed_run_has_been() -> None:
    """What was short then is short now, what was not is not; after that it is measured."""
    limit = MemoryLimit(100, lambda: 1000)
    limit.replay(frozenset({2}), 3)
    assert [limit.see(epoch) is not None for epoch in (1, 2, 3, 4)] == [False, True, False, True]


def test_the_process_uses_memory() -> None:
    """More than a megabyte, as any that has imported torch."""
    assert memory_used_bytes() > 2**20


def watch(**settings: object) -> Watch:
    return Watch(EsperConfig(**settings))  # type: ignore[arg-type]


def after(watch: Watch, loss: float, norm: float | None = None, **how: bool) -> Broken | None:
    return watch.after_step(loss, norm, **{"blamable": True, "scaled": False, **how})


def test_a_finite_value_counts_only_while_there_is_a_seed_to_blame() -> None:
    """A change of the data in a run of the user's own rolls nothing back, and is not held against
    the next graft either."""
    looking = watch()
    for value in noisy(40):
        assert after(looking, value) is None
    assert [after(looking, 1e3 * v, blamable=False) for v in noisy(10)] == [None] * 10
    for value in noisy(100, level=1e3):
        assert after(looking, value) is None
    broken = Broken("loss", "loss is nan", in_one_step=True, is_finite=False)
    assert after(looking, math.nan, blamable=False) == broken


def test_a_gradient_that_is_not_finite_is_seen_unless_a_scaler_skips_its_step() -> None:
    """Growing its scale until a gradient overflows is what a scaler does all the time."""
    looking = watch()
    broken = after(looking, 1.0, math.inf)
    assert broken is not None
    assert broken.where == "gradient"
    assert after(looking, 1.0, math.inf, scaled=True) is None
    assert after(looking, 1.0, 2.0) is None


def test_a_metric_that_collapses_is_seen_at_the_boundary_if_a_seed_may_have_done_it() -> None:
    """Not finite, or far above its usual values if less of it is better."""
    for monitor, bad, sees in (
        ("val_loss", math.nan, True),
        ("val_loss", 1e6, True),
        ("val_acc", 1e6, False),
        ("val_acc", math.nan, True),
    ):
        for blamable in (True, False):
            looking = watch(monitor=monitor)
            for epoch, value in enumerate(noisy(10), 1):
                assert looking.at_boundary(epoch, {monitor: value}, blamable=True) is None
            broken = looking.at_boundary(11, {monitor: bad}, blamable=blamable)
            assert (broken is not None) == (sees and blamable), (monitor, bad, blamable)
            assert broken is None or broken.where == "validation"
    assert watch().at_boundary(1, {}, blamable=True) is None


def test_a_metric_that_was_never_finite_is_no_seeds_fault() -> None:
    """It counts from the boundary on at which it had been finite; a resumed run knows."""
    looking = watch()
    seen = [({"val_loss": v}, b) for v, b in ((math.nan, True), (0.5, False), (math.nan, True))]
    found = []
    for epoch, (metrics, blamable) in enumerate(seen, 1):
        resumed = watch()
        resumed.load_state_dict(looking.state_dict())
        found.append(resumed.at_boundary(epoch, metrics, blamable=blamable))
        assert looking.at_boundary(epoch, metrics, blamable=blamable) == found[-1]
    assert found == [None, None, Broken("validation", "val_loss is nan", is_finite=False)]


def test_what_stood_out_is_counted_from_boundary_to_boundary() -> None:
    """Two outliers, and three in a row that are a spike too; a resumed run has the same counts, and
    the next boundary begins at none."""
    looking = watch()
    for value in [*noisy(40), 1e6, *noisy(3), 1e6, *noisy(3), 1e6, 1e6, 1e6]:
        after(looking, value, blamable=False)
    looking.note_rollback(Broken("loss", "loss is nan", is_finite=False))
    looking.note_rollback(Broken("request", "out of memory"))
    counts = {"num_outliers": 5, "num_spikes": 1, "num_rollbacks": 2, "num_non_finite": 1}
    assert looking.counts() == counts
    resumed = watch()
    resumed.load_state_dict(looking.state_dict())
    assert resumed.counts() == counts
    resumed.passed_boundary(Assessment(RiskLevel.GREEN, RiskLevel.GREEN, ()))
    assert resumed.counts() == dict.fromkeys(counts, 0)
