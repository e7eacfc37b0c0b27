"""Applying a run to new samples: what every kind of output shares - the input, whose place it is, what was left out."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import torch

from selftaught._csv import csv_bytes
from selftaught._paths import expanded, part_of
from selftaught._reading import kept_json
from selftaught._words import typed
from selftaught.data import Source, holds_videos, open_source
from selftaught.engine.method import Method
from selftaught.engine.pairing import check_pairs
from selftaught.errors import UserError, unwritten
from selftaught.run import locks
from selftaught.run.features import check_channels
from selftaught.run.input_paths import input_paths
from selftaught.run.layout import write_json

PER = ("set", "video")
"""What a method may adapt to at a time."""
Progress = Callable[[int], None]
Skipped = list[tuple[str, str]]
"""Name and reason of each sample that could not be used."""


class Applied(int):
    """How many rows a table has, or how many files were written now: a number that also says where, and what is not.

    Attributes:
        out: the file or folder.
        kept: files in a folder that were finished before, and are not counted.
        left_out: why files of the input are no samples ("beside the class folders"), with how many of them.
        skipped: name and reason of each sample that could not be used; also listed in ``listed``.
        listed: the file of that list, None where nothing was left out.
        notes: what is worth knowing of the results, a line each.
    """

    out: Path
    skipped: Skipped
    kept: int
    left_out: Mapping[str, int] = MappingProxyType({})
    notes: Sequence[str] = ()

    def __new__(cls, count: int, out: Path, skipped: Sequence[tuple[str, str]] = (), kept: int = 0) -> Applied:
        """Make one; the count is the number's value."""
        self = super().__new__(cls, count)
        self.out, self.skipped, self.kept = out, list(skipped), kept
        return self

    @property
    def listed(self) -> Path | None:
        """Where the samples that were left out are listed."""
        return skipped_list(self.out) if self.skipped else None

    def __repr__(self) -> str:
        more = f", {self.kept} kept" if self.kept else ""
        more += f", {len(self.skipped)} skipped" if self.skipped else ""
        return f"<{int(self)} written to {self.out}{more}>"

    def __str__(self) -> str:
        return int.__repr__(self)


@dataclass(frozen=True)
class Job:
    """What a run is applied to, and where the result goes.

    Attributes:
        method: the trained method, in evaluation mode.
        source: the samples, in the order that the results will have.
        out: file or folder to write.
        run: what the run is called in messages.
        weights: digest of the run's weights (see `weights_digest`); "" takes that of ``method``.
        classes: names of a classifier's classes.
        options: what changes the result besides weights and input; part of the key of resuming.
        given: the input as the user named it, to keep it from being overwritten.
        overwrite: whether what another run wrote to ``out`` may be replaced.
        workers: loader processes; -1 chooses.
        tile: largest side of an image that is restored in one piece; 0: any; None: as memory allows.
        say: called with the number of samples done so far.
        another: what to name for another place, in messages.
        writer: who writes there, in messages.
    """

    method: Method
    source: Source
    out: Path
    run: str = "this run"
    weights: str = ""
    classes: Sequence[str] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    given: Any = None
    overwrite: bool = False
    workers: int = -1
    tile: int | None = None
    say: Progress = lambda done: None
    another: ClassVar[str] = "another --out"
    writer: ClassVar[str] = "this run"

    @property
    def maker(self) -> str:
        """What makes the results, in messages."""
        return self.method.slug

    @property
    def called(self) -> str:
        """The place in messages: by the option that names it."""
        return f"--out {typed(self.out)}"

    def beside(self, i: int) -> list[Path]:
        """Files that the result of a sample depends on besides its own."""
        return self.method.files_beside(self.source, i)

    def key(self) -> dict[str, Any]:
        """What makes two calls the same work: the kind of output, weights, options and input."""
        return {
            "output": self.method.output,
            "method": self.method.slug,
            "weights": self.weights or weights_digest(self.method),
            "options": json.loads(json.dumps(self.options, default=str)),
            "input": self.source.fingerprint(),
            "origin": self.source.origin(),
            "samples": len(self.source),
        }


