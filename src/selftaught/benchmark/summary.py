"""Which tables and figures a grid's records make: labels, transfer, detection, initialisations, encoders."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from selftaught.benchmark import figures, tables
from selftaught.benchmark.ranking import Comparison
from selftaught.benchmark.tables import Record, Table

_TITLES = {"accuracy": "accuracy", "auc": "area under the ROC curve", "kappa": "Cohen's kappa"}
_MAX_MATRICES = 40


@dataclass
class Made:
    """Tables, and figures with what to say below each.

    Args:
        tables: (file name, table, what it shows), in order.
        comparisons: file name of a table -> its Friedman and Nemenyi test.
        figures: (file, caption), in order.
    """

    tables: list[tuple[str, Table, str]] = field(default_factory=list)
    comparisons: dict[str, Comparison] = field(default_factory=dict)
    figures: list[tuple[Path, str]] = field(default_factory=list)


class _Writer:
    """Collects what is made, writing each as it comes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.made = folder, Made()

    def table(self, stem: str, table: Table, says: str, *, ranked: bool = False) -> None:
        """A table; with its mean ranks and critical-difference figure where ``ranked``."""
        name = _plain(stem)
        shown = tables.with_summary(table) if ranked else table
        tables.write(shown, self.folder / "tables" / name)
        self.made.tables.append((name, shown, says))
        found = tables.comparison(table) if ranked else None
        if found is not None:
            self.made.comparisons[name] = found
            path = figures.critical_difference(found, self.folder / "figures" / f"{name}-ranks.svg")
            self.made.figures.append((path, f"{table.title}. {found.sentence()}."))

    def matrix(self, stem: str, table: Table, says: str) -> None:
        """A table as a heat map, the columns in the order of the rows."""
        order = {name: place for place, name in enumerate(table.rows)}
        columns = sorted(table.columns, key=lambda name: order.get(name, len(order)))
        path = figures.heat_map(replace(table, columns=tuple(columns)), self.folder / "figures" / f"{_plain(stem)}.svg")
        self.made.figures.append((path, says))


