"""The synthetic study of projection heads: what gradient descent does to linear layers, beside its closed form.

A sample has independent features j of strength phi_j; augmentation adds noise of deviation sigma_j to each. Layers
W_L ... W_1 without nonlinearity are trained on the population's spectral loss (arXiv 2403.11391):

    L(W) = tr((W M W^T)^2) - 2 tr(W S W^T),   W = W_L ... W_1,   S = diag(phi^2),   M = diag(phi^2 + sigma^2)

Its minimum weighs feature j by c_j = phi_j / (phi_j^2 + sigma_j^2), the length of W's column j. From a balanced start
the layers share that evenly: after layer l the weight is c_j^(l/L). Weights grow more unequal layer by layer; a feature
that augmentation destroys, or that is too weak or too strong beside the others, is better kept before the head.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from selftaught import evaluation, networks, objectives
from selftaught.data import open_source, to_unit
from selftaught.errors import UserError

PHI = (1.0, 0.7, 0.5, 0.3)
SIGMA = (0.5, 0.2, 0.6, 0.1)
"""The example of the study: four features, and how much augmentation disturbs each."""


def feature_weights(
    phi: Sequence[float], sigma: Sequence[float], layers: int = 2, width: int | None = None
) -> np.ndarray:
    """Closed form: the weight of every feature after every layer, (L, F) float64.

    Args:
        phi: F strengths.
        sigma: F deviations of the noise that augmentation adds.
        layers: L; the last one is the head.
        width: narrowest layer; below F only the features with the largest phi^2 / (phi^2 + sigma^2) survive.

    Raises:
        UserError: lengths that differ, a feature without strength and noise, no layer, no width.
    """
    strength, noise = _features(phi, sigma)
    if layers < 1 or (width is not None and width < 1):
        raise UserError(f"layers={layers}, width={width}: give 1 or more")
    energy = strength**2 + noise**2
    weight = strength / energy
    if width is not None and width < len(weight):
        weight[np.argsort(-(strength**2) / energy, kind="stable")[width:]] = 0.0
    return weight[None] ** (np.arange(1, layers + 1)[:, None] / layers)


def lowest_loss(phi: Sequence[float], sigma: Sequence[float]) -> float:
    """Closed form: the minimum of the loss, -sum_j phi_j^4 / (phi_j^2 + sigma_j^2)^2."""
    strength, noise = _features(phi, sigma)
    return -float((strength**4 / (strength**2 + noise**2) ** 2).sum())


def train_layers(
    phi: Sequence[float],
    sigma: Sequence[float],
    *,
    layers: int = 2,
    width: int = 6,
    kappa: float | None = None,
    lr: float = 0.05,
    steps: int = 40_000,
    scale: float = 0.05,
    balanced: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """Gradient descent on the population's loss in float64.

    Args:
        phi: F strengths.
        sigma: F deviations of the noise.
        layers: L trained layers.
        width: of every layer.
        kappa: puts the fixed reweighting head diag(kappa^-i) on top of the trained layers.
        lr: rate.
        steps: of gradient descent.
        scale: size of the initial weights: their deviation, or with ``balanced`` their singular values.
        balanced: start with W_l W_l^T = W_(l+1)^T W_(l+1) exactly; a random start must be small for that, and then deep
            networks stay near zero for long.
        seed: of the initial weights.

    Returns:
        ``weights``: (L, F) length of the columns of W_l ... W_1 for l = 1..L, with ``kappa`` a row more, after the
        head; ``loss``: the last value; ``history``: (steps / 100,) losses.

    Raises:
        UserError: as :func:`feature_weights`, or the loss is not finite any more.
    """
    strength, noise = _features(phi, sigma)
    if layers < 1 or width < 1:
        raise UserError(f"layers={layers}, width={width}: give 1 or more")
    trained = _start(len(strength), width, layers, scale, balanced, np.random.default_rng(seed))
    head = [] if kappa is None else [np.diag(kappa ** -np.arange(width, dtype=float))]
    shared, energy = strength**2, strength**2 + noise**2
    history = []
    for step in range(steps):
        whole = _products(trained + head)
        gradient, loss = _gradient(whole[-1], shared, energy)
        if not np.isfinite(loss):
            raise UserError(f"lr={lr}: the loss is not finite after {step} steps; lower it")
        if step % 100 == 0:
            history.append(loss)
        for h in head:
            gradient = h.T @ gradient
        behind = gradient
        for i in reversed(range(layers)):
            own = behind @ whole[i - 1].T if i else behind
            behind = trained[i].T @ behind
            trained[i] = trained[i] - lr * own
    whole = _products(trained + head)
    loss = _gradient(whole[-1], shared, energy)[1]
    return {"weights": np.stack([np.linalg.norm(w, axis=0) for w in whole]), "loss": loss, "history": history}


def _start(
    features: int, width: int, layers: int, scale: float, balanced: bool, rng: np.random.Generator
) -> list[np.ndarray]:
    if not balanced:
        shapes = [(width, features)] + [(width, width)] * (layers - 1)
        return [scale * rng.standard_normal(shape) for shape in shapes]
    rank = min(width, features)
    bases = [np.linalg.qr(rng.standard_normal((features, rank)))[0]]
    bases += [np.linalg.qr(rng.standard_normal((width, rank)))[0] for _ in range(layers)]
    return [scale * after @ before.T for before, after in pairwise(bases)]


def _features(phi: Sequence[float], sigma: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    strength, noise = np.asarray(phi, float), np.asarray(sigma, float)
    if strength.ndim != 1 or strength.shape != noise.shape or not len(strength):
        raise UserError(f"phi has {strength.size} features and sigma {noise.size}: give as many of both, at least one")
    if (strength < 0).any() or (noise < 0).any() or (strength + noise == 0).any():
        raise UserError("phi and sigma must not be negative, nor both 0 for a feature")
    return strength, noise


def _products(matrices: list[np.ndarray]) -> list[np.ndarray]:
    """W_1, W_2 W_1, W_3 W_2 W_1, ..."""
    found = [matrices[0]]
    for matrix in matrices[1:]:
        found.append(matrix @ found[-1])
    return found


def _gradient(w: np.ndarray, shared: np.ndarray, energy: np.ndarray) -> tuple[np.ndarray, float]:
    covariance = (w * energy) @ w.T
    loss = float((covariance**2).sum() - 2 * (w**2 @ shared).sum())
    return 4 * (covariance @ w) * energy - 4 * w * shared, loss


def study(*, steps: int = 20_000, seed: int = 0, say: Callable[[str], None] = print) -> dict[str, Any]:
    """The numbers of the study: depths 1 to 4 of the example, and two sweeps of one feature.

    Args:
        steps: of gradient descent for each depth.
        seed: of the initial weights.
        say: called with a line for each part.

    Returns:
        ``features`` (phi and sigma); ``depths``: per L the trained and the closed weights (L, F), both losses, the
        largest relative difference; ``sweeps``: for "noise" and "strength" the values of sigma_0 or phi_0 and the
        weight of feature 0, as a share of the largest, before (``pre``) and after (``post``) the head.
    """
    depths = []
    for layers in (1, 2, 3, 4):
        found = train_layers(PHI, SIGMA, layers=layers, steps=steps, lr=0.02, scale=0.5, balanced=True, seed=seed)
        closed = feature_weights(PHI, SIGMA, layers)
        error = float((np.abs(found["weights"] - closed) / closed).max())
        depths.append(
            {"layers": layers, "trained": found["weights"].tolist(), "closed": closed.tolist(), "loss": found["loss"],
             "lowest": lowest_loss(PHI, SIGMA), "error": error}
        )  # fmt: skip
        say(f"{layers} layers: loss {found['loss']:.5f} of {lowest_loss(PHI, SIGMA):.5f}, weights within {error:.1e}")
    sweeps = {
        "noise": _sweep("noise", np.geomspace(0.05, 4, 25)),
        "strength": _sweep("strength", np.geomspace(0.05, 4, 25)),
    }
    return {"features": {"phi": list(PHI), "sigma": list(SIGMA)}, "depths": depths, "sweeps": sweeps, "seed": seed}


def _sweep(what: str, values: np.ndarray) -> dict[str, list[float]]:
    """Share of feature 0 among two, the other one having phi 0.7 and sigma 0.2, as its own noise or strength varies."""
    pre, post = [], []
    for value in values:
        first = (1.0, float(value)) if what == "noise" else (float(value), 0.2)
        weights = feature_weights((first[0], 0.7), (first[1], 0.2))
        shares = weights[:, 0] / weights.max(1)
        pre.append(float(shares[0]))
        post.append(float(shares[1]))
    return {"values": values.tolist(), "pre": pre, "post": post}


# ---- digits pasted on objects -------------------------------------------------------------------------------------
def paste(objects: Tensor, digits: Tensor, *, digit_scale: float = 1.0, drop_prob: float = 0.0) -> Tensor:
    """One augmented view of objects with a digit on them, in the manner of the paper's MNIST-on-CIFAR images.

    The object is moved by up to 3 pixels and its brightness changed by up to 40 %; then the digit is added in the
    middle, or with some probability left out. Drawn from torch's global generator.

    Args:
        objects: (N, 1, H, W) in [0, 1].
        digits: (N, 1, h, w) in [0, 1], no larger.
        digit_scale: intensity of the digit.
        drop_prob: share of the images whose digit this view loses.

    Returns:
        (N, 1, H, W), not clipped at 1: a faint digit stays visible on a bright object.
    """
    n, _, height, width = objects.shape
    h, w = digits.shape[2:]
    moves = torch.randint(7, (n, 2))
    rows, columns = moves[:, :1] + torch.arange(height), moves[:, 1:] + torch.arange(width)
    padded = pad(objects, (3, 3, 3, 3))[:, 0]
    moved = padded[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]][:, None]
    view = moved * (0.6 + 0.8 * torch.rand(n, 1, 1, 1))
    kept = (torch.rand(n, 1, 1, 1) >= drop_prob) * digit_scale
    top, left = (height - h) // 2, (width - w) // 2
    return view + pad(digits * kept, (left, width - w - left, top, height - h - top))


def digits_study(
    *,
    drop_probs: Sequence[float] = (0.0, 0.5, 0.9),
    digit_scale: float = 1.0,
    head: str = "mlp",
    kappa: float = 1.05,
    samples: int = 1500,
    steps: int = 300,
    seeds: Sequence[int] = (0, 1, 2),
    say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """SimCLR on pasted digits: what do h and z know of the digit, and of the object, if views often lose the digit?

    Args:
        drop_probs: shares of lost digits to try.
        digit_scale: intensity of the digits.
        head: of the study, see ``networks.projection_head``.
        kappa: of the reweighting head.
        samples: objects (Fashion-MNIST) with a digit (scikit-learn's) each; a third is kept for the test.
        steps: of Adam, batch 128.
        seeds: repetitions.
        say: called with a line for each run.

    Returns:
        a dict per drop probability and seed: ``drop_prob``, ``seed`` and the k-NN accuracies ``digit pre``,
        ``digit post``, ``object pre``, ``object post``, measured on images with their digit.
    """
    objects, digits, labels = _pasted_data(samples)
    found = []
    for drop_prob in drop_probs:
        for seed in seeds:
            torch.manual_seed(seed)
            options = {"digit_scale": digit_scale, "drop_prob": drop_prob}
            h, z = _simclr_features(objects, digits, head, kappa, steps, options)
            row: dict[str, Any] = {"drop_prob": drop_prob, "seed": seed}
            first = 2 * samples // 3
            for name, y in labels.items():
                for layer, x in (("pre", h), ("post", z)):
                    score = evaluation.knn(x[:first], y[:first], x[first:], y[first:])["accuracy"].mean
                    row[f"{name} {layer}"] = score
            found.append(row)
            say(", ".join(f"{key} {value:.3g}" for key, value in row.items()))
    return found


def _pasted_data(samples: int) -> tuple[Tensor, Tensor, dict[str, np.ndarray]]:
    from sklearn.datasets import load_digits

    source, written = open_source(f"fashion-mnist?n={samples}", split="all"), load_digits()
    if len(source) < samples or source.labels is None:
        raise UserError(f"samples={samples}: Fashion-MNIST has {len(source)}")
    images = np.stack([to_unit(source.read(i))[:, :, :1] for i in range(samples)])
    objects = interpolate(torch.from_numpy(images).permute(0, 3, 1, 2), (32, 32), mode="bilinear")
    which = np.random.default_rng(0).integers(0, len(written.images), samples)
    digits = torch.from_numpy(written.images[which, None] / 16).float()
    labels = {"digit": written.target[which], "object": np.asarray(source.labels)[:samples]}
    return objects, interpolate(digits, (16, 16), mode="bilinear"), labels


def _simclr_features(
    objects: Tensor, digits: Tensor, head: str, kappa: float, steps: int, options: dict[str, float]
) -> tuple[Tensor, Tensor]:
    """Features before and after the head of a network trained on the first two thirds, of all images as they are."""
    encoder = networks.encoder("resnet10-narrow", channels=1, image_size=32, stem="standard")
    top = networks.projection_head(head, encoder.dim, kappa=kappa)
    optimiser = torch.optim.Adam([*encoder.parameters(), *top.parameters()], 1e-3)
    for _ in range(steps):
        rows = torch.randint(2 * len(objects) // 3, (128,))
        z1, z2 = (top(encoder(paste(objects[rows], digits[rows], **options))) for _ in range(2))
        optimiser.zero_grad()
        objectives.projection_head(z1, z2).backward()
        optimiser.step()
    encoder.eval()
    whole = objects + pad(digits, (8, 8, 8, 8)) * options["digit_scale"]
    with torch.no_grad():
        h = encoder(whole)
        return h, top(h)


def figure(found: dict[str, Any], path: str | Path) -> Path:
    """Draw the study: weights after each layer of the deepest network, and the two sweeps.

    Args:
        found: what :func:`study` returned.
        path: file to write, .svg, .png or .pdf.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    style: dict[Any, Any] = {"svg.hashsalt": "selftaught", "font.size": 9, "axes.spines.top": False,
                             "axes.spines.right": False, "legend.frameon": False}  # fmt: skip
    with mpl.rc_context(style):
        drawing = Figure(figsize=(9.6, 3.3), layout="constrained")
        FigureCanvasAgg(drawing)
        left, middle, right = drawing.subplots(1, 3, width_ratios=(1.2, 1, 1))
        _draw_layers(left, found)
        labels = {"noise": "noise of augmentation on the feature, sigma", "strength": "strength of the feature, phi"}
        for axes, what in ((middle, "noise"), (right, "strength")):
            sweep = found["sweeps"][what]
            axes.plot(sweep["values"], sweep["pre"], color="#1459b3", label="before the head")
            axes.plot(sweep["values"], sweep["post"], color="#a85400", linestyle="--", label="after the head")
            axes.set(xscale="log", ylim=(0, 1.05), xlabel=labels[what], ylabel="weight, share of the largest")
        middle.legend(loc="lower left")
        drawing.savefig(target, dpi=160, metadata={"Date": None} if target.suffix == ".svg" else None)
    return target


def _draw_layers(axes: Any, found: dict[str, Any]) -> None:
    deepest = found["depths"][-1]
    trained, closed = np.array(deepest["trained"]), np.array(deepest["closed"])
    place = np.arange(1, len(closed) + 1)
    phi, sigma = found["features"]["phi"], found["features"]["sigma"]
    for j in range(closed.shape[1]):
        name = f"phi {phi[j]:g}, sigma {sigma[j]:g}"
        axes.plot(place, closed[:, j], color=f"C{j}", linewidth=1.2, label=name)
        axes.plot(place, trained[:, j], "o", color=f"C{j}", markersize=4.5)
    axes.set(xticks=place, xlabel="layer", ylabel="weight of the feature", title="lines: closed form, dots: trained")
    axes.legend(fontsize=8)


def run(*, out: str | Path | None = None, steps: int = 20_000, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Compute the study, write ``projection-study.json`` and ``projection-study.svg``; seconds on one core.

    Args:
        out: folder; default benchmarks/claims in a checkout, else claims.
        steps: of gradient descent for each depth.
        say: called with a line for each part.

    Returns:
        as :func:`study`.
    """
    checkout = Path("benchmarks/claims")
    folder = Path(out) if out is not None else checkout if checkout.is_dir() else Path("claims")
    folder.mkdir(parents=True, exist_ok=True)
    found = study(steps=steps, say=say)
    (folder / "projection-study.json").write_text(json.dumps(found, indent=1) + "\n")
    figure(found, folder / "projection-study.svg")
    return found
