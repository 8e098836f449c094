"""Exports: ordinary modules with the very outputs, that run where Esper is not installed."""

from __future__ import annotations

import copy
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kasmina import export
from kasmina.slots.slot import attach_seed, attached_seeds
from leyline import ExportError
from tests.kasmina.growing import bits, everything, grow, wake
from tests.kasmina.hosts import HOSTS, Host, ResNet, conv_net

every_host = pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)

WITHOUT_ESPER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"kasmina", "leyline", "tolaria", "tamiyo", "oona"}:
            raise ImportError(f"{name} was imported")

sys.meta_path.insert(0, Blocker())
sys.path.append(sys.argv[1])
import torch
torch.set_num_threads(1)
for folder in sys.argv[2:]:
    model = torch.load(f"{folder}/model.pt", weights_only=False)
    x, y = torch.load(f"{folder}/example.pt")
    assert torch.equal(model(x), y), folder
    model.double()(x.double())
assert not {"kasmina", "leyline", "tolaria"} & set(sys.modules)
"""


def awake(model: nn.Module) -> nn.Module:
    """Running statistics other than those at birth, so that a wrong mode shows."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)
    return model


def esper_modules(model: nn.Module) -> list[str]:
    kinds = {type(module) for module in model.modules()}
    return [
        k.__name__ for k in kinds if any(b.__module__.startswith("kasmina.") for b in k.__mro__)
    ]


@every_host
@pytest.mark.parametrize("alpha", [0.3, 1.0])
@pytest.mark.parametrize("training", [True, False])
def test_an_export_has_the_very_outputs(host: Host, alpha: float, training: bool) -> None:
    """Difference 0 in train and eval, with and without gradients, with two seeds at a site."""
    x = host.example()
    model = awake(host.build()).train(training)
    grow(model, host.site, x, alpha=alpha)
    grow(model, host.site, x, alpha=0.7, blueprint="norm", number=1)
    before = everything(model)
    plain = export(model)
    assert everything(model) == before
    assert esper_modules(model)
    assert esper_modules(plain) == []
    assert attached_seeds(plain) == {}
    for grad in (True, False):
        outputs = []
        for net in (model, plain):
            torch.manual_seed(5)
            with torch.set_grad_enabled(grad):
                outputs.append(bits(net(x)))
        assert outputs[0] == outputs[1]


@every_host
def test_an_export_keeps_names_modes_and_gradients(host: Host) -> None:
    """The host's keys are all there (below a Sequential site its last member's are moved)."""
    x = host.example()
    model = host.build()
    first = next(m for m in model.modules() if not list(m.children()))
    first.eval()
    keys = list(model.state_dict())
    grow(model, host.site, x, alpha=1.0)
    plain = export(model)
    assert set(keys) <= set(plain.state_dict())
    modes = {n: m.training for n, m in model.named_modules() if "esper" not in n}
    assert {n: m.training for n, m in plain.named_modules() if n in modes} == modes
    assert not any(m.training for m in export(model.eval()).modules())
    plain.eval()
    plain(x).sum().backward()
    assert all(p.grad is not None for p in plain.parameters())
    assert sum(p.numel() for p in plain.parameters()) == sum(p.numel() for p in model.parameters())


def test_nested_sites_and_a_sequential_with_a_layer_for_its_end() -> None:
    """Seeds on a block, on a leaf inside it and on a Sequential that ends in a grown layer."""
    x = HOSTS["resnet"].example()
    model = awake(ResNet())
    for site, number in (("blocks.0", 0), ("blocks.0.conv", 0), ("blocks.0", 1), ("blocks.1", 0)):
        grow(model, site, x, alpha=0.3, blueprint="conv", number=number)
    tower = nn.Sequential(model, nn.Sequential(nn.ReLU(), nn.Linear(4, 4)))
    inner = grow(tower, "1.1", x, alpha=0.6)
    outer = wake(nn.Linear(4, 4))
    for key, body in (("0", outer), ("1", inner.body)):
        seed = type(inner)(body, seed=f"1/{key}", blueprint="low_rank", shape=inner.shape)
        attach_seed("1", tower[1], seed)
        seed.blend(0.5)
    tower.eval()
    assert bits(export(tower)(x)) == bits(tower(x))
    assert len(export(tower)[1]) == 2


