"""Events of an audit trail in a file: JSON lines, or Parquet for whoever analyses them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import leyline
from leyline import ConfigError, ExportError
from oona.audit.plain import event_json, json_line
from oona.audit.row import row_of, seed_names

if TYPE_CHECKING:
    import pyarrow

FORMATS: Final = (".jsonl", ".parquet")
_GROUP_ROWS: Final = 10_000


def export_events(envelopes: Iterable[leyline.Envelope], path: Path) -> int:
    """Write events to a file, whole or not at all; one that is there is replaced.

    Args:
        envelopes: the events, in the order of the file.
        path: ends in .jsonl (one object a line, all of the event) or .parquet (the columns of the
            trail, and the event in JSON).

    Returns:
        How many there are.

    Raises:
        ConfigError: the path has another ending.
        ExportError: the disk refused, or Parquet was asked for and pyarrow is missing.
    """
    check_format(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    write = _write_lines if path.suffix == ".jsonl" else _write_parquet
    try:
        num_events = write(iter(envelopes), temporary)
        temporary.replace(path)
    except OSError as error:
        raise ExportError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return num_events


def check_format(path: Path) -> None:
    """Refuse a path whose ending is no format.

    Raises:
        ConfigError: it is not.
    """
    if path.suffix not in FORMATS:
        raise ConfigError(f"cannot export to {path}: its name must end in {' or '.join(FORMATS)}")


def _write_lines(envelopes: Iterator[leyline.Envelope], path: Path) -> int:
    num_events = 0
    with path.open("wb") as file:
        for envelope in envelopes:
            file.write(json_line(envelope))
            num_events += 1
    return num_events


def _write_parquet(envelopes: Iterator[leyline.Envelope], path: Path) -> int:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ExportError(
            "Parquet needs pyarrow: pip install 'esper-morphogenesis[parquet]', or export to .jsonl"
        ) from error
    schema = _schema(pyarrow)
    num_events = 0
    with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        while group := list(islice(envelopes, _GROUP_ROWS)):
            rows = [_parquet_row(envelope) for envelope in group]
            writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
            num_events += len(rows)
    return num_events


def _schema(arrow: Any) -> pyarrow.Schema:
    fields: dict[str, Any] = {
        "run_id": arrow.string(),
        "sequence": arrow.int64(),
        "lane": arrow.int64(),
        "kind": arrow.string(),
        "seeds": arrow.list_(arrow.string()),
        "epoch": arrow.int64(),
        "step": arrow.int64(),
        "time": arrow.timestamp("us", tz="UTC"),
        "wall_ns": arrow.int64(),
        "monotonic_ns": arrow.int64(),
        "event": arrow.string(),
    }
    return arrow.schema(list(fields.items()))


def _parquet_row(envelope: leyline.Envelope) -> dict[str, Any]:
    row = row_of(envelope)
    assert row is not None, "what is in a trail has a row"
    columns = row._asdict()
    del columns["envelope"]
    return columns | {
        "seeds": seed_names(row.seeds),
        "time": row.wall_ns // 1000,
        "event": event_json(envelope.event),
    }
