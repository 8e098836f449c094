"""`esper init`: a config and a script to begin with."""

from __future__ import annotations

import shlex
from importlib import resources
from pathlib import Path
from typing import Final

from leyline import ConfigError
from tolaria.commands.starter.config_file import config_text
from tolaria.show.output import Output

CONFIG: Final = "esper.toml"
SCRIPT: Final = "train.py"
NEXT_STEPS: Final = (
    (f"python {SCRIPT}", "train it, in some seconds"),
    (f"esper train --dry-run {CONFIG}", "what a run would do"),
    (f"esper train {CONFIG}", "the same from the command line"),
    (f"esper config show {CONFIG}", "every setting"),
)
"""Commands and what each is for."""


def init(directory: Path) -> None:
    """Write both files and print how to go on.

    Args:
        directory: made if it is not there.

    Raises:
        ConfigError: one of the files is there already, or it cannot be written; then neither is.
    """
    script = resources.files("tolaria.commands.starter").joinpath(SCRIPT).read_text()
    _write(directory, {CONFIG: config_text(), SCRIPT: script})
    console = Output()
    console.print(
        f"wrote {CONFIG} and {SCRIPT} in {directory}; next:", markup=False, soft_wrap=True
    )
    steps = list(NEXT_STEPS)
    if directory.resolve() != Path.cwd():
        steps.insert(0, (f"cd {shlex.quote(str(directory))}", ""))
    width = max(len(command) for command, _ in NEXT_STEPS)
    for command, purpose in steps:
        line = f"  {command:<{width}}  # {purpose}" if purpose else f"  {command}"
        console.print(line, markup=False, soft_wrap=True)


def _write(directory: Path, contents: dict[str, str]) -> None:
    there = [name for name in contents if (directory / name).exists()]
    if there:
        raise ConfigError(
            f"{' and '.join(str(directory / name) for name in there)} would be overwritten; give "
            "another directory: esper init DIR"
        )
    written: list[Path] = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in contents.items():
            with (directory / name).open("x") as file:
                written.append(directory / name)
                file.write(text)
    except OSError as error:
        for path in written:
            path.unlink()
        raise ConfigError(
            f"nothing was written to {directory}: {error.strerror}; give a directory that can be "
            "written: esper init DIR"
        ) from error
