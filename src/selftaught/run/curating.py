"""``selftaught curate``: a source in, the part that is worth keeping out, with a list, reasons and a report.

>>> found = selftaught.curate("archive/", keep=0.1, encoder="runs/dino-archive")
>>> selftaught.train("dino", found.source)
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from selftaught._reading import name_lines
from selftaught._words import plural, typed
from selftaught.data import Source, open_source
from selftaught.data.curation.clusters import Backend
from selftaught.data.curation.selection import Selection, SelectionOptions, choose
from selftaught.data.kinds import kind_of
from selftaught.engine.embedding import feature_table
from selftaught.engine.method import Method
from selftaught.errors import UserError
from selftaught.report.curated import write_selection
from selftaught.run import applying, curating_page
from selftaught.run.applying import write_csv, writing
from selftaught.run.backbones import pixel_method, timm_method
from selftaught.run.features import check_channels
from selftaught.run.layout import new_folder, write_json, write_text
from selftaught.run.reasons import REASONS, Why, reasons
from selftaught.run.weights import hint

__all__ = ["Curated", "curate"]

_EMBEDDING = ("embedding", "classes", "image-text", "weights")
"""Kinds of output whose methods tell samples apart by one vector each."""


@dataclass(frozen=True)
class Curated:
    """What :func:`curate` found.

    Attributes:
        archive: the whole source.
        selection: positions, clusters, near-duplicates.
        why: a reason per sample.
        path: folder of ``kept.txt``, ``selection.csv``, ``selection.json`` and ``report.html``.
        options: what was asked for.
        seconds: of embedding, and of choosing.
    """

    archive: Source
    selection: Selection
    why: Why
    path: Path
    options: dict[str, Any] = field(repr=False)
    seconds: tuple[float, float] = (0.0, 0.0)

    @property
    def indices(self) -> np.ndarray:
        """Positions of the kept samples in the archive."""
        return self.selection.indices

    @property
    def kept(self) -> list[str]:
        """Names of the kept samples."""
        return [str(self.archive.names[i]) for i in self.indices]

    @property
    def source(self) -> Source:
        """The kept samples as a source."""
        return self.archive.subset(self.indices, "curated")

    def summary(self) -> str:
        """Some lines: how many were kept, why the others were dropped, where it lies."""
        n, why = len(self.archive), self.why
        lines = [f"kept {len(np.unique(self.indices))} of {n} samples of {self.archive.name}"]
        lines += [f"  {count:8d}  {reason}" for reason in REASONS if (count := why.count(reason))]
        lines += [self.selection.note] if self.selection.note else []
        return "\n".join([*lines, f"list, reasons and report: {self.path}"])


def curate(
    source: Any,
    keep: float | None = None,
    *,
    encoder: str | Path | Method = "pixels",
    out: str | Path | None = None,
    eps: float | None = None,
    seed: int = 0,
    split: str = "all",
    backend: Backend = "torch",
    say: Callable[[str], None] = lambda line: None,
    **options: Any,
) -> Curated:
    """Choose the samples of a source that are worth keeping.

    Args:
        source: what `selftaught.data.open_source` takes.
        keep: share above 0 and at most 1, or from 2 on a number of samples.
        encoder: a run's folder, "timm:NAME" (pretrained), a method, or "pixels": the picture itself, which finds
            near-duplicates and little else.
        out: folder to write; None: a new one under ``runs/``.
        eps: with ``selection="semdedup"`` in place of ``keep``: drop what has a cosine above 1 - eps with a kept one.
        seed: of starts and draws.
        split: part of the source.
        backend: of k-means, "torch" or "faiss".
        say: called with a line before each part.
        **options: of `selftaught.data.curation.SelectionOptions` (``selection``, ``levels``, ``eta`` ...).

    Raises:
        UserError: neither or both of keep and eps, an unknown option, a run that is none, other channels; another
            process writes to ``out``.
    """
    rule = _rule(options)
    archive = open_source(source, split=split)
    target = _target(keep, eps, rule, len(archive))
    method = _seen_by(encoder, archive)
    asked = {"source": str(archive.name), "keep": keep, "eps": eps, "encoder": str(encoder), "seed": seed}
    asked |= {"split": split} | dataclasses.asdict(rule)
    folder = new_folder(None if out is None else str(out), "curate", archive.name)
    with applying.held(folder.with_name(f"{folder.name}.lock"), f"--out {typed(folder)}"):
        began = time.monotonic()
        say(f"embedding {plural(len(archive), 'sample')}")
        x = feature_table(method, archive, method.features)
        if encoder == "pixels":
            x -= np.nanmean(x, axis=0)
        embedded = time.monotonic() - began
        say(f"choosing {f'{target} of them' if target else f'by eps {eps}'}: {rule.selection}")
        selection = choose(x, target, rule, eps=eps, seed=seed, backend=backend)
        why = reasons(x, selection)
        found = Curated(archive, selection, why, folder, asked, (embedded, time.monotonic() - began - embedded))
        say("writing list, reasons and report")
        _in_place(found)
        return found


def _rule(options: dict[str, Any]) -> SelectionOptions:
    known = [f.name for f in dataclasses.fields(SelectionOptions)]
    for name in options:
        if name not in known:
            raise UserError(f"curate has no option {name!r}; it has {', '.join(known)}")
    return SelectionOptions(**options)


def _target(keep: float | None, eps: float | None, rule: SelectionOptions, count: int) -> int | None:
    if eps is not None and rule.selection != "semdedup":
        raise UserError(f"--eps {eps:g} is for --selection semdedup, not {rule.selection}: give --keep")
    if (keep is None) == (eps is None):
        raise UserError("how much to keep: give --keep 0.1, or for --selection semdedup --eps 0.05")
    if keep is None:
        return None
    if not keep > 0 or (keep > 1 and (keep != int(keep) or keep > count)):
        raise UserError(f"--keep {keep:g}: a share above 0 and at most 1, or a number of samples from 2 to {count}")
    return int(keep) if keep > 1 else max(1, round(keep * count))


def _seen_by(encoder: str | Path | Method, archive: Source) -> Method:
    """The method whose features tell samples apart."""
    if isinstance(encoder, Method):
        return encoder.eval()
    if str(encoder) == "pixels":
        return pixel_method(archive)
    if str(encoder).startswith("timm:"):
        return timm_method(str(encoder), archive)
    from selftaught.run import load

    if not Path(encoder).exists():
        raise UserError(f"--encoder {typed(encoder)}: no such run folder{hint(str(encoder), '--encoder')}")
    method = load(encoder).method
    if method.output not in _EMBEDDING:
        raise UserError(f"--encoder {typed(encoder)}: {method.slug} gives no embedding; name a run of an encoder")
    if method.modality != archive.modality:
        learnt, held = (kind_of(one).plural for one in (method.modality, archive.modality))
        raise UserError(f"--encoder {typed(encoder)}: a run on {learnt}, and {archive.name} holds {held}")
    check_channels(method, archive)
    return method


def _in_place(found: Curated) -> None:
    """Put everything into the folder in one step: a command that was cut off leaves an empty one, and is given again.

    Raises:
        UserError: it can't be written.
    """
    part = found.path.with_name(f"{found.path.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
    try:
        with writing(found.path):
            part.mkdir()
            _write(found, part)
            found.path.rmdir()
            part.rename(found.path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write(found: Curated, path: Path) -> None:
    """The list, the table, a JSON that says how, and the page."""
    archive, why = found.archive, found.why
    write_text(path / "kept.txt", name_lines(found.kept))
    times = np.bincount(found.indices, minlength=len(archive))
    tree = found.selection.tree
    rows = []
    for i, name in enumerate(archive.names):
        near = why.nearest[i]
        distance = "" if tree is None or why.leaf[i] < 0 else f"{tree.distances[i]:.5f}"
        twin = (archive.names[near], f"{why.cosine[i]:.5f}") if near >= 0 else ("", "")
        rows.append([name, int(times[i]), why.reason[i], why.leaf[i], distance, *twin])
    write_csv(path / "selection.csv", ("name", "kept", "reason", "cluster", "distance", "nearest_kept", "cosine"), rows)
    counts = {reason: why.count(reason) for reason in REASONS}
    facts = {"samples": len(archive), "kept": len(np.unique(found.indices)), "mode": found.selection.mode}
    facts |= {"note": found.selection.note, "reasons": counts, "options": found.options}
    facts |= {"clusters": [len(c) for c in tree.centroids] if tree is not None else []}
    facts |= {"seconds": {"embedding": round(found.seconds[0], 2), "choosing": round(found.seconds[1], 2)}}
    write_json(path / "selection.json", facts | {"fingerprint": archive.fingerprint()})
    write_selection(path / "report.html", curating_page.page(found))
