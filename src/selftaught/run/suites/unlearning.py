"""A model that forgot, beside the one that it was made of and one trained without the forgotten samples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from selftaught._words import typed
from selftaught.data import Source, open_source
from selftaught.engine.method import Method
from selftaught.errors import UserError
from selftaught.evaluation import Result
from selftaught.evaluation.membership import Labelled, unlearning
from selftaught.run import contenders, samples
from selftaught.run.features import embed
from selftaught.run.layout import Layout
from selftaught.run.suites._suite import suite

if TYPE_CHECKING:
    from selftaught.run.bench import Bench

NAME = "unlearning"
_LIMIT_TRAIN, _LIMIT_TEST = 20_000, 10_000


@suite(NAME, images_only=False)
def judge(bench: Bench) -> dict[str, Result]:
    """What ``this`` model, the ``original`` one and a ``retrained`` one (``--reference RUN``) know of the samples.

    Raises:
        UserError: the run forgot nothing; there are no samples that it never saw; a reference of other classes.
    """
    parts = _parts(bench)
    models = _others(bench) | {"this": bench.method}
    found: dict[str, Result] = {}
    reference: Result | None = None
    for kind in models:
        bench.say(f"{NAME}: {kind}")
        sides = [_labelled(models[kind], source) for source in parts]
        shown = bench.baselines or kind == "this"
        found[kind] = unlearning(*sides, reference=reference, attack="trees" if shown else None)
        if kind == "retrained":
            reference = found[kind]
    kinds = ("this", "original", "retrained") if bench.baselines else ("this",)
    return {kind: found[kind] for kind in kinds if kind in found}


def _parts(bench: Bench) -> tuple[Source, Source, Source]:
    """Training samples to keep, those to forget, and samples that no model saw."""
    own, modality = bench.own, bench.method.modality
    if "forget" not in own.streams:
        raise UserError(f"--protocol {NAME} judges a run that was made to forget: selftaught train laf --init RUN")

    def opened(spec: object) -> Source:
        return samples.training_source(spec, modality, own)

    streams = type(bench.method).streams(opened(own.data), dict(own.streams), opened)
    options: dict[str, object] = {"modality": modality, "seed": own.seed}
    if bench.data == own.data:
        try:
            unseen = open_source(own.data, split="test", by=own.by, **options)  # type: ignore[arg-type]
        except UserError as error:
            raise UserError(f"--protocol {NAME} needs samples that were not trained on: --data ({error})") from error
    else:
        unseen = open_source(bench.data, split="all", **options)  # type: ignore[arg-type]
    limits = (("remain", _LIMIT_TRAIN), ("forget", _LIMIT_TRAIN))
    kept, gone = (contenders.some(streams[role], limit) for role, limit in limits)
    return kept, gone, contenders.some(unseen, _LIMIT_TEST)


def _others(bench: Bench) -> dict[str, Method]:
    """The reference, where one is named, and the original run, where it is still there."""
    from selftaught.run import load

    found: dict[str, Method] = {}
    init, reference = bench.own.init, bench.options.reference
    if reference is not None:
        if not isinstance(reference, str | Path) or not Layout(reference).config.exists():
            raise UserError(
                f"--reference {typed(reference)}: no run; give the folder of one trained without these samples"
            )
        found["retrained"] = load(reference).method
        if found["retrained"].classes != bench.method.classes:
            raise UserError(f"--reference {typed(reference)}: a run of other classes")
    if init and bench.baselines:
        if Layout(init).weights.exists():
            found["original"] = load(init).method
        else:
            bench.say(f"{NAME}: the original run {init} is gone")
    return found


def _labelled(method: Method, source: Source) -> Labelled:
    scores, labels, _ = embed(method, source, predict=True)
    return Labelled(scores, labels)
