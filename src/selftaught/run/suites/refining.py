"""A refined encoder beside the one that it began as, by linear probes on one labelled data set or several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from selftaught import evaluation
from selftaught._words import plural
from selftaught.errors import UserError
from selftaught.evaluation import Result
from selftaught.evaluation.refinement import refinement
from selftaught.run import samples
from selftaught.run.contenders import some
from selftaught.run.features import embed
from selftaught.run.initialising import start_from
from selftaught.run.suites._suite import suite

if TYPE_CHECKING:
    from selftaught.run.bench import Bench

__all__ = ["NAME", "judge"]

NAME = "refinement"
_LIMIT = 20_000


@suite(NAME, images_only=False)
def judge(bench: Bench) -> dict[str, Result]:
    """RetFiner's probe protocol: balanced accuracy of refined features (``this``) against the start's, over data sets.

    ``--reference A,B`` names further labelled data sets; Wilcoxon's signed-rank test is over all data sets and seeds.

    Raises:
        UserError: a run that began at random; data without classes.
    """
    if not bench.own.init:
        raise UserError(f"--protocol {NAME} compares with the start: this run began at random, not with --init")
    start = bench.untrained()
    start_from(start, bench.own.init)
    start.to(bench.method.device).eval()
    more = str(bench.options.reference).split(",") if bench.options.reference else []
    sides: dict[str, list[Result]] = {"this": [], "start": []}
    named = []
    for data in (bench.data, *more):
        parts = samples.labelled_parts(data, bench.method.modality, bench.settings)
        if parts is None:
            raise UserError(f"--protocol {NAME} needs classes, {data} has none: give class folders")
        train, test = (some(part, _LIMIT) for part in parts)
        named.append(train.name)
        models: dict[str, Any] = {"this": bench.method, "start": start}
        for side, model in models.items():
            bench.say(f"{NAME}: {side} on {train.name}")
            x, y, _ = embed(model, train)
            tx, ty, _ = embed(model, test)
            assert y is not None
            assert ty is not None
            sides[side].append(evaluation.linear_early_stop(x, y, tx, ty, seeds=bench.seeds))
    note = f"{plural(len(named), 'data set')} ({', '.join(named)}) by {bench.seeds} seeds"
    return {"this": refinement(sides["this"], sides["start"], note=note)}
