"""`esper doctor`: whether a server will do for a run's telemetry."""

from __future__ import annotations

import tempfile
import textwrap
from pathlib import Path
from typing import Final

from oona.servers import url as bus_url
from oona.servers.doctor import examine
from oona.servers.embedded import EmbeddedServer
from oona.servers.finding import Finding
from tolaria.show.output import Output
from tolaria.show.phrases import clean, counted

_TOLD_COLUMN: Final = 20
"""Where what is told begins."""


def examine_server(url: str | None) -> None:
    """Print what was found of a server, or of the embedded one; exit code 1 if one must mend."""
    console = Output()
    if url is None or url == "embedded":
        with tempfile.TemporaryDirectory(prefix="esper-doctor-") as directory:
            server = EmbeddedServer(Path(directory) / "valkey.log")
            try:
                findings = examine(server.url)
            finally:
                server.stop()
    else:
        findings = examine(url)
    shown = "the embedded server" if url is None else bus_url.redact(url)
    for finding in findings:
        line = finding_line(finding)
        # What is not read at a terminal stays one line each, for who searches it.
        told = wrapped(line, console.width) if console.is_terminal else line
        console.print(told, markup=False, soft_wrap=True)
    num_bad = sum(finding.mend is not None for finding in findings)
    verdict = f"{counted(num_bad, 'thing')} to mend" if num_bad else "good for Esper"
    console.print(f"{clean(shown)}: {verdict}", markup=False, soft_wrap=True)
    raise SystemExit(1 if num_bad else 0)


def finding_line(finding: Finding) -> str:
    """One finding: ok, "?" if it could not be seen, or what to mend."""
    mark = "mend" if finding.mend is not None else "ok" if finding.is_seen else "?"
    remedy = f" -> {finding.mend}" if finding.mend is not None else ""
    return f"{mark:<5} {finding.subject:<13} {clean(finding.told)}{remedy}"


def wrapped(line: str, num_columns: int) -> str:
    """A finding's line on as many as it needs, further ones below what is told; no path is cut."""
    told, arrow, mend = line.partition(" -> ")
    indent = " " * _TOLD_COLUMN
    texts = (told, f"{indent}-> {mend}") if arrow else (told,)
    wrapper = textwrap.TextWrapper(
        num_columns, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(wrapper.fill(text) for text in texts)
