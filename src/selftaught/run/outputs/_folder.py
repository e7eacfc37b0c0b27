"""Results of one file per sample: a folder, written file by file, so that a call that was cut off goes on."""

from __future__ import annotations

import contextlib
import json
import os
import re
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from selftaught._paths import no_name
from selftaught.data import Source
from selftaught.data.formats.video import VIDEO_SUFFIXES
from selftaught.engine.embedding import none_usable
from selftaught.errors import SampleError, UserError
from selftaught.run import applying
from selftaught.run.applying import Applied, Job, Skipped
from selftaught.run.input_paths import input_paths
from selftaught.run.outputs._pictures import is_part, spare
from selftaught.run.sharing import Crew, crew

_FILES = {".parquet", ".npy", ".npz", ".csv", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".nii", ".gz", ".ply", ".pcd",
          ".las", ".laz", ".xyz", ".pts", *VIDEO_SUFFIXES}  # fmt: skip
"""Suffixes that no folder of results is meant to have."""

MARK, LOCK, DONE = "work.json", ".lock", ".done"
_MOVING = re.compile(rf"(?<=[^/])({'|'.join(re.escape(end) for end in VIDEO_SUFFIXES)})(?=@\d+$|$)", re.IGNORECASE)
_OWN = {MARK, LOCK, DONE, "skipped.csv"}
_LONGEST = 251  # bytes of a file's name: the 255 that file systems take, less those of `spare`


Table = Callable[[list[list[Any]]], None]
"""Writes a table of what ``make`` returned for each finished file, in their order."""


def write(
    job: Job,
    paths: Sequence[Path],
    make: Callable[[int, Path], Any],
    files: Collection[str] = (),
    *,
    growing: bool = True,
    table: Table | None = None,
    clear: Callable[[], None] = lambda: None,
) -> Applied:
    """Make the file of every sample that has none yet; those whose input has changed since are made again.

    Args:
        job: method, source and place, a folder.
        paths: file of every sample, below ``job.out``; see `places`.
        make: of a sample's number and its file: writes it, whole or not at all.
        files: suffixes of files that a single sample may be written to, in place of a folder.
        growing: whether an input that has changed since (a folder with more files now) is still the same work.
        table: called when all files are made; ``make`` then returns each file's row, plain values, noted with it.
        clear: takes away what other work left beside ``paths``, where ``job.overwrite`` allows it.

    Returns:
        how many files were written now, how many were kept, and which samples have none.

    Raises:
        UserError: no sample that can be used; a file in the folder's place; the input's folder, or one inside it;
            another run's results; another process at work there.
    """
    out = job.out
    if out.suffix.lower() in files and not out.is_dir():
        return _alone(job, len(paths), make)
    if (out.suffix.lower() in _FILES and not out.is_dir()) or out.is_file():
        what = "a file per sample" if all(path.parent == Path() for path in paths) else "several files"
        raise UserError(f"{job.called}: {job.maker} writes {what}; give a folder")
    applying.refuse_input(job)
    if clash := {p.resolve() for p in input_paths(job.given)} & {(out / path).resolve() for path in paths}:
        raise UserError(f"{job.called}: would overwrite the input {sorted(clash)[0]}; choose another folder")
    team = crew(out, job.key)
    with applying.writing(out):
        if not team.first:
            with team.following():
                found = _make(job, paths, make, team)
                team.report(written=found[0], kept=found[1], skipped=found[2])
            return Applied(found[0], out, found[2], found[1])
        taken = out.is_dir() and any(not _own(entry) and not is_part(entry) for entry in out.iterdir())
        with team.leading(), applying.held(out / LOCK, job.called, job.another):

            def clear_all() -> None:
                clear()
                _clear(out, paths)

            known = applying.begin(job, out / MARK, taken=taken, clear=clear_all, growing=growing)
            for left in [path for path in out.rglob("*.part*") if is_part(path)]:
                left.unlink()  # of a process that was killed; no other is at work here
            _gather_done(out, fresh=known is None)
            team.open()
            written, kept, skipped = _make(job, paths, make, team)
            for other in team.gather():
                written, kept = written + other["written"], kept + other["kept"]
                skipped += [(name, reason) for name, reason in other["skipped"]]
            applying.list_skipped(out, skipped)
            if skipped and not written + kept:
                _give_back(out)
                raise none_usable(job.source, skipped)
            if table is not None:
                rows = _rows(out)
                table([list(rows[path]) for path in map(str, paths) if path in rows])
            applying.finish(out / MARK, written + kept, skipped)
    return Applied(written, out, skipped, kept)


