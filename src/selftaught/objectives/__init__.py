"""The losses: plain functions of tensors, a scalar out. Take one into any training loop, no framework needed.

Every objective computes in float32 under autocast (float64 stays float64), takes tensors that are already gathered
over processes, and lets NaN through. One that is a sum of several terms has a sibling ``NAME_terms`` with the same
arguments that returns a dict of the named terms, the total under ``"loss"``.

Two views, contrastive (memory linear in the batch):
    :func:`simclr`            NT-Xent; also of three and more views
    :func:`dcl`               decoupled contrastive learning; with ``sigma`` its weighted form DCLW
    :func:`infonce`           the baseline of ``dcl``: the same sum with the positive put back
    :func:`dcl_per_anchor`, :func:`dcl_coupling`, :func:`dclw_weights`    what there is to study, per anchor
    :func:`groco`             positives sorted above the hardest negatives; :func:`nt_xent_pairs` is its baseline
    :func:`relaxed_sort`, :func:`group_probability`, :func:`sorting_network`    differentiable sorting networks
Views with a state per sample, or weighed by distance:
    :func:`cacr`              far positives and near negatives count more; :func:`cacr_queue`, :func:`cacr_momentum`,
                              :func:`cacr_supervised` are its other wirings; :func:`hcl` is a baseline
    :func:`isogclr`           a temperature per sample; :func:`sogclr`, :func:`isogclr_libauc`, :func:`isogclr_queue`,
                              :func:`isogclr_bimodal`; their ``_terms`` return the state to keep
    :func:`amcl`              several heads, a temperature for every pair; on other hosts :func:`amcl_moco`,
                              :func:`amcl_simsiam`, :func:`amcl_barlow_twins`; :func:`amcl_omega` regularises
Images and texts:
    :func:`clip`              both directions over one matrix of similarities; the temperature may be learnt
Two views, momentum contrast and neighbours:
    :func:`moco_v2`           against a queue of past keys (also decoupled); :func:`moco_v3` within the batch
    :func:`mochi`             with negatives mixed from the hardest; :func:`mochi_negatives`, :func:`draw_mochi`
    :func:`nnclr`             the nearest neighbour is the positive; :func:`nearest` finds it
With labels:
    :func:`supcon`            a class's images attract one another; :func:`supervised` is cross-entropy
    :func:`sla`               joint labels of class and transformation, with self-distillation; its baselines are
                              :func:`sla_da`, :func:`sla_mt`; inference :func:`sla_aggregate`, :func:`sla_single`;
    :func:`sla_episode`, :func:`effective_weights`, :func:`ldam_margins`    for few and uneven labels
    :func:`core_tuning`       fine-tuning on mixed features: :func:`core_tuning_pool`, :func:`hard_pairs`,
                              :func:`semi_hard_partners`, :func:`focal_contrast`
Two views, graph matching:
    :func:`lvm_med`           the matching of two graphs, by a solver with a gradient: :func:`graph_matching`
    :func:`match_graphs`, :func:`knn_edges`, :func:`edge_affinity`, :func:`local_similarity`, :func:`grid_centres`
Two views, and a question or a head:
    :func:`scatsimclr`        NT-Xent and the answer of a pretext task (rotation, jigsaw)
    :func:`projection_head`   the losses of the projection-head study; :func:`spectral`, :func:`spectral_population`
Two views, redundancy reduction:
    :func:`barlow_twins`      the cross-correlation is to be the identity
    :func:`mixed_barlow_twins`  and a mixed batch embeds as the mixture of the embeddings
    :func:`vicreg`            variance, invariance, covariance
Two views, self-distillation:
    :func:`byol`, :func:`simsiam`    predict the other view's projection; :func:`spread` shows collapse
Crops against prototypes or a teacher:
    :func:`swav`              swapped prediction of equal-partition codes; :func:`sinkhorn`, :func:`swapped_prediction`
    :func:`seer`              the same with SEER's settings and its power-law prior
    :func:`dino`              a student predicts the centred, sharpened teacher; :func:`dino_center` moves the centre
    :func:`ressl`             two views have the same relations to a queue of other images
Denoising:
    :func:`c_bsn`             conditional blind-spot network; :func:`blind_spot` is its baseline
    :func:`s2b`, :func:`b2s`, :func:`draw_subsample`, :func:`random_subsample`,
    :func:`normalise_patch`, :func:`denormalise_patch`, :func:`c_bsn_ramp`    its operators
Sensor series:
    :func:`frame_projections`          time, wavelet and Fourier views of a signal (stage 1)
    :func:`frame_projections_mappers`  the mappers on frozen encoders (stage 2)
"""

