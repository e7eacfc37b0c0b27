"""Weights of the labels of a whole source, the list of suspects, and whether known wrong labels are among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from selftaught.data import Source
from selftaught.engine.method import Method
from selftaught.errors import UserError
from selftaught.evaluation import Result
from selftaught.evaluation.label_noise import label_noise
from selftaught.objectives import majority_agreement
from selftaught.run import samples
from selftaught.run.contenders import some
from selftaught.run.features import calibrate, raw, through
from selftaught.run.suites._suite import suite

if TYPE_CHECKING:
    from selftaught.run.bench import Bench

__all__ = ["NAME", "Weighed", "judge", "known_labels", "other_ranks", "ranked_by_other", "weigh"]

NAME = "label-noise"
_PASSES, _FOLDS, _LIMIT = 10, 5, 20_000


@dataclass(frozen=True)
class Weighed:
    """What a run says of labels, in the order of the source; samples without a label are left out.

    Attributes:
        index: (n,) positions in the source.
        label: (n,) the given class, by its number in the run.
        weight: (n,) how far it is to be trusted, in [0, 1].
        predicted: (n,) the class that the run would give.
        confidence: (n,) probability that it gives the label.
        agrees: (n,) whether most dropout passes predict the label.
    """

    index: np.ndarray
    label: np.ndarray
    weight: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    agrees: np.ndarray


def known_labels(source: Source, classes: Sequence[str] | None, count: int) -> np.ndarray:
    """(n,) the labels of a source by the numbers of a run's classes, found by name; -1 where there is none.

    Args:
        source: whose labels.
        classes: names of the run's classes, or None.
        count: how many classes the run has.
    """
    if source.labels is None:
        return np.full(len(source), -1, dtype=np.int64)
    codes = np.asarray(source.labels)
    called = list(source.classes or map(str, range(int(codes.max(initial=-1)) + 1)))
    own = list(classes or map(str, range(count)))
    places = {name: k for k, name in enumerate(own)}
    found = np.array([places.get(name, -1) for name in called] + [-1], dtype=np.int64)
    return found[codes]


def weigh(method: Any, source: Source, classes: Sequence[str] | None, *, workers: int = -1) -> Weighed:
    """Weigh every label of a source by 10 dropout passes; groups and BatchNorm see the whole source.

    Raises:
        UserError: no sample with a label of the run's classes.
    """
    labels = known_labels(source, classes, method.classes)
    kept: list[tuple[torch.Tensor, torch.Tensor, np.ndarray]] = []
    plain: list[np.ndarray] = []
    state = torch.random.get_rng_state()

    def found(batch: dict[str, Any]) -> Any:
        given = torch.from_numpy(labels[batch["index"].cpu().numpy()]).to(method.device)
        x = method.inputs(batch)
        probabilities = method.predict(batch).float().softmax(1)
        with dropping(method):
            losses, passes = method.passes(x, given.clamp_min(0), None, _PASSES)
        return losses.cpu(), passes.cpu(), probabilities.cpu().numpy()

    torch.manual_seed(0)
    try:
        for part, index, _ in through(method, source, found, workers=workers, precision="32"):
            if part is not None:
                there = labels[index] >= 0
                rows = torch.from_numpy(np.flatnonzero(there))
                kept.append((part[0][:, rows], part[1][:, rows], index[there]))
                plain.append(part[2][there])
    finally:
        torch.random.set_rng_state(state)
    index = np.concatenate([at for _, _, at in kept]) if kept else np.zeros(0, np.int64)
    if not len(index):
        raise UserError(f"{source.name}: no sample has a label of the run's classes: there is nothing to weigh")
    losses, passes = torch.cat([x for x, _, _ in kept], 1), torch.cat([x for _, x, _ in kept], 1)
    given = torch.from_numpy(labels[index])
    weight = method.weigh(losses, passes, given).numpy().astype(np.float64)
    probabilities = np.concatenate(plain)
    agrees = majority_agreement(passes, given).numpy()
    rows_of = np.arange(len(index))
    return Weighed(index, labels[index], weight, probabilities.argmax(1), probabilities[rows_of, labels[index]], agrees)


class dropping:
    """Dropout at work in a method that is otherwise in evaluation mode."""

    def __init__(self, method: Method) -> None:
        kinds = torch.nn.modules.dropout._DropoutNd
        self.layers = [m for m in method.modules() if isinstance(m, kinds) and not m.training]

    def __enter__(self) -> None:
        for layer in self.layers:
            layer.train()

    def __exit__(self, *_: object) -> None:
        for layer in self.layers:
            layer.eval()


# ---- the protocol ------------------------------------------------------------------------------------------------
@suite(NAME, images_only=False)
def judge(bench: Bench) -> dict[str, Result]:
    """Whether weights find the labels that were made wrong: the run's, an untrained one's, and a plain yardstick's.

    The yardstick (``raw``) is confident learning as cleanlab ranks it: the probability of the given label by a logistic
    regression on the raw input, cross-validated.

    Raises:
        UserError: another method; data whose wrong labels are not known.
    """
    if bench.method.output != "weights":
        raise UserError(f"--protocol {NAME} judges weights of labels, {bench.method.slug} gives none")
    source = training_samples(bench)
    wrong = source.values.get("mislabelled")
    if wrong is None:
        raise UserError(
            f"--protocol {NAME} needs labels that are known to be wrong: {source.name} has none; it can be tried with "
            "--data 'NAME?wrong_labels=0.2'"
        )
    bench.say(f"{NAME}: this")
    found = {}
    mine = weigh(bench.method, source, bench.classes)
    flags = wrong[mine.index] > 0
    found["this"] = label_noise(mine.weight, flags, others={"confidence": mine.confidence})
    if bench.baselines:
        bench.say(f"{NAME}: untrained")
        fresh = bench.untrained()
        calibrate(fresh, source)
        other = weigh(fresh, source, bench.classes)
        found["random"] = label_noise(other.weight, wrong[other.index] > 0)
        bench.say(f"{NAME}: raw")
        ranked, at, how = ranked_by_other(bench.method, source)
        result = label_noise(ranked, wrong[at] > 0)
        found["raw"] = Result(result.name, result.numbers, figures=result.figures, note=how)
    return found


def training_samples(bench: Bench) -> Source:
    """The run's training samples with their labels as they were learnt from, at most 20,000; or other data whole."""
    settings = bench.settings if bench.data != bench.own.data else bench.own
    return some(samples.training_source(bench.data, bench.method.modality, settings), _LIMIT)