def _give_back(out: Path) -> None:
    """Leave a folder without results to whoever writes there next."""
    for name in (MARK, DONE):
        (out / name).unlink(missing_ok=True)
    for folder in sorted((path for path in out.rglob("*") if path.is_dir()), reverse=True):
        with contextlib.suppress(OSError):  # not empty
            folder.rmdir()


def _alone(job: Job, count: int, make: Callable[[int, Path], None]) -> Applied:
    """One sample, written to a file that the user named."""
    out, name = job.out, job.source.names[0]
    if count != 1:
        raise UserError(f"{job.called}: {count} samples don't go into one file; give a folder")
    applying.refuse_input(job)
    if out.exists() and not job.overwrite:
        raise UserError(f"{job.called}: is there already; choose another, or replace it with --overwrite")
    skipped: Skipped = []
    if crew(out, job.key).first:
        with applying.writing(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            before = spare(out).exists()
            try:
                make(0, out)
            except SampleError as error:
                skipped.append((name, error.reason))
            applying.list_skipped(out, skipped)
            if not out.exists() and spare(out).exists() and not before:
                out = spare(out)
    job.say(1)
    return Applied(1 - len(skipped), out, skipped)


def _gather_done(out: Path, fresh: bool) -> None:
    """Put what the other processes of a launch noted to our own notes, as they are newer; or begin with none."""
    notes = [*([out / DONE] if fresh else []), *sorted(out.glob(DONE + ".*"))]
    lines = [] if fresh else [line for note in notes for line in _lines(note)]
    if lines:
        with (out / DONE).open("a", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in lines)
    for note in notes:
        note.unlink(missing_ok=True)


def _own(entry: Path) -> bool:
    """Whether a file in the folder is bookkeeping of ours."""
    return entry.name in _OWN or entry.name.startswith(DONE + ".")


def _make(job: Job, paths: Sequence[Path], make: Callable[[int, Path], Any], team: Crew) -> tuple[int, int, Skipped]:
    """This process's share of the files: how many were written and kept, and the samples that have none."""
    out, say, written, kept = job.out, team.alive(job.say), 0, 0
    skipped: Skipped = []
    done, stamp = _Done(out, team), _stamps(job)
    for i in team.share(len(paths)):
        path = paths[i]
        try:
            if not done.holds(path, stamp(i)):
                (out / path).parent.mkdir(parents=True, exist_ok=True)
                done.add(path, stamp(i), make(i, out / path))
                written += 1
            else:
                kept += 1
        except SampleError as error:
            skipped.append((job.source.names[i], error.reason))
        say(i + 1)
    return written, kept, skipped


class _Done:
    """Which files are finished, from which state of the input, and as what: a file that only grows, a line for each.

    Each process of a launch has its own, and reads the first's as well.
    """

    def __init__(self, out: Path, team: Crew) -> None:
        self.out, self.path = out, out / (DONE if team.first else f"{DONE}.{team.rank}")
        self._noted = {note.path: note for note in _notes(out / DONE)}

    def holds(self, path: Path, stamp: str) -> bool:
        """Whether a file was finished from just this state of the input, and is still what was written."""
        note = self._noted.get(str(path))
        return note is not None and note.stamp == stamp and note.content == _content(self.out / path)

    def add(self, path: Path, stamp: str, row: Any = None) -> None:
        """Note a finished file, and its row of a table where there is one."""
        text = json.dumps([str(path), stamp, _content(self.out / path), *([] if row is None else [row])])
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{zlib.crc32(text.encode()):08x} {text}\n")


def _content(path: Path) -> str:
    """Of a finished file, or of the one in its place."""
    return applying.content_of(path) or applying.content_of(spare(path))


class _Note(NamedTuple):
    """A line of a file of finished files.

    Attributes:
        path: of the finished file.
        stamp: the state of the input.
        content: of the file, see `_content`.
        row: of a table, empty without one.
    """

    path: str
    stamp: str
    content: str
    row: list[Any] = []


def _rows(out: Path) -> dict[str, list[Any]]:
    """The rows that all processes noted with their files."""
    notes = [note for path in (out / DONE, *sorted(out.glob(DONE + ".*"))) for note in _notes(path)]
    return {note.path: note.row for note in notes if note.row}


def _notes(path: Path) -> list[_Note]:
    """The lines of a file of finished files; what was cut off or has rotted is none: that file is made again."""
    found = []
    for line in _lines(path):
        checksum, _, text = line.partition(" ")
        if checksum == f"{zlib.crc32(text.encode()):08x}":
            found.append(_Note(*json.loads(text)))
    return found


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []


def _stamps(job: Job) -> Callable[[int], str]:
    """What changes when a sample changes: size and time of its file, or, without files, the whole source's fingerprint;
    and name, size and time of each file that its result depends on besides.
    """
    source = job.source
    root = getattr(source, "root", None)
    whole = source.fingerprint() if root is None else ""

    def stamp(i: int) -> str:
        own = whole if root is None else _state(Path(root) / source.names[i])
        return " ".join([own, *(f"{path} {_state(path)}" for path in job.beside(i))])

    return stamp


def _state(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return "gone"
    return f"{status.st_size} {status.st_mtime_ns}"


def _clear(out: Path, paths: Sequence[Path]) -> None:
    for path in paths:
        (out / path).unlink(missing_ok=True)
        spare(out / path).unlink(missing_ok=True)


def places(names: Sequence[str], suffix: Callable[[str], str]) -> list[Path]:
    """A relative path for every sample's file: its name, kept inside the folder, no two alike.

    ``..`` and a leading ``/`` are left out, what no file's name holds is replaced; where two names then meet, the later
    one gets ``~2``; a name that the file system would refuse for its length loses the end of its stem.

    Args:
        names: of the samples.
        suffix: of a name's own suffix (".jpg", or "" without one): that of the file.
    """
    found: list[Path] = []
    taken: set[str] = set(_OWN)
    for name in names:
        parts = [part for part in PurePosixPath(no_name(name)).parts if part not in ("/", "..", ".")] or ["sample"]
        last = PurePosixPath(parts[-1])
        stem, end = (last.stem, last.suffix) if last.suffix else (last.name, "")
        path, number = Path(*parts[:-1], _short(stem, suffix(end))), 1
        while str(path) in taken:
            number += 1
            path = path.with_name(_short(stem, f"~{number}{suffix(end)}"))
        taken.add(str(path))
        found.append(path)
    return found


def folders(source: Source) -> list[Path]:
    """A relative folder for every clip of a source, no two alike: "a/x.mp4" becomes "a/x", its window "a/x.mp4@16"
    "a/x@16"; where two names then meet, both keep their suffix. A folder of frames alone is called as it is, of joined
    ones as the first.
    """
    alone = PurePosixPath(source.name.partition(" + ")[0]).name or "clip"
    names = [re.sub(r"^\.(?=@|$)", lambda _: alone, name) for name in source.names]
    bare = [_MOVING.sub("", name) for name in names]
    often = Counter(bare)
    return places([b if often[b] == 1 else n for b, n in zip(bare, names, strict=True)], lambda own: own)


def _short(stem: str, end: str) -> str:
    room = _LONGEST - len(os.fsencode(end))
    return os.fsdecode(os.fsencode(stem)[:room]) + end
