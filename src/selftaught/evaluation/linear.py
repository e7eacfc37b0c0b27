"""Linear probes on frozen features: the regularised optimum, and the SGD recipes of the papers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.evaluation._inputs import (
    Array,
    Coded,
    as_labels,
    code_labels,
    feature_pair,
    join_notes,
    validation_folds,
)
from selftaught.evaluation._protocol import protocol
from selftaught.evaluation._threads import threads_for
from selftaught.evaluation.classification import judge
from selftaught.evaluation.logistic import moments
from selftaught.evaluation.probe import STRENGTHS, fit_probe
from selftaught.evaluation.result import Result

__all__ = ["linear", "linear_sgd"]

HOLD_OUT_FROM = 1000

RECIPES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "barlow-twins": {"optimizer": "sgd", "lr": 0.3, "weight_decay": 1e-6, "batch": 256, "cosine": True},
        "moco": {"optimizer": "sgd", "lr": 30.0, "weight_decay": 0.0, "batch": 256, "cosine": False},
        "dcl-cifar": {"optimizer": "adam", "lr": 1e-3, "weight_decay": 1e-6, "batch": 256, "cosine": False},
        "frame-projections": {"optimizer": "adam", "lr": 0.03, "weight_decay": 0.0, "batch": 256, "cosine": True},
        "medmnist": {"optimizer": "sgd", "lr": (0.01, 0.03, 0.1, 0.3, 1.0), "weight_decay": 0.0, "batch": 256,
                     "cosine": True},
        "cvrl": {"optimizer": "sgd", "lr": 32.0, "weight_decay": 0.0, "batch": 1024, "cosine": True},
    }
)  # fmt: skip
"""The linear-probe recipes of the spec sheets, by slug ("moco" is what DCL uses on ImageNet). All run 100 epochs."""


@protocol("linear", "logistic regression, regularisation chosen on held-out samples", inputs="split")
def linear(
    train_x: Array,
    train_y: Array,
    test_x: Array,
    test_y: Array,
    *,
    strengths: Sequence[float] = STRENGTHS,
    groups: Array | None = None,
    auc: Literal["ovr", "ovo"] = "ovr",
    class_values: Sequence[float] | None = None,
    seed: int = 0,
) -> Result:
    """Multinomial logistic regression on standardised features, its regularisation chosen on held-out training samples.

    From 1000 training samples on, one stratified fifth is held out; below, five-fold cross-validation. The strength
    with the best held-out accuracy (then the lowest log-loss) is refitted on all training samples.

    Args:
        train_x: ``(n, d)``; images are flattened, which makes the raw-input baseline.
        train_y: ``(n,)`` or ``(n, 1)`` class indices.
        test_x: ``(m, d)``.
        test_y: ``(m,)`` or ``(m, 1)``.
        strengths: the grid of C in ``sum CE + ||W||^2 / (2C)``, default 1e-5 ... 100; a single one is used as it is.
        groups: ``(n,)`` subject or recording of the training samples: the held-out part then shares none of them.
        auc: macro area under the ROC curve one-vs-rest or one-vs-one.
        class_values: the quantity that each class stands for, in the order of the sorted classes; adds MAE, RMSE, MAPE
            and rho of the arg-max class.
        seed: of the hold-out.

    Returns:
        ``Result`` "linear": accuracy, (top5,) balanced accuracy, F1, weighted F1, kappa, AUC, each with an interval
        over test items; figures ``confusion``, ``per_class``, ``regularisation`` (the grid, its held-out accuracy, the
        choice).

    Raises:
        UserError: NaN features, widths or lengths that do not match, a single class, an empty grid.
    """
    train, test = feature_pair(train_x, test_x)
    coded = code_labels(train_y, test_y, len(train), len(test))
    groups = None if groups is None else as_labels(groups, len(train), "groups")
    probe = fit_probe(
        train,
        coded.train,
        test,
        len(coded.classes),
        strengths=strengths,
        folds=5 if np.bincount(coded.train).max() > 1 else 0,
        use_folds=1 if len(train) >= HOLD_OUT_FROM and groups is None else None,
        rng=np.random.default_rng(seed),
        groups=groups,
    )
    numbers, figures = judge(probe.scores, coded.test, coded.classes, auc=auc, class_values=class_values)
    chosen = {"strengths": probe.strengths, "accuracy": probe.accuracy, "chosen": probe.strength}
    stopped = "" if probe.converged else "the fit stopped before it met its tolerance"
    return Result("linear", numbers, {**figures, "regularisation": chosen}, join_notes(coded.note, stopped))


@protocol("linear-sgd", "the papers' linear probe: one layer by SGD or Adam", inputs="split")
def linear_sgd(
    train_x: Array,
    train_y: Array,
    test_x: Array,
    test_y: Array,
    *,
    recipe: str = "barlow-twins",
    optimizer: Literal["sgd", "adam"] | None = None,
    lr: float | Sequence[float] | None = None,
    weight_decay: float | None = None,
    batch: int | None = None,
    cosine: bool | None = None,
    epochs: int = 100,
    standardise: bool = False,
    auc: Literal["ovr", "ovo"] = "ovr",
    class_values: Sequence[float] | None = None,
    seed: int = 0,
) -> Result:
    """The papers' linear probe: one layer on frozen features by SGD (momentum 0.9) or Adam, weights N(0, 0.01), bias 0.

    The accuracy is that of the last epoch, not the best one on the test set that some reference codes report.

    Args:
        train_x: ``(n, d)``, as ``linear``.
        train_y: ``(n,)`` or ``(n, 1)``.
        test_x: ``(m, d)``.
        test_y: ``(m,)`` or ``(m, 1)``.
        recipe: one of ``RECIPES``, the defaults of what follows; "barlow-twins" is SGD at 0.3, decay 1e-6, batch 256.
        optimizer: "sgd" or "adam".
        lr: learning rate; of several, the one with the best accuracy on a held-out fifth of the training samples.
        weight_decay: L2 decay of weights and bias.
        batch: batch size.
        cosine: decay the learning rate to 0 by a half cosine, stepped per epoch.
        epochs: default 100.
        standardise: by the training features' mean and deviation; the papers do not.
        auc: as ``linear``.
        class_values: as ``linear``.
        seed: of initialisation, order and hold-out.

    Returns:
        ``Result`` "linear-sgd" with the numbers of ``linear``; figure ``history`` (mean training loss per epoch).

    Raises:
        UserError: as ``linear``; an unknown recipe or optimizer; a loss that is no longer finite.
    """
    if recipe not in RECIPES:
        raise UserError(f"recipe: no {recipe!r}; one of {', '.join(RECIPES)}")
    given = {"optimizer": optimizer, "lr": lr, "weight_decay": weight_decay, "batch": batch, "cosine": cosine}
    options = {**RECIPES[recipe], **{key: value for key, value in given.items() if value is not None}}
    train, test = feature_pair(train_x, test_x)
    coded = code_labels(train_y, test_y, len(train), len(test))
    if standardise:
        mean, scale = moments(train)
        train, test = (train - mean) / scale, (test - mean) / scale
    options |= {"epochs": epochs, "seed": seed}
    rates = options.pop("lr")
    rate = rates if isinstance(rates, int | float) else _choose_rate(train, coded, tuple(rates), options)
    weight, bias, history = _train(train, coded.train, lr=float(rate), **options)
    scores = _scores(test, weight, bias, coded)
    numbers, figures = judge(scores, coded.test, coded.classes, auc=auc, class_values=class_values)
    note = join_notes(coded.note, "" if rate == rates else f"learning rate {rate:g} chosen on held-out samples")
    return Result("linear-sgd", numbers, {**figures, "history": history}, note)


def _choose_rate(x: Tensor, coded: Coded, rates: tuple[float, ...], options: dict[str, Any]) -> float:
    if not rates:
        raise UserError("lr: empty; pass one learning rate or several to choose from")
    held = validation_folds(coded.train, 5, np.random.default_rng(options["seed"]))[:, 0]
    if len(rates) == 1 or not held.any():
        return rates[0]
    mask = torch.as_tensor(held, device=x.device)
    accuracy = []
    for rate in rates:
        try:
            weight, bias, _ = _train(x[~mask], coded.train[~held], lr=rate, **options)
        except UserError:
            accuracy.append(-1.0)
            continue
        predicted = (x[mask] @ weight.T + bias).argmax(1).cpu().numpy()
        accuracy.append(float((np.unique(coded.train[~held])[predicted] == coded.train[held]).mean()))
    return rates[int(np.argmax(accuracy))]


def _train(
    x: Tensor,
    y: np.ndarray,
    *,
    optimizer: str,
    lr: float,
    weight_decay: float,
    batch: int,
    cosine: bool,
    epochs: int,
    seed: int,
) -> tuple[Tensor, Tensor, list[float]]:
    """Weight ``(k, d)``, bias ``(k,)`` over the classes that occur, and the mean loss of every epoch."""
    if epochs < 1 or batch < 1:
        raise UserError(f"epochs {epochs}, batch {batch}: both must be at least 1")
    known, target = np.unique(y, return_inverse=True)
    labels = torch.as_tensor(target, device=x.device)
    generator = torch.Generator().manual_seed(seed)
    weight = (0.01 * torch.randn(len(known), x.shape[1], generator=generator)).to(x).requires_grad_()
    bias = x.new_zeros(len(known)).requires_grad_()
    if optimizer == "sgd":
        stepper: torch.optim.Optimizer = torch.optim.SGD([weight, bias], lr, momentum=0.9, weight_decay=weight_decay)
    elif optimizer == "adam":
        stepper = torch.optim.Adam([weight, bias], lr, weight_decay=weight_decay)
    else:
        raise UserError(f"optimizer: no {optimizer!r}; sgd or adam")
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(stepper, epochs) if cosine else None
    history: list[float] = []
    with threads_for(batch * weight.numel()):
        for _ in range(epochs):
            total = x.new_zeros(())
            for rows in torch.randperm(len(x), generator=generator).to(x.device).split(batch):
                loss = torch.nn.functional.cross_entropy(x[rows] @ weight.T + bias, labels[rows])
                stepper.zero_grad(set_to_none=True)
                loss.backward()
                stepper.step()
                total += loss.detach() * len(rows)
            history.append(float(total) / len(x))
            if not np.isfinite(history[-1]):
                raise UserError(f"lr: the probe's loss is not finite at {lr:g}; lower it or pass standardise=True")
            if schedule is not None:
                schedule.step()
    return weight.detach(), bias.detach(), history


def _scores(x: Tensor, weight: Tensor, bias: Tensor, coded: Coded) -> np.ndarray:
    scores = np.full((len(x), len(coded.classes)), -np.inf)
    scores[:, np.unique(coded.train)] = torch.log_softmax((x @ weight.T + bias).double(), -1).cpu().numpy()
    return scores
