"""What the code of the packages may not contain, read from its syntax trees."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("leyline", "kasmina", "tamiyo", "oona", "tolaria")
MODULES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
TREES = {module: ast.parse(source, module) for module, source in MODULES.items()}

WALLS = {
    "kasmina/guard.py",
    "oona/publishing/publisher.py",
    "tolaria/boundary/commit.py",
}
LIFECYCLE_HOME = "leyline/lifecycle.py"


def nodes(*kinds: type[ast.AST]) -> Iterator[tuple[str, ast.AST]]:
    """Every node of these kinds in the packages, with its module."""
    for module, tree in TREES.items():
        yield from ((module, node) for node in ast.walk(tree) if isinstance(node, kinds))


def calls(name: str) -> set[str]:
    """Modules that call a function under this dotted name."""
    found = nodes(ast.Call)
    return {m for m, call in found if isinstance(call, ast.Call) and ast.unparse(call.func) == name}


def imported() -> Iterator[tuple[str, str]]:
    """Every import: the module it stands in, and the dotted name it asks for."""
    for module, node in nodes(ast.Import, ast.ImportFrom):
        if isinstance(node, ast.Import):
            yield from ((module, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((module, f"{node.module}.{alias.name}") for alias in node.names)


def test_the_walk_sees_the_packages() -> None:
    """The rules below look at every package, and find what is known to be there."""
    assert {module.partition("/")[0] for module in MODULES} == set(PACKAGES)
    assert calls("Stage") >= {"kasmina/lifecycle/seed_table.py", "tamiyo/state.py"}


def test_one_module_knows_redis() -> None:
    """Everything else of the bus speaks to servers through it."""
    importers = {m for m, name in imported() if name.partition(".")[0] == "redis"}
    assert importers == {"oona/streams/client.py"}


def test_one_module_loads_torch_files() -> None:
    """Only the module that reads Lightning's own checkpoints calls torch.load, weights only."""
    assert calls("torch.load") == {"kasmina/lightning_file.py"}
    for _, call in nodes(ast.Call):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "torch.load":
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            assert options["weights_only"] == "True"


def test_no_deserialiser_that_runs_code() -> None:
    """No module imports one of the pickle family, and none calls eval or exec."""
    forbidden = {"pickle", "cPickle", "shelve", "marshal", "dill", "cloudpickle", "joblib"}
    assert not [(m, name) for m, name in imported() if name.partition(".")[0] in forbidden]
    assert not calls("eval") | calls("exec") | calls("torch.save")


def test_no_wall_clock_in_logic() -> None:
    """Nobody measures with time.time: it jumps."""
    assert not calls("time.time")
    assert "time.time" not in {name for _, name in imported()}


def test_no_print() -> None:
    """Terminal output goes through rich and click; the script that `init` hands out is a user's."""
    assert calls("print") == {"tolaria/commands/starter/train.py"}


def caught(handler: ast.ExceptHandler) -> set[str]:
    """Names of what a handler catches; "everything" for a bare one."""
    if handler.type is None:
        return {"everything"}
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return {ast.unparse(kind) for kind in kinds}


def test_broad_handlers_are_the_walls() -> None:
    """No bare except; `except Exception` stands in the walls alone; BaseException is raised on."""
    walls = set()
    for module, node in nodes(ast.ExceptHandler):
        assert isinstance(node, ast.ExceptHandler)
        kinds = caught(node)
        where = f"{module}:{node.lineno}"
        assert "everything" not in kinds, where
        if "Exception" in kinds:
            walls.add(module)
        if "BaseException" in kinds:
            last = node.body[-1]
            assert isinstance(last, ast.Raise), where
            assert last.exc is None, where
    assert walls == WALLS


def writes_rate(node: ast.AST) -> bool:
    """Whether a node sets an entry named "lr": by assignment, or by a method that changes it."""
    match node:
        case ast.Assign(targets=targets):
            return any(_is_rate(part) for target in targets for part in ast.walk(target))
        case ast.AugAssign(target=target) | ast.AnnAssign(target=target) | ast.For(target=target):
            return any(_is_rate(part) for part in ast.walk(target))
        case ast.Call(func=ast.Attribute(value=of, attr=method), args=args, keywords=keywords):
            names = {keyword.arg for keyword in keywords}
            names |= {c.value for a in args for c in ast.walk(a) if isinstance(c, ast.Constant)}
            sets = method in ("update", "setdefault", "__setitem__") and "lr" in names
            return sets or (method.endswith("_") and _is_rate(of))
    return False


def _is_rate(node: ast.AST) -> bool:
    return isinstance(node, ast.Subscript) and ast.unparse(node.slice) == "'lr'"


def test_one_writer_of_learning_rates() -> None:
    """One module sets `["lr"]`, however that is written."""
    writers = {module for module, node in nodes(ast.AST) if writes_rate(node)}
    assert writers == {"tolaria/rates/follower.py"}


