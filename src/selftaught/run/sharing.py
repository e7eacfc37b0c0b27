"""One ``apply`` by several processes: each of a launch (torchrun, srun) makes a part, the first puts them together.

They meet in ``OUT.launch``, a folder on the disk that they share: the first opens it when the place is theirs, the
others make their part and say so there. No process group is needed, and one that was killed leaves nothing that harms.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from selftaught._reading import json_of
from selftaught.errors import UserError
from selftaught.run.layout import write_json
from selftaught.run.ranks import launch_id, process_count, process_rank

__all__ = ["Crew", "crew"]

_ARRIVAL, _SILENCE, _PAUSE = 600.0, 600.0, 0.1
"""Seconds: for which the others are awaited, without a sign of life, and between two looks."""


@dataclass(frozen=True)
class Crew:
    """The processes that share one piece of work.

    Attributes:
        meeting: the folder in which they meet.
        rank: of this process, from 0.
        size: how many there are.
        launch: what is the same for all processes of a launch.
        key: what the work is, as JSON; all must be at the same.
    """

    meeting: Path
    rank: int = 0
    size: int = 1
    launch: str = ""
    key: str = ""

    @property
    def first(self) -> bool:
        """Whether this one takes the place and puts the parts together."""
        return self.rank == 0

    def block(self, count: int) -> range:
        """This process's share of ``count`` things in one piece: sizes differ by one at most."""
        return range(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def share(self, count: int) -> range:
        """This process's share of ``count`` things, one in ``size``."""
        return range(self.rank, count, self.size)

    # ---- the first -----------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def leading(self) -> Iterator[None]:
        """Around all that the first process does: an error of its own ends the others' waiting."""
        if self.size == 1:
            yield
            return
        shutil.rmtree(self.meeting, ignore_errors=True)  # of a launch that was killed
        try:
            yield
        except BaseException as error:
            self.meeting.mkdir(parents=True, exist_ok=True)
            self._open(failed=str(error) or type(error).__name__)
            raise
        shutil.rmtree(self.meeting, ignore_errors=True)

    def open(self) -> None:
        """Let the others begin: the place is taken."""
        if self.size > 1:
            self.meeting.mkdir(parents=True, exist_ok=True)
            self._open()

    def gather(self) -> list[dict[str, Any]]:
        """What the others did, as `report` had it, when all are done.

        Raises:
            UserError: one failed (its reason), never came, or gave no sign of life for ten minutes.
        """
        return [self._awaited(rank) for rank in range(1, self.size)]

    # ---- the others ----------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def following(self) -> Iterator[None]:
        """Around all that another process does: waits for the place, and tells the first what went wrong.

        Raises:
            UserError: the first process failed, or took no place within ten minutes.
        """
        self._await_opening()
        try:
            yield
        except BaseException as error:
            self._say(failed=str(error) or type(error).__name__)
            raise

    def alive(self, say: Callable[[int], None]) -> Callable[[int], None]:
        """``say`` that is a sign of life as well, every two seconds at most."""
        if self.first:
            return say
        last = time.monotonic()

        def told(done: int) -> None:
            nonlocal last
            if time.monotonic() - last > 2:
                self._say()
                last = time.monotonic()

        return told

    def report(self, **found: Any) -> None:
        """Tell the first process that this one's part is done, and what came of it."""
        self._say(done=found)

    # ---- files ---------------------------------------------------------------------------------------------------
    def _open(self, failed: str = "") -> None:
        write_json(self.meeting / "open", {"launch": self.launch, "key": self.key, "failed": failed})

    def _say(self, **what: Any) -> None:
        write_json(self.meeting / f"rank-{self.rank}", {"launch": self.launch, **what})

    def _read(self, name: str) -> dict[str, Any]:
        """What a file of this launch says; nothing where there is none yet."""
        try:
            found = json_of(self.meeting / name)
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) and found.get("launch") == self.launch else {}

    def _await_opening(self) -> None:
        end = time.monotonic() + _ARRIVAL
        while not (found := self._read("open")) or (found["key"] != self.key and not found["failed"]):
            if time.monotonic() > end:
                raise UserError(
                    f"{self.meeting}: the first process did not begin within {_ARRIVAL:.0f} s; see its message, and "
                    "whether all processes see the same disk and the same input"
                )
            time.sleep(_PAUSE)
        if found["failed"]:
            raise UserError(f"the first process stopped: {found['failed']}")

    def _awaited(self, rank: int) -> dict[str, Any]:
        name, seen, since = f"rank-{rank}", 0.0, time.monotonic()
        while "done" not in (found := self._read(name)):
            if "failed" in found:
                raise UserError(f"process {rank} of {self.size} stopped: {found['failed']}")
            with contextlib.suppress(OSError):
                stamp = (self.meeting / name).stat().st_mtime
                seen, since = (stamp, time.monotonic()) if stamp != seen else (seen, since)
            if time.monotonic() - since > _SILENCE:
                raise UserError(
                    f"process {rank} of {self.size} gave no sign of life for {_SILENCE:.0f} s; what is finished is "
                    "kept, and the same command goes on"
                )
            time.sleep(_PAUSE)
        done: dict[str, Any] = found["done"]
        return done


def crew(out: Path, key: Callable[[], dict[str, Any]]) -> Crew:
    """The processes of this launch that work on ``out``; one alone where nothing started several.

    Args:
        out: file or folder that they write.
        key: gives what the work is, see `applying.Job.key`; called only where there are several.
    """
    one = Crew(out.with_name(out.name + ".launch"))
    launch, size = launch_id(), process_count()
    if launch is None or size == 1:
        return one
    return replace(one, rank=process_rank(), size=size, launch=launch, key=json.dumps(key(), sort_keys=True))
