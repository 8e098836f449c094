"""`python -m oona.collecting RUN TRAINER`: the child that a trainer starts for its audit trail."""

from __future__ import annotations

import logging
import os
import select
import sys
from pathlib import Path
from typing import Final

from leyline import EsperError
from oona.audit.trail import FILE_NAME
from oona.collecting.service import collect

_NICENESS: Final = 5
"""Training goes first."""


def main(run_dir: Path, trainer: int) -> int:
    """Collect the events of a run until its trainer says that it is over, or is dead.

    Args:
        run_dir: the run's directory.
        trainer: process id of the parent; standard input is a pipe from it.

    Returns:
        The exit code: 1 after an error, which is logged.
    """
    logging.basicConfig(format="%(asctime)s %(message)s")
    os.nice(_NICENESS)

    def is_live() -> bool:
        # A forked worker may keep the pipe open after the trainer's death.
        return os.getppid() == trainer and not select.select([sys.stdin], [], [], 0)[0]

    try:
        collect(run_dir, f"sqlite:{run_dir / FILE_NAME}", is_live=is_live)
    except EsperError as error:
        logging.getLogger("esper").error("the audit trail ends here: %s", error)  # noqa: TRY400
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
