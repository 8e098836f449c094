"""`esper` and `python -m tolaria`: run a command; a user's mistake is one line and exit code 2."""

from __future__ import annotations

import io
import sys
from typing import Final, NoReturn

import click

from leyline import EsperError

_MISTAKE: Final = 2
_INTERRUPTED: Final = 130


def main() -> NoReturn:
    """Run the command line of this process and exit."""
    from tolaria.commands.cli import esper

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal may know no box, dot or accent
    try:
        esper.main(prog_name="esper", standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.Abort:
        sys.exit(_INTERRUPTED)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f"; see {context.command_path} --help" if context is not None else ""
        click.echo(f"esper: {error.format_message()}{hint}", err=True)
        sys.exit(_MISTAKE)
    except EsperError as error:
        from tolaria.show.phrases import clean

        # It may quote what a file says, which may try to steer the terminal.
        click.echo(f"esper: {clean(str(error))}", err=True)
        sys.exit(_MISTAKE)
    sys.exit(0)


if __name__ == "__main__":
    main()
