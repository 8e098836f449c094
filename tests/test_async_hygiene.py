"""What asynchronous code of the packages may not contain, read from its syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.test_architecture import TREES

FORBIDDEN = {
    "asyncio.ensure_future": "belongs to nobody: use TaskGroup.create_task",
    "asyncio.to_thread": "is neither named nor bounded: use oona.off_loop",
    "asyncio.gather": "leaves the others running when one fails: use a TaskGroup",
}
BLOCKING = (
    *("time.sleep", "open", "io.open", "os.open", "os.read", "os.write", "os.fsync", "os.replace"),
    *("sqlite3.", "redis.", "psycopg.", "psycopg_pool.", "pyarrow.", "socket.", "subprocess."),
    *("urllib.", "shutil.", "select.", "msgspec.json.format_file"),
)
"""Calls by their full names; one that ends in a point stands for all below it."""
BLOCKING_METHODS = {
    *("read_text", "write_text", "read_bytes", "write_bytes", "open", "unlink", "rename", "rmdir"),
    *("executescript", "executemany", "fetchall", "fetchone", "mkdir"),
}
ASYNC_MARKS = ("Async", "redis.asyncio")
"""What a name has that belongs to a library's asynchronous half."""


def names_of(tree: ast.AST) -> dict[str, str]:
    """What each imported name stands for."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {
                (a.asname or a.name.partition(".")[0]): a.name for a in node.names if a.asname
            }
        elif isinstance(node, ast.ImportFrom):
            found |= {(a.asname or a.name): f"{node.module}.{a.name}" for a in node.names}
    return found


def full_name(call: ast.Call, names: dict[str, str]) -> str:
    """The dotted name that is called, with imports resolved."""
    first, point, rest = ast.unparse(call.func).partition(".")
    return names.get(first, first) + point + rest


def groups_of(tree: ast.AST, names: dict[str, str]) -> set[str]:
    """Names that a TaskGroup has in a module: by `async with`, or as a parameter."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncWith):
            for item in node.items:
                made = item.context_expr
                if isinstance(made, ast.Call) and full_name(made, names) == "asyncio.TaskGroup":
                    assert item.optional_vars is not None
                    found.add(ast.unparse(item.optional_vars))
        elif isinstance(node, ast.arg) and "TaskGroup" in ast.unparse(node.annotation or node):
            found.add(node.arg)
    return found


def on_the_loop(tree: ast.AST) -> Iterator[tuple[ast.Call, bool]]:
    """Calls in async functions themselves, not in the plain functions that are made in them, and
    whether each is awaited."""
    waiting = [
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.AsyncFunctionDef)
        for child in node.body
    ]
    awaited = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Await)}
    while waiting:
        node: ast.AST = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Call):
            yield node, id(node) in awaited
        waiting += ast.iter_child_nodes(node)


def flaws(tree: ast.AST) -> list[str]:
    """What is wrong with the asynchronous code of a module."""
    names = names_of(tree)
    groups = groups_of(tree, names)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = full_name(node, names)
            if name in FORBIDDEN:
                found.append(f"line {node.lineno}: {name} {FORBIDDEN[name]}")
            if name.endswith(".run_in_executor"):
                found.append(f"line {node.lineno}: {name} is neither named nor bounded")
            if name.rpartition(".")[2] == "create_task":
                if name.rpartition(".")[0] not in groups:
                    found.append(f"line {node.lineno}: {name} is not a TaskGroup's")
                elif "name" not in {keyword.arg for keyword in node.keywords}:
                    found.append(f"line {node.lineno}: {name} has no name=")
    for call, is_awaited in on_the_loop(tree):
        name = full_name(call, names)
        blocks = any(name.startswith(b) if b.endswith(".") else name == b for b in BLOCKING)
        if isinstance(call.func, ast.Attribute) and not is_awaited:
            blocks |= call.func.attr in BLOCKING_METHODS
        if blocks and not any(mark in name for mark in ASYNC_MARKS):
            found.append(f"line {call.lineno}: {name} blocks the loop: use oona.off_loop")
    return found


def test_tasks_have_owners_and_nothing_blocks() -> None:
    """Every task is made by a TaskGroup, with a name, and no async function calls what blocks;
    nothing is excepted, and there is something to look at."""
    assert {module: found for module, tree in TREES.items() if (found := flaws(tree))} == {}
    assert "oona/off_loop.py" in {m for m, tree in TREES.items() if any(on_the_loop(tree))}


@pytest.mark.parametrize(
    ("code", "flaw"),
    [
        ("asyncio.create_task(f())", "not a TaskGroup's"),
        ("asyncio.get_running_loop().create_task(f(), name='f')", "not a TaskGroup's"),
        ("asyncio.ensure_future(f())", "ensure_future belongs to nobody"),
        ("await asyncio.gather(f(), f())", "gather leaves"),
        ("await asyncio.to_thread(f)", "to_thread is neither"),
        ("async with asyncio.TaskGroup() as g: g.create_task(f())", "has no name="),
        ("time.sleep(1)", "time.sleep blocks"),
        ("nap(1)", "time.sleep blocks"),
        ("open('x')", "open blocks"),
        ("path.read_text()", "path.read_text blocks"),
        ("sqlite3.connect('x')", "sqlite3.connect blocks"),
        ("redis.Redis()", "redis.Redis blocks"),
        ("psycopg.connect()", "psycopg.connect blocks"),
        ("return [open(x) for x in y]", "open blocks"),
        ("await loop.run_in_executor(None, f)", "run_in_executor is neither"),
    ],
)
def test_a_planted_flaw_is_seen(code: str, flaw: str) -> None:
    """Each way to lose a task or to block the loop is found, and it alone."""
    imports = "import asyncio, time, redis, sqlite3, psycopg\nfrom time import sleep as nap\n"
    (found,) = flaws(ast.parse(f"{imports}async def main():\n    {code}"))
    assert flaw in found


@pytest.mark.parametrize(
    "code",
    [
        "async with asyncio.TaskGroup() as g: g.create_task(f(), name='f')",
        "await asyncio.sleep(1)",
        "await off_loop('read', path.read_text, timeout_s=1.0)",
        "await psycopg.AsyncConnection.connect()",
        "return await (await connection.execute('SELECT 1')).fetchall()",
        "await off_loop('open', lambda: open('x'), timeout_s=1.0)",
    ],
)
def test_what_is_right_is_left_alone(code: str) -> None:
    """Named tasks of a group, asynchronous libraries, and blocking calls that are handed over."""
    imports = "import asyncio, psycopg\nfrom asyncio import TaskGroup\n"
    assert flaws(ast.parse(f"{imports}async def main():\n    {code}")) == []
