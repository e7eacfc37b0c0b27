"""A classifier on another set, among the classes that both know."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selftaught.data import METADATA, Source, open_source, read_metadata
from selftaught.errors import UserError
from selftaught.evaluation import Result
from selftaught.evaluation.restricted import restricted
from selftaught.run.suites._folders import mapping_in
from selftaught.run.suites._suite import suite

if TYPE_CHECKING:
    from selftaught.run.bench import Bench

__all__: list[str] = []


@suite("restricted")
def _restricted(bench: Bench) -> dict[str, Result]:
    name = "restricted"
    source, truth = _labels_of_another(name, bench)
    mapping = mapping_in(bench.options.labels) if bench.options.labels is not None else None
    found = {}
    for kind, logits, index, classes, note in bench.scorers(name, source):
        labels = [truth[i] for i in index]
        result = restricted(logits, classes, labels, other_classes=source.classes, mapping=mapping)
        found[kind] = result.noted(note)
    return found


def _labels_of_another(name: str, bench: Bench) -> tuple[Source, list[Any]]:
    """Another set and the classes of its images: those of metadata.csv where it has labels, else the class folders."""
    source = open_source(bench.data, modality="image", split="all")
    beside = Path(bench.data) / METADATA if isinstance(bench.data, str | Path) else None
    if beside is not None and beside.is_file():
        about = read_metadata(beside, source)
        if "labels" in about.columns:
            source = source.subset(about.rows)
            source.labels = source.classes = None
            return source, list(about.lists("labels"))
    if source.labels is None:
        raise UserError(f"--protocol {name}: {source.name} has no class folders, and no {METADATA} with labels")
    source = source.subset(np.flatnonzero(source.labels >= 0))  # a file beside the class folders has none
    assert source.labels is not None
    classes = source.classes or [str(k) for k in range(int(source.labels.max()) + 1)]
    return source, [classes[k] for k in source.labels]