@pytest.mark.parametrize(
    "line",
    [
        'group["lr"] = 1',
        'for x, group["lr"] in y: pass',
        'a, group["lr"] = 1, 2',
        'group["lr"] *= 2',
        "group.update(lr=1)",
        'group.update({"lr": 1})',
        'group.setdefault("lr", 1)',
        'group["lr"].mul_(2)',
    ],
)
def test_a_second_writer_would_be_seen(line: str) -> None:
    """Each way to write a rate is found by the rule above; reading one is none."""
    assert any(writes_rate(node) for node in ast.walk(ast.parse(line)))
    assert not any(writes_rate(node) for node in ast.walk(ast.parse('x = group["lr"].clone()')))


def test_one_table_of_transitions() -> None:
    """Only the lifecycle module states what a stage leaves to."""
    builders = calls("StageRule") | calls("Guard")
    assert builders == {LIFECYCLE_HOME}


@pytest.mark.parametrize("module", MODULES)
def test_size(module: str) -> None:
    """No module is longer than 400 lines, no function longer than 60."""
    assert len(MODULES[module].splitlines()) <= 400
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            num_lines = node.end_lineno - node.lineno + 1
            assert num_lines <= 60, f"{node.name} has {num_lines} lines"


def test_no_file_of_tests_is_a_drawer() -> None:
    """No file of tests is longer than 400 lines."""
    sizes = {path: len(path.read_text().splitlines()) for path in (ROOT / "tests").rglob("*.py")}
    assert {path.name: size for path, size in sizes.items() if size > 400} == {}


@pytest.mark.parametrize("module", MODULES)
def test_ascii(module: str) -> None:
    """Code is ASCII."""
    assert MODULES[module].isascii()


def test_imports_point_down() -> None:
    """Tolaria knows all, the three peers know the contract alone, the contract knows no one."""
    known = {
        "leyline": set[str](),
        "kasmina": {"leyline"},
        "tamiyo": {"leyline"},
        "oona": {"leyline"},
        "tolaria": {"leyline", "kasmina", "tamiyo", "oona"},
    }
    for module, name in imported():
        here, there = module.partition("/")[0], name.partition(".")[0]
        if there in PACKAGES and there != here:
            assert there in known[here], f"{module} imports {name}"


def file_of(name: str) -> str | None:
    """The module that a dotted name is in; a package's own file is nobody's way down."""
    path = name.replace(".", "/")
    return next((p for p in (f"{path}.py", f"{path.rpartition('/')[0]}.py") if p in MODULES), None)


def test_no_two_files_import_each_other() -> None:
    """From no file do imports, those for types included, lead back to it; but for the wall and the
    seed that calls it.
    """
    knows: dict[str, set[str]] = {module: set() for module in MODULES}
    for module, name in imported():
        if (other := file_of(name)) is not None:
            knows[module].add(other)
    knows["kasmina/slots/wall.py"].remove("kasmina/slots/grafted_seed.py")
    order = list(TopologicalSorter(knows).static_order())  # raises, and names the circle
    assert set(order) >= set(MODULES)


def test_the_bus_is_one_way() -> None:
    """What trains imports of the bus what writes to it, and what writes imports nothing that reads.

    So nothing that was read from a server can reach the training path.
    """
    writing = {"Bus", "BusStatistics", "check_access", "variables.VARIABLES"}
    writing |= {"collecting.Child", "collecting.start_child"}
    readers = ("tolaria/commands/", "tolaria/show/", "tolaria/disk/audit.py")
    used = {
        name.removeprefix("oona.")
        for module, name in imported()
        if module.startswith("tolaria/") and not module.startswith(readers)
        if name.partition(".")[0] == "oona"
    }
    assert used >= {"Bus", "check_access"}
    assert {name for name in used - writing if not name.startswith("metrics.")} == set()
    rooms = ("bus.py", "intake.py", "opening.py", "outbox/", "publishing/")
    writers = tuple(f"oona/{room}" for room in rooms)
    reading = ("oona.reading", "oona.audit", "oona.collecting", "oona.streams.reader")
    found = {name for module, name in imported() if module.startswith(writers)}
    assert "oona.outbox.outbox.Outbox" in found
    assert not {name for name in found if name.startswith(reading)}


@pytest.mark.parametrize("package", ["leyline", "oona"])
def test_no_tensors(package: str) -> None:
    """Importing every module of the contract, or of the bus, imports neither torch nor numpy."""
    modules = [
        module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for module in MODULES
        if module.startswith(f"{package}/")
    ]
    code = f"import {', '.join(modules)}, sys; print({{'torch', 'numpy'}} & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout.strip(), done.returncode) == ("set()", 0), done.stderr
