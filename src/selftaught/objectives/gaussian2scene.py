"""Gaussian2Scene: restore hidden points and pixels, then place Gaussians that look like the scene (arXiv 2506.08777).

CD(A, B) = 1/|A| sum_a min_b ||a - b||^2 + 1/|B| sum_b min_a ||a - b||^2
stage 1:  L1 = L_pc + L_img + L_x            hidden point patches (CD), hidden image patches, points to image patches
stage 2:  L2 = L1 + w_g L_geo + w_r L_rgb
          L_geo = CD({mu_i}, P),    L_rgb = 0.8 mean|I^ - I| + 0.2 (1 - SSIM(I^, I)),    optionally + w_d mean|D^ - D|
"""

from __future__ import annotations

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_floats, in_float32
from selftaught.objectives.mae import mae
from selftaught.objectives.structural_similarity import ssim

__all__ = [
    "chamfer",
    "cross_modal_patches",
    "gaussian2scene",
    "gaussian2scene_terms",
    "hidden_points",
    "splatted_depth",
    "splatted_picture",
]

_PAIRS = 1 << 22
"""Distances that are held at a time."""


@in_float32
def chamfer(a: Tensor, b: Tensor, *, reduction: str = "mean") -> Tensor:
    """Chamfer distance of point sets, squared (metres^2 where points are in metres), a mean over each set.

    Memory is linear in the points: nearest points are looked for in pieces, without gradient; the gradient of the
    distance to them is that of the minimum.

    Args:
        a: (N, A, 3) predicted points, or (A, 3).
        b: (N, B, 3) true points, or (B, 3).
        reduction: "mean" over the N pairs of sets, or "none", (N,).

    Returns:
        A scalar >= 0, 0 for equal sets.

    Raises:
        UserError: (a ``ValueError``) other shapes, an empty set, integers.
    """
    check_floats(a=a, b=b)
    if a.dim() == b.dim() == 2:
        a, b = a[None], b[None]
    if a.dim() != 3 or b.dim() != 3 or a.shape[0] != b.shape[0] or a.shape[2] != b.shape[2]:
        raise UserError(
            f"point sets need the shapes (N, A, 3) and (N, B, 3), got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    if not a.shape[0] * a.shape[1] * b.shape[1]:
        raise UserError(f"an empty set of points has no distance, got {tuple(a.shape)} and {tuple(b.shape)}")
    if reduction not in ("mean", "none"):
        raise UserError(f"reduction={reduction!r}: choose mean or none")
    to_b, to_a = _nearest(a, b)
    found = _squared(a, b, to_b) + _squared(b, a, to_a)
    return found.mean() if reduction == "mean" else found


@torch.no_grad()
def _nearest(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Number of the nearest point of b for each of a (N, A), and of a for each of b (N, B)."""
    n = max(1, _PAIRS // (a.shape[1] * b.shape[1]))
    if n == 1 and a.shape[1] * b.shape[1] > _PAIRS:
        rows = [(_one_way(x, y), _one_way(y, x)) for x, y in zip(a, b, strict=True)]
        return torch.stack([r[0] for r in rows]), torch.stack([r[1] for r in rows])
    parts = [_distances(x, y) for x, y in zip(a.split(n), b.split(n), strict=True)]
    return torch.cat([d.argmin(2) for d in parts]), torch.cat([d.argmin(1) for d in parts])


def _one_way(a: Tensor, b: Tensor) -> Tensor:
    step = max(1, _PAIRS // len(b))
    return torch.cat([_distances(part[None], b[None])[0].argmin(1) for part in a.split(step)])


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances (N, A, B), by differences: the expanded form loses close neighbours in float32."""
    return sum(((a[:, :, None, k] - b[:, None, :, k]).square() for k in range(1, a.shape[2])),
               (a[:, :, None, 0] - b[:, None, :, 0]).square())  # fmt: skip


def _squared(a: Tensor, b: Tensor, nearest: Tensor) -> Tensor:
    """Mean squared distance to the named points, (N,)."""
    partner = b.gather(1, nearest[:, :, None].expand(-1, -1, b.shape[2]))
    return (a - partner).square().sum(2).mean(1)


@in_float32
def hidden_points(prediction: Tensor, patches: Tensor) -> Tensor:
    """L_pc: mean Chamfer distance of hidden point patches, both relative to the patch's centre.

    Args:
        prediction: (N, M, k, 3) restored points of the M hidden patches of each cloud.
        patches: (N, M, k', 3) their true points.

    Returns:
        A scalar; 0 where M is 0.

    Raises:
        UserError: (a ``ValueError``) other shapes.
    """
    check_floats(prediction=prediction, patches=patches)
    if prediction.dim() != 4 or patches.dim() != 4 or prediction.shape[:2] != patches.shape[:2]:
        shapes = f"{tuple(prediction.shape)} and {tuple(patches.shape)}"
        raise UserError(f"patches of points need the shapes (N, M, k, 3), got {shapes}")
    if not prediction.shape[1]:
        return prediction.sum() * 0.0
    return chamfer(prediction.flatten(0, 1), patches.flatten(0, 1))


@in_float32
def cross_modal_patches(prediction: Tensor, patches: Tensor, found: Tensor, *, norm_pix: bool = True) -> Tensor:
    """L_x: image patches out of the tokens of the points that project onto them; mean squared error.

    Args:
        prediction: (N, M, P) pixels that each point token tells.
        patches: (N, M, P) pixels of the patch on which the token's centre falls.
        found: (N, M) bool, False where it falls beside the picture; such tokens count for nothing.
        norm_pix: compare with pixels normalised patch by patch.

    Returns:
        A scalar; 0 where nothing falls on the picture.

    Raises:
        UserError: (a ``ValueError``) other shapes, integers.
    """
    return mae(prediction, patches, found, norm_pix=norm_pix)


@in_float32
def splatted_picture(rendered: Tensor, picture: Tensor, *, structure: float = 0.2) -> Tensor:
    """L_rgb = (1 - lambda) mean|I^ - I| + lambda (1 - SSIM(I^, I)), SSIM with a window of 11 and sigma 1.5.

    Args:
        rendered: (N, C, H, W) in [0, 1].
        picture: the same, the photograph.
        structure: lambda; 0 needs no picture of at least 11 pixels.

    Raises:
        UserError: (a ``ValueError``) shapes that differ, a picture smaller than the window, lambda outside [0, 1].
    """
    check_floats(rendered=rendered, picture=picture)
    if rendered.dim() != 4 or rendered.shape != picture.shape:
        shapes = f"{tuple(rendered.shape)} and {tuple(picture.shape)}"
        raise UserError(f"rendered and true pictures need one shape (N, C, H, W), got {shapes}")
    if not 0 <= structure <= 1:
        raise UserError(f"structure={structure}: a share from 0 to 1")
    colour = (rendered - picture).abs().mean()
    if not structure:
        return colour
    return (1 - structure) * colour + structure * (1 - ssim(rendered, picture))


@in_float32
def splatted_depth(rendered: Tensor, depth: Tensor, alpha: Tensor) -> Tensor:
    """mean|D^ - alpha D| over pixels whose depth is known (above 0), in metres.

    The rendered depth is a sum by shares of the pixel; it is compared with the same share of the true depth, so that
    pixels which Gaussians cover in part ask for no depth that isn't there.

    Args:
        rendered: (N, H, W) sum of Z by share.
        depth: (N, H, W) true Z, 0 where unknown.
        alpha: (N, H, W) covered share.

    Raises:
        UserError: (a ``ValueError``) shapes that differ.
    """
    check_floats(rendered=rendered, depth=depth, alpha=alpha)
    if rendered.dim() != 3 or not rendered.shape == depth.shape == alpha.shape:
        shapes = [tuple(t.shape) for t in (rendered, depth, alpha)]
        raise UserError(f"rendered depth, true depth and alpha need one shape (N, H, W), got {shapes}")
    known = (depth > 0).to(rendered.dtype)
    return ((rendered - alpha * depth).abs() * known).sum() / known.sum().clamp_min(1)


def gaussian2scene_terms(
    points: tuple[Tensor, Tensor] | None = None,
    image: tuple[Tensor, Tensor, Tensor] | None = None,
    cross: tuple[Tensor, Tensor, Tensor] | None = None,
    gaussians: tuple[Tensor, Tensor] | None = None,
    picture: tuple[Tensor, Tensor] | None = None,
    depth: tuple[Tensor, Tensor, Tensor] | None = None,
    *,
    cross_weight: float = 1.0,
    geometry_weight: float = 1.0,
    picture_weight: float = 1.0,
    depth_weight: float = 1.0,
    structure: float = 0.2,
    norm_pix: bool = True,
) -> dict[str, Tensor]:
    """The terms that are given, and their weighted sum ``loss``: stage 1 has the first three, stage 2 all.

    Args:
        points: restored and true hidden patches, see :func:`hidden_points`.
        image: prediction (N, L, P), patches (N, L, P) and hidden (N, L), see :func:`selftaught.objectives.mae`.
        cross: see :func:`cross_modal_patches`.
        gaussians: centres mu (N, G, 3) and the scanned points (N, P, 3), see :func:`chamfer`.
        picture: rendered and true, see :func:`splatted_picture`.
        depth: see :func:`splatted_depth`.
        cross_weight: of L_x.
        geometry_weight: w_g; 0: by pictures only.
        picture_weight: w_r; 0: by geometry only.
        depth_weight: of the optional depth term.
        structure: lambda of L_rgb.
        norm_pix: pixels normalised patch by patch.

    Returns:
        ``loss`` and, where given, ``points``, ``image``, ``cross``, ``geometry``, ``picture``, ``depth``.

    Raises:
        UserError: nothing given; shapes that don't fit.
    """
    terms: dict[str, tuple[float, Tensor]] = {}
    if points is not None:
        terms["points"] = (1.0, hidden_points(*points))
    if image is not None:
        terms["image"] = (1.0, mae(*image, norm_pix=norm_pix))
    if cross is not None:
        terms["cross"] = (cross_weight, cross_modal_patches(*cross, norm_pix=norm_pix))
    if gaussians is not None:
        terms["geometry"] = (geometry_weight, chamfer(*gaussians))
    if picture is not None:
        terms["picture"] = (picture_weight, splatted_picture(*picture, structure=structure))
    if depth is not None:
        terms["depth"] = (depth_weight, splatted_depth(*depth))
    if not terms:
        raise UserError("gaussian2scene: no term is given")
    total = sum(weight * term for weight, term in terms.values())
    assert isinstance(total, Tensor)
    return {"loss": total} | {name: term for name, (_, term) in terms.items()}


def gaussian2scene(*args: tuple[Tensor, ...] | None, **options: float) -> Tensor:
    """L1 or L2, the ``loss`` of :func:`gaussian2scene_terms`, with the same arguments."""
    return gaussian2scene_terms(*args, **options)["loss"]  # type: ignore[arg-type]
