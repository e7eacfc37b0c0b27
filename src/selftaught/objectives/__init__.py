"""The losses: plain functions of tensors, a scalar out. Take one into any training loop, no framework needed.

>>> loss = objectives.dcl(z1, z2, temperature=0.1)

A paper's objective is the file of its name, with its baselines and operators beside it: ``objectives/dcl.py`` has
:func:`dcl`, :func:`infonce` and more; ``dir(objectives)`` lists all names. Every objective computes in float32 under
autocast (float64 stays float64), takes tensors that are already gathered over processes, refuses shapes and values that
don't fit with a :class:`~selftaught.errors.UserError`, and lets NaN through. A temperature may be a tensor and then has
a gradient; second derivatives are right. One that is a sum of several terms has a sibling ``NAME_terms`` with the same
arguments that returns a dict of the named terms, the total under ``"loss"``.

Two views, contrastive
    :func:`simclr`, :func:`dcl`, :func:`infonce`, :func:`hcl`, :func:`groco`, :func:`cacr`, :func:`isogclr`,
    :func:`amcl`, :func:`scatsimclr`, :func:`projection_head`; images and texts: :func:`clip`, :func:`isogclr_bimodal`
Momentum contrast, neighbours
    :func:`moco_v2`, :func:`moco_v3`, :func:`mochi`, :func:`nnclr`
Without negatives
    :func:`byol`, :func:`simsiam`, :func:`barlow_twins`, :func:`mixed_barlow_twins`, :func:`vicreg`; :func:`spread`
    shows collapse
Prototypes, teachers, graphs
    :func:`swav`, :func:`seer`, :func:`dino`, :func:`ressl`, :func:`lvm_med`
With labels
    :func:`supcon`, :func:`supervised`, :func:`sla`, :func:`core_tuning`
Denoising; sensor series
    :func:`c_bsn`, :func:`blind_spot`; :func:`frame_projections`
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from selftaught._rooms import fill_room
from selftaught.objectives._common import check_types_of

if TYPE_CHECKING:
    from typing import Any

    def __getattr__(name: str) -> Any: ...


__all__ = fill_room(__name__, __path__, globals())
check_types_of(__all__, globals())
