"""A grid's progress: a live board on a terminal, a line per finished cell elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from selftaught.benchmark._cell import Cell
from selftaught.benchmark.cells import Place


class Board:
    """Told of cells as they begin and end; shows the whole, and the steps of what is under way.

    Args:
        cells: the cells that are left to do.
        folders: where they lie.
        done: how many were done before.
        say: called with one line per finished cell where there is no terminal.
        score: (protocol, number) shown behind a finished cell.
        live: whether to draw the board; None where standard error is a terminal.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        folders: Sequence[Path],
        done: int,
        say: Callable[[str], None],
        live: bool | None = None,
    ) -> None:
        self.cells, self.places, self.say = cells, [Place(folder) for folder in folders], say
        self.finished, self.total = done, done + len(cells)
        self.failed = 0
        self.active: dict[int, float] = {}
        self.lines: list[str] = []
        self._live: Any = None
        self._wanted = sys.stderr.isatty() if live is None else live
        self._began = time.monotonic()
        self._first = done

    def __enter__(self) -> Board:
        if self._wanted and self.cells:
            from rich.console import Console
            from rich.live import Live

            self._live = Live(get_renderable=self.picture, console=Console(stderr=True), refresh_per_second=2)
            self._live.start()
        return self

    def __exit__(self, *problem: Any) -> None:
        if self._live is not None:
            self._live.stop()

    # ---- what executors tell ---------------------------------------------------------------------------------
    def started(self, position: int) -> None:
        """A cell has begun."""
        self.active[position] = time.monotonic()

    def ended(self, position: int, problem: str) -> None:
        """A cell has ended."""
        seconds = time.monotonic() - self.active.pop(position, time.monotonic())
        self.finished += 1
        self.failed += bool(problem)
        told = f"failed: {problem}" if problem else headline(self.places[position].records())
        line = f"{self.finished}/{self.total} {self.cells[position]['label']}: {told} ({seconds:.0f} s)"
        if self._live is None:
            self.say(line)
        else:
            self._live.console.print(line, highlight=False, markup=False)

    # ---- the board -------------------------------------------------------------------------------------------
    def picture(self) -> Any:
        """What the terminal shows: the bar of the whole, and a line per cell under way."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        head = Table.grid(padding=(0, 1))
        head.add_row(ProgressBar(self.total, self.finished, width=40), Text(self.summary()))
        rows = Table.grid(padding=(0, 2))
        for position, began in list(self.active.items()):
            rows.add_row(Text(self.cells[position]["label"]), Text(self.where(position, time.monotonic() - began)))
        return Group(head, rows)

    def summary(self) -> str:
        """How many cells are done, how many failed, and about how long the rest takes."""
        told = f"{self.finished}/{self.total} cells"
        told += f", {self.failed} failed" if self.failed else ""
        measured = self.finished - self._first
        if measured and self.finished < self.total:
            left = (time.monotonic() - self._began) / measured * (self.total - self.finished)
            told += f", about {left / 60:.0f} min left" if left > 90 else f", about {left:.0f} s left"
        return told

    def where(self, position: int, seconds: float) -> str:
        """How far a cell is: its steps, or that it is judged."""
        wanted = self.cells[position]["options"].get("steps")
        steps = self.places[position].steps()
        if (self.places[position].run / "encoder.safetensors").exists():
            return f"judged, {seconds:.0f} s"
        return f"step {steps}{f'/{wanted}' if wanted else ''}, {seconds:.0f} s"


def headline(records: list[dict[str, Any]]) -> str:
    """A finished cell's main number: of all the labels that it was given."""
    main = [r for r in records if r["headline"] and (r["judged"] == r["data"] or not r["own"])]
    if not main:
        return "done"
    last = max(main, key=lambda record: record["fraction"])
    return f"{last['protocol']} accuracy {last['numbers'].get('accuracy', float('nan')):.3f} on {last['judged']}"
