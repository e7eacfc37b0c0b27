"""Choosing a part of many samples by their features: clusters of clusters, balanced sampling, duplicates, density.

>>> from selftaught.data import curation
>>> tree = curation.hierarchical_kmeans(features, (5000, 1000))
>>> kept = curation.balanced_sample(tree, 100_000, leaf="eta", eta=0.5)

Features are (n, D) arrays of any float type; samples are told apart by their position.
"""

from typing import TYPE_CHECKING

from selftaught._rooms import fill_room

if TYPE_CHECKING:
    from typing import Any

    def __getattr__(name: str) -> Any: ...


__all__ = fill_room(__name__, __path__, globals(), lazy=False)
