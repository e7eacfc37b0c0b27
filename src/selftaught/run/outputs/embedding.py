"""Embeddings: a vector per sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from selftaught.run import evaluating, shown_samples
from selftaught.run.applying import Applied, Job
from selftaught.run.outputs import _table
from selftaught.run.outputs._base import Judged, Output, Page

if TYPE_CHECKING:
    from selftaught.run.bench import Bench

__all__ = ["Embedding"]


class Embedding(Output):
    """(N, D) float32; judged by probes and neighbours, shown as a map with neighbours."""

    headlines: ClassVar[tuple[tuple[str, str, str], ...]] = (
        ("linear", "accuracy", "linear probe"),
        ("knn", "accuracy", "k-NN"),
        ("diagnostics", "effective_rank", "effective rank"),
    )

    def apply(self, job: Job) -> Applied:
        """Column ``embedding``; .npy holds (n, D). For clips with a clock also ``start`` and ``end``, in seconds."""
        clock = job.method.modality == "clip"

        def row(batch: dict[str, Any]) -> dict[str, Any]:
            found: dict[str, Any] = {"embedding": job.method.predict(batch)}
            times = [job.source.seconds(i) for i in batch["index"].tolist()] if clock else [None]
            known = [time for time in times if time is not None]
            if len(known) == len(batch["index"]) and clock:
                found |= {"start": np.array([t[0] for t in known]), "end": np.array([t[1] for t in known])}
            return found

        return _table.write(job, row, main="embedding")

    def evaluate(self, bench: Bench) -> Judged:
        """Protocols on features and suites, beside an untrained encoder and the raw input."""
        return Judged(*evaluating.judge(bench))

    def draw(self, page: Page) -> dict[str, Any]:
        """The views, and the map, neighbours or windows of the samples that were judged."""
        own = {"listings": page.method.listings()} if page.method.listings() else {}
        return shown_samples.samples_and_map(page) | own | page.sections
