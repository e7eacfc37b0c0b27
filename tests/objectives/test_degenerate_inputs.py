"""Every public function on rows of zeros, under autocast, and with numbers that wait for a gradient."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from selftaught import objectives
from selftaught.errors import UserError
from tests.objectives.test_every_objective import CALLS, Call, flat, places, with_new

pytestmark = pytest.mark.filterwarnings("ignore:.*expects unit vectors", "ignore:divide by zero")

INFINITE_AT_ZERO = {
    "amcl_omega": "the logarithm of a temperature",
    "gaussian_log_density": "the density of a Gaussian without width",
    "heteroscedastic": "the logarithm of a deviation",
    "sla": "a mean whose weights are all zero",
    "sla_da": "a mean whose weights are all zero",
}


def computed(function: Any, call: Call) -> list[Tensor]:
    torch.manual_seed(0)
    return [tensor for tensor in flat(function(*call[0], **call[1])) if tensor.is_floating_point()]


def zeroed(tensor: Tensor) -> Iterator[Tensor]:
    """The tensor with zeros in its first row, in its first column, everywhere."""
    for where in (0, (..., 0), ...):
        found = tensor.clone()
        found[where] = 0.0
        yield found


def given(call: Call, place: tuple[Any, ...]) -> Tensor:
    value = call[0][place[0]] if isinstance(place[0], int) else call[1][place[0]]
    found = value if len(place) == 1 else value[place[1]]
    assert isinstance(found, Tensor)
    return found


@pytest.mark.parametrize("name", [name for name in CALLS if name not in INFINITE_AT_ZERO])
def test_zeros_leave_the_value_finite_and_the_gradient_bounded(name: str) -> None:
    function, call = getattr(objectives, name), CALLS[name]
    for place in places(call):
        tensor = given(call, place)
        for zeros in zeroed(tensor) if tensor.is_floating_point() and tensor.dim() else ():
            zeros.requires_grad_()
            try:
                found = computed(function, with_new(call, place, zeros))
            except UserError:
                continue
            assert all(one.isfinite().all() for one in found), place
            total = sum(one.sum() for one in found if one.requires_grad)
            slope = torch.autograd.grad(total, zeros, allow_unused=True)[0] if isinstance(total, Tensor) else None
            if slope is not None:
                assert slope.isfinite().all(), place
                assert slope.abs().max() < 1e10, place  # 1e8 / temperature / N with room; 1e12 without a floor


@pytest.mark.parametrize("name", CALLS)
def test_autocast_changes_nothing(name: str) -> None:
    plain = computed(getattr(objectives, name), CALLS[name])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = computed(getattr(objectives, name), CALLS[name])
    for ours, theirs in zip(under, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


# ---- numbers that wait for a gradient ------------------------------------------------------------------------------
OF_CONSTANT_WEIGHTS = {("cacr_momentum", "temperature")}
"""Whose derivative leaves out, as the formula has it, that of weights which are constants."""
BLACK_BOX = {"graph_matching", "lvm_med", "draw_mochi"}
"""Whose derivative is that of a step between combinations, not of the value; draws that are rounded to float32."""


def doubled(value: Any) -> Any:
    """In float64, its tensors waiting for gradients."""
    if isinstance(value, Tensor):
        return value.detach().double().requires_grad_() if value.is_floating_point() else value
    if isinstance(value, dict):
        return {key: doubled(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        items = [doubled(one) for one in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def weighed(found: list[Tensor], kept: list[bool]) -> Tensor:
    """Those parts of a result that are kept, as one number."""
    chosen = [one for one, keep in zip(found, kept, strict=True) if keep]
    weights = (torch.linspace(0.5, 1.5, one.numel(), dtype=one.dtype).view(one.shape) for one in chosen)
    return sum(((one * w).sum() for one, w in zip(chosen, weights, strict=True)), torch.zeros(()))


NUMBERS = [
    (name, parameter.name)
    for name in CALLS
    if name not in BLACK_BOX
    for parameter in inspect.signature(getattr(objectives, name)).parameters.values()
    if type(CALLS[name][1].get(parameter.name, parameter.default)) is float
]


@pytest.mark.parametrize(("name", "number"), NUMBERS, ids=lambda value: value)
def test_a_number_that_waits_for_a_gradient_gets_its_own_or_is_refused(name: str, number: str) -> None:
    function, (arguments, options) = getattr(objectives, name), doubled(CALLS[name])
    default = inspect.signature(function).parameters[number].default
    value = options.get(number, default) or 0.1
    waiting = torch.tensor(value, dtype=torch.float64, requires_grad=True)
    try:
        found = computed(function, (arguments, options | {number: waiting}))
    except UserError:
        return
    kept = [one.requires_grad for one in found]
    if not any(kept) or (name, number) in OF_CONSTANT_WEIGHTS:
        return  # a constant altogether: whoever calls backward() on it is told so
    step = 1e-6 * max(abs(value), 1e-3)
    (slope,) = torch.autograd.grad(weighed(found, kept), waiting, allow_unused=True)
    assert slope is not None
    sides = [computed(function, (arguments, options | {number: value + d})) for d in (step, 0.0)]
    above, here = (weighed(side, kept).item() for side in sides)
    assert slope.item() == pytest.approx((above - here) / step, rel=1e-3, abs=1e-4)


# ---- other types than those declared -------------------------------------------------------------------------------
@pytest.mark.parametrize("name", CALLS)
def test_arrays_lists_and_text_are_refused_by_name(name: str) -> None:
    """As they come out of a DataLoader without collation, of numpy, or of a table of options."""
    function, (arguments, options) = getattr(objectives, name), CALLS[name]
    parameters = inspect.signature(function).parameters
    wrong = [(parameter, "0.1") for parameter in parameters if type(options.get(parameter)) is float]
    wrong += [(n, "0.1") for n, p in parameters.items() if n not in options and type(p.default) is float]
    for parameter, value in wrong:
        with pytest.raises(UserError, match=f"{parameter}.* must be a number"):
            function(*arguments, **options | {parameter: value})
    if arguments and next(iter(parameters.values())).annotation == "Tensor":
        for value in (arguments[0].detach().numpy(), arguments[0].tolist()):
            with pytest.raises(UserError, match="must be a tensor"):
                function(value, *arguments[1:], **options)


@pytest.mark.parametrize("name", [name for name in CALLS if name != "mas_output"])  # a mean over the first axis alone
def test_a_further_dimension_is_refused_or_changes_no_loss(name: str) -> None:
    """A column of labels or weights, or one more axis in front, never makes a table of what is compared row by row."""
    function, call = getattr(objectives, name), CALLS[name]
    plain = computed(function, call)
    if [one.shape for one in plain] != [()]:
        return
    for place in places(call):
        tensor = given(call, place)
        for changed in (tensor.unsqueeze(-1), tensor.unsqueeze(0)) if tensor.dim() else ():
            try:
                found = computed(function, with_new(call, place, changed))
            except UserError:
                continue
            torch.testing.assert_close(found[0], plain[0], msg=str(place))
