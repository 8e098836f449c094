"""The shadow: a frozen copy; whatever is done on it, nothing of its host part moves."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from kasmina import FunctionTask, Shadow
from kasmina.slots.grafted_seed import GraftedSeed
from kasmina.slots.slot import attached_seeds
from kasmina.trials.shadow import paired_gain, train_batch
from tests.kasmina.growing import cross_entropy, everything, grow, state_bits
from tests.kasmina.hosts import HOSTS, Host

every_host = pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)


def summed(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return model(batch).square().mean()


def seed_for(model: nn.Module, host: Host) -> GraftedSeed:
    """A seed that hangs nowhere yet, made on a copy."""
    copied = FunctionTask(model, summed).copy()
    grow(copied, host.site, host.example(), alpha=0.0)
    return attached_seeds(copied)[f"{host.site}/0"][2]


@every_host
def test_trial_steps_move_the_seed_alone(host: Host) -> None:
    """After ten steps on the shadow its host part is bit-identical, and so is the live model."""
    model, x = host.build(), host.example()
    model(x).sum().backward()
    before = everything(model)
    shadow = Shadow(FunctionTask(model, summed))
    seed = seed_for(model, host)
    born = state_bits(seed.state_dict())
    optimizer = torch.optim.AdamW(seed.parameters(), lr=0.1)
    torch.manual_seed(0)
    shadow.mode(training=True)
    with shadow.carrying(host.site, seed):
        for _ in range(10):
            train_batch(shadow, x, seed, optimizer)
    shadow.restore_buffers()
    assert state_bits(shadow.model.state_dict()) == before["state"]
    assert all(p.grad is None for p in shadow.model.parameters())
    assert attached_seeds(shadow.model) == {}
    assert state_bits(seed.state_dict())["body.2.weight"] != born["body.2.weight"]
    assert {**everything(model), "rng": None} == {**before, "rng": None}


def test_train_mode_leaves_statistics_and_noise_of_the_host_off() -> None:
    """Losses that ask for self.training see True; norms and dropouts are in eval."""
    host = HOSTS["resnet"]
    shadow = Shadow(FunctionTask(host.build(), summed))
    shadow.mode(training=True)
    assert shadow.model.training
    kinds = {type(m).__name__ for m in shadow.model.modules() if not m.training}
    assert kinds == {"BatchNorm2d", "Dropout"}
    shadow.mode(training=False)
    assert not any(m.training for m in shadow.model.modules())


def test_buffers_are_put_back() -> None:
    """Whatever a loss did to them."""
    host = HOSTS["resnet"]
    shadow = Shadow(FunctionTask(host.build(), summed))
    before = state_bits(shadow.model.state_dict())
    shadow.model.train()
    shadow.loss(host.example())
    assert state_bits(shadow.model.state_dict()) != before
    shadow.restore_buffers()
    assert state_bits(shadow.model.state_dict()) == before


class Drifts(nn.Module):
    """Its buffer moves in every pass and is part of what it puts out."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.shift += 1.0
        return x + self.shift


def test_held_out_losses_do_not_depend_on_what_ran_before() -> None:
    """Buffers that training or other losses have moved are those of the copy's birth again."""
    shadow = Shadow(FunctionTask(Drifts(), summed))
    batches = [torch.ones(2), torch.ones(2)]
    first = shadow.held_out_losses(batches)
    shadow.mode(training=True)
    shadow.loss(batches[0])
    assert shadow.held_out_losses(batches).tolist() == first.tolist() == [4.0, 9.0]


def test_a_buffer_of_nan_has_not_moved() -> None:
    """NaN is what some code marks "not set yet" with; another value or shape is a move."""
    model = Drifts()
    model.shift.fill_(torch.nan)
    shadow = Shadow(FunctionTask(model, summed))
    assert not shadow.buffers_moved()
    shadow.model.shift.fill_(1.0)
    assert shadow.buffers_moved()
    shadow.restore_buffers()
    shadow.model.shift = torch.full((2,), torch.nan)
    assert shadow.buffers_moved()


def test_a_seed_hangs_on_the_shadow_for_a_block_only() -> None:
    """At alpha 1 inside, gone outside, also after an error."""
    host = HOSTS["conv_net"]
    model = host.build()
    shadow, seed = Shadow(FunctionTask(model, cross_entropy)), seed_for(model, host)

    def fail_inside() -> None:
        with shadow.carrying("stem", seed):
            assert attached_seeds(shadow.model)["stem/0"][2] is seed
            assert (float(seed.alpha), seed.active) == (1.0, True)
            raise KeyError

    with pytest.raises(KeyError):
        fail_inside()
    assert attached_seeds(shadow.model) == {}


def test_the_gain_is_paired() -> None:
    """Mean difference and its standard error over pairs; one pair has no error."""
    before, after = torch.tensor([3.0, 5.0, 9.0]), torch.tensor([2.0, 3.0, 6.0])
    assert paired_gain(before, after) == (2.0, pytest.approx(1 / 3**0.5))
    gain, error = paired_gain(before[:1], after[:1])
    assert gain == 1.0
    assert math.isnan(error)


@pytest.mark.parametrize(
    "noisy",
    [nn.MultiheadAttention(8, 2, dropout=0.5), nn.LSTM(8, 8, 2, dropout=0.5), nn.GRU(8, 8, 2)],
)
def test_noise_inside_attention_and_recurrent_layers_is_off(noisy: nn.Module) -> None:
    """They have no dropout module and draw nothing all the same; the live ones are as they were."""
    live = nn.ModuleDict({"noisy": noisy}).train()
    shadow = Shadow(FunctionTask(live, summed))
    shadow.mode(training=True)
    x = torch.randn(3, 2, 8)
    arguments = (x, x, x) if isinstance(noisy, nn.MultiheadAttention) else (x,)
    frozen = shadow.model.get_submodule("noisy")
    assert torch.equal(frozen(*arguments)[0], frozen(*arguments)[0])
    assert noisy.dropout == (0.0 if isinstance(noisy, nn.GRU) else 0.5)
