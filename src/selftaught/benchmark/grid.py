"""One runner for every grid: methods x data x encoders x initialisations x label fractions x seeds.

    from selftaught.benchmark import grid
    found = grid.run("grid.yaml", workers=2)         # or a dict of the same keys
    print(found.tables["linear-accuracy"].markdown())

A cell is an ordinary run, keyed by its configuration: done cells are skipped, cut ones go on, a failing one is recorded
and the others go on. See :mod:`selftaught.benchmark.plan` for the YAML, docs/benchmarks.md for an example.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from selftaught._words import typed
from selftaught.benchmark import executors, plan
from selftaught.benchmark._cell import Cell
from selftaught.benchmark.cells import Place, execute, facts, folder_of, record_failure
from selftaught.benchmark.progress import Board
from selftaught.benchmark.tables import Table
from selftaught.errors import UserError
from selftaught.run.layout import is_free, write_json, write_yaml


@dataclass(frozen=True)
class Finished:
    """What a grid gave.

    Args:
        folder: where everything lies.
        records: what was measured, one dict per measurement (see :mod:`selftaught.benchmark.tables`).
        failures: label of a cell -> its error in one line.
        tables: name of the file -> table.
        page: the HTML page.
        cells: how many cells the grid has.
        trained: how many of them were worked on by this call.
    """

    folder: Path
    records: list[dict[str, Any]]
    failures: dict[str, str]
    tables: dict[str, Table]
    page: Path
    cells: int
    trained: int

    def summary(self) -> list[str]:
        """A few lines for a terminal."""
        done = self.cells - len(self.failures)
        lines = [f"{done} of {self.cells} cells done ({self.trained} now); page: {self.page}"]
        if self.failures:
            label, error = next(iter(self.failures.items()))
            more = f" (and {len(self.failures) - 1} more)" if len(self.failures) > 1 else ""
            lines.append(f"failed: {label}: {error}{more}; the same command tries them again")
        return lines


def run(
    config: str | Path | Mapping[str, Any],
    *,
    out: str | Path | None = None,
    workers: int = 1,
    loaders: int | None = None,
    cluster: str | None = None,
    say: Callable[[str], None] = lambda line: None,
    live: bool | None = None,
) -> Finished:
    """Do what is left of a grid, then write its tables and its page.

    Args:
        config: YAML file, or its content as a dict.
        out: folder of the grid; default ``benchmark-NAME``. Called again with it, the grid goes on.
        workers: cells at a time on this machine; the cores are shared out among them.
        loaders: loader processes of each cell; None chooses. Small images and short runs are faster with 0.
        cluster: "slurm" (or submitit's "local", "debug"): every cell is a job there; the YAML's ``cluster`` has the
            settings.
        say: called with one line per finished cell where there is no terminal.
        live: the live board; None draws it where standard error is a terminal.

    Returns:
        ``Finished``.

    Raises:
        UserError: a wrong grid, another grid at work in the same folder, no cell done at all.
        KeyboardInterrupt: stopped; what is done or begun is kept, the same call goes on.
    """
    found = plan.read(config)
    folder = Path(out) if out is not None else Path(f"benchmark-{found.name}")
    _make(folder)
    lock = FileLock(str(folder / ".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"--out {typed(folder)}: a grid is at work there; wait for it, or choose another folder"
        ) from None
    try:
        write_yaml(folder / "grid.yaml", found.config)  # first of all: by it the folder is known as a grid's
        (folder / "cells").mkdir(exist_ok=True)
        trained = _work(found, folder, workers, loaders, cluster, say, live)
    except Exception as error:
        if type(error).__name__ != "Interrupted":
            raise
        # the signal's run is saved; what goes on is the grid, not that run
        raise KeyboardInterrupt(error.signum) from None  # type: ignore[attr-defined]
    finally:
        lock.release()
    return collect(found, folder, trained=trained)


def _make(folder: Path) -> None:
    if folder.is_file():
        raise UserError(f"--out {typed(folder)}: a file; give a folder")
    if not is_free(folder) and not (folder / "grid.yaml").exists():
        raise UserError(f"--out {typed(folder)}: holds something else than a grid; choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {typed(folder)}: can't be made ({error.strerror})") from error


def _work(
    found: plan.Grid, folder: Path, workers: int, loaders: int | None, cluster: str | None,
    say: Callable[[str], None], live: bool | None,
) -> int:  # fmt: skip
    """Do the cells that are not done, those that others start from first; how many there were."""
    executor = executors.choose(workers, cluster, folder / "jobs", found.cluster)
    left = [cell for cell in found.cells if place_of(folder, cell).state(cell) != "done"]
    if loaders is None and workers > 1 and min(map(len, executors.core_shares(workers))) < 2:
        loaders = 0  # a loader process of its own would take the one core that its worker has
    if loaders is not None:
        left = [cell | {"loaders": loaders} for cell in left]
    done = len(found.cells) - len(left)
    for wave in ([c for c in left if c["first"]], [c for c in left if not c["first"]]):
        folders = [place_of(folder, cell).folder for cell in wave]
        with Board(wave, folders, done, say, live) as board:
            board.total = len(found.cells)
            jobs = [(cell, str(where.absolute())) for cell, where in zip(wave, folders, strict=True)]
            executor.run(execute, jobs, _Recorder(board, wave, folders))
        done += len(wave)
    return len(left)


def place_of(folder: Path, cell: Cell) -> Place:
    """Where a cell lies in a grid's folder."""
    return Place(folder_of(folder / "cells", cell))


class _Recorder:
    """Between executor and board: a cell whose process died has no error of its own, so it gets one here."""

    def __init__(self, board: Board, cells: list[Cell], folders: list[Path]) -> None:
        self.board, self.cells, self.folders = board, cells, folders

    def started(self, position: int) -> None:
        """A cell has begun."""
        self.board.started(position)

    def ended(self, position: int, problem: str) -> None:
        """A cell has ended."""
        place = Place(self.folders[position])
        if problem and place.failure() != problem:
            record_failure(self.cells[position], str(place.folder), problem)
        self.board.ended(position, problem)


def collect(found: plan.Grid, folder: Path, *, trained: int = 0) -> Finished:
    """Gather what the cells of a grid have measured, and write tables, figures and page.

    Raises:
        UserError: no cell is done.
    """
    from selftaught.benchmark import page, summary

    records: list[dict[str, Any]] = []
    failures: dict[str, str] = {}
    for cell in found.cells:
        place = place_of(folder, cell)
        if place.state(cell) == "done":
            records += [record | facts(cell) for record in place.records() if not cell["hidden"]]
        else:
            failures[cell["label"]] = place.failure() or "not done yet"
    if not records:
        label, error = next(iter(failures.items()), ("", "there is no cell"))
        raise UserError(f"no cell of {found.name} is done; the first, {label}: {error}")
    write_json(folder / "results.json", {"records": records, "failures": failures})
    for old in (*folder.glob("tables/*.*"), *folder.glob("figures/*.svg")):
        old.unlink()  # what an earlier question to the same cells made
    made = summary.make(records, folder)
    where = page.write(found, folder, records, failures, made)
    tables = {name: table for name, table, _ in made.tables}
    return Finished(folder, records, failures, tables, where, len(found.cells), trained)