from selftaught.objectives._temperature import amcl_omega
from selftaught.objectives.amcl import (
    amcl,
    amcl_barlow_twins,
    amcl_barlow_twins_terms,
    amcl_moco,
    amcl_moco_terms,
    amcl_simsiam,
    amcl_simsiam_terms,
    amcl_terms,
)
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
from selftaught.objectives.cacr import (
    cacr,
    cacr_momentum,
    cacr_queue,
    cacr_queue_terms,
    cacr_supervised,
    cacr_terms,
)
from selftaught.objectives.clustering import seer, sinkhorn, swapped_prediction, swav, swav_terms
from selftaught.objectives.contrastive import dcl, dcl_coupling, dcl_per_anchor, dclw_weights, infonce, simclr
from selftaught.objectives.core_tuning import (
    CoreTuningPool,
    HardPairs,
    core_tuning,
    core_tuning_pool,
    core_tuning_terms,
    focal_contrast,
    hard_pairs,
    semi_hard_partners,
)
from selftaught.objectives.distillation import dino, dino_center, dino_terms, ressl, ressl_terms
from selftaught.objectives.frame_projections import (
    frame_projections,
    frame_projections_mappers,
    frame_projections_mappers_terms,
    frame_projections_terms,
)
from selftaught.objectives.graph_matching import (
    edge_affinity,
    graph_matching,
    knn_edges,
    lvm_med,
    lvm_med_terms,
    match_graphs,
)
from selftaught.objectives.groco import groco, nt_xent_pairs
from selftaught.objectives.hard_negatives import hcl
from selftaught.objectives.image_text import clip
from selftaught.objectives.isogclr import (
    isogclr,
    isogclr_libauc,
    isogclr_libauc_terms,
    isogclr_queue,
    isogclr_queue_terms,
    isogclr_terms,
    sogclr,
)
from selftaught.objectives.isogclr_bimodal import PairState, isogclr_bimodal, isogclr_bimodal_terms
from selftaught.objectives.local_affinity import grid_centres, local_similarity
from selftaught.objectives.mochi import MochiDraws, draw_mochi, mochi, mochi_negatives, mochi_terms
from selftaught.objectives.nearest import nearest, nnclr
from selftaught.objectives.pretext import scatsimclr, scatsimclr_terms
from selftaught.objectives.queue import moco_v2, moco_v2_terms, moco_v3
from selftaught.objectives.redundancy import (
    barlow_twins,
    barlow_twins_terms,
    mixed_barlow_twins,
    mixed_barlow_twins_terms,
    vicreg,
    vicreg_terms,
)
from selftaught.objectives.self_distillation import byol, simsiam, spread
from selftaught.objectives.sla import (
    UNLABELLED,
    effective_weights,
    ldam_margins,
    sla,
    sla_aggregate,
    sla_da,
    sla_episode,
    sla_mt,
    sla_single,
    sla_terms,
)
from selftaught.objectives.sorting import group_probability, relaxed_sort, sorting_network
from selftaught.objectives.spectral import projection_head, spectral, spectral_population
from selftaught.objectives.supervised import supcon, supervised

__all__ = [
    "UNLABELLED",
    "CoreTuningPool",
    "HardPairs",
    "MochiDraws",
    "PairState",
    "amcl",
    "amcl_barlow_twins",
    "amcl_barlow_twins_terms",
    "amcl_moco",
    "amcl_moco_terms",
    "amcl_omega",
    "amcl_simsiam",
    "amcl_simsiam_terms",
    "amcl_terms",
    "b2s",
    "barlow_twins",
    "barlow_twins_terms",
    "blind_spot",
    "byol",
    "c_bsn",
    "c_bsn_ramp",
    "c_bsn_terms",
    "cacr",
    "cacr_momentum",
    "cacr_queue",
    "cacr_queue_terms",
    "cacr_supervised",
    "cacr_terms",
    "clip",
    "core_tuning",
    "core_tuning_pool",
    "core_tuning_terms",
    "dcl",
    "dcl_coupling",
    "dcl_per_anchor",
    "dclw_weights",
    "denormalise_patch",
    "dino",
    "dino_center",
    "dino_terms",
    "draw_mochi",
    "draw_subsample",
    "edge_affinity",
    "effective_weights",
    "focal_contrast",
    "frame_projections",
    "frame_projections_mappers",
    "frame_projections_mappers_terms",
    "frame_projections_terms",
    "graph_matching",
    "grid_centres",
    "groco",
    "group_probability",
    "hard_pairs",
    "hcl",
    "infonce",
    "isogclr",
    "isogclr_bimodal",
    "isogclr_bimodal_terms",
    "isogclr_libauc",
    "isogclr_libauc_terms",
    "isogclr_queue",
    "isogclr_queue_terms",
    "isogclr_terms",
    "knn_edges",
    "ldam_margins",
    "local_similarity",
    "lvm_med",
    "lvm_med_terms",
    "match_graphs",
    "mixed_barlow_twins",
    "mixed_barlow_twins_terms",
    "mochi",
    "mochi_negatives",
    "mochi_terms",
    "moco_v2",
    "moco_v2_terms",
    "moco_v3",
    "nearest",
    "nnclr",
    "normalise_patch",
    "nt_xent_pairs",
    "projection_head",
    "random_subsample",
    "relaxed_sort",
    "ressl",
    "ressl_terms",
    "s2b",
    "scatsimclr",
    "scatsimclr_terms",
    "seer",
    "semi_hard_partners",
    "simclr",
    "simsiam",
    "sinkhorn",
    "sla",
    "sla_aggregate",
    "sla_da",
    "sla_episode",
    "sla_mt",
    "sla_single",
    "sla_terms",
    "sogclr",
    "sorting_network",
    "spectral",
    "spectral_population",
    "spread",
    "supcon",
    "supervised",
    "swapped_prediction",
    "swav",
    "swav_terms",
    "vicreg",
    "vicreg_terms",
]
