"""Shared work: trials together end as trials alone do, and whatever does not fit runs alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kasmina import OptimizerRecipe, RaceRules, discover
from kasmina.blueprints import Blueprint, catalogue
from tests.kasmina.growing import Xor, cross_entropy, everything
from tests.kasmina.hosts import HOSTS, Host
from tests.kasmina.racing import RULES, TRAIN, assert_close, entries, measured, run, whole

FEW = RaceRules((3, 6), 3, keep_share=1.0, clear_errors=math.inf)
KINDS = ("low_rank", "norm", "bottleneck_mlp")


def summed_squares(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch).square().mean()


def batches(host: Host, size: int = 8) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(size, *host.shape[1:], generator=generator) for _ in range(2)]


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
def test_a_replayed_trial_has_the_bits_of_one_through_the_whole_host(host: Host) -> None:
    """Gain, error and weights of a lone candidate, while not one step ran through the host."""
    torch.manual_seed(0)
    model, x = host.build(), batches(host)
    one = entries(model, x[0], f"{host.site}:low_rank")
    task: dict[str, Any] = {"loss": summed_squares, "train_batches": x, "held_out": x}
    shared, report = run(model, one, rules=FEW, **task)
    alone, apart = run(model, one, rules=whole(FEW), **task)
    assert measured(shared) == measured(alone)
    assert (report.num_whole_steps, apart.num_whole_steps) == (0, 6)
    assert (apart.num_replayed_steps, apart.recordings_size_bytes) == (0, 0)


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
def test_a_group_ends_as_its_members_do_alone(host: Host) -> None:
    """Same gains up to rounding and same ranking, every step in one pass with the others."""
    torch.manual_seed(0)
    model, x = host.build(), batches(host)
    some = entries(model, x[0], *(f"{host.site}:{kind}" for kind in KINDS))
    task: dict[str, Any] = {"loss": summed_squares, "train_batches": x, "held_out": x}
    shared, report = run(model, some, rules=FEW, **task)
    alone, apart = run(model, some, rules=whole(FEW), **task)
    assert_close(shared, alone)
    assert report.num_grouped_steps == report.num_replayed_steps == apart.num_whole_steps == 18


class Glued(nn.Module):
    """A host whose modules are held together by functional code, as most of them are."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 6), nn.Linear(6, 6)
        self.act = nn.ReLU(inplace=True)
        self.head = nn.Linear(6, 2)
        self.kept: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        early = self.act(self.first(x))
        late = self.second(early)
        late += early
        return self.head(self.act(late))


class Twice(Glued):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.second(self.first(x).tanh())))


class Remembers(Glued):
    def forward(self, x: Tensor) -> Tensor:
        self.second.kept = self.first(x)
        return self.head(self.second(self.second.kept.tanh())) + self.second.kept.mean()


class BatchStatistics(Glued):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(6, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.second(self.first(x)).tanh()))


class Noisy(Glued):
    def forward(self, x: Tensor) -> Tensor:
        hidden = nn.functional.dropout(self.second(self.first(x)).tanh(), 0.3, self.training)
        return self.head(hidden)


class Counts(Glued):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1.0
        return super().forward(x) * (1 + 0.01 * self.calls)


class Stateful(Glued):
    """The first module keeps what the head reads behind the back of all calls."""

    class Leaky(nn.Linear):
        last: Tensor

        def forward(self, x: Tensor) -> Tensor:
            self.last = super().forward(x)
            return self.last

    def __init__(self) -> None:
        super().__init__()
        self.first = self.Leaky(2, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x).tanh()) + self.first.last)


