"""Sites: what is found, what is refused and why, and that looking moves nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from kasmina import discover, survey, survey_copy
from leyline import BlueprintError
from tests.kasmina.growing import everything, grow
from tests.kasmina.hosts import HOSTS, Host, conv_net, transformer

every_host = pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)

FOUND = {
    "conv_net": {
        "stem": ((4, 8, 6, 6), 1),
        "block": ((4, 8, 6, 6), 1),
        "block.0": ((4, 8, 6, 6), 1),
        "head": ((4, 4), -1),
    },
    "lstm": {"lstm": ((4, 5, 16), -1), "head": ((4, 5, 4), -1)},
    "transformer": {"layers.0": ((4, 5, 16), -1), "layers.1": ((4, 5, 16), -1)},
    "resnet": {
        "stem": ((4, 8, 6, 6), 1),
        **{
            f"blocks.{n}{part}": ((4, 8, 6, 6), 1)
            for n in (0, 1)
            for part in ("", ".conv", ".norm")
        },
        "head": ((4, 4), -1),
    },
    "conv1d": {"conv": ((4, 8, 9), 1), "norm": ((4, 8, 9), 1), "head": ((4, 4), -1)},
}


@pytest.mark.parametrize("name", FOUND)
def test_the_sites_of_each_host(name: str) -> None:
    """Exactly the expected submodules are found, with the shapes and channels they put out."""
    host = HOSTS[name]
    sites = discover(host.build(), (host.example(),))
    assert {s.name: (tuple(s.shape), s.shape.channel_axis) for s in sites} == FOUND[name]
    assert {s.dtype for s in sites} == {torch.float32}
    names = [n for n, _ in host.build().named_modules()]
    assert [s.name for s in sites] == [n for n in names if n in FOUND[name]]


def test_a_site_accepts_what_fits_its_shape() -> None:
    """Convolutions fit image-like outputs only; what takes channels fits everywhere."""
    sites = {s.name: s for s in discover(conv_net(), (HOSTS["conv_net"].example(),))}
    assert all(sites["stem"].accepts(b) for b in ("conv", "depthwise_conv", "low_rank", "norm"))
    assert not sites["head"].accepts("conv")
    assert sites["head"].accepts("low_rank")
    assert sites["stem"].cost("norm").num_parameters == 16
    with pytest.raises(BlueprintError, match="'nonsense'"):
        sites["stem"].accepts("nonsense")


@every_host
@pytest.mark.parametrize("training", [True, False])
def test_looking_moves_nothing(host: Host, training: bool) -> None:
    """Weights, buffers, gradients, modes, classes and every global random stream stay."""
    model, x = host.build().train(training), host.example()
    model(x).sum().backward()
    before = everything(model)
    discover(model, (x,))
    assert everything(model) == before


def test_a_single_tensor_is_an_example_too() -> None:
    """A bare tensor means a call with that one argument."""
    x = HOSTS["conv_net"].example()
    assert discover(conv_net(), x) == discover(conv_net(), (x,))  # type: ignore[arg-type] # on purpose


def test_what_a_fast_path_bypasses_is_refused() -> None:
    """Parts of an encoder layer are skipped in eval without gradients; the reason says so."""
    reasons = survey(transformer(), (HOSTS["transformer"].example(),)).refused
    assert {f"layers.0.{part}" for part in ("linear1", "norm1", "self_attn")} <= set(reasons)
    assert "bypassed" in reasons["layers.0.linear1"]
    assert "0 in eval without gradients" in reasons["layers.0.linear1"]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_nested_outputs_are_refused() -> None:
    """With a padding mask encoder layers pass nested tensors in eval: no seed can extend those."""
    x = HOSTS["transformer"].example()
    mask = torch.zeros(4, 5, dtype=torch.bool)
    mask[0, 3:] = True
    found = survey_copy(transformer(), lambda model: model(x, src_key_padding_mask=mask))
    assert found.sites == []
    assert "nested" in found.refused["layers.0"]


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = self.first
        self.other = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.other(self.second(self.first(x)))


def test_a_module_under_two_names_is_refused() -> None:
    """Both names are refused, with both named; the others are found."""
    x = torch.randn(2, 4)
    assert [s.name for s in discover(Shared(), (x,))] == ["other"]
    reasons = survey(Shared(), (x,)).refused
    assert reasons["first"] == reasons["second"]
    assert "first, second" in reasons["first"]


def test_a_grown_model_has_its_sites_still() -> None:
    """Seeds are no sites themselves, and hide none."""
    model, x = conv_net(), HOSTS["conv_net"].example()
    before = discover(model, (x,))
    grow(model, "stem", x, alpha=1.0)
    grow(model, "block", x, alpha=0.0)
    assert discover(model, (x,)) == before


def test_the_first_positional_call_is_kept_as_example() -> None:
    """An export needs the arguments of the model's own forward; keywords give none."""
    x = torch.randn(2, 4)
    assert survey(Shared(), (x,)).example == (x,)
    assert survey_copy(Shared(), lambda model: model(x=x)).example is None
