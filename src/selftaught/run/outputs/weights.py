"""Weights: a class per sample, and how far its given label is to be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from selftaught._words import one_text
from selftaught.data import Source
from selftaught.data.kinds import kind_of
from selftaught.engine.method import Method
from selftaught.errors import SampleError, UserError
from selftaught.report import images as pictures
from selftaught.run import evaluating, shown_samples
from selftaught.run.applying import Applied, Job
from selftaught.run.outputs import _table
from selftaught.run.outputs._base import Judged
from selftaught.run.outputs.classes import Classes
from selftaught.run.suites import weighing

if TYPE_CHECKING:
    from selftaught.run.bench import Bench

__all__ = ["Weights"]

_LISTED, _SIDE = 100, 64
_RANKED = 5000
"""Most labels that another ranking is asked for of itself: it is cross-validated."""


class Weights(Classes):
    """Logits (N, K) as of a classifier, and a weight in [0, 1] for every label that comes with the samples."""

    headlines: ClassVar[tuple[tuple[str, str, str], ...]] = (
        ("label-noise", "auc", "AUC of finding wrong labels"),
        ("classify", "accuracy", "accuracy"),
        *Classes.headlines,
    )

    def apply(self, job: Job) -> Applied:
        """Columns ``class`` and ``probabilities``, of texts ``text``; of labelled ones ``label``, ``weight`` and more.

        ``rank`` is 1 for the most suspicious label, ``agrees`` says whether most passes predict the label,
        ``confidence`` is the probability that it gets; ``corrected`` is empty, to be filled in by hand with the class
        that it should have (``-`` leaves the sample out): ``--data 'DATA?corrections=OUT.csv'`` then learns from it. A
        sample without a label of the run's classes has weight and rank -1. .npy holds the weights (n,), of samples
        without labels the probabilities (n, K).
        """
        names = list(job.classes or map(str, range(job.method.classes)))
        weighed: weighing.Weighed | None = None
        if job.source.labels is not None:
            weighed = weighing.weigh(job.method, job.source, job.classes, workers=job.workers)
        table = _columns(weighed, names, len(job.source)) if weighed is not None else {}

        def columns(batch: dict[str, Any]) -> dict[str, Any]:
            probabilities = job.method.predict(batch).float().softmax(1)
            rows = batch["index"].cpu().numpy()
            found: dict[str, Any] = {"class": [names[k] for k in probabilities.argmax(1).tolist()]}
            found |= {key: values[rows] for key, values in table.items()}
            found |= {"text": [one_text(text) for text in batch["text"]]} if "text" in batch else {}
            return found | {"probabilities": probabilities}

        return _table.write(job, columns, main="weight" if table else "probabilities")

    def evaluate(self, bench: Bench) -> Judged:
        """As a classifier, whether known wrong labels are found, and the list of suspects among the training labels."""
        found, kept = evaluating.judge(bench, own=("classify",))
        try:
            source = weighing.training_samples(bench)
            other = None
            if bench.baselines and len(source) <= _RANKED:
                bench.say("suspects by another ranking")
                other = weighing.other_ranks(bench.method, source)
            suspects = listing(bench.method, source, bench.classes, other)
        except UserError as error:
            bench.say(f"no list of suspects: {error}")
            return Judged(found, kept)
        return Judged(found, kept, sections={"listings": [suspects]})


def _columns(weighed: weighing.Weighed, names: list[str], n: int) -> dict[str, np.ndarray]:
    """A row for every sample of the source; -1 and "" where it has no weight."""
    label = np.full(n, "", dtype=f"U{max(1, *map(len, names))}")
    label[weighed.index] = np.array(names)[weighed.label]
    found = {"label": label}
    rank = np.empty(len(weighed.index), dtype=np.int64)
    rank[np.argsort(weighed.weight, kind="stable")] = np.arange(1, len(rank) + 1)
    for key, values in (("weight", weighed.weight), ("rank", rank), ("confidence", weighed.confidence)):
        whole = np.full(n, -1, dtype=values.dtype)
        whole[weighed.index] = values
        found[key] = whole
    agrees = np.zeros(n, dtype=bool)
    agrees[weighed.index] = weighed.agrees
    return found | {"agrees": agrees, "corrected": np.full(n, "", dtype="U1")}


def listing(
    method: Method, source: Source, classes: list[str] | None, other: tuple[np.ndarray, str] | None = None
) -> dict[str, Any]:
    """The most suspicious labels of a source, the lightest first, with their texts or thumbnails.

    Args:
        method: that weighs them.
        source: labelled.
        classes: the run's.
        other: another ranking of the same labels, to stand beside (`weighing.other_ranks`).

    Raises:
        UserError: nothing in it has a label of the run's classes.
    """
    weighed = weighing.weigh(method, source, classes)
    names = list(classes or map(str, range(method.classes)))
    known = source.values.get("mislabelled")
    order = np.argsort(weighed.weight, kind="stable")[:_LISTED]
    rows, shown = [], []
    for k in order.tolist():
        i = int(weighed.index[k])
        try:
            seen = _seen(source, method, i)
        except SampleError:
            continue
        row: list[Any] = [source.names[i], names[weighed.label[k]], names[weighed.predicted[k]]]
        row += [round(float(weighed.weight[k]), 4), round(float(weighed.confidence[k]), 4)]
        row += [int(other[0][i])] if other is not None else []
        row += ["yes" if known[i] else ""] if known is not None else []
        rows.append([*row, seen] if isinstance(seen, str) and source.modality == "text" else row)
        shown.append(seen if source.modality != "text" else None)
    columns = ["name", "label", "the model says", "weight", "confidence in the label"]
    if other is not None:
        columns.append(f"rank by {other[1].split(',')[0]}")
    columns += ["known to be wrong"] if known is not None else []
    return {
        "title": "Labels to look at",
        "note": f"the {len(rows)} lightest of {len(weighed.index):,} labels; a click on a heading sorts; choose the "
        "right class of wrong ones, save them, and train with --data 'DATA?corrections=corrections.csv'; all labels in "
        "one table to correct: selftaught apply RUN DATA --out weights.csv",
        "columns": [*columns, *(["text"] if source.modality == "text" else [])],
        "rows": rows,
        "pictures": shown if kind_of(source.modality).pixels else None,
        "classes": names,
    }


def _seen(source: Source, method: Method, i: int) -> str | None:
    """What a reader can look at: a text, or a picture as text; None for series."""
    if source.modality == "text":
        return shown_samples.excerpt(source, i)
    if not kind_of(source.modality).pixels:
        return None
    return pictures.encode(shown_samples.thumbnail(source, method, i), size=_SIDE, quality=80)