def test_a_copy_that_the_model_keeps_of_itself_is_exported_too() -> None:
    """Its seeds have the names of those that it was copied from."""
    x = HOSTS["resnet"].example()
    net = awake(ResNet()).eval()
    for site in ("stem", "blocks.0"):
        grow(net, site, x, alpha=0.5)
    plain = export(nn.ModuleDict({"net": net, "best": copy.deepcopy(net)}))
    assert esper_modules(plain) == []
    assert [bits(plain[name](x)) for name in ("net", "best")] == [bits(net(x))] * 2


class SharedActivation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        act = nn.ReLU()
        self.block = nn.Sequential(nn.Linear(4, 4), act, nn.Linear(4, 4), act)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


def test_an_activation_that_is_used_twice_grows_in_one_place_only() -> None:
    """The Sequential's last member may be the same module as an earlier one."""
    x = torch.randn(3, 4)
    model = SharedActivation()
    grow(model, "block", x, alpha=1.0)
    assert bits(export(model)(x)) == bits(model(x))


def test_seeds_that_are_out_are_left_out() -> None:
    """Alpha 0 and faulted seeds add nothing, not even a key."""
    model, x = conv_net(), HOSTS["conv_net"].example()
    keys = list(model.state_dict())
    grow(model, "stem", x, alpha=0.0)
    grow(model, "head", x, alpha=0.0).fault = "broken"
    plain = export(model)
    assert list(plain.state_dict()) == keys
    assert type(plain.stem) is nn.Conv2d
    assert list(export(conv_net()).state_dict()) == keys


class Options(nn.Module):
    """A site with positional, optional and keyword-only arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Scaled()

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x, shift=2.0) + self.block(x, 3.0) + self.block(x=x)


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor, scale: float = 0.5, *, shift: float = 1.0) -> Tensor:
        return self.fc(x) * scale + shift


def test_arguments_are_passed_on_as_they_were() -> None:
    """Positional, by name, keyword-only and left to their defaults."""
    model, x = Options(), torch.randn(3, 4)
    grow(model, "block", x, alpha=0.4)
    assert bits(export(model)(x)) == bits(model(x))


class Variadic(nn.Module):
    """A block that is called as those of Hugging Face are."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Attention()

    def forward(self, x: Tensor) -> Tensor:
        mixed, weights = self.block(x, None, x, scale=0.5, shift=2.0, cache=None)
        bare, _ = self.block.forward(x)
        return mixed + weights + bare


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor, *args: Any, scale: float = 1.0, **kwargs: Any) -> Any:
        residual = sum(each for each in args if each is not None)
        return self.fc(x) * scale + residual + kwargs.get("shift", 0.0), x.sigmoid()


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_forward_may_take_any_arguments(tmp_path: Path) -> None:
    """Those that a class takes as *args and **kwargs arrive: in the export, its copy and its file,
    in programs that torch makes of it, and when the host calls the forward itself."""
    model, x = Variadic().eval(), torch.randn(3, 4)
    grow(model, "block", x, alpha=0.4)
    grow(model, "block.fc", x, alpha=0.6, number=1)
    plain = export(model)
    torch.save(plain, tmp_path / "plain.pt")
    others = [
        plain,
        copy.deepcopy(plain),
        torch.load(tmp_path / "plain.pt", weights_only=False),
        torch.export.export(plain, (x,)).module(),
        torch.jit.trace(plain, x),
        torch.fx.symbolic_trace(plain),
    ]
    expected = bits(model(x))
    assert [bits(other(x)) for other in others] == [expected] * len(others)
    for other in others[1:3]:
        assert list(other.state_dict()) == list(plain.state_dict())
        nn.init.zeros_(other.block.grown_0.seed_0[0].weight)
        assert bits(other(x)) != expected
    assert bits(plain(x)) == expected


