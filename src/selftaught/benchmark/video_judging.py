"""How a network of the video benchmark is judged: probes, retrieval, noise on the test clips, layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from selftaught import evaluation
from selftaught.data import Source
from selftaught.errors import UserError
from selftaught.evaluation.corruptions import SEVERITIES
from selftaught.evaluation.linear import linear
from selftaught.run import samples
from selftaught.run.contenders import some
from selftaught.run.features import batches_of, embed
from selftaught.run.finetuning import finetune_views

_LIMITS = (5000, 2000)
LAYER_SAMPLES = 256

Row = dict[str, Any]


def parts_of(run: Any, spec: str) -> tuple[Source, Source]:
    """Labelled training and test clips of a target."""
    settings = run.settings
    settings.by = "auto"
    found = samples.labelled_parts(spec, "clip", settings)
    if found is None:
        raise UserError(f"{spec}: has no labels to judge by; give class folders")
    return some(found[0], _LIMITS[0]), some(found[1], _LIMITS[1])


def judge(run: Any, parts: tuple[Source, Source], protocols: tuple[str, ...], finetune_epochs: int) -> Row:
    """Numbers of the protocols on one target."""
    model, row = run.method, {}
    x, y, _ = embed(model, parts[0])
    tx, ty, _ = embed(model, parts[1])
    assert y is not None
    assert ty is not None
    if "linear" in protocols:
        row["linear"] = linear(x, y, tx, ty)["accuracy"].mean
    if "recall" in protocols:
        found = evaluation.recall(x, y, tx, ty)
        row |= {name: number.mean for name, number in found.numbers.items()}
    if "finetune" in protocols:
        row["finetune"] = finetune_views(model, parts, epochs=finetune_epochs)["accuracy"].mean
    return row


def under_noise(run: Any, parts: tuple[Source, Source], severities: tuple[int, ...] = SEVERITIES) -> list[Row]:
    """Accuracy of the linear probe on test clips with each kind and severity of noise, and how much is lost.

    The probe learns from clean clips. ``drop`` is in accuracy, ``relative`` its share of the clean accuracy.
    """
    model = run.method
    x, y, _ = embed(model, parts[0])
    clean = _noisy(model, parts[1], "", 0)
    assert y is not None
    accuracy = linear(x, y, *clean)["accuracy"].mean
    rows = []
    for kind in evaluation.VIDEO_NOISE:
        for severity in severities:
            found = linear(x, y, *_noisy(model, parts[1], kind, severity))["accuracy"].mean
            drop = accuracy - found
            row = {"noise": kind, "severity": severity, "clean": accuracy, "linear": found, "drop": drop}
            rows.append(row | {"relative": drop / accuracy if accuracy else 0.0})
    return rows


def _noisy(model: Any, part: Source, kind: str, severity: int) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of clips with noise in every frame, as they reach the network."""
    rng, features, labels = np.random.default_rng(severity), [], []
    for batch in batches_of(model, part, model.evaluation_view()):
        batch.pop("skipped")
        if not len(batch["index"]):
            continue
        if kind:
            for name, value in batch.items():
                if value.ndim == 5:
                    batch[name] = _with_noise(value, kind, severity, rng)
        moved = {name: value.to(model.device) for name, value in batch.items()}
        with torch.inference_mode():
            features.append(model.features(model.prepare(moved)).float().cpu().numpy())
        labels.append(batch["label"].numpy())
    return np.concatenate(features), np.concatenate(labels)


def _with_noise(clips: torch.Tensor, kind: str, severity: int, rng: np.random.Generator) -> torch.Tensor:
    arrays = clips.permute(0, 2, 3, 4, 1).numpy()
    made = np.stack([evaluation.noisy_clip(np.ascontiguousarray(one), kind, severity, rng=rng) for one in arrays])
    return torch.from_numpy(np.rint(made * 255).astype(np.uint8)).permute(0, 4, 1, 2, 3).contiguous()


def layers_of(run: Any, part: Source) -> dict[str, np.ndarray]:
    """Features of every layer on some clips, the same ones for every network: name -> (n, F)."""
    model, found = run.method, []
    for batch in batches_of(model, some(part, LAYER_SAMPLES), model.evaluation_view()):
        batch.pop("skipped")
        if len(batch["index"]):
            moved = {name: value.to(model.device) for name, value in batch.items()}
            with torch.inference_mode():
                layers = model.layers(model.prepare(moved))
            found.append({name: value.float().cpu().numpy() for name, value in layers.items()})
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}
