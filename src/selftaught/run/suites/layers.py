"""Every layer of an encoder, judged alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from selftaught.errors import UserError
from selftaught.evaluation import Result
from selftaught.evaluation.layerwise import layerwise
from selftaught.run import contenders, samples
from selftaught.run.suites._suite import suite

if TYPE_CHECKING:
    from selftaught.run.bench import Bench

__all__: list[str] = []

_LIMIT_LAYERS = 5000


@suite("layerwise", images_only=False)
def _layerwise(bench: Bench) -> dict[str, Result]:
    name = "layerwise"
    parts = samples.labelled_parts(bench.data, bench.method.modality, bench.settings)
    if parts is None:
        raise UserError(f"--protocol {name} needs labels, {bench.data} has none: give --data with class folders")
    train, test = contenders.some(parts[0], _LIMIT_LAYERS), contenders.some(parts[1], _LIMIT_LAYERS)
    assert train.labels is not None
    assert test.labels is not None
    told: Any = bench.options.nearest()
    found = {}
    for contender in bench.each(name, train):
        (x, at), (tx, index) = (contender.layers(part, bench.options.cells()) for part in (train, test))
        found[contender.kind] = layerwise(x, train.labels[at], tx, test.labels[index], **told)
    return found