def ranked_by_other(method: Method, source: Source) -> tuple[np.ndarray, np.ndarray, str]:
    """`yardstick` of the raw input of a source's labelled samples: quality (m,), their positions (m,), and how."""
    x, labels, index = raw(method, source)
    assert labels is not None
    there = labels >= 0
    ranked, how = yardstick(x[there], labels[there])
    return ranked, index[there], how


def other_ranks(method: Method, source: Source) -> tuple[np.ndarray, str] | None:
    """Rank (n,) of every label by the yardstick, 1 for the most suspicious, 0 without a label; and what it is called.

    None where the yardstick has nothing to say: a single class, or classes of one sample.
    """
    labels = np.asarray(source.labels)
    counts = np.bincount(labels[labels >= 0]) if (labels >= 0).any() else np.zeros(0, np.int64)
    if (counts > 0).sum() < 2 or counts[counts > 0].min() < 2:
        return None
    quality, at, how = ranked_by_other(method, source)
    ranks = np.zeros(len(labels), dtype=np.int64)
    ranks[at[np.argsort(quality, kind="stable")]] = np.arange(1, len(at) + 1)
    return ranks, how


def yardstick(x: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, str]:
    """Label quality (n,) by confident learning, and how it was ranked.

    Args:
        x: (n, d) raw input.
        labels: (n,) given classes.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict
    from sklearn.preprocessing import LabelEncoder

    codes = LabelEncoder().fit_transform(labels)
    folds = max(2, min(_FOLDS, int(np.bincount(codes).min())))
    scaled = (x - x.mean(0)) / max(float(x.std(0).mean()), 1e-8)
    model = LogisticRegression(max_iter=200)
    probabilities = cross_val_predict(model, scaled, codes, cv=folds, method="predict_proba")
    try:
        from cleanlab.rank import get_label_quality_scores
    except ImportError:
        return probabilities[
            np.arange(len(codes)), codes
        ], "self-confidence, cross-validated (cleanlab is not installed)"
    return np.asarray(get_label_quality_scores(codes, probabilities)), "cleanlab's ranking, cross-validated"
