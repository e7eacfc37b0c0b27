"""Hugging Face data sets: ``hf:NAME``, and folders that one was saved to."""

from __future__ import annotations

from functools import wraps
from pathlib import Path
from typing import Any

from selftaught.data.formats._format import ANY, Format
from selftaught.data.hf import open_huggingface
from selftaught.data.source import Source

__all__ = ["FORMATS"]


def _is_saved(folder: Path) -> bool:
    return (folder / "dataset_dict.json").exists() or (folder / "state.json").exists()


@wraps(open_huggingface)
def open_saved(path: Path, name: str, kind: str, **options: Any) -> Source:
    """A folder that ``save_to_disk`` wrote; see `open_huggingface`."""
    return open_huggingface(str(path), kind, **options)


FORMATS = (Format(ANY, 0, folder=open_saved, holds=_is_saved, scheme="hf", address=open_huggingface),)
