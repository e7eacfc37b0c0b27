"""People and homes in groups: who is found beside whom, and which labels are given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from selftaught import evaluation
from selftaught.data import METADATA
from selftaught.evaluation import Result
from selftaught.run import contenders
from selftaught.run.suites._folders import described, folder_of, groups_of, mapping_in
from selftaught.run.suites._suite import suite

if TYPE_CHECKING:
    from selftaught.run.bench import Bench

__all__: list[str] = []


@suite("fairness-retrieval")
def _attribute_retrieval(bench: Bench) -> dict[str, Result]:
    name, attribute = "fairness-retrieval", bench.options.attribute
    asked, about = described(bench.folder(name, f"images and {METADATA}"), attribute)
    apart = bench.options.reference is not None
    database, of_it = described(folder_of(bench.options.reference), attribute) if apart else (asked, about)
    groups = groups_of(bench.options.by, about, ("gender", "skin", "age", "region"))
    wanted, known = np.array(about.column(attribute)), np.array(of_it.column(attribute))
    found = {}
    for contender in bench.each(name, database):
        x, at = contender.features(database)
        tx, index = contender.features(asked) if apart else (x, at)
        members = {key: values[index] for key, values in groups.items()}
        queries: dict[str, Any] = {"queries": tx, "query_attributes": wanted[index].tolist()} if apart else {}
        found[contender.kind] = evaluation.attribute_retrieval(x, known[at].tolist(), **queries, groups=members)
    return found


@suite("fairness-labels")
def _label_association(bench: Bench) -> dict[str, Result]:
    name, options = "fairness-labels", bench.options
    source, about = described(bench.folder(name, f"images of people and {METADATA}"))
    groups = groups_of(options.by, about, ("gender", "skin", "age"), required=True)
    sets = {"sets": mapping_in(options.labels)} if options.labels is not None else {}
    found = {}
    for kind, logits, index, classes, note in bench.scorers(name, source):
        members = {key: values[index] for key, values in groups.items()}
        extra: dict[str, Any] = {"threshold": options.threshold, **sets}
        result = evaluation.label_association(logits, contenders.spoken(classes), members, **extra)
        found[kind] = result.noted(note)
    return found


@suite("hit-rate")
def _hit_rate(bench: Bench) -> dict[str, Result]:
    name = "hit-rate"
    source, about = described(bench.folder(name, f"images and {METADATA}"), "labels")
    groups = groups_of(bench.options.by, about, ("income", "region"), required=True)
    allowed = about.lists("labels")
    found = {}
    for kind, logits, index, classes, note in bench.scorers(name, source):
        plain = any(label in classes for labels in allowed for label in labels)
        members = {key: values[index] for key, values in groups.items()}
        called = classes if plain else contenders.spoken(classes)
        result = evaluation.hit_rate(logits, called, [allowed[i] for i in index], members)
        found[kind] = result.noted(note)
    return found
