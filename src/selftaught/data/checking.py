"""Reading a whole source once, to say what is in it and what is wrong with which file."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from selftaught._words import lacking, plural
from selftaught.data.kinds import kind_of
from selftaught.data.opening import open_source
from selftaught.data.source import Source, Subset
from selftaught.data.tabular import UnequalLengths
from selftaught.errors import SampleError

Progress = Callable[[int, int], None]
"""Called with (samples read, samples in all)."""


@dataclass
class CheckReport:
    """What `check` found.

    Attributes:
        source: its line of `describe`.
        total: samples looked at.
        problems: (name, reason) of every sample that can't be read, in the order of the source.
        shapes: how often each size occurs: "640x480" (height x width) of images, "200" (length) of series.
        smallest: the least side of any image, or the least length.
        largest: the greatest.
        channels: how often each number of channels occurs in the files themselves.
        dtypes: how often each type occurs.
        classes: samples that can be read, per class; empty without labels.
        groups: number of groups, or 0.
        value_range: [low, high] per channel that 16-bit and float data are scaled by, or None.
        files: (name, what its columns were taken for, or why it can't be used) of each table.
        notes: what was understood of the data, and what was left out.
        mend: what must be said of it before it can be used, instead of what was counted; "" where it can be used.
    """

    source: str
    total: int
    problems: list[tuple[str, str]] = field(default_factory=list)
    shapes: dict[str, int] = field(default_factory=dict)
    smallest: int = 0
    largest: int = 0
    channels: dict[int, int] = field(default_factory=dict)
    dtypes: dict[str, int] = field(default_factory=dict)
    classes: dict[str, int] = field(default_factory=dict)
    groups: int = 0
    value_range: list[list[float]] | None = None
    files: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    mend: str = ""

    @property
    def ok(self) -> int:
        """Samples that can be read."""
        return self.total - len(self.problems)

    @property
    def share(self) -> float:
        """Share of the samples that can't be read, 0 to 1."""
        return len(self.problems) / max(self.total, 1)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {**asdict(self), "ok": self.ok}

    def __str__(self) -> str:
        lines = [self.source, self.mend or f"{self.ok:,} of {self.total:,} can be read"]
        if self.shapes:
            common = ", ".join(f"{shape} ({n:,})" for shape, n in list(self.shapes.items())[:3])
            lines.append(f"sizes: {self.smallest} to {self.largest}; most often {common}")
        if self.channels:
            lines.append("channels: " + ", ".join(f"{c} ({n:,})" for c, n in self.channels.items()))
            lines.append("types: " + ", ".join(f"{t} ({n:,})" for t, n in self.dtypes.items()))
        if self.value_range is not None:
            lines.append(
                "scaled to eight bits from " + ", ".join(f"{low:.6g}..{high:.6g}" for low, high in self.value_range)
            )
        if self.classes:
            low, high = min(self.classes.values()), max(self.classes.values())
            each = f"{low:,} to {high:,} samples" if low < high else f"{plural(low, 'sample')} each"
            lines.append(f"classes: {len(self.classes)}, of {each}")
        if self.groups:
            lines.append(f"groups: {self.groups}")
        if self.files:
            return "\n".join([*lines, *(f"  {name}: {line}" for name, line in self.files)])
        lines += self.notes
        lines += [f"  {name}: {reason}" for name, reason in self.problems]
        return "\n".join(lines)


class _Facts(NamedTuple):
    sides: tuple[int, ...]
    channels: int | None
    dtype: str


def check(
    spec: Any, *, split: str = "all", progress: Progress | None = None, workers: int = 4, **options: Any
) -> CheckReport:
    """Read every sample of a source and report sizes, channels, types, classes, and what is wrong with which sample.

    Args:
        spec: what `open_source` takes, or an open source.
        split: which part of it.
        progress: called after each sample.
        workers: threads that decode at a time.
        **options: of `open_source`.

    Raises:
        UserError: the source can't be opened at all.
    """
    try:
        source = open_source(spec, split=split, **options)
    except UnequalLengths as told:
        source = open_source(spec, split=split, **options, pad=True)
        report = CheckReport(source.describe(), len(source), mend=str(told))
        report.files = _taken(source)
        return report
    report = CheckReport(source.describe(), len(source), notes=list(source.notes))
    report.files = _taken(source)
    sizes: Counter[str] = Counter()
    channels: Counter[int] = Counter()
    dtypes: Counter[str] = Counter()
    sides: list[int] = []
    readable: list[int] = []
    for i, found in enumerate(_in_order(source, workers)):
        if isinstance(found, str):
            report.problems.append((source.names[i], found))
        else:
            sizes["x".join(map(str, found.sides))] += 1
            channels.update([found.channels] if found.channels is not None else [])
            dtypes[found.dtype] += 1
            sides += [min(found.sides), max(found.sides)]
            readable.append(i)
        if progress is not None:
            progress(i + 1, len(source))
    report.shapes, report.channels, report.dtypes = (
        dict(sizes.most_common()),
        dict(channels.most_common()),
        dict(dtypes.most_common()),
    )
    report.smallest, report.largest = min(sides, default=0), max(sides, default=0)
    if source.labels is not None:
        names = source.classes or [str(k) for k in range(int(source.labels.max(initial=-1)) + 1)]
        counts = Counter(source.labels[readable].tolist())
        if (source.labels < 0).any():
            report.notes.append(lacking(int((source.labels < 0).sum()), "sample", "label"))
        report.classes = {name: counts.get(k, 0) for k, name in enumerate(names)}
    if source.groups is not None:
        report.groups = len(set(source.groups.tolist()))
    report.value_range = source.value_range
    return report


def _taken(source: Source) -> list[tuple[str, str]]:
    """Of each table what its columns were taken for."""
    return list(getattr(source.parent if isinstance(source, Subset) else source, "taken", []))


def _in_order(source: Source, workers: int) -> Iterator[_Facts | str]:
    """The facts of each sample, in order, with a bounded number of them decoded ahead."""
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        waiting: deque[Future[_Facts | str]] = deque()
        for i in range(len(source)):
            waiting.append(pool.submit(_facts, source, i))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _facts(source: Source, i: int) -> _Facts | str:
    try:
        sample = source.read_checked(i)
    except SampleError as error:
        return error.reason
    kind = kind_of(source.modality)
    dtype = str(getattr(sample, "dtype", type(sample).__name__))
    return _Facts(kind.sides(sample), kind.channels(sample), dtype)
