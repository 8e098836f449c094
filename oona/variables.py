"""The environment variables that the bus reads, beside the settings of a run."""

from __future__ import annotations

from typing import Final

from oona.audit.chain import KEY_VARIABLE
from oona.servers import credentials

VARIABLES: Final = (*credentials.VARIABLES, KEY_VARIABLE)
