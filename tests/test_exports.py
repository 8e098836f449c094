"""Every package's public names are the ones its __init__ says, and no others."""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("leyline", "kasmina", "tamiyo", "oona", "tolaria")


def exported(package: str) -> dict[str, str]:
    """Names that a package's __init__ imports as themselves, with the module each comes from."""
    tree = ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8"))
    return {
        alias.name: node.module or ""
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }


NAMES = [(package, name) for package in PACKAGES for name in exported(package)]


def documented_data(module: str) -> set[str]:
    """Names assigned in a module whose next statement is a docstring."""
    body = ast.parse(inspect.getsource(importlib.import_module(module))).body
    found = set()
    for statement, following in itertools.pairwise(body):
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            if isinstance(statement, ast.AnnAssign):
                found.add(ast.unparse(statement.target))
            elif isinstance(statement, ast.Assign):
                found |= {ast.unparse(target) for target in statement.targets}
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_no_other_public_name(package: str) -> None:
    """`dir(package)` shows what is exported, submodules, and nothing else."""
    module = importlib.import_module(package)
    for name in exported(package):
        getattr(module, name)
    public = {
        name
        for name in dir(module)
        if not name.startswith("_") and not isinstance(getattr(module, name), types.ModuleType)
    }
    is_module = {n for n in exported(package) if isinstance(getattr(module, n), types.ModuleType)}
    assert public == set(exported(package)) - is_module


def test_names_are_sorted_into_no_two_homes() -> None:
    """A public name belongs to one package."""
    names = [name for _, name in NAMES]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("package", PACKAGES)
def test_package_says_what_it_is(package: str) -> None:
    """Every package has a docstring."""
    assert importlib.import_module(package).__doc__


@pytest.mark.parametrize(("package", "name"), NAMES)
def test_every_name_is_documented(package: str, name: str) -> None:
    """Every public name can be imported and has a docstring of its own, constants included."""
    found = getattr(importlib.import_module(package), name)
    if isinstance(found, type | types.FunctionType | types.ModuleType):
        inherited = found.__mro__[1].__doc__ if isinstance(found, type) else None
        assert found.__doc__
        assert found.__doc__ != inherited
        assert not found.__doc__.startswith(f"{name}("), "the text that dataclass makes up"
    else:
        assert name in documented_data(exported(package)[name])
