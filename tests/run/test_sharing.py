"""One ``apply`` by several processes of a launch."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

import selftaught
from selftaught import UserError
from selftaught.run import ranks, sharing
from selftaught.run.outputs import _folder, _table
from selftaught.run.sharing import Crew
from tests.conftest import write_photos
from tests.forked import Forked
from tests.two_processes import free_port


def members(folder: Path, size: int = 2, **more: Any) -> list[Crew]:
    one = Crew(folder / "out.launch", size=size, launch="here", key="{}")
    return [replace(one, rank=rank, **more) for rank in range(size)]


def together(*parts: Callable[[], Any]) -> list[Any]:
    """What each gives or raises, all at once."""

    def outcome(part: Callable[[], Any]) -> Any:
        try:
            return part()
        except UserError as error:
            return error

    with ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(outcome, parts))


def lead(crew: Crew, work: Callable[[], None] = lambda: None) -> list[dict[str, Any]]:
    with crew.leading():
        crew.open()
        work()
        return crew.gather()


def follow(crew: Crew, work: Callable[[], Any] = lambda: None) -> None:
    with crew.following():
        crew.report(found=work())


def stop(reason: str) -> None:
    raise UserError(reason)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 9])
def test_shares_and_blocks_part_the_work(count: int) -> None:
    for size in (1, 2, 3, 8):
        crews = members(Path(), size)
        assert [k for crew in crews for k in crew.block(count)] == list(range(count))
        assert sorted(k for crew in crews for k in crew.share(count)) == list(range(count))
        assert max(len(crew.block(count)) for crew in crews) - min(len(crew.block(count)) for crew in crews) <= 1


def test_the_first_hears_what_the_others_did(tmp_path: Path) -> None:
    first, *others = members(tmp_path, 3)
    found = together(lambda: lead(first), *(lambda c=c: follow(c, lambda: c.rank * 10) for c in others))
    assert found[0] == [{"found": 10}, {"found": 20}]
    assert not first.meeting.exists()


def test_an_error_of_one_ends_the_waiting_of_all(tmp_path: Path) -> None:
    first, second = members(tmp_path)
    told, _ = together(lambda: lead(first), lambda: follow(second, lambda: stop("photo.png is odd")))
    assert "process 1 of 2 stopped: photo.png is odd" in str(told)
    shutil.rmtree(first.meeting)

    def refused() -> None:
        with first.leading():
            stop("the folder is not empty")

    _, told = together(refused, lambda: follow(second))
    assert "the first process stopped: the folder is not empty" in str(told)


def test_what_another_launch_left_is_not_taken_for_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "_ARRIVAL", 0.3)
    first, second = members(tmp_path)
    for left in ({"launch": "other", "key": "{}"}, {"launch": "here", "key": '{"weights": 1}'}):
        first.meeting.mkdir(exist_ok=True)
        (first.meeting / "open").write_text(json.dumps(left | {"failed": ""}))
        with pytest.raises(UserError, match="did not begin"):
            follow(second)


def test_a_process_that_fell_silent_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "_SILENCE", 0.3)
    first, _ = members(tmp_path)
    with pytest.raises(UserError, match="process 1 of 2 gave no sign of life"):
        lead(first)


def test_counting_processes() -> None:
    assert ranks.process_count({}) == 1
    assert ranks.process_count({"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "4"}) == 4
    assert ranks.process_count({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"}) == 1  # a batch script, not srun
    assert ranks.process_count({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4"}) == 4
    assert ranks.local_rank({"SLURM_LOCALID": "3"}) == 3
    assert ranks.local_rank({"LOCAL_RANK": "1", "SLURM_LOCALID": "3"}) == 1


@pytest.fixture
def crews(monkeypatch: pytest.MonkeyPatch) -> threading.local:
    """Two threads that stand for two processes: each finds its own number."""
    own = threading.local()

    def crew(out: Path, key: Callable[[], dict[str, Any]]) -> Crew:
        one = sharing.crew(out, key)
        return replace(one, rank=getattr(own, "rank", 0), size=2, launch="here") if hasattr(own, "rank") else one

    monkeypatch.setattr(_table, "crew", crew)
    monkeypatch.setattr(_folder, "crew", crew)
    monkeypatch.setattr(_table, "BATCH", 16)
    monkeypatch.setattr(_table, "PART", 32)
    return own


def by_two(own: threading.local, run: selftaught.Run, data: Path, out: Path, **more: Any) -> list[Any]:
    loaded = [selftaught.load(run.path) for _ in range(2)]
    for one in loaded:
        one.method  # noqa: B018  (building sets the global seed, which two threads must not do at once)

    def part(rank: int) -> Any:
        own.rank = rank
        return loaded[rank].apply(str(data), out, workers=0, **more)

    return together(lambda: part(0), lambda: part(1))


def test_two_write_the_table_that_one_writes(tiny_run: selftaught.Run, crews: threading.local, tmp_path: Path) -> None:
    data = tmp_path / "images.npy"
    np.save(data, np.random.default_rng(0).integers(0, 256, (150, 12, 12), dtype=np.uint8))
    tiny_run.apply(str(data), tmp_path / "one.parquet", workers=0)
    first, second = by_two(crews, tiny_run, data, tmp_path / "two.parquet")
    assert first == 150
    assert second == 150 - 64
    assert pq.read_table(tmp_path / "two.parquet").equals(pq.read_table(tmp_path / "one.parquet"))
    assert sorted(p.name for p in tmp_path.glob("two*")) == ["two.parquet", "two.parquet.work.json"]
    again = by_two(crews, tiny_run, data, tmp_path / "two.parquet")
    assert again == [150, 0]


def test_two_write_the_pictures_that_one_writes(crews: threading.local, tmp_path: Path) -> None:
    write_photos(tmp_path / "in", count=9, classes=1, channels=1)
    (tmp_path / "in" / "broken.png").write_bytes(b"\x89PNG nothing")
    options = {"patch": 24, "width": 16, "modules": 1, "steps": 1, "batch_size": 4, "workers": 0, "quiet": True}
    run = selftaught.train("c-bsn", str(tmp_path / "in"), out=str(tmp_path / "run"), **options)
    run.apply(str(tmp_path / "in"), tmp_path / "one")
    first, second = by_two(crews, run, tmp_path / "in", tmp_path / "two")
    assert first == 9
    assert 4 <= second <= 5
    assert [name for name, _ in first.skipped] == ["broken.png"]
    for path in sorted((tmp_path / "one").rglob("*.png")):
        two = tmp_path / "two" / path.relative_to(tmp_path / "one")
        assert np.array_equal(cv2.imread(str(path), -1), cv2.imread(str(two), -1))
    more = by_two(crews, run, tmp_path / "in", tmp_path / "two")
    assert more[0] == 0
    assert more[0].kept == 9
    alone = run.apply(str(tmp_path / "in"), tmp_path / "two")
    assert alone == 0
    assert alone.kept == 9
    assert not list((tmp_path / "two").glob(".done.*"))


@pytest.mark.slow
def test_two_processes_as_torchrun_starts_them_write_one_table(tiny_run: selftaught.Run, tmp_path: Path) -> None:
    data, out = tmp_path / "images.npy", tmp_path / "all.npy"
    np.save(data, np.random.default_rng(0).integers(0, 256, (4200, 12, 12), dtype=np.uint8))  # two parts
    words = ["apply", str(tiny_run.path), str(data), "--out", str(out), "--workers", "0"]
    of_torchrun = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "one"}
    of_torchrun |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    crew = [Forked(words, tmp_path, **of_torchrun, RANK=rank, LOCAL_RANK=rank) for rank in ("0", "1")]
    said = [worker.communicate() for worker in crew]
    assert [worker.returncode for worker in crew] == [0, 0], said
    assert "".join(out for out, _ in said).count("4200 written to") == 1
    found = np.load(out)
    assert found.shape[0] == 4200
    assert np.isfinite(found).all()