class Branches(Glued):
    """Which modules are called turns on the batch."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        if bool(x[0, 0] > 0):
            hidden = self.act(hidden)
        return self.head(self.second(hidden))


class Wary(Glued):
    """It looks back at what came before the site only if somebody has changed something there."""

    def __init__(self) -> None:
        super().__init__()
        self.known: set[float] = set()
        for x, _ in TRAIN:
            self.known.add(float(self.second(self.first(x)).detach().sum()))

    def forward(self, x: Tensor) -> Tensor:
        early = self.first(x)
        late = self.second(early)
        return self.head(late if float(late.detach().sum()) in self.known else late + early)


def contrastive(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    embedded = model(batch[0])
    return nn.functional.cross_entropy(embedded @ embedded.T, torch.arange(len(embedded)))


def total(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="sum") / 64


def listed(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    rows = zip(model(batch[0]), batch[1].tolist(), strict=True)
    losses = [nn.functional.cross_entropy(row[None], torch.tensor([y])) for row, y in rows]
    return torch.stack(losses).mean()


HARD: list[tuple[type[Glued], Callable[..., Tensor], str, str]] = [
    (Glued, cross_entropy, "grouped", ""),
    (Glued, total, "grouped", ""),
    (Glued, listed, "grouped", ""),
    (Glued, contrastive, "replayed", "rows of a batch are not independent"),
    (BatchStatistics, cross_entropy, "replayed", "rows of a batch are not independent"),
    (Remembers, cross_entropy, "grouped", ""),
    (Branches, cross_entropy, "both", ""),
    (Twice, cross_entropy, "whole", "called 2 times in a pass"),
    (Noisy, cross_entropy, "whole", "draws random numbers"),
    (Counts, cross_entropy, "whole", "changes buffers"),
    (Stateful, cross_entropy, "whole", "another loss"),
    (Wary, cross_entropy, "whole", "another loss or gradient"),
]


@pytest.mark.parametrize(("host", "loss", "how", "why"), HARD)
def test_every_model_and_loss_gets_the_sharing_it_allows(
    host: type[Glued], loss: Callable[..., Tensor], how: str, why: str
) -> None:
    """The result is that of trials alone, whatever the host does; and the report says why."""
    torch.manual_seed(0)
    model = host()
    before = everything(model)
    some = entries(model, TRAIN[0][0], "second:low_rank", "second:norm")
    shared, report = run(model, some, loss=loss)
    alone, _ = run(model, some, loss=loss, rules=whole(RULES))
    assert everything(model) == before
    assert_close(shared, alone)
    if how != "grouped" and how != "both":
        assert measured(shared) == measured(alone)
    assert {
        "grouped": report.num_grouped_steps == 80,
        "replayed": (report.num_replayed_steps, report.num_grouped_steps) == (80, 0),
        "both": 0
        < report.num_grouped_steps
        < 80
        == report.num_whole_steps + report.num_grouped_steps,
        "whole": report.num_whole_steps >= 80 and "second/0" not in report.reasons,
    }[how]
    assert why in report.reasons.get("second", "")
    assert str(report).endswith(why) or why


def steep(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return 1e3 * cross_entropy(model, batch)


def test_each_gradient_is_clipped_by_itself() -> None:
    """Where every gradient is far too long the weights are those of clipping alone."""
    torch.manual_seed(0)
    model = Glued()
    some = entries(model, TRAIN[0][0], "second:low_rank", "second:norm", "second:bottleneck_mlp")
    task: dict[str, Any] = {
        "loss": steep,
        "recipe": OptimizerRecipe(torch.optim.SGD, {"lr": 0.01, "momentum": 0.9}),
    }
    shared, report = run(model, some, rules=FEW, **task)
    alone, _ = run(model, some, rules=whole(FEW), **task)
    assert report.num_grouped_steps == 18
    for seed, trial in shared.items():
        weights, expected = (each.module.body.state_dict() for each in (trial, alone[seed]))
        torch.testing.assert_close(weights, expected, rtol=1e-4, atol=1e-6)
        assert any(bool((weight != 0).any()) for weight in weights.values())


def test_only_what_is_looked_at_again_is_kept() -> None:
    """Of a stack one output a batch; where a shortcut leads past the site its start as well."""
    for host, num_kept in ((Xor, 0), (Glued, 1)):
        model = host()
        site = "second" if host is Glued else "body"
        _, report = run(model, entries(model, TRAIN[0][0], f"{site}:norm"))
        width = 6 if host is Glued else 8
        pieces_bytes = 2 * 256 * width * 4
        kept_bytes = (num_kept + 1) * (8 * 64 * width * 4 + pieces_bytes)
        assert report.recordings_size_bytes == kept_bytes


@pytest.mark.parametrize("batches_kept", [1, 3])
def test_memory_is_bounded_and_changes_nothing(batches_kept: int) -> None:
    """With room for a few batches' recordings the same bits, and no more than one beside them."""
    model = Glued()
    some = entries(model, TRAIN[0][0], "second:low_rank", "head:norm")
    one, while_proving = 64 * (6 + 6 + 2) * 4, 64 * (6 + 6 + 6 + 6 + 2) * 4
    free, _ = run(model, some)
    most = 2 * (while_proving + (batches_kept - 1) * one)
    rules = replace(RULES, max_shared_size_bytes=most)
    bound, report = run(model, some, rules=rules)
    assert measured(bound) == measured(free)
    assert report.num_whole_steps == 0
    assert report.recordings_size_bytes <= most + 2 * one


