"""Fine-tuning with a frozen front: a classifier on an encoder whose first layers stay as they are (ColloSSL)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from selftaught.errors import UserError
from selftaught.evaluation._protocol import protocol
from selftaught.evaluation.result import Number, Result

__all__ = ["activity_scores", "front_frozen", "macro_f1"]


def macro_f1(predicted: np.ndarray, truth: np.ndarray, weighted: bool = False) -> float:
    """Mean over the classes that occur in the truth of 2 TP / (2 TP + FP + FN), or weighted by their numbers."""
    scores, sizes = [], []
    for k in np.unique(truth):
        hits = int(((predicted == k) & (truth == k)).sum())
        wrong = int((predicted == k).sum()) + int((truth == k).sum()) - 2 * hits
        scores.append(2 * hits / (2 * hits + wrong) if hits or wrong else 0.0)
        sizes.append(int((truth == k).sum()))
    return float(np.average(scores, weights=sizes if weighted else None))


def activity_scores(
    predicted: np.ndarray, truth: np.ndarray, groups: np.ndarray | None = None, names: Sequence[str] | None = None
) -> dict[str, float]:
    """``f1`` (macro), ``weighted_f1``, ``accuracy``, and of every user the macro F1 as ``f1: user NAME``.

    Args:
        predicted: (m,) classes.
        truth: (m,).
        groups: (m,) which user each sample is of; None: no scores by user.
        names: of the users, by their number; None: the number is the name.

    Raises:
        UserError: lengths that differ.
    """
    predicted, truth = np.asarray(predicted), np.asarray(truth)
    if len(predicted) != len(truth) or not len(truth) or (groups is not None and len(groups) != len(truth)):
        raise UserError(f"{len(predicted)} predictions for {len(truth)} labels: one for each, at least one")
    found = {
        "f1": macro_f1(predicted, truth), "weighted_f1": macro_f1(predicted, truth, weighted=True),
        "accuracy": float((predicted == truth).mean()),
    }  # fmt: skip
    for group in [] if groups is None else np.unique(groups).tolist():
        own = np.asarray(groups) == group
        called = str(group) if names is None else names[int(group)]
        found[f"f1: user {called}"] = macro_f1(predicted[own], truth[own])
    return found


@protocol("device-finetune", "a device's encoder on a few labels, its front frozen", inputs="devices")
def front_frozen(
    classifier: nn.Module,
    train_x: Tensor,
    train_y: np.ndarray,
    test_x: Tensor,
    test_y: np.ndarray,
    *,
    epochs: int = 100,
    lr: float = 1e-4,
    batch: int = 32,
    validation: float = 0.2,
    groups: np.ndarray | None = None,
    group_names: Sequence[str] | None = None,
    seed: int = 0,
) -> Result:
    """Train what of a classifier is not frozen; the weights of the lowest validation loss and the last are both tested.

    Args:
        classifier: windows to logits; parameters without gradient stay as they are. It is not changed itself.
        train_x: (n, C, T).
        train_y: (n,) classes from 0.
        test_x: (m, C, T).
        test_y: (m,).
        epochs: passes over the training windows.
        lr: of Adam.
        batch: windows of a step.
        validation: share of the training windows that is held out.
        groups: (m,) user of each test window; each gets a ``f1: user NAME``.
        group_names: of the users, by their number; None: the number is the name.
        seed: of the split, the order and dropout.

    Returns:
        ``f1`` (macro, best validation loss), ``f1_last`` (last epoch), ``f1_better`` (the better of the two, as the
        authors report it: optimistic), ``weighted_f1`` and ``accuracy`` of the first.

    Raises:
        UserError: too few windows, or sizes that do not fit.
    """
    if len(train_x) != len(train_y) or len(test_x) != len(test_y):
        raise UserError(f"{len(train_x)} and {len(test_x)} windows for {len(train_y)} and {len(test_y)} labels")
    held = max(1, round(validation * len(train_x)))
    if len(train_x) - held < 1 or not len(test_x):
        raise UserError(f"{len(train_x)} labelled windows are too few to hold a validation part out of them")
    order = np.random.default_rng(seed).permutation(len(train_x))
    watch, rows = torch.from_numpy(order[:held]), torch.from_numpy(order[held:])
    y = torch.from_numpy(np.asarray(train_y, dtype=np.int64)).to(train_x.device)
    with torch.random.fork_rng([train_x.device] if train_x.device.type == "cuda" else []):
        torch.manual_seed(seed)
        model = copy.deepcopy(classifier).to(train_x.device)
        best, last = _fit(model, train_x, y, rows, watch, epochs=epochs, lr=lr, batch=batch)
    found = {}
    for name, state in (("best", best), ("last", last)):
        model.load_state_dict(state)
        model.eval()
        with torch.no_grad():
            found[name] = torch.cat([model(part).argmax(1) for part in test_x.split(512)]).cpu().numpy()
    values = activity_scores(found["best"], test_y, groups, group_names)
    last = macro_f1(found["last"], test_y)
    values |= {"f1_last": last, "f1_better": max(values["f1"], last)}
    return Result("device-finetune", {name: Number.of(value) for name, value in values.items()})


def _fit(model: nn.Module, x: Tensor, y: Tensor, rows: Tensor, watch: Tensor, **options: Any) -> tuple[Any, Any]:
    """State of the lowest validation loss, and the last."""
    free = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(free, lr=options["lr"])
    best, least = copy.deepcopy(model.state_dict()), float("inf")
    for _ in range(options["epochs"]):
        model.train()
        for part in rows[torch.randperm(len(rows))].split(options["batch"]):
            loss = cross_entropy(model(x[part]), y[part])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            watched = float(cross_entropy(model(x[watch]), y[watch]))
        if watched < least:
            best, least = copy.deepcopy(model.state_dict()), watched
    return best, copy.deepcopy(model.state_dict())  # loading the best writes into the model's own tensors