def open_input(spec: Any, method: Method, *, videos: bool = False) -> Source:
    """The samples to apply a run to, checked against what it was trained on.

    Args:
        spec: any source.
        method: of the run.
        videos: a method of images takes clips as well, where these are all that is there.

    Raises:
        UserError: other channels than the run's (see `features.check_channels`); of several pictures the first is not
            the one to restore.
    """
    clips = videos and method.modality == "image" and holds_videos(spec)
    source = open_source(spec, modality="clip" if clips else method.modality, split="all")
    check_pairs(method, source, first=not hasattr(method, "given_fields"))
    check_channels(method, source)
    return source


def own_options(given: Mapping[str, Any], takes: Mapping[str, Mapping[str, Any]], slug: str) -> dict[str, Any]:
    """The options of a kind of output that were given, as `Job.options` holds them: "apply scale" ...

    Raises:
        UserError: one that this kind doesn't have, or a value that is not among its choices.
    """
    found = {name: value for name, value in given.items() if value not in (None, False)}
    for name, value in found.items():
        if name not in takes:
            known = f"it takes --{', --'.join(takes)}" if takes else "leave it out"
            raise UserError(f"--{name}: nothing that {slug} writes has it; {known}")
        choices = takes[name].get("choices")
        if choices and value not in choices:
            raise UserError(f"--{name} {value}: it may be {' or '.join(choices)}")
    return {f"apply {name}": value for name, value in found.items()}


@contextlib.contextmanager
def asked(method: Method, how: Mapping[str, Any] = MappingProxyType({}), *, own: bool = False) -> Iterator[None]:
    """The method as its own options of ``apply`` ask for, for a while.

    Args:
        method: of the run.
        how: options as :func:`own_options` gives them.
        own: whether it meets the data that the run learnt from.
    """
    with method.applied_as({name.removeprefix("apply "): value for name, value in how.items()}, own):
        yield


def check_adapts(method: Method) -> Callable[[Source], None]:
    """What a method does to adapt itself to a source.

    Raises:
        UserError: it has no ``adapt``.
    """
    own: Callable[[Source], None] | None = getattr(method, "adapt", None)
    if own is None or getattr(own, "__func__", own) is getattr(Method, "adapt", None):
        raise UserError(f"--adapt: {method.slug} does not adapt to the data that it is applied to; leave it out")
    return own


def adapt(method: Method, source: Source, per: bool | str = True) -> None:
    """Let a method adapt itself to a source before it is applied there.

    Args:
        method: becomes another.
        source: what it is going to be applied to.
        per: "set" or "video", where the method knows the difference; True leaves it to its options.

    Raises:
        UserError: it has no ``adapt``, or adapts in one way only.
    """
    own: Callable[..., None] = check_adapts(method)
    if per is True:
        own(source)
    elif "per" not in inspect.signature(own).parameters:
        raise UserError(f"--adapt {per}: {method.slug} adapts in one way only; give --adapt alone")
    elif per not in PER:
        raise UserError(f"--adapt {per}: it may be {' or '.join(PER)}")
    else:
        own(source, per=per)
    method.eval()


def weights_digest(method: Method) -> str:
    """32 hexadecimal digits of all that a prediction comes from: what is delivered, and how pixels are normalised."""
    found = hashlib.blake2b(digest_size=16)
    tensors = method.deliverable().state_dict() | {" mean": method.pixel_mean, " std": method.pixel_std}
    for name, value in tensors.items():
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    found.update(json.dumps(method.value_range).encode())
    return found.hexdigest()


# ---- whose place it is -------------------------------------------------------------------------------------------
def begin(
    job: Job, mark: Path, *, taken: bool, clear: Callable[[], None], growing: bool = False
) -> dict[str, Any] | None:
    """Take a place for this work.

    Args:
        job: the work.
        mark: JSON file that says whose place it is.
        taken: whether something lies there already.
        clear: called to take away what lies there, where ``job.overwrite`` allows it.
        growing: whether an input that has changed since (a folder with more files now) is still the same work.

    Returns:
        what ``mark`` held where the same work was begun before, else None.

    Raises:
        UserError: another run wrote there, or something else lies there.
    """
    key, known = job.key(), _read_mark(mark)
    if known is not None and _same(key, known.get("key", {}), growing):
        if known["key"] != key:
            _seal(mark, {"key": key, "run": job.run, "input": job.source.name})
        return known
    if known is not None or taken:
        if not job.overwrite:
            raise UserError(_refusal(job, key, known))
        clear()
    _seal(mark, {"key": key, "run": job.run, "input": job.source.name})
    return None