def test_a_group_is_no_larger_than_its_memory() -> None:
    """Activations of one pass of k candidates fit, or fewer are taken at a time."""
    model = Glued()
    some = entries(model, TRAIN[0][0], *["first:low_rank"] * 5)
    tail_bytes = 64 * (6 + 6 + 6 + 2) * 4  # act, second, act, head
    sizes = []
    for most in (1, 2, 5):
        rules = RaceRules(
            (4,), 5, batch_pieces=1, max_shared_size_bytes=most * (tail_bytes + 6 * 64 * 4)
        )
        _, report = run(model, some, rules=rules)
        sizes.append(report.num_grouped_steps)
    assert sizes == [0, 16, 20]


class Infinite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.inf + self.weight


def test_one_group_that_fails_is_the_reason_for_its_site() -> None:
    """The site's other groups leave with it, and the report names the cause, not its wake."""
    model = Glued()
    held = dict(catalogue._blueprints)
    catalogue.register(Blueprint("inf", lambda shape: Infinite(), risk=catalogue["norm"].risk))
    some = entries(model, TRAIN[0][0], "first:inf", "first:norm", "first:low_rank", "first:norm")
    tail_bytes = 64 * (6 + 6 + 6 + 2) * 4  # act, second, act, head
    rules = RaceRules((4,), 4, batch_pieces=1, max_shared_size_bytes=2 * (tail_bytes + 6 * 64 * 4))
    shared, report = run(model, some, rules=rules)
    alone, _ = run(model, some, rules=whole(rules))
    catalogue._blueprints.clear()
    catalogue._blueprints.update(held)
    assert_close(shared, alone)
    assert "a shared pass gave a loss or gradient that is not finite" in report.reasons["first"]
    assert report.num_whole_steps > 0 == report.num_replayed_steps


def test_where_no_gradient_arrives_nothing_tells_how_a_loss_scales() -> None:
    """Behind weights of zero each candidate has a pass of its own."""
    model = Glued()
    nn.init.zeros_(model.head.weight)
    some = entries(model, TRAIN[0][0], "second:low_rank", "second:norm")
    shared, report = run(model, some)
    alone, _ = run(model, some, rules=whole(RULES))
    assert measured(shared) == measured(alone)
    assert (report.num_grouped_steps, report.num_replayed_steps) == (0, 80)
    assert "no gradient of the loss arrives there" in report.reasons["second"]


def test_a_clear_winner_goes_on_alone() -> None:
    """Beaten by four standard errors and half the gain is out; with infinitely many nobody is."""
    model = Xor()
    some = entries(model, TRAIN[0][0], "body:norm", "body:bottleneck_mlp", "head:norm")
    clear, _ = run(model, some, rules=RaceRules((60, 70), 3, keep_share=1.0))
    assert [trial.steps for trial in clear.values()] == [60, 70, 60]
    every, _ = run(model, some, rules=RaceRules((60, 70), 3, keep_share=1.0, clear_errors=math.inf))
    assert [trial.steps for trial in every.values()] == [70, 70, 70]
    unsure, _ = run(model, some, rules=RaceRules((60, 70), 3, keep_share=1.0, clear_share=0.01))
    assert [trial.steps for trial in unsure.values()][:2] == [70, 70]


def test_a_chunk_races_like_any_candidate() -> None:
    """Seeds on chunks of one site share their passes and end as they do alone."""
    model = Xor()
    (site, *_) = discover(model, (TRAIN[0][0],))
    halves = type(site)(**{**vars(site), "num_chunks": 2})
    some = {f"body/{n}": (halves, "low_rank", 1) for n in range(2)}
    shared, report = run(model, some)
    alone, _ = run(model, some, rules=whole(RULES))
    assert report.num_grouped_steps == 80
    assert_close(shared, alone)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_precision_is_the_runs(dtype: torch.dtype) -> None:
    """Under autocast, or in double precision, replay has the same bits too."""
    torch.manual_seed(0)
    model = Glued().double() if dtype is torch.float64 else Glued()

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
            return nn.functional.cross_entropy(model(x.to(next(model.parameters()).dtype)), y)

    x = TRAIN[0][0].to(next(model.parameters()).dtype)
    one = entries(model, x, "second:low_rank", "first:norm")
    shared, report = run(model, one, loss=loss)
    alone, _ = run(model, one, loss=loss, rules=whole(RULES))
    assert measured(shared) == measured(alone)
    assert [trial.fault for trial in shared.values()] == [None, None]
    assert report.num_whole_steps == 0
