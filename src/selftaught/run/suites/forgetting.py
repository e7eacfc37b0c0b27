"""What a fine-tuned model of images and texts still knows of what its start knew, at every mixture of the two.

Weights between start and end keep much of both (WiSE-FT, Wortsman et al., CVPR 2022, arXiv 2109.01903):

    theta_a = (1 - a) theta_start + a theta_trained,      a = 0, 0.1 ... 1
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from selftaught.data import Source, open_source
from selftaught.engine.loader import divides
from selftaught.errors import UserError
from selftaught.evaluation import Number, Result
from selftaught.evaluation.forgetting import forgetting
from selftaught.run import samples, weights
from selftaught.run.contenders import some
from selftaught.run.initialising import start_from
from selftaught.run.layout import Layout
from selftaught.run.suites import image_text
from selftaught.run.suites._suite import suite
from selftaught.run_settings import Settings

if TYPE_CHECKING:
    from selftaught.run.bench import Bench

__all__ = ["NAME", "SHARES", "between", "judge", "listing"]

NAME = "forgetting"
SHARES = tuple(round(k / 10, 1) for k in range(11))
"""Shares a of the trained weights that are tried."""
_LIMIT = 1000
_START, _OWN = "start's data", "own data"


@dataclass(frozen=True)
class _Judged:
    """Samples that a model is judged on by words: some with named classes, some with captions, or both."""

    name: str
    labelled: Source | None
    captioned: Source | None

    def measure(self, model: Any, templates: Any) -> dict[str, float]:
        """Zero-shot accuracy and the mean of R@1 both ways, those that the samples admit."""
        found = {}
        if self.labelled is not None:
            found["zero-shot"] = image_text.zero_shot(model, self.labelled, templates)["accuracy"].mean
        if self.captioned is not None:
            result = image_text.text_retrieval(model, self.captioned)
            found["R@1"] = (result["image_to_text_r1"].mean + result["text_to_image_r1"].mean) / 2
        return found


@suite(NAME)
def judge(bench: Bench) -> dict[str, Result]:
    """The sweep between start and end on the start's data and on the data it was fine-tuned on (or ``--data``).

    Returns:
        ``this``: of the weights that the run keeps, ``zero-shot`` and ``R@1`` on both data, and what was lost of them
        on the start's; ``figures["sweep"]`` holds a row of the same numbers for every share. ``original``: the start's.

    Raises:
        UserError: the run began at random, keeps nothing of its training, or the start's data are not known.
    """
    image_text.worded(bench.method)
    init, share = bench.own.init, float(getattr(bench.method.config, "interpolate", 1.0))
    if not init:
        raise UserError(f"--protocol {NAME} compares with the start: this run began at random, not with --init")
    if share == 0:
        raise UserError(f"--protocol {NAME}: interpolate=0, the run keeps nothing but its start")
    both = {_START: _of_start(bench, init), _OWN: _opened(bench.data, bench.settings, bench)}
    templates, model = image_text.prompts(bench.options.templates), bench.untrained()
    start_from(model, init)
    model.to(bench.method.device)
    began = {name: value.clone() for name, value in model.deliverable().state_dict().items()}
    kept = bench.method.deliverable().state_dict()
    rows = []
    for a in sorted({*SHARES, round(share, 4)}):
        model.deliverable().load_state_dict(between(began, kept, a / share))
        model.eval()
        row = {"share": a} | {
            f"{measure}, {where}": value
            for where, data in both.items()
            for measure, value in data.measure(model, templates).items()
        }
        rows.append(row)
        bench.say(f"{NAME}: {a:g} trained: " + ", ".join(f"{k} {v:.3f}" for k, v in row.items() if k != "share"))
    note = f"{share:g} of the trained weights; start's data {both[_START].name}, own data {both[_OWN].name}"
    of_start = [name for name in rows[0] if name.endswith(_START)]
    this = forgetting(rows, round(share, 4), of_start=of_start, note=note)
    start = {name: Number.of(value) for name, value in rows[0].items() if name != "share"}
    return {"this": this, "original": Result(NAME, start, note="the start")}


def between(began: Mapping[str, Tensor], kept: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Weights on the line through two networks: 0 is the start, 1 what was kept, more lies beyond it."""
    return {
        name: torch.lerp(began[name].to(value), value, share) if value.is_floating_point() else value
        for name, value in kept.items()
    }


def listing(result: Result) -> dict[str, Any]:
    """The sweep as a table of the report."""
    rows, kept = result.figures["sweep"], result.figures["kept"]
    columns = [name for name in rows[0] if name != "share"]
    return {
        "title": "Between start and end",
        "note": f"0 is the start, 1 as trained; the run keeps {kept:g} (--interpolate). {result.note}",
        "columns": ["share of trained weights", *columns],
        "rows": [[row["share"], *(round(row[name], 4) for name in columns)] for row in rows],
        "pictures": None,
    }


def _of_start(bench: Bench, init: str) -> _Judged:
    """What the start learnt from: as told, else as the run that it was says."""
    if bench.options.reference is not None:
        return _opened(bench.options.reference, Settings(), bench)
    if weights.foreign(init) or not Layout(init).config.exists():
        raise UserError(
            f"--protocol {NAME}: what {init} learnt from is not known; give such data with --reference DATA"
        )
    settings = Settings(**Layout(init).read_config()["settings"])
    return _opened(settings.data, settings, bench)


def _opened(data: Any, settings: Settings, bench: Bench) -> _Judged:
    """The test part of labelled samples, and captioned ones: their test part, or all."""
    options: dict[str, Any] = {"modality": "image", "seed": settings.seed, "by": settings.by}
    parts = samples.labelled_parts(data, "image", settings)
    labelled = some(parts[1], _LIMIT) if parts is not None and len(parts[1].classes or ()) > 1 else None
    whole = open_source(data, split="all", **options)
    captioned = None
    if "text" in whole.fields:
        apart = divides(whole, settings.by)
        captioned = some(open_source(data, split="test", **options) if apart else whole, _LIMIT)
    if labelled is None and captioned is None:
        raise UserError(f"--protocol {NAME}: {data} has neither named classes nor captions")
    name = whole.name if isinstance(data, str | Path) else str(data)
    return _Judged(name, labelled, captioned)