def _plain(stem: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", stem).strip("-").lower()


def make(records: list[dict[str, Any]], folder: Path) -> Made:
    """Write every table and figure that the records have the numbers for, under ``tables/`` and ``figures/``."""
    writer = _Writer(folder)
    own = [r for r in records if r["headline"] and r["judged"] == r["data"]]
    base = _commonest(own or records)
    _labels(writer, [r for r in own if _is(r, base)])
    _along(writer, own, base, "start", "initialisation")
    _along(writer, own, base, "encoder", "encoder")
    _unions(writer, records, base)
    _transfer(writer, [r for r in records if r["headline"] and _is(r, base)])
    _detection(writer, [r for r in records if r["protocol"].startswith("ood ") and _is(r, base)])
    return writer.made


def _commonest(records: Iterable[Record]) -> dict[str, str]:
    """The encoder and the initialisation that most records have: the setting of the main tables."""
    counts: dict[tuple[str, str], int] = {}
    for record in records:
        key = (record["encoder"], record["start"])
        counts[key] = counts.get(key, 0) + 1
    encoder, start = max(counts, key=lambda key: counts[key])
    return {"encoder": encoder, "start": start}


def _is(record: Record, wanted: Mapping[str, str]) -> bool:
    return all(record[key] == value for key, value in wanted.items())


def _share(fraction: float) -> str:
    return f"{100 * fraction:g} % of the labels"


def _labels(writer: _Writer, records: list[dict[str, Any]]) -> None:
    """One table per share of the labels and number: methods by data sets."""
    for fraction in sorted({r["fraction"] for r in records}, reverse=True):
        part = [r for r in records if r["fraction"] == fraction]
        found = dict.fromkeys(sorted((r["protocol"] for r in part), key=lambda name: name == "classify"))
        protocols = " / ".join(found)
        for number, told in _TITLES.items():
            if not any(number in r["numbers"] for r in part):
                continue
            title = f"{protocols} {told}, {_share(fraction)}"
            table = tables.pivot(part, rows="name", columns="data", number=number, title=title, corner="method")
            says = "Trained and judged on the same data set; mean and 95 % interval over seeds."
            stem = f"{protocols.split(' / ')[0]}-{number}" + ("" if fraction == 1 else f"-{100 * fraction:g}%")
            writer.table(stem, table, says, ranked=number == "accuracy")


def _along(writer: _Writer, records: list[dict[str, Any]], base: Mapping[str, str], axis: str, told: str) -> None:
    """The main number with one of encoder and initialisation varied, the other as in the main tables."""
    other = "encoder" if axis == "start" else "start"
    part = [r for r in records if r[other] == base[other] and r["fraction"] == 1]
    kinds = list(dict.fromkeys(r[axis] for r in part))
    if len(kinds) < 2:
        return
    shared = _in_all(part, axis)
    part = [r for r in part if (r["name"], r["data"]) in shared]
    if not part:
        return
    by: Callable[[Record], str] = lambda r: f"{r['name']}, {r[axis]}"  # noqa: E731
    part.sort(key=lambda r: (r["name"], kinds.index(r[axis])))
    table = tables.pivot(part, rows=by, columns="data", title=f"accuracy by {told}", corner=f"method, {told}")
    says = f"The same methods and data sets with every {told}, all labels."
    writer.table(f"by-{told}", tables.with_summary(table), says)


def _in_all(records: Iterable[Record], axis: str) -> set[tuple[str, str]]:
    """(method, data set) pairs that were measured with every kind of ``axis`` that more than one pair has."""
    found: dict[tuple[str, str], set[str]] = {}
    for record in records:
        found.setdefault((record["name"], record["data"]), set()).add(record[axis])
    return {pair for pair, kinds in found.items() if len(kinds) > 1}


def _unions(writer: _Writer, records: list[dict[str, Any]], base: Mapping[str, str]) -> None:
    """Trained on several data sets in equal shares, beside training on each alone."""
    main = [r for r in records if r["headline"] and _is(r, base) and r["fraction"] == 1]
    names = {r["data"] for r in main if not r["own"]}
    methods = {r["name"] for r in main if not r["own"]}
    if not names:
        return
    part = [r for r in main if r["name"] in methods and (r["data"] in names or r["data"] == r["judged"])]
    by: Callable[[Record], str] = (  # noqa: E731
        lambda r: f"{r['name']}, {'trained on ' + r['data'] if r['data'] in names else 'each alone'}"
    )
    part.sort(key=lambda r: r["name"])
    table = tables.pivot(part, rows=by, columns="judged", title="accuracy after multi-domain training", corner="method")
    writer.table("multi-domain", tables.with_summary(table), "One encoder for all data sets beside one for each.")


def _transfer(writer: _Writer, records: list[dict[str, Any]]) -> None:
    """Trained on A (rows), judged on B (columns): a matrix per method, and the mean off the diagonal of all."""
    part = [r for r in records if r["fraction"] == 1 and r["own"]]
    across = [r for r in part if r["judged"] != r["data"]]
    if not across:
        return
    title = "accuracy on the other data sets"
    table = tables.pivot(across, rows="name", columns="judged", title=title, corner="method")
    says = "Trained on every other data set in turn, a probe with all labels on the one named; the mean over them."
    writer.table("cross-dataset", table, says, ranked=True)
    for name in list(dict.fromkeys(r["name"] for r in across))[:_MAX_MATRICES]:
        own = [r for r in part if r["name"] == name]
        square = tables.pivot(own, rows="data", columns="judged", title=f"{name}: trained on (row), judged on (column)")
        writer.matrix(f"cross-dataset-{name}", square, f"Probe accuracy of {name} across data sets.")


def _detection(writer: _Writer, records: list[dict[str, Any]]) -> None:
    """Out-of-distribution detection: methods by scorer, then a matrix per method with the first scorer."""
    if not records:
        return
    named = [r | {"scorer": r["protocol"].removeprefix("ood ")} for r in records]
    for number, told, better in (
        ("auroc", "AUROC", "high"),
        ("aupr", "AUPR", "high"),
        ("fpr95", "FPR at 95 % accepted", "low"),
    ):
        title = f"out-of-distribution detection, {told}"
        table = tables.pivot(
            named,
            rows="name",
            columns="scorer",
            number=number,
            title=title,
            corner="method",
            better=better,  # type: ignore[arg-type]
        )
        says = "Mean over all ordered pairs of data sets; in-distribution is the data set that was trained on."
        writer.table(f"ood-{number}", table, says)
    first = named[0]["scorer"]
    main = [r for r in named if r["scorer"] == first]
    by_data = tables.pivot(
        main,
        rows="name",
        columns="data",
        number="auroc",
        title=f"AUROC by in-distribution set, {first}",
        corner="method",
    )
    writer.table(f"ood-by-set-{first}", by_data, "Row averages of the matrices.", ranked=True)
    for name in list(dict.fromkeys(r["name"] for r in main))[:_MAX_MATRICES]:
        part = [r for r in main if r["name"] == name]
        square = tables.pivot(
            part, rows="data", columns="judged", number="auroc", title=f"{name}: {first} AUROC, trained on (row)"
        )
        writer.matrix(
            f"ood-{name}", square, f"{name}: how well {first} tells the test images of each other set (column)."
        )
