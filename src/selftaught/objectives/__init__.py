"""The losses: plain functions of tensors, a scalar out. Take one into any training loop, no framework needed.

Every objective computes in float32 under autocast (float64 stays float64), takes tensors that are already gathered
over processes, and lets NaN through. One that is a sum of several terms has a sibling ``NAME_terms`` with the same
arguments that returns a dict of the named terms, the total under ``"loss"``.

Two views, contrastive (memory linear in the batch):
    :func:`simclr`            NT-Xent; also of three and more views
    :func:`dcl`               decoupled contrastive learning; with ``sigma`` its weighted form DCLW
    :func:`infonce`           the baseline of ``dcl``: the same sum with the positive put back
    :func:`dcl_per_anchor`, :func:`dcl_coupling`, :func:`dclw_weights`    what there is to study, per anchor
Two views, redundancy reduction:
    :func:`barlow_twins`      the cross-correlation is to be the identity
Denoising:
    :func:`c_bsn`             conditional blind-spot network; :func:`blind_spot` is its baseline
    :func:`s2b`, :func:`b2s`, :func:`draw_subsample`, :func:`random_subsample`,
    :func:`normalise_patch`, :func:`denormalise_patch`, :func:`c_bsn_ramp`    its operators
Sensor series:
    :func:`frame_projections`          time, wavelet and Fourier views of a signal (stage 1)
    :func:`frame_projections_mappers`  the mappers on frozen encoders (stage 2)
"""

from selftaught.objectives.blind_spot import (
    b2s,
    blind_spot,
    c_bsn,
    c_bsn_ramp,
    c_bsn_terms,
    denormalise_patch,
    draw_subsample,
    normalise_patch,
    random_subsample,
    s2b,
)
from selftaught.objectives.contrastive import dcl, dcl_coupling, dcl_per_anchor, dclw_weights, infonce, simclr
from selftaught.objectives.frame_projections import (
    frame_projections,
    frame_projections_mappers,
    frame_projections_mappers_terms,
    frame_projections_terms,
)
from selftaught.objectives.redundancy import barlow_twins, barlow_twins_terms

__all__ = [
    "b2s",
    "barlow_twins",
    "barlow_twins_terms",
    "blind_spot",
    "c_bsn",
    "c_bsn_ramp",
    "c_bsn_terms",
    "dcl",
    "dcl_coupling",
    "dcl_per_anchor",
    "dclw_weights",
    "denormalise_patch",
    "draw_subsample",
    "frame_projections",
    "frame_projections_mappers",
    "frame_projections_mappers_terms",
    "frame_projections_terms",
    "infonce",
    "normalise_patch",
    "random_subsample",
    "s2b",
    "simclr",
]