class AnyActivation(nn.Module):
    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return torch.tanh(*args, **kwargs)


def test_a_sequential_may_end_in_a_module_that_takes_any_arguments() -> None:
    """A Sequential gives its last member one argument, whatever that could take."""
    x = torch.randn(3, 4)
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 4), AnyActivation()), nn.Linear(4, 4))
    grow(model, "0", x, alpha=0.4)
    assert bits(export(model)(x)) == bits(model(x))


@dataclass
class Unknown:
    hidden: Tensor


class Wrapped(nn.Module):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x).hidden


class Telling(nn.Linear):
    def forward(self, x: Tensor) -> Unknown:
        return Unknown(super().forward(x))


class Silent(nn.Linear):
    def forward(self, x: Tensor) -> Any:
        return Unknown(super().forward(x))


class Reversed(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        for module in reversed(list(self)):
            x = module(x)
        return x + 0


@pytest.mark.parametrize(
    ("model", "site", "reason"),
    [
        (
            Wrapped(Telling(4, 4)),
            "block",
            r"'block': Telling returns a Unknown, .* torch\.export\.register_dataclass\(Unknown\)",
        ),
        (
            nn.Sequential(Reversed(nn.Linear(4, 4), nn.ReLU()), nn.ReLU()),
            "0",
            "'0': Reversed is a Sequential with a forward of its own",
        ),
    ],
)
def test_what_plain_modules_cannot_do_is_refused(model: nn.Module, site: str, reason: str) -> None:
    """By site and reason, with another way out; the live model is unharmed."""
    x = torch.randn(3, 4)
    grow(model, site, x, alpha=1.0)
    y = model(x)
    with pytest.raises(ExportError, match=rf"{reason}.*\.safetensors"):
        export(model)
    assert bits(model(x)) == bits(y)


def test_a_dataclass_that_only_a_call_shows_is_named_in_that_call() -> None:
    """By site and way out, also in a module of torch's with a forward of its own."""
    model, x = Wrapped(Silent(4, 4)), torch.randn(3, 4)
    grow(model, "block", x, alpha=1.0)
    plain = export(model)
    with pytest.raises(AssertionError, match=r"'block'.*torch\.export\.register_dataclass"):
        plain(x)


def test_an_export_runs_without_esper(tmp_path: Path) -> None:
    """Saved whole, loaded in an isolated process that cannot import Esper: the very outputs."""
    folders = []
    for name, host in HOSTS.items():
        x = host.example()
        model = awake(host.build()).eval()
        grow(model, host.site, x, alpha=0.3)
        grow(model, host.site, x, alpha=1.0, blueprint="norm", number=1)
        plain = export(model)
        folder = tmp_path / name
        folder.mkdir()
        torch.save(plain, folder / "model.pt")
        torch.save((x, model(x).detach()), folder / "example.pt")
        folders.append(str(folder))
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-I", "-c", WITHOUT_ESPER, root, *folders]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.filterwarnings("ignore:The tensor attributes self.lstm:UserWarning")
@pytest.mark.parametrize("name", [name for name in HOSTS if name != "transformer"])
def test_an_export_can_be_exported_to_a_program(name: str) -> None:
    """torch.export with a dynamic batch gives equal outputs for other batch sizes."""
    host = HOSTS[name]
    x = host.example()
    model = awake(host.build()).eval()
    grow(model, host.site, x, alpha=0.3)
    grow(model, host.site, x, alpha=1.0, blueprint="norm", number=1)
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(export(model), (x,), dynamic_shapes=({0: batch},)).module()
    for size in (4, 1, 7):
        assert torch.equal(program(host.example(size)), model(host.example(size)))
