"""Frame projections (IsoAlign, arXiv 2510.22655): time, Fourier and wavelet views of a signal, no augmentation."""

from __future__ import annotations

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_choice, check_positive, check_views, in_float32, mean_distance, unit
from selftaught.objectives.simclr import nt_xent

__all__ = [
    "frame_projections",
    "frame_projections_mappers",
    "frame_projections_mappers_terms",
    "frame_projections_terms",
]


def frame_projections(
    e_t: Tensor,
    e_w: Tensor | None,
    e_f: Tensor | None,
    *,
    temperature: float | Tensor = 0.15,
    mapped_w: Tensor | None = None,
    mapped_f: Tensor | None = None,
    map_scale: str = "per_batch",
    map_loss: str = "l1",
) -> Tensor:
    """Stage 1 of frame projections (NeurIPS 2025, arXiv 2510.22655; reductions of the official code).

        L = N(e_t, e_W) + N(e_t, e_F) + N(e_W, e_F) + ( mean|Phi_F(e_t) - e_F| + mean|Phi_W(e_t) - e_W| ) / B

    N is NT-Xent (:func:`~selftaught.objectives.simclr`). There is no stop-gradient anywhere.

    Args:
        e_t: (B, d) projector outputs of the time view. All three are L2-normalised here; doing it before is harmless.
        e_w: (B, d) of the wavelet view, or None to leave the view out.
        e_f: (B, d) of the Fourier view, or None to leave the view out.
        temperature: of NT-Xent; a tensor of one number gets a gradient.
        mapped_w: (B, d) Phi_W of the *normalised* e_t, compared with the normalised e_w and not normalised itself;
            None leaves the term out.
        mapped_f: (B, d) Phi_F of the normalised e_t, likewise.
        map_scale: ``"per_batch"`` divides the mapping term by B once more, as the official code does; ``"none"`` not.
        map_loss: ``"l1"`` or ``"mse"``.

    Returns:
        A scalar >= 0. All embeddings equal: log(2B - 1) for every pair of views.

    Raises:
        UserError: (a ``ValueError``) fewer than two views, shapes differ, a mapped vector without its view.
    """
    return frame_projections_terms(
        e_t, e_w, e_f, temperature=temperature, mapped_w=mapped_w, mapped_f=mapped_f, map_scale=map_scale,
        map_loss=map_loss,
    )["loss"]  # fmt: skip


@in_float32
def frame_projections_terms(
    e_t: Tensor,
    e_w: Tensor | None,
    e_f: Tensor | None,
    *,
    temperature: float | Tensor = 0.15,
    mapped_w: Tensor | None = None,
    mapped_f: Tensor | None = None,
    map_scale: str = "per_batch",
    map_loss: str = "l1",
) -> dict[str, Tensor]:
    """:func:`frame_projections` with its terms.

    ``loss``; ``identity`` (L_ID) and those of ``time_wavelet``, ``time_fourier``, ``wavelet_fourier`` whose views are
    there; ``map`` (L_map, scaled) where a mapped vector was given.
    """
    check_choice("map_scale", map_scale, ("per_batch", "none"))
    check_choice("map_loss", map_loss, ("l1", "mse"))
    check_positive(temperature=temperature)
    given = {"time": e_t, "wavelet": e_w, "fourier": e_f}
    raw = {name: e for name, e in given.items() if e is not None}
    if len(raw) < 2:
        raise UserError("frame projections need the time view and at least one of e_w (wavelet) and e_f (Fourier)")
    rows, _ = check_views(*raw.values())
    views = {name: unit(e) for name, e in raw.items()}
    pairs = [("time", "wavelet"), ("time", "fourier"), ("wavelet", "fourier")]
    terms = {
        f"{a}_{b}": nt_xent(torch.stack([views[a], views[b]]), temperature)
        for a, b in pairs
        if a in views and b in views
    }
    identity = sum(terms.values(), start=e_t.new_zeros(()))
    terms |= {"identity": identity, "loss": identity}
    mapping = _mapping({"wavelet": mapped_w, "fourier": mapped_f}, views, map_loss)
    if mapping:
        terms["map"] = sum(mapping, start=e_t.new_zeros(())) / (rows if map_scale == "per_batch" else 1)
        terms["loss"] = identity + terms["map"]
    return terms


def _mapping(mapped: dict[str, Tensor | None], targets: dict[str, Tensor], kind: str) -> list[Tensor]:
    terms = []
    for name, output in mapped.items():
        if output is None:
            continue
        if name not in targets:
            raise UserError(f"a mapped {name} vector was given without the {name} view")
        check_views(output, targets[name])
        terms.append(mean_distance(output, targets[name], kind))
    return terms


def frame_projections_mappers(
    mapped_w: Tensor | None,
    mapped_f: Tensor | None,
    r_w: Tensor | None,
    r_f: Tensor | None,
    *,
    map_loss: str = "l1",
) -> Tensor:
    """Stage 2 of frame projections: mappers on frozen encoders, mean|Phi_W(r_t) - r_W| + mean|Phi_F(r_t) - r_F|.

    The mappers share no parameter, so one optimiser on the sum equals the paper's two. No division by the batch.

    Args:
        mapped_w: (B, d) Phi_W of the time encoder's output r_t (not normalised), or None without that view.
        mapped_f: (B, d) Phi_F of r_t, or None.
        r_w: (B, d) output of the wavelet encoder; the caller freezes the encoders.
        r_f: (B, d) output of the Fourier encoder.
        map_loss: ``"l1"`` or ``"mse"``.

    Raises:
        UserError: (a ``ValueError``) nothing to map, a mapped vector without its target, shapes differ.
    """
    return frame_projections_mappers_terms(mapped_w, mapped_f, r_w, r_f, map_loss=map_loss)["loss"]


@in_float32
def frame_projections_mappers_terms(
    mapped_w: Tensor | None,
    mapped_f: Tensor | None,
    r_w: Tensor | None,
    r_f: Tensor | None,
    *,
    map_loss: str = "l1",
) -> dict[str, Tensor]:
    """:func:`frame_projections_mappers` with its terms: ``loss`` and those of ``wavelet`` and ``fourier`` given."""
    check_choice("map_loss", map_loss, ("l1", "mse"))
    mapped = {"wavelet": mapped_w, "fourier": mapped_f}
    targets = {name: r for name, r in (("wavelet", r_w), ("fourier", r_f)) if r is not None}
    values = _mapping(mapped, targets, map_loss)
    if not values:
        raise UserError("no mapped vector was given: pass mapped_w with r_w, mapped_f with r_f, or both")
    names = [name for name, output in mapped.items() if output is not None]
    return {"loss": sum(values, start=values[0].new_zeros(())), **dict(zip(names, values, strict=True))}
