"""Models and optimizers that keep what others do not: all of it comes back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tests.tolaria.plain_loops import one_thread as one_thread
from tests.tolaria.rollback.loops import parts_of
from tolaria.rollback.arena import Arena
from tolaria.rollback.state import Moment, RunState

NUM_FEATURES = 8
NUM_STEPS = 8


class _Net(nn.Module):
    """A body between 8 features, and a head."""

    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body
        self.head = nn.Linear(NUM_FEATURES, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.body(inputs)
        return self.head(hidden[0] if isinstance(hidden, tuple) else hidden)


class _Words(nn.Module):
    """An embedding, and a head that is tied to it if there are no sparse gradients."""

    def __init__(self, *, sparse: bool):
        super().__init__()
        self.embed = nn.Embedding(20, NUM_FEATURES, sparse=sparse)
        self.head = nn.Linear(NUM_FEATURES, 20, bias=False).requires_grad_(False)
        if not sparse:
            self.head.weight = self.embed.weight

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.embed((inputs[..., 0].abs() * 5).long().clamp(max=19)))


class _Counting(nn.Module):
    """State in no tensor, which it saves itself, and in one that is in no state dict."""

    def __init__(self) -> None:
        super().__init__()
        self.num_calls = 0
        self.register_buffer("ema", torch.zeros(NUM_FEATURES), persistent=False)
        self.register_buffer("ones", torch.ones(1).expand(NUM_FEATURES))

    def forward(self, inputs: Tensor) -> Tensor:
        self.num_calls += 1
        self.ema = 0.9 * self.ema + 0.1 * inputs.mean((0, 1))
        return (inputs + self.ema) * self.ones / self.num_calls

    def get_extra_state(self) -> dict[str, int]:
        return {"num_calls": self.num_calls}

    def set_extra_state(self, state: Any) -> None:
        self.num_calls = state["num_calls"]


class _LazyBranch(nn.Linear):
    """A layer with a branch that has had no input yet."""

    def __init__(self) -> None:
        super().__init__(NUM_FEATURES, NUM_FEATURES)
        self.unused = nn.LazyLinear(4)


class _GlobalStep(torch.optim.SGD):
    """Keeps a count that is of no parameter in its state, as optimizers of published code do."""

    def step(self, closure: Any = None) -> Any:
        own = self.state["global"]
        own["average"] = own.get("average", torch.zeros(1)) * 0.9 + 1.0
        for group in self.param_groups:
            group["lr"] = 0.01 * float(own["average"])
        return super().step(closure)


def _mlp() -> nn.Module:
    return _Net(nn.Sequential(nn.Linear(NUM_FEATURES, NUM_FEATURES), nn.Tanh()))


def _transformer() -> nn.Module:
    return _Net(nn.TransformerEncoderLayer(NUM_FEATURES, 2, 16, batch_first=True))


def _lstm() -> nn.Module:
    return _Net(nn.LSTM(NUM_FEATURES, NUM_FEATURES, 2, batch_first=True, dropout=0.1))


def _spectral() -> nn.Module:
    layer = nn.Linear(NUM_FEATURES, NUM_FEATURES)
    return _Net(torch.nn.utils.parametrizations.spectral_norm(layer))


Case = tuple[Callable[[], nn.Module], Callable[[Any], Optimizer]]
CASES: dict[str, Case] = {
    "lstm": (_lstm, torch.optim.AdamW),
    "transformer": (_transformer, torch.optim.Adam),
    "spectral norm": (_spectral, torch.optim.Adam),
    "tied weights": (lambda: _Words(sparse=False), torch.optim.AdamW),
    "sparse gradients": (
        lambda: _Words(sparse=True),
        lambda parameters: torch.optim.SparseAdam([p for p in parameters if p.requires_grad]),
    ),
    "half precision": (lambda: _mlp().bfloat16(), torch.optim.AdamW),
    "extra state, cache, expanded buffer": (lambda: _Net(_Counting()), torch.optim.Adam),
    "lazy branch": (lambda: _Net(_LazyBranch()), torch.optim.Adam),
    "adafactor": (_transformer, torch.optim.Adafactor),
    "lbfgs": (_mlp, lambda parameters: torch.optim.LBFGS(parameters, lr=0.1, max_iter=4)),
    "rate in a tensor": (_mlp, lambda parameters: torch.optim.Adam(parameters, torch.tensor(0.01))),
    "fused": (_mlp, lambda parameters: torch.optim.AdamW(parameters, fused=True)),
    "state of no parameter": (_mlp, lambda p: _GlobalStep(p, lr=0.1, momentum=0.9)),
}


def step(model: nn.Module, optimizer: Optimizer, number: int) -> float:
    generator = torch.Generator().manual_seed(number)
    inputs = torch.randn(4, 5, NUM_FEATURES, generator=generator)
    inputs = inputs.to(next(model.parameters()).dtype)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (model(inputs).float() - 1).square().mean()
        loss.backward()
        return loss.detach()

    untyped: Any = optimizer
    return float(untyped.step(closure))


@pytest.mark.parametrize("kind", CASES)
def test_the_next_steps_are_those_that_followed_the_first_time(kind: str) -> None:
    """Bit for bit, twice, whatever the model is made of and whatever its optimizer keeps."""
    make_model, make_optimizer = CASES[kind]
    torch.manual_seed(0)
    model = make_model()
    optimizer = make_optimizer(model.parameters())
    parts = parts_of(model, [optimizer])
    for number in range(3):
        step(model, optimizer, number)
    state = RunState(Arena(), parts, Moment(1, 3, None))
    losses = [step(model, optimizer, 3 + number) for number in range(NUM_STEPS)]
    assert len(set(losses)) > 1
    for _ in range(2):
        state.restore(parts)
        assert all(parameter.grad is None for parameter in model.parameters())
        assert [step(model, optimizer, 3 + number) for number in range(NUM_STEPS)] == losses


def test_a_cache_that_was_made_anew_in_another_shape_is_left_alone() -> None:
    """Such as a table of positions that grew with the longest input: what the module knows of its
    length is in no tensor, so the old one would be too short. All else comes back."""
    model = nn.Linear(NUM_FEATURES, NUM_FEATURES)
    model.register_buffer("positions", torch.arange(4.0), persistent=False)
    optimizer = torch.optim.Adam(model.parameters())
    parts = parts_of(model, [optimizer])
    state, weight = RunState(Arena(), parts, Moment(1, 1, None)), model.weight.detach().clone()
    step(model, optimizer, 0)
    model.register_buffer("positions", torch.arange(9.0), persistent=False)
    state.restore(parts)
    assert torch.equal(model.weight, weight)
    assert model.positions.tolist() == list(range(9))


def test_what_the_user_has_frozen_since_stays_frozen_and_has_its_value_of_then() -> None:
    """And what was frozen then and is trained by now is trained on."""
    model = nn.Sequential(nn.Linear(NUM_FEATURES, 4), nn.Linear(4, 3))
    model[1].requires_grad_(False)
    optimizer = torch.optim.Adam(model.parameters())
    parts = parts_of(model, [optimizer])
    step(model, optimizer, 0)
    state, then = RunState(Arena(), parts, Moment(1, 1, None)), model[0].weight.detach().clone()
    model[1].requires_grad_(True)
    step(model, optimizer, 1)
    model[0].requires_grad_(False)
    state.restore(parts)
    assert torch.equal(model[0].weight, then)
    assert [p.requires_grad for p in model.parameters()] == [False, False, True, True]
    assert model[1].weight not in optimizer.state
    step(model, optimizer, 2)
    assert torch.equal(model[0].weight, then)
