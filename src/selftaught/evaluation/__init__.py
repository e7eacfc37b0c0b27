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

from selftaught.evaluation.classification import classify
from selftaught.evaluation.clustering import clustering
from selftaught.evaluation.diagnostics import diagnostics
from selftaught.evaluation.fewlabel import fewlabel, subset
from selftaught.evaluation.finetune import finetune
from selftaught.evaluation.linear import linear, linear_sgd
from selftaught.evaluation.neighbours import knn, nearest, retrieval
from selftaught.evaluation.online import OnlineKNN
from selftaught.evaluation.projection import Projection, project
from selftaught.evaluation.regression import regression
from selftaught.evaluation.restoration import restoration
from selftaught.evaluation.result import Difference, Number, Result, paired_difference, table


@dataclass(frozen=True)
class Protocol:
    """A named way to judge a representation or a restoration.

    Args:
        name: as on the command line.
        description: one line.
        inputs: what it is called with: "split" (train_x, train_y, test_x, test_y), "labelled" (x, y), "features" (x,),
            "scores" (logits, y), "images" (predictions, targets) or "encoder" (encoder, train_images, train_y,
            test_images, test_y).
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
    Protocol("diagnostics", "collapse: effective rank, spectrum, alignment, uniformity", "features", diagnostics),
    Protocol("classify", "accuracy of the model's own classes", "scores", classify),
    Protocol("finetune", "encoder and head trained together on the labels", "encoder", finetune),
    Protocol("restoration", "PSNR and SSIM against clean images", "images", restoration),
    Protocol("clustering", "k-means against the classes: NMI, ARI, matched accuracy", "labelled", clustering),
    Protocol("regression", "ridge regression on numeric targets: MAE, RMSE, rho", "split", regression),
)

PROTOCOLS: Mapping[str, Protocol] = MappingProxyType({protocol.name: protocol for protocol in _ALL})
"""Protocols by their name on the command line."""

__all__ = [
    "PROTOCOLS",
    "Difference",
    "Number",
    "OnlineKNN",
    "Projection",
    "Protocol",
    "Result",
    "classify",
    "clustering",
    "diagnostics",
    "fewlabel",
    "finetune",
    "knn",
    "linear",
    "linear_sgd",
    "nearest",
    "paired_difference",
    "project",
    "regression",
    "restoration",
    "retrieval",
    "subset",
    "table",
]
