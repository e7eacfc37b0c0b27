"""Protocols: embeddings or predictions and their targets in, numbers with intervals and figures out.

A protocol knows nothing of methods, data sources or runs, so the same function serves the online callback, ``evaluate``
and ``benchmark``, on this encoder, a random one and raw input alike.

    >>> import numpy as np
    >>> from selftaught import evaluation
    >>> x, y = np.eye(4)[[0, 1, 0, 1]], [0, 1, 0, 1]
    >>> evaluation.knn(x, y, x, y, k=1)["accuracy"].mean
    1.0
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from selftaught.evaluation.anomaly import anomaly
from selftaught.evaluation.classification import classify
from selftaught.evaluation.clustering import clustering
from selftaught.evaluation.continual import continual
from selftaught.evaluation.copy_detection import copy_detection, fit_whitening, regional_maxima, rmac
from selftaught.evaluation.corruptions import CORRUPTIONS, corrupt
from selftaught.evaluation.depth import depth, depth_errors, evaluation_crop, median_scale
from selftaught.evaluation.diagnostics import diagnostics
from selftaught.evaluation.editing import editing, reached, vie_score
from selftaught.evaluation.fairness import LABEL_SETS, attribute_retrieval, hit_rate, label_association
from selftaught.evaluation.fewlabel import fewlabel, subset
from selftaught.evaluation.finetune import finetune
from selftaught.evaluation.front_frozen import front_frozen
from selftaught.evaluation.geolocalisation import geolocalisation, great_circle
from selftaught.evaluation.groups import AGES, INCOMES, buckets
from selftaught.evaluation.image_text import TEMPLATES, ensemble_scores, text_retrieval, zero_shot
from selftaught.evaluation.label_noise import label_noise
from selftaught.evaluation.layerwise import layer_features, layer_names, layerwise, stack_layers, worst_group
from selftaught.evaluation.linear import linear, linear_sgd
from selftaught.evaluation.membership import (
    Attack,
    Labelled,
    fit_attack,
    membership,
    sorted_softmax,
    unlearning,
)
from selftaught.evaluation.multi_output import multi_output
from selftaught.evaluation.neighbours import knn, nearest, retrieval
from selftaught.evaluation.online import OnlineKNN, monitor, monitor_rows
from selftaught.evaluation.ood import detection, energy, knn_distance, linear_head, mahalanobis, make_scorer, msp, ood
from selftaught.evaluation.points import point_knn, point_linear, point_pca, principal_colours
from selftaught.evaluation.projection import Projection, project
from selftaught.evaluation.prompts import base_to_new
from selftaught.evaluation.regression import regression
from selftaught.evaluation.residual_text import residual_text
from selftaught.evaluation.restoration import luma, ms_ssim, restoration
from selftaught.evaluation.restored_video import flicker, restored_video
from selftaught.evaluation.restricted import restricted
from selftaught.evaluation.result import Difference, Number, Result, paired_difference, table
from selftaught.evaluation.robustness import domains, fgsm, pgd, robustness
from selftaught.evaluation.scene_detection import average_precision, box_iou, detection_loss, scene_detection
from selftaught.evaluation.scene_segmentation import scene_segmentation
from selftaught.evaluation.segmentation import segmentation
from selftaught.evaluation.similarity import blockiness, cka_matrix, linear_cka
from selftaught.evaluation.temporal import QUESTIONS, temporal
from selftaught.evaluation.timeline import moments
from selftaught.evaluation.video import VIDEO_NOISE, noisy_clip, recall
from selftaught.evaluation.volume_dice import dice, slice_position, volume_dice


@dataclass(frozen=True)
class Protocol:
    """A named way to judge a representation or a restoration.

    Args:
        name: as on the command line.
        description: one line.
        inputs: what it is called with: "split" (train_x, train_y, test_x, test_y), "labelled" (x, y), "features" (x,),
            "scores" (logits, y), "classifier" (a function from pixels to logits, images, y), "images" (predictions,
            targets), "encoder" (encoder, train_images, train_y, test_images, test_y), "copies" (database, groups,
            queries, query_groups), "places" (train_x, train_places, test_x, test_places), "attributes" (database,
            attributes), "named-scores" (logits, names of the classes, what is right or who is shown), "layers"
            (train, train_y, test, test_y with features by layer), "dense" (encoder, train_images, train_masks,
            test_images, test_masks), "points" (as "split", each a list with the points of every scan), "scenes" (clouds
            or features of their points, what is known of them), "forgotten" (scores and labels of what was to be kept,
            of what was to be forgotten, and of what was never seen), "weights" (weights of labels, which of them are
            wrong), "devices" (classifier, train, train_y, test, test_y: windows of one device),
            "volumes" (predictions, truths), "slices" (features, volume, part) or "edits" (pictures before and after,
            what judges say of them).
        function: the protocol itself.
    """

    name: str
    description: str
    inputs: str
    function: Any

    def __call__(self, *args: Any, **options: Any) -> Result:
        """Run it; see ``function`` for arguments, options, defaults and errors."""
        return self.function(*args, **options)


_ALL = (
    Protocol("knn", "weighted k-nearest-neighbour accuracy by cosine", "split", knn),
    Protocol("linear", "logistic regression, regularisation chosen on held-out samples", "split", linear),
    Protocol("linear-sgd", "the papers' linear probe: one layer by SGD or Adam", "split", linear_sgd),
    Protocol("fewlabel", "logistic regression with 1, 5, 10 ... labels per class and 1, 10, 100 %", "split", fewlabel),
    Protocol("retrieval", "mean average precision and precision at k by cosine", "labelled", retrieval),
    Protocol("recall", "share of test samples with one of their class among the k nearest", "split", recall),
    Protocol(
        "anomaly", "each class as the normal one: other classes by distance to the k-th neighbour", "split", anomaly
    ),
    Protocol("diagnostics", "collapse: effective rank, spectrum, alignment, uniformity", "features", diagnostics),
    Protocol("classify", "accuracy of the model's own classes", "scores", classify),
    Protocol("robustness", "a classifier under attack (FGSM, PGD) and common corruptions", "classifier", robustness),
    Protocol("finetune", "encoder and head trained together on the labels", "encoder", finetune),
    Protocol("device-finetune", "a device's encoder on a few labels, its front frozen", "devices", front_frozen),
    Protocol("restoration", "PSNR, SSIM and MS-SSIM against clean images", "images", restoration),
    Protocol("heads", "PSNR of each head of a network with several outputs", "images", multi_output),
    Protocol("residual-text", "text that a detector still finds where it was erased", "images", residual_text),
    Protocol("depth", "depth maps against measured depth: AbsRel, RMSE, delta", "depths", depth),
    Protocol("depth-weather", "the same on frames altered by weather, light and noise", "depths", depth),
    Protocol("editing", "edited pictures: are instructions followed, and all else kept", "edits", editing),
    Protocol("clustering", "k-means against the classes: NMI, ARI, matched accuracy", "labelled", clustering),
    Protocol("regression", "ridge regression on numeric targets: MAE, RMSE, rho", "split", regression),
    Protocol("copy-detection", "mean average precision of finding the originals of copies", "copies", copy_detection),
    Protocol("geolocalisation", "place of the nearest picture: share within 1 to 2500 km", "places", geolocalisation),
    Protocol("fairness-retrieval", "same attribute among the nearest, by group", "attributes", attribute_retrieval),
    Protocol("fairness-labels", "harmful labels given to people, by group", "named-scores", label_association),
    Protocol("hit-rate", "an allowed label among the first five, by income and region", "named-scores", hit_rate),
    Protocol("restricted", "a classifier on another set, among the classes they share", "named-scores", restricted),
    Protocol("unlearning", "what a classifier still knows of forgotten samples", "forgotten", unlearning),
    Protocol("base-to-new", "learnt prompts on their classes and on new ones", "worded", base_to_new),
    Protocol("zero-shot", "classes by their names alone", "worded", zero_shot),
    Protocol("text-retrieval", "texts found by images and images by texts: R@k", "worded", text_retrieval),
    Protocol("segmentation", "a class for every pixel, a head on the frozen encoder: mean IoU", "dense", segmentation),
    Protocol("point-linear", "a class for every point by a linear layer: mean IoU", "points", point_linear),
    Protocol("point-knn", "a class for every point by its nearest neighbour: mean IoU", "points", point_knn),
    Protocol("point-pca", "what three principal components hold of features per point", "features", point_pca),
    Protocol(
        "scene-segmentation", "a class for every point, linear on frozen features: IoU", "scenes", scene_segmentation
    ),
    Protocol("scene-detection", "boxes by a small detector on frozen tokens: AP at 3D IoU", "scenes", scene_detection),
    Protocol("temporal", "clips forward or not, fast or slow, in order or not: linear probes", "times", temporal),
    Protocol("dice", "structures of volumes against masks: 3-D Dice of each volume", "volumes", volume_dice),
    Protocol(
        "slice-position", "the nearest slice of another volume is of the same partition", "slices", slice_position
    ),
    Protocol("label-noise", "whether the weights of labels tell wrong ones from right ones", "weights", label_noise),
    Protocol("layerwise", "linear probe and k-NN on every layer, the best one named", "layers", layerwise),
)

PROTOCOLS: Mapping[str, Protocol] = MappingProxyType({protocol.name: protocol for protocol in _ALL})
"""Protocols by their name on the command line."""

__all__ = [
    "AGES",
    "CORRUPTIONS",
    "INCOMES",
    "LABEL_SETS",
    "PROTOCOLS",
    "QUESTIONS",
    "TEMPLATES",
    "VIDEO_NOISE",
    "Attack",
    "Difference",
    "Labelled",
    "Number",
    "OnlineKNN",
    "Projection",
    "Protocol",
    "Result",
    "anomaly",
    "attribute_retrieval",
    "average_precision",
    "base_to_new",
    "blockiness",
    "box_iou",
    "buckets",
    "cka_matrix",
    "classify",
    "clustering",
    "continual",
    "copy_detection",
    "corrupt",
    "depth",
    "depth_errors",
    "detection",
    "detection_loss",
    "diagnostics",
    "dice",
    "domains",
    "editing",
    "energy",
    "ensemble_scores",
    "evaluation_crop",
    "fewlabel",
    "fgsm",
    "finetune",
    "fit_attack",
    "fit_whitening",
    "flicker",
    "front_frozen",
    "geolocalisation",
    "great_circle",
    "hit_rate",
    "knn",
    "knn_distance",
    "label_association",
    "label_noise",
    "layer_features",
    "layer_names",
    "layerwise",
    "linear",
    "linear_cka",
    "linear_head",
    "linear_sgd",
    "luma",
    "mahalanobis",
    "make_scorer",
    "median_scale",
    "membership",
    "moments",
    "monitor",
    "monitor_rows",
    "ms_ssim",
    "msp",
    "multi_output",
    "nearest",
    "noisy_clip",
    "ood",
    "paired_difference",
    "pgd",
    "point_knn",
    "point_linear",
    "point_pca",
    "principal_colours",
    "project",
    "reached",
    "recall",
    "regional_maxima",
    "regression",
    "residual_text",
    "restoration",
    "restored_video",
    "restricted",
    "retrieval",
    "rmac",
    "robustness",
    "scene_detection",
    "scene_segmentation",
    "segmentation",
    "slice_position",
    "sorted_softmax",
    "stack_layers",
    "subset",
    "table",
    "temporal",
    "text_retrieval",
    "unlearning",
    "vie_score",
    "volume_dice",
    "worst_group",
    "zero_shot",
]
