"""Every public function, called rightly, then with each of its tensors changed in turn: a UserError or a result.

What must not happen is an exception of torch's own, deep inside, or a tensor broadcast to the shape that is needed.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught import objectives
from selftaught.errors import UserError
from tests.objectives import calls

G = torch.Generator().manual_seed(0)


def rand(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=G)


def unit(rows: int = 6, width: int = 4) -> Tensor:
    return F.normalize(torch.randn(rows, width, generator=G), dim=1)


A, B, C, D, QUEUE = unit(), unit(), unit(), unit(), unit(5)
LABELS = torch.tensor([0, 1, 0, 2, 1, 0])
TAU, S = torch.full((6,), 0.2), rand(6) + 0.5
MASK = torch.zeros(6, 5, dtype=torch.bool)
DRAWS = objectives.draw_mochi(torch.full((6,), 5), s=3, s_prime=2, generator=G)
IMAGES, CELLS = rand(2, 1, 4, 4), torch.zeros(2, 2, 2, dtype=torch.int64)
SOURCE, TARGET = torch.tensor([[0, 1], [1, 2]]), torch.tensor([[0, 2], [2, 1]])
VERTEX, EDGE, MAPS, CENTRES = rand(6, 6), rand(2, 2), rand(3, 4, 2, 2), rand(3, 4, 2)
JOINT, COPIES = rand(12, 6), rand(12, 3)
STATE = {"tau": TAU, "s": S, "u": S}
Call = tuple[tuple[Any, ...], dict[str, Any]]
CALLS: dict[str, Call] = {
    "simclr": ((A, B, C), {}),
    "dcl": ((A, B), {}),
    "infonce": ((A, B), {}),
    "dcl_per_anchor": ((A, B), {}),
    "dcl_coupling": ((A, B), {}),
    "dclw_weights": ((A, B), {}),
    "clip": ((A, B), {}),
    "hcl": ((A, B), {}),
    "supcon": ((A, B), {"labels": LABELS}),
    "supervised": ((A, LABELS), {}),
    "groco": ((A, B), {"topk_neg": 2}),
    "nt_xent_pairs": ((A, B), {}),
    "relaxed_sort": ((A,), {}),
    "group_probability": ((A, 1), {}),
    "cacr": ((A, B), {}),
    "cacr_supervised": ((A, B), {"labels": LABELS}),
    "cacr_queue": (([A, B], [C, D], QUEUE), {}),
    "cacr_momentum": (([A, B], C), {}),
    "isogclr": ((A, B), STATE),
    "sogclr": ((A, B), {"s": S}),
    "isogclr_libauc": ((A, B), STATE),
    "isogclr_queue": ((A, B, QUEUE), STATE),
    "isogclr_bimodal": ((A, B), {"image_state": objectives.PairState(TAU, S, S, S)}),
    "amcl": ((A, B), {}),
    "amcl_omega": ((TAU, 4), {}),
    "amcl_moco": ((A, B, QUEUE), {}),
    "amcl_simsiam": ((A, B, C, D), {}),
    "amcl_barlow_twins": ((A, B), {"scores": rand(1, 4, 4)}),
    "moco_v2": ((A, B, QUEUE), {"mask": MASK}),
    "moco_v3": ((A, B, C, D), {}),
    "mochi": ((A, B, QUEUE), {"N": 5, "draws": DRAWS, "mask": MASK}),
    "mochi_negatives": ((A, QUEUE), {"N": 5, "draws": DRAWS}),
    "nnclr": ((A, B, C, D), {}),
    "nearest": ((A, QUEUE), {"mask": MASK}),
    "scatsimclr": ((A, B, C, LABELS), {}),
    "projection_head": ((A, B), {}),
    "spectral": ((A, B), {}),
    "spectral_population": ((rand(3, 4), rand(4), rand(4)), {}),
    "barlow_twins": ((A, B), {}),
    "vicreg": ((A, B), {}),
    "mixed_barlow_twins": ((A, B, C, rand(6), torch.arange(6)), {}),
    "byol": ((A, B, C, D), {}),
    "simsiam": ((A, B, C, D), {}),
    "spread": ((A,), {}),
    "swav": ((A, B), {"queue": [QUEUE, QUEUE]}),
    "seer": ((A, B), {}),
    "sinkhorn": ((A,), {}),
    "swapped_prediction": ((A, B), {"codes": rand(2, 6, 4)}),
    "dino": ((torch.stack([A, B]), torch.stack([C, D])), {"center": rand(4)}),
    "dino_center": ((rand(4), torch.stack([A, B])), {}),
    "ressl": ((A, B, QUEUE), {}),
    "c_bsn": ((IMAGES, IMAGES, IMAGES[:, :, ::2, ::2], IMAGES, CELLS), {}),
    "blind_spot": ((IMAGES, IMAGES), {}),
    "s2b": ((IMAGES, 2), {}),
    "b2s": ((rand(8, 1, 2, 2), 2), {}),
    "draw_subsample": ((IMAGES, 2), {}),
    "random_subsample": ((IMAGES, CELLS, 2), {}),
    "normalise_patch": ((IMAGES,), {}),
    "denormalise_patch": ((IMAGES, rand(2, 1, 1, 1), rand(2, 1, 1, 1)), {}),
    "frame_projections": ((A, B, C), {"mapped_w": D, "mapped_f": D}),
    "frame_projections_mappers": ((A, B, C, D), {}),
    "lvm_med": ((A, B), {"local": VERTEX, "edges": (SOURCE, TARGET)}),
    "graph_matching": ((VERTEX, EDGE, SOURCE, TARGET), {}),
    "match_graphs": ((VERTEX, EDGE, SOURCE, TARGET), {}),
    "knn_edges": ((A, 2), {}),
    "edge_affinity": ((A, B, SOURCE, TARGET), {}),
    "local_similarity": ((MAPS, MAPS, CENTRES, CENTRES), {}),
    "grid_centres": ((rand(3, 5), 2, 2), {}),
    "sla": ((JOINT, LABELS, COPIES), {"class_weights": torch.ones(3), "margins": torch.ones(3)}),
    "sla_aggregate": ((JOINT, 2), {}),
    "sla_single": ((JOINT, 2), {}),
    "sla_da": ((COPIES, LABELS), {"class_weights": torch.ones(3)}),
    "sla_mt": ((COPIES, rand(12, 2), LABELS), {}),
    "sla_episode": ((unit(12), LABELS, unit(4)), {"classes": 3, "copies": 2}),
    "effective_weights": ((torch.tensor([3.0, 4.0]),), {}),
    "ldam_margins": ((torch.tensor([3.0, 4.0]),), {}),
    "hard_pairs": ((A, LABELS), {}),
    "semi_hard_partners": ((LABELS,), {}),
    "core_tuning_pool": ((A, LABELS), {"partner": torch.arange(6), "lambda_n": rand(6), "lambda_p": rand(6)}),
    "focal_contrast": ((A, LABELS), {}),
    "core_tuning": ((rand(6, 3), unit(), F.one_hot(LABELS).float()), {}),
    "draw_mochi": ((torch.full((6,), 5),), {}),
}
WITHOUT_TENSORS = {"c_bsn_ramp", "sorting_network"}
for _file in iter_modules(calls.__path__):  # newer systems bring theirs in a file of their own
    _module = import_module(f"{calls.__name__}.{_file.name}")
    CALLS |= _module.CALLS
    WITHOUT_TENSORS |= getattr(_module, "WITHOUT_TENSORS", set())


def changed(tensor: Tensor) -> Iterator[Tensor]:
    """The tensor with another rank, number of rows, width, type or range."""
    if tensor.dim() == 0:
        yield tensor.expand(2)
        return
    yield tensor.flatten()[0]
    yield tensor.unsqueeze(-1)
    yield tensor.unsqueeze(0)
    for rows in (0, 1, len(tensor) - 1):
        yield tensor[:rows]
    if tensor.dim() > 1:
        yield from (tensor.unsqueeze(1), tensor[..., :-1], tensor[..., :1])
    if tensor.is_floating_point():
        yield from ((3 * tensor).long(), tensor > 0.5)
    elif tensor.dtype == torch.bool:
        yield from (tensor.float(), tensor.long())
    else:
        yield from (tensor.float(), tensor.int(), tensor.bool(), tensor + 100, tensor - 100)


def places(call: Call) -> Iterator[tuple[Any, ...]]:
    """Where a call holds tensors: (argument,) or (argument, number in its list or tuple)."""
    for key, value in [*enumerate(call[0]), *call[1].items()]:
        if isinstance(value, Tensor):
            yield (key,)
        elif isinstance(value, list | tuple):
            yield from ((key, number) for number, one in enumerate(value) if isinstance(one, Tensor))


def with_new(call: Call, place: tuple[Any, ...], tensor: Tensor) -> Call:
    arguments, options = list(call[0]), dict(call[1])
    where: Any = arguments if isinstance(place[0], int) else options
    if len(place) == 1:
        where[place[0]] = tensor
    else:
        old = where[place[0]]
        items = [tensor if number == place[1] else x for number, x in enumerate(old)]
        where[place[0]] = type(old)(*items) if hasattr(old, "_fields") else type(old)(items)
    return tuple(arguments), options


def test_all_functions_are_here() -> None:
    functions = {n for n in objectives.__all__ if inspect.isfunction(getattr(objectives, n)) and "_terms" not in n}
    assert functions - WITHOUT_TENSORS == set(CALLS)


@pytest.mark.filterwarnings("ignore:.*expects unit vectors", "ignore:divide by zero")
@pytest.mark.parametrize("name", CALLS)
def test_a_changed_tensor_is_refused_or_taken(name: str) -> None:
    function, call = getattr(objectives, name), CALLS[name]
    function(*call[0], **call[1])
    refused = 0
    for place in places(call):
        original = call[0][place[0]] if isinstance(place[0], int) else call[1][place[0]]
        for tensor in changed(original if len(place) == 1 else original[place[1]]):
            arguments, options = with_new(call, place, tensor)
            try:
                function(*arguments, **options)
            except UserError:
                refused += 1
    assert refused or name in ("amcl_omega",)  # which is elementwise


def flat(found: Any) -> list[Tensor]:
    """The tensors in a result, one after the other."""
    if isinstance(found, Tensor):
        return [found]
    inside = found.values() if isinstance(found, dict) else found if isinstance(found, list | tuple) else ()
    return [tensor for one in inside for tensor in flat(one)]


@pytest.mark.filterwarnings("ignore:.*expects unit vectors", "ignore:divide by zero")
@pytest.mark.parametrize("name", CALLS)
def test_a_number_may_be_a_tensor_of_one(name: str) -> None:
    """As it comes out of a calculation: the value is the same, or the mistake is told; none is cut or broadcast."""
    function, (arguments, options) = getattr(objectives, name), CALLS[name]
    for parameter in inspect.signature(function).parameters.values():
        number = options.get(parameter.name, parameter.default)
        if type(number) is not float:
            continue
        with_tensor = options | {parameter.name: torch.tensor(number)}
        torch.manual_seed(0)
        try:
            given = flat(function(*arguments, **with_tensor))
        except UserError:
            continue
        torch.manual_seed(0)
        for ours, theirs in zip(given, flat(function(*arguments, **options)), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5, equal_nan=True, check_dtype=False)
