"""A run in three lines: what was trained, how it did, where it lies."""

from __future__ import annotations

from typing import Any

from selftaught import methods
from selftaught._words import plural, typed
from selftaught.run import evaluations
from selftaught.run.layout import Layout, unusable
from selftaught.run.outputs import Output
from selftaught.run_settings import Settings

__all__ = ["summary"]


def summary(layout: Layout, config: dict[str, Any], output: Output) -> list[str]:
    """The three lines.

    Args:
        layout: of the run.
        config: as its config.yaml has it.
        output: the kind of thing that it delivers.
    """
    state, data = layout.read_state(), config["data"]
    steps = sum(stage["steps"] for stage in state["stages"].values())
    seconds = sum(stage["seconds"] for stage in state["stages"].values())
    own, tasks = layout.skipped, layout.path / "tasks"
    skipped = len(unusable([layout, *map(Layout, tasks.glob("[0-9]*"))]))
    streams = (data, *data.get("beside", {}).values())
    read = [f"{one['name']} ({plural(one['samples'], 'sample')})" for one in streams]
    trained = f"{config['method']} on {' and '.join(read)}: {plural(steps, 'step')} in {seconds:.0f} s"
    if skipped:
        trained += f", {plural(skipped, 'unusable sample')} listed in {own if own.exists() else tasks}"
    needed = methods.get(config["method"]).judged_with or output.needed(Settings(**config["settings"]), data)
    more = f"selftaught evaluate {typed(layout.path)} {needed}".rstrip()
    did = _headline(layout, output) or f"to know how good it is: {more}"
    return [trained, did, f"report: {layout.report}" if layout.report.exists() else f"run: {layout.path}"]


def _headline(layout: Layout, output: Output) -> str:
    """The first of the output's headline numbers that was measured, on the data that the report is about."""
    lead = evaluations.leading(layout)
    stored = lead.numbers()
    for protocol, number, label in output.headlines:
        kinds = stored.get(protocol)
        if kinds and number in kinds["this"]["numbers"]:
            shown = [f"{evaluations.NAMES[k]} {r['numbers'][number]['mean']:.3f}" for k, r in kinds.items()]
            seen = (kinds["this"].get("figures") or {}).get("seen")
            where = f" on {seen}" if seen else "" if lead.own else f" on {lead.name}"
            return f"{label}{where}: " + ", ".join(shown)
    return ""
