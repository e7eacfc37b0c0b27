"""Tables against literals: Markdown, CSV, LaTeX, means over seeds, mean ranks; and heat maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from selftaught.benchmark import figures, tables
from selftaught.errors import UserError
from selftaught.evaluation import Number


def record(name: str, data: str, value: float, seed: int = 0, **more: Any) -> dict[str, Any]:
    return {"name": name, "data": data, "seed": seed, "numbers": {"accuracy": value}} | more


def small() -> tables.Table:
    rows = [record("a", "x", 0.59), record("a", "x", 0.61, 1), record("b|_", "x", 0.9), record("a", "y", 0.25)]
    return tables.pivot(rows, rows="name", columns="data", title="T", corner="method", note="A note")


def test_markdown_csv_and_latex_are_these() -> None:
    table = small()
    low, high = 0.6 - 12.706204736 * 0.01, 0.6 + 12.706204736 * 0.01  # t_1 (0.975) s / sqrt(2), s = 0.01 sqrt(2)
    assert table.markdown() == (
        "| method | x | y |\n| --- | ---: | ---: |\n"
        f"| a | 0.600 [{low:.3f}, {high:.3f}] | **0.250** |\n"
        "| b\\|_ | **0.900** | - |\n\nA note\n"
    )
    lines = table.csv().splitlines()
    assert lines[0] == "method,column,mean,low,high,values"
    cells = lines[1].split(",")
    assert cells[:2] == ["a", "x"]
    assert [float(c) for c in cells[2:]] == pytest.approx([0.6, low, high, 2])
    assert lines[2:] == ["a,y,0.25,,,1", "b|_,x,0.9,,,1"]
    assert table.latex() == (
        "% T\n\\begin{tabular}{lrr}\n\\toprule\nmethod & x & y \\\\\n\\midrule\n"
        f"a & $0.600_{{\\pm {(high - low) / 2:.3f}}}$ & $\\mathbf{{0.250}}$ \\\\\n"
        "b|\\_ & $\\mathbf{0.900}$ & -- \\\\\n\\bottomrule\n\\end{tabular}\n"
    )


def test_no_interval_of_a_share_reaches_beyond_0_and_1_and_that_of_a_difference_does() -> None:
    rows = [record("a", "x", 0.5), record("a", "x", 0.7, 1), record("a", "y", 0.9), record("a", "y", 0.98, 1)]
    rows += [record("b", place, value, seed) for place in "xy" for seed, value in enumerate((0.1, 0.2))]
    table = tables.pivot(rows, rows="name", columns="data")
    assert (table.cells["a", "x"].low, table.cells["a", "x"].high) == (0.0, 1.0)
    assert "0.600 [0.000, 1.000]" in table.markdown()
    assert "0.600}_{[0.000, 1.000]}" in table.latex()
    mean = tables.with_summary(table).cells["a", "mean"]
    assert (mean.mean, mean.low, mean.high) == (pytest.approx(0.77), 0.0, 1.0)
    loss = [r | {"numbers": {"loss": r["numbers"]["accuracy"]}} for r in rows]
    assert tables.pivot(loss, rows="name", columns="data", number="loss").cells["a", "x"].high > 1.8
    per_cent = [r | {"numbers": {"accuracy": 100 * r["numbers"]["accuracy"]}} for r in rows]
    assert tables.pivot(per_cent, rows="name", columns="data").cells["a", "x"].high > 180


def test_latex_escapes_what_it_must() -> None:
    assert tables.escape("a_b & 10% {x} #1 $ ~ ^ \\") == (
        r"a\_b \& 10\% \{x\} \#1 \$ \textasciitilde{} \textasciicircum{} \textbackslash{}"
    )


def test_pivot_averages_within_a_seed_and_leaves_out_what_is_not_finite() -> None:
    rows = [
        record("a", "x", 0.2, 0),
        record("a", "x", 0.4, 0),
        record("a", "x", 0.7, 1),
        record("a", "y", float("nan")),
    ]
    table = tables.pivot(rows, rows="name", columns="data")
    assert table.cells["a", "x"].values == pytest.approx((0.3, 0.7))
    assert table.columns == ("x",)
    by = tables.pivot(rows, rows=lambda r: r["name"].upper(), columns=lambda r: "all")
    assert by.rows == ("A",)
    with pytest.raises(UserError, match="nothing was measured"):
        tables.pivot(rows, rows="name", columns="data", number="auc")


def summed(better: Any = "high") -> tables.Table:
    cells = {"a": (0.9, 0.5, 0.4), "b": (0.8, 0.6, 0.4), "c": (0.1, 0.2, None), "d": (0.3, None, None)}
    flat = [record(n, d, v) for n, row in cells.items() for d, v in zip("xyz", row, strict=True) if v is not None]
    return tables.with_summary(tables.pivot(flat, rows="name", columns="data", better=better))


def test_mean_and_rank_are_over_what_all_ranked_rows_have() -> None:
    table = summed()
    assert table.columns == ("x", "y", "z", "mean", "mean rank")
    assert values(table, "mean") == pytest.approx({"a": 0.7, "b": 0.7, "c": 0.15})  # d has one column of three
    assert values(table, "mean rank") == {"a": 1.5, "b": 1.5, "c": 3.0}
    assert table.note.endswith("without z")
    assert table.best("mean rank") == {"a", "b"}
    low = summed("low")
    assert values(low, "mean rank") == {"a": 2.5, "b": 2.5, "c": 1.0}
    assert low.best("x") == {"c"}


def values(table: tables.Table, column: str) -> dict[str, float]:
    found = {row: table.number(row, column) for row in table.rows}
    return {row: number.mean for row, number in found.items() if number is not None}


def test_the_interval_of_a_mean_is_over_seeds() -> None:
    rows = [record(n, d, v + 0.02 * s, s) for n, v in (("a", 0.1), ("b", 0.5)) for d in "xy" for s in range(3)]
    table = tables.with_summary(tables.pivot(rows, rows="name", columns="data"))
    found = table.cells["a", "mean"]
    assert found.values == pytest.approx((0.1, 0.12, 0.14))
    assert found.low == pytest.approx(Number.of([0.1, 0.12, 0.14]).low)


def test_comparison_takes_the_plain_columns_only() -> None:
    found = tables.comparison(summed())
    assert found is not None
    assert found.blocks == 2
    assert set(found.names) == {"a", "b", "c"}
    assert tables.comparison(small()) is None
    lone = tables.pivot([record("a", "x", 0.5)], rows="name", columns="data")
    assert tables.with_summary(lone) is lone


def test_files_and_heat_map(tmp_path: Path) -> None:
    table = summed()
    paths = tables.write(table, tmp_path / "tables" / "t-1%")
    assert [p.name for p in paths] == ["t-1%.md", "t-1%.csv", "t-1%.tex"]
    assert paths[1].read_text() == table.csv()
    assert paths[2].read_text() == table.latex()
    for better in ("high", "low"):
        svg = figures.heat_map(summed(better), tmp_path / f"{better}.svg").read_text()
        assert "<svg" in svg
        assert len(svg) > 3000
