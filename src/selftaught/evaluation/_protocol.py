"""What a protocol is, and how a file of this room declares one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from selftaught.evaluation.result import Result

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Protocol:
    """A named way to judge a representation or a restoration.

    Args:
        name: as on the command line.
        description: one line.
        inputs: what it is called with: "split" (train_x, train_y, test_x, test_y), "labelled" (x, y), "features" (x,),
            "scores" (logits, y), "classifier" (a function from pixels to logits, images, y), "images" (predictions,
            targets), "depths" (predictions, measured depths), "encoder" (encoder, train_images, train_y, test_images,
            test_y), "copies" (database, groups, queries, query_groups), "places" (train_x, train_places, test_x,
            test_places), "attributes" (database, attributes), "named-scores" (logits, names of the classes, what is
            right or who is shown), "layers" (train, train_y, test, test_y with features by layer), "dense" (encoder,
            train_images, train_masks, test_images, test_masks), "points" (as "split", each a list with the points of
            every scan), "scenes" (clouds or features of their points, what is known of them), "forgotten" (scores and
            labels of what was to be kept, of what was to be forgotten, and of what was never seen), "weights" (weights
            of labels, which of them are wrong), "devices" (classifier, train, train_y, test, test_y: windows of one
            device), "volumes" (predictions, truths), "slices" (features, volume, part), "matches" (maps of first views,
            of second views, where each token lies there), "worded" (scores of images by texts, and what is right),
            "times" (train, test: features by the way of showing a clip), "results" (Results of one side over data sets,
            and of the other), "mixtures" (scores for every share of trained weights, the share that is kept) or "edits"
            (pictures before and after, what judges say of them).
        function: the protocol itself.
    """

    name: str
    description: str
    inputs: str
    function: Callable[..., Any]

    def __call__(self, *args: Any, **options: Any) -> Result:
        """Run it; see ``function`` for arguments, options, defaults and errors."""
        return self.function(*args, **options)


_known: dict[str, Protocol] = {}


def protocol(name: str, description: str, *, inputs: str) -> Callable[[_Function], _Function]:
    """Declare a function of this room as a protocol; it stays the plain function that it is.

    Args:
        name: as on the command line.
        description: one line.
        inputs: what it is called with, see :class:`Protocol`.

    Raises:
        ValueError: two protocols of one name.
    """

    def declare(function: _Function) -> _Function:
        if name in _known:
            raise ValueError(f"two protocols are called {name!r}: {_known[name].function} and {function}")
        _known[name] = Protocol(name, description, inputs, function)
        return function

    return declare


def protocols() -> dict[str, Protocol]:
    """Those declared by files imported so far, sorted by name."""
    return dict(sorted(_known.items()))
