"""Fine-tuning of a device's encoder on a share of its labels, users held out, beside an untrained one's and
En-Co-Training.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from selftaught import evaluation, networks
from selftaught._words import plural
from selftaught.data import Source
from selftaught.errors import UserError
from selftaught.evaluation import Number, Result
from selftaught.evaluation.co_training import en_co_training, window_features
from selftaught.evaluation.front_frozen import activity_scores, front_frozen
from selftaught.run import contenders, samples
from selftaught.run.suites._suite import suite

if TYPE_CHECKING:
    from selftaught.run.bench import Bench

__all__ = ["NAME", "judge"]

NAME = "device-finetune"
_LIMIT, _STEPS = 20_000, 3000


@suite(NAME, images_only=False)
def judge(bench: Bench) -> dict[str, Result]:
    """Macro F1 of a classifier on the encoder, its first two convolutions frozen, the rest trained on ``--fraction``.

    With all labels, ``f1_tenth`` is what a tenth of them gives. ``random`` is the same from an untrained encoder;
    ``raw`` is En-Co-Training on the anchor's windows, which learns from the other windows without their labels, too.
    Epochs are 100, fewer where that would be more than 3,000 steps.

    Raises:
        UserError: another method; data without classes.
    """
    method: Any = bench.method
    if not hasattr(method, "encoder") or not isinstance(method.encoder, networks.TPN):
        raise UserError(f"--protocol {NAME} judges the encoder of a device, {method.slug} has none")
    parts = samples.labelled_parts(bench.data, method.modality, bench.settings)
    if parts is None:
        raise UserError(f"--protocol {NAME} needs windows with classes and a test part; {bench.data} has none")
    train, test = (contenders.some(part, _LIMIT) for part in parts)
    fraction, seed, found = bench.options.fraction, bench.settings.seed, {}
    ways: dict[str, Callable[[float], Result]] = {"this": lambda share: _finetuned(method, train, test, share, seed)}
    if bench.baselines:
        plain: Any = bench.untrained()
        ways["random"] = lambda share: _finetuned(plain, train, test, share, seed)
        ways["raw"] = lambda share: _co_trained(method, train, test, share, seed)
    for kind, judged in ways.items():
        bench.say(f"{NAME}: {'En-Co-Training' if kind == 'raw' else kind}")
        found[kind] = judged(fraction)
        if fraction == 1:
            tenth = judged(0.1).numbers["f1"]
            found[kind] = dataclasses.replace(found[kind], numbers=found[kind].numbers | {"f1_tenth": tenth})
    if "raw" in found:  # the page shows the note of this encoder alone
        found["this"] = found["this"].noted("raw input: En-Co-Training")
    return found


def _labelled(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Places of a share of every class's windows."""
    return np.arange(len(labels)) if fraction == 1 else evaluation.subset(labels, fraction=fraction, seed=seed)


def _co_trained(method: Any, train: Source, test: Source, fraction: float, seed: int) -> Result:
    """En-Co-Training: the same labels, and the other training windows without theirs."""
    labels = np.asarray(train.labels)
    rows = _labelled(labels, fraction, seed)
    x, tested = (window_features(_windows(method, part).cpu().numpy()) for part in (train, test))
    rest = np.setdiff1d(np.arange(len(labels)), rows)
    predicted = en_co_training(x[rows], labels[rows], x[rest], tested, seed=seed)
    scores = activity_scores(predicted, np.asarray(test.labels), test.groups, test.group_names)
    scores["f1_last"] = scores["f1"]  # it has no epochs to choose from
    note = f"En-Co-Training on {plural(len(rows), 'labelled window')} and {len(rest)} without labels"
    return Result(NAME, {name: Number.of(value) for name, value in scores.items()}, note=note)


def _finetuned(model: Any, train: Source, test: Source, fraction: float, seed: int) -> Result:
    """A classifier on the model's encoder, from a share of every class's labels."""
    labels = np.asarray(train.labels)
    classes = int(max(labels.max(), np.asarray(test.labels).max())) + 1
    train = train.subset(_labelled(labels, fraction, seed))
    labels = np.asarray(train.labels)
    epochs = max(1, min(100, _STEPS // -(-len(train) // 32)))
    encoder = copy.deepcopy(model.encoder)
    encoder.freeze_front()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = networks.DeviceClassifier(encoder, classes)
    result = front_frozen(
        classifier, _windows(model, train), labels, _windows(model, test), np.asarray(test.labels),
        epochs=epochs, groups=test.groups, group_names=test.group_names, seed=seed,
    )  # fmt: skip
    note = f"{plural(len(train), 'labelled window')}, {plural(epochs, 'epoch')}"
    return dataclasses.replace(result, note=note + (", users held out" if test.groups is not None else ""))


def _windows(method: Any, source: Source) -> torch.Tensor:
    """The anchor's windows (n, C, T), on the method's device."""
    x = torch.stack([torch.from_numpy(source.read(i)) for i in range(len(source))]).to(method.device)
    return x if x.shape[1] == method.per_device else method.split(x)[method.place]
