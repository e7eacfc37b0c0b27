"""How a classifier holds up: under attack (FGSM, PGD), under common corruptions, and across groups such as domains.

Attacks change pixels in [0, 1], before normalisation: FGSM (Goodfellow et al., ICLR 2015, arXiv 1412.6572) and PGD
(Madry et al., ICLR 2018, arXiv 1706.06083). Attacks and domains are what the core-tuning paper looks at beyond plain
accuracy (arXiv 2102.06605).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.errors import UserError
from selftaught.evaluation._inputs import as_features, as_labels
from selftaught.evaluation._protocol import protocol
from selftaught.evaluation.corruptions import CORRUPTIONS, corrupt
from selftaught.evaluation.groups import by_group
from selftaught.evaluation.result import Number, Result

__all__ = ["domains", "fgsm", "pgd", "robustness"]

Classifier = Callable[[Tensor], Tensor]
ATTACKS = ("fgsm", "pgd")
EPSILONS = (1.0, 2.0, 4.0, 8.0)
"""Largest change of a pixel, in 1/255."""


def pgd(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float = 8 / 255,
    steps: int = 10,
    step_size: float | None = None,
    random_start: bool = True,
) -> Tensor:
    """Projected gradient ascent on the cross-entropy within the box of epsilon around every image.

        x <- clip( x + step_size sign(d CE(model(x), y) / dx),  x_0 - epsilon .. x_0 + epsilon and 0 .. 1 )

    Args:
        model: (N, C, H, W) in [0, 1] -> (N, K) logits; it normalises its input. Its parameters get no gradient.
        images: (N, C, H, W) float in [0, 1].
        labels: (N,) int64.
        epsilon: largest change of a pixel (1 is the whole range).
        steps: gradient steps, at least 1.
        step_size: None: 2.5 epsilon / steps.
        random_start: begin at a uniform point of the box (torch's own generator), else at the image.

    Returns:
        (N, C, H, W) attacked images in [0, 1], detached.

    Raises:
        UserError: epsilon outside (0, 1], no step.
    """
    if not 0 < epsilon <= 1 or steps < 1:
        raise UserError(f"epsilon {epsilon}, steps {steps}: epsilon in (0, 1] of the pixel range, at least one step")
    size = 2.5 * epsilon / steps if step_size is None else step_size
    clean = images.detach()
    low, high = (clean - epsilon).clamp_min(0), (clean + epsilon).clamp_max(1)
    found = clean
    if random_start:
        found = clean + epsilon * (2 * torch.rand_like(clean) - 1)
        found = torch.minimum(torch.maximum(found, low), high)
    for _ in range(steps):
        found = found.detach().requires_grad_(True)
        with torch.enable_grad():
            loss = F.cross_entropy(model(found).float(), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, found)
        found = torch.minimum(torch.maximum(found.detach() + size * gradient.sign(), low), high)
    return found


def fgsm(model: Classifier, images: Tensor, labels: Tensor, *, epsilon: float = 8 / 255) -> Tensor:
    """One step of size epsilon along the sign of the gradient, from the image; arguments as :func:`pgd`."""
    return pgd(model, images, labels, epsilon=epsilon, steps=1, step_size=epsilon, random_start=False)


@protocol("robustness", "a classifier under attack (FGSM, PGD) and common corruptions", inputs="classifier")
def robustness(
    model: Classifier,
    images: Any,
    truth: Any,
    *,
    epsilons: Sequence[float] = EPSILONS,
    attacks: Sequence[str] = ATTACKS,
    steps: int = 10,
    corruptions: Sequence[str] = CORRUPTIONS,
    severities: Sequence[int] = (1, 3, 5),
    groups: Sequence[Any] | np.ndarray | None = None,
    batch: int = 128,
    device: str | torch.device | None = None,
    seed: int = 0,
) -> Result:
    """Accuracy of a classifier on clean, attacked and corrupted images.

    An image counts as right under an attack if it is right when clean and after the attack at this and every smaller
    epsilon (their boxes lie within this one's), so that only images still right are attacked again.

    Args:
        model: (N, C, H, W) in [0, 1] -> (N, K) logits, in evaluation mode; it normalises its input.
        images: (n, C, H, W) float in [0, 1] or uint8.
        truth: (n,) labels in 0 .. K - 1.
        epsilons: of the attacks, in 1/255.
        attacks: any of ``ATTACKS``.
        steps: of PGD.
        corruptions: any of ``CORRUPTIONS``; empty for none.
        severities: strengths of the corruptions, 1 to 5.
        groups: (n,) domain of each image; adds the numbers of :func:`domains`, of the clean images.
        batch: images at a time.
        device: where ``model`` is; None: where ``images`` are.
        seed: of the noise and of PGD's start. The caller's random state is left alone.

    Returns:
        ``Result`` "robustness": ``accuracy`` (clean), ``ATTACK@EPSILON`` each, ``corrupted`` (mean over kinds and
        strengths), each kind's mean over strengths, all with intervals over test images. Figures ``attacks`` and
        ``corruptions``: the curves.

    Raises:
        UserError: shapes that don't fit, images outside [0, 1], an unknown attack or corruption, a number out of range.
    """
    pixels = _pixels(images)
    labels = torch.as_tensor(as_labels(truth, len(pixels), "truth"))
    _check(epsilons, attacks, steps, batch)
    where = pixels.device if device is None else torch.device(device)
    judge = _Judge(model, labels, batch, where)
    clean = judge.right(pixels)
    numbers = {"accuracy": Number.bootstrap(clean)}
    figures: dict[str, Any] = {}
    with torch.random.fork_rng([where] if where.type == "cuda" else []):
        torch.manual_seed(seed)
        for attack in attacks:
            kept, curve = clean.copy(), []
            for epsilon in sorted(epsilons):
                kept = judge.attacked(pixels, kept, attack, epsilon / 255, steps)
                numbers[f"{attack}@{epsilon:g}"] = Number.bootstrap(kept)
                curve.append({"epsilon": epsilon} | numbers[f"{attack}@{epsilon:g}"].to_dict())
            figures.setdefault("attacks", {})[attack] = curve
    if corruptions and severities:
        more, figures["corruptions"] = _corrupted(judge, pixels, corruptions, severities, seed)
        numbers |= more
    if groups is not None:
        numbers |= _by_domain(clean, groups, "domain")
    note = f"attacks change pixels by at most N/255 (PGD with {steps} steps)" if attacks else ""
    return Result("robustness", numbers, figures, note)


def domains(scores: Any, truth: Any, groups: Sequence[Any] | np.ndarray, *, name: str = "domain") -> Result:
    """Accuracy of a classifier by domain: does it serve the domain that it does worst on, too?

    Args:
        scores: (n, K) logits or probabilities.
        truth: (n,) labels in 0 .. K - 1.
        groups: (n,) the domain (site, camera, style) of each sample, as text or number; "" where it is not known.
        name: what the groups are.

    Returns:
        ``Result`` "domains": ``accuracy`` over all samples, ``worst_group``, ``gap`` (best minus worst) and
        ``accuracy: domain GROUP`` of each, with intervals over samples.

    Raises:
        UserError: shapes that don't fit, or no group known.
    """
    logits = as_features(scores, "scores")
    labels = as_labels(truth, len(logits), "truth")
    return Result("domains", _by_domain(logits.argmax(1).cpu().numpy() == labels, groups, name))


def _by_domain(right: np.ndarray, groups: Sequence[Any] | np.ndarray, name: str) -> dict[str, Number]:
    members = np.asarray(groups)
    if members.shape != right.shape:
        raise UserError(f"groups: shape {members.shape} for {len(right)} samples; pass one group per sample, (n,)")
    found = by_group(right, {name: members}, "accuracy")
    gap = found.pop(f"accuracy: {name} gap", Number(0.0, values=(0.0,)))
    worst = min(found.values(), key=lambda number: number.mean)
    return {"accuracy": Number.bootstrap(right), "worst_group": worst, "gap": gap, **found}


class _Judge:
    """Which images a model classifies rightly, as they are or under attack."""

    def __init__(self, model: Classifier, labels: Tensor, batch: int, device: torch.device) -> None:
        self.model, self.labels, self.batch, self.device = model, labels, batch, device

    @torch.no_grad()
    def right(self, pixels: Tensor) -> np.ndarray:
        parts = []
        for x, y in zip(pixels.split(self.batch), self.labels.split(self.batch), strict=True):
            parts.append((self._scores(x.to(self.device)).argmax(1).cpu() == y).numpy())
        return np.concatenate(parts)

    def attacked(self, pixels: Tensor, kept: np.ndarray, attack: str, epsilon: float, steps: int) -> np.ndarray:
        found = kept.copy()
        for rows in torch.as_tensor(np.flatnonzero(kept)).split(self.batch):
            if not len(rows):
                continue
            x, y = pixels[rows].to(self.device), self.labels[rows].to(self.device)
            more = {"steps": steps} if attack == "pgd" else {}
            changed = (pgd if attack == "pgd" else fgsm)(self._scores, x, y, epsilon=epsilon, **more)
            with torch.no_grad():
                found[rows.numpy()] = (self._scores(changed).argmax(1) == y).cpu().numpy()
        return found

    def _scores(self, x: Tensor) -> Tensor:
        scores = self.model(x)
        if scores.dim() != 2 or len(scores) != len(x):
            raise UserError(f"model: gives {tuple(scores.shape)} for {len(x)} images; it must give (n, classes)")
        return scores


def _corrupted(
    judge: _Judge, pixels: Tensor, kinds: Sequence[str], severities: Sequence[int], seed: int
) -> tuple[dict[str, Number], dict[str, Any]]:
    images = pixels.permute(0, 2, 3, 1).cpu().numpy()
    per_kind, curves = {}, {}
    for order, kind in enumerate(kinds):
        rows = []
        for severity in severities:
            made = [
                corrupt(image, kind, severity, rng=np.random.default_rng([seed, order, severity, i]))
                for i, image in enumerate(images)
            ]
            rows.append(judge.right(torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).contiguous()))
        per_kind[kind] = np.stack(rows).astype(float)
        shares = [Number.bootstrap(row) for row in rows]
        curves[kind] = [{"severity": s} | n.to_dict() for s, n in zip(severities, shares, strict=True)]
    every = np.mean(list(per_kind.values()), axis=(0, 1))
    each = {kind: Number.bootstrap(right.mean(0)) for kind, right in per_kind.items()}
    return {"corrupted": Number.bootstrap(every), **each}, curves


def _pixels(images: Any) -> Tensor:
    """(n, C, H, W) float32 in [0, 1]."""
    tensor = torch.as_tensor(images)
    if tensor.dim() != 4 or not len(tensor):
        raise UserError(f"images: shape {tuple(tensor.shape)}; pass (n, C, H, W), at least one")
    pixels = tensor.float() / 255 if tensor.dtype == torch.uint8 else tensor.float()
    if not bool(torch.isfinite(pixels).all()) or float(pixels.min()) < 0 or float(pixels.max()) > 1:
        raise UserError("images: values outside [0, 1]; pass pixels before they are normalised")
    return pixels


def _check(epsilons: Sequence[float], attacks: Sequence[str], steps: int, batch: int) -> None:
    for attack in attacks:
        if attack not in ATTACKS:
            raise UserError(f"attack: no {attack!r}; one of {', '.join(ATTACKS)}")
    if any(not 0 < epsilon <= 255 for epsilon in epsilons) or steps < 1 or batch < 1:
        raise UserError("robustness: epsilons lie in (0, 255] (of 255), steps and batch are at least 1")