_WORK = ("output", "method", "weights", "options")


def _same(key: dict[str, Any], other: dict[str, Any], growing: bool) -> bool:
    if any(key[part] != other.get(part) for part in _WORK):
        return False
    named = os.sep in key["origin"]  # an array has no place by which it is known again
    return key["input"] == other.get("input") or (growing and named and key["origin"] == other.get("origin"))


def finish(mark: Path, written: int, skipped: Skipped, out: Path | None = None) -> None:
    """Note in ``mark`` that the work is done, and what the file ``out`` then holds."""
    content = {} if out is None else {"content": content_of(out)}
    _seal(mark, (_read_mark(mark) or {}) | {"written": written, "skipped": skipped} | content)


def finished(known: Mapping[str, Any] | None, out: Path) -> Applied | None:
    """The work that a mark says is done, where ``out`` is what was written; None where it is to be made."""
    if known is None or not known.get("content") or known["content"] != content_of(out):
        return None
    return Applied(known["written"], out, [(name, reason) for name, reason in known["skipped"]])


def content_of(path: Path) -> str:
    """Length and checksum of a file, to know it again; "" where there is none."""
    if not path.is_file():
        return ""
    checksum = length = 0
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            checksum, length = zlib.crc32(part, checksum), length + len(part)
    return f"{length} {checksum:08x}"


def _seal(mark: Path, content: dict[str, Any]) -> None:
    write_json(mark, content | {"sum": _sum(content)})


def _sum(content: dict[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(content, sort_keys=True).encode()):08x}"


def _read_mark(mark: Path) -> dict[str, Any] | None:
    """The content of a mark; None where there is none, or what lies there is none (a full disk leaves it empty), or
    has rotted.
    """
    found = kept_json(mark)
    return found if found.pop("sum", None) == _sum(found) else None


def _refusal(job: Job, key: dict[str, Any], known: dict[str, Any] | None) -> str:
    mend = f"choose {job.another}, or replace it with --overwrite"
    if known is None:
        return f"{job.called}: holds what {job.writer} did not write; {mend}"
    other = known.get("key", {})
    what = "other data" if all(key[part] == other.get(part) for part in _WORK) else "another run"
    if what == "another run" and (key["method"], key["weights"]) == (other.get("method"), other.get("weights")):
        what = "other options"
    return f"{job.called}: holds results of {what} ({known.get('run')} on {known.get('input')}); {mend}"


def held(path: Path, called: str, another: str = "another --out") -> contextlib.AbstractContextManager[None]:
    """Hold ``path`` as the lock of a place, see `locks.held`; the others as in :class:`Job`."""
    return locks.held(path, called, f"is writing to it; wait for it, or choose {another}")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """What goes wrong with the disk, in one line.

    Raises:
        UserError: full, read-only, or not permitted.
    """
    try:
        yield
    except OSError as error:
        begun = (path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.part.part"))
        for part in (*begun, *path.with_name(f"{path.name}.parts").glob("*.part")):
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
        raise unwritten(path, error, go_on=", and the same command goes on") from error


# ---- lists -------------------------------------------------------------------------------------------------------
def skipped_list(out: Path) -> Path:
    """Where the samples that could not be used are listed: in a folder of images, or beside a table."""
    return out / "skipped.csv" if out.is_dir() else out.with_name(out.name + ".skipped.csv")


def list_skipped(out: Path, skipped: Skipped) -> None:
    """Write the list; without samples on it none is left from before."""
    path = skipped_list(out)
    if skipped:
        write_csv(path, ("name", "reason"), skipped)
    else:
        path.unlink(missing_ok=True)


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table of text as `csv_bytes` makes it, whole or not at all.

    Raises:
        UserError: it can't be written.
    """
    part = part_of(path)  # of this process: two may write the same file at once
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(csv_bytes(columns, rows))
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


# ---- the input stays as it is ------------------------------------------------------------------------------------
def refuse_input(job: Job) -> None:
    """Refuse an ``out`` that is the input, or lies inside it.

    Raises:
        UserError: it does.
    """
    out = expanded(job.out).resolve()
    for path in input_paths(job.given):
        inside = path.is_dir() and out.is_relative_to(path)
        if out == path or inside:
            where = "inside the input" if out != path else "the input itself"
            raise UserError(f"{job.called} is {where} ({path}); choose a place outside it")
