"""Series: text tables, .ts files, arrays."""

from __future__ import annotations

from pathlib import Path

from selftaught.data.formats._format import Format
from selftaught.data.series import TABLE_SUFFIXES, open_series_arrays
from selftaught.data.tabular import open_table_pattern, open_tables
from selftaught.data.timeseries import open_ts

__all__ = ["FORMATS"]


def _holds_ts(folder: Path) -> bool:
    return any(folder.glob("*.ts"))


FORMATS = (
    Format("series", 6, (".ts",), file=open_ts, folder=open_ts, holds=_holds_ts),
    Format("series", 7, TABLE_SUFFIXES, file=open_tables, folder=open_tables, pattern=open_table_pattern),
    Format("series", 7, (".npz", ".npy"), file=open_series_arrays, arrays=open_series_arrays),
)
