"""Copies of images, found among others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from selftaught.data import open_copies
from selftaught.evaluation import Result
from selftaught.evaluation.copy_detection import copy_detection
from selftaught.run import contenders, samples
from selftaught.run.suites._suite import suite

if TYPE_CHECKING:
    from selftaught.run.bench import Bench

__all__: list[str] = []

_LIMIT_WHITENING = 2000


@suite("copy-detection")
def _copies(bench: Bench) -> dict[str, Result]:
    name = "copy-detection"
    copies = open_copies(bench.folder(name, "database/ and queries/"))
    aside, note = copies.whitening, ""
    if aside is None:
        aside = samples.training_source(bench.own.data, "image", bench.own)
        note = f"whitening learnt on {aside.name}"
    aside = contenders.some(aside, _LIMIT_WHITENING)
    found = {}
    for contender in bench.each(name, copies.database):
        describe = contender.descriptor(aside)
        database, at = describe(copies.database)
        others = describe(copies.distractors)[0] if copies.distractors is not None else None
        queries, groups, blocks = [], [], []
        for block, source in copies.queries.items():
            x, index = describe(source)
            queries.append(x)
            groups.append(copies.query_groups[block][index])
            blocks += [block] * len(index)
        arrays = (database, copies.groups[at], np.concatenate(queries), np.concatenate(groups))
        result = copy_detection(*arrays, distractors=others, blocks=blocks)
        found[contender.kind] = result.noted(note)
    return found
