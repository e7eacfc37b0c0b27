import math

import pytest
import torch
import torch.nn.functional as F

from selftaught import objectives
from selftaught.errors import UserError
from selftaught.objectives import _tiled


def pairs(rows=6, width=5, seed=0):
    g = torch.Generator().manual_seed(seed)
    image = torch.randn(rows, width, generator=g, dtype=torch.float64)
    return image, image + 0.7 * torch.randn(rows, width, generator=g, dtype=torch.float64)


def literal(image, text, temperature):
    """The formula with loops, over lists of numbers."""
    unit = lambda rows: [[x / math.sqrt(sum(y * y for y in r)) for x in r] for r in rows]  # noqa: E731
    a, b = unit(image.tolist()), unit(text.tolist())
    s = [[sum(x * y for x, y in zip(r, c, strict=True)) / temperature for c in b] for r in a]
    total, n = 0.0, len(a)
    for i in range(n):
        total -= math.log(math.exp(s[i][i]) / sum(math.exp(s[i][j]) for j in range(n)))
        total -= math.log(math.exp(s[i][i]) / sum(math.exp(s[j][i]) for j in range(n)))
    return total / (2 * n)


def matrix(image, text, temperature):
    """The figure's own form: one matrix of logits, cross-entropy along both axes."""
    logits = F.normalize(image, dim=1) @ F.normalize(text, dim=1).T / temperature
    labels = torch.arange(len(logits))
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


@pytest.mark.parametrize("temperature", [0.01, 0.07, 1.0])
@pytest.mark.parametrize("learnt", [False, True])
def test_equals_its_formula(temperature, learnt):
    image, text = pairs()
    given = torch.tensor(temperature, dtype=torch.float64) if learnt else temperature
    ours = objectives.clip(image, text, temperature=given)
    assert ours.dtype == torch.float64
    assert ours.item() == pytest.approx(literal(image, text, temperature), rel=1e-9)


@pytest.mark.parametrize("tile", [2, 5, 64])
def test_gradients_into_both_sides_and_the_temperature_are_those_of_the_matrix(tile, monkeypatch):
    """Also where the matrix falls into many tiles, and where logits leave the safe range."""
    monkeypatch.setattr(_tiled, "_tile_side", lambda device: tile)
    for start in (0.5, 0.01):
        found = []
        for loss in (objectives.clip, matrix):
            image, text = (x.clone().requires_grad_() for x in pairs(11, seed=3))
            t = torch.tensor(-math.log(start), dtype=torch.float64, requires_grad=True)
            value = loss(image, text, temperature=(-t).exp())
            value.backward()
            found.append((value.detach(), image.grad, text.grad, t.grad))
        for ours, theirs in zip(*found, strict=True):
            assert ours.abs().max() > 0
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_a_number_and_a_tensor_give_the_same_gradients():
    found = []
    for temperature in (0.2, torch.tensor(0.2, dtype=torch.float64)):
        image, text = (x.clone().requires_grad_() for x in pairs())
        objectives.clip(image, text, temperature=temperature).backward()
        found.append((image.grad, text.grad))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_limits_and_symmetries():
    image, text = pairs()
    value = objectives.clip(image, text)
    unit = (F.normalize(x, dim=1) for x in (image, text))
    torch.testing.assert_close(2 * value, objectives.infonce(*unit, temperature=0.07, negatives="cross_view_only"))
    torch.testing.assert_close(value, objectives.clip(text, image))
    torch.testing.assert_close(value, objectives.clip(3 * image, 0.1 * text))
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(value, objectives.clip(image[order], text[order]))
    assert objectives.clip(image, text[order]) > value + 1
    assert objectives.clip(image[:1], text[:1]).item() == pytest.approx(0, abs=1e-12)
    same = torch.ones(8, 3)
    assert objectives.clip(same, same).item() == pytest.approx(math.log(8), rel=1e-6)


def test_half_precision_is_raised_and_gradients_come_back_in_their_own_type():
    image, text = (x.bfloat16().requires_grad_() for x in pairs())
    t = torch.tensor(math.log(1 / 0.07), requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        value = objectives.clip(image, text, temperature=(-t).exp())
    value.backward()
    assert value.dtype == torch.float32
    assert (image.grad.dtype, t.grad.dtype) == (torch.bfloat16, torch.float32)
    assert value.item() == pytest.approx(literal(image.double(), text.double(), 0.07), rel=1e-4)


def test_descent_pairs_the_modalities_and_learns_the_temperature():
    """Two linear maps of one hidden cause: after training every image's nearest text is its own."""
    g = torch.Generator().manual_seed(0)
    cause = torch.randn(48, 6, generator=g)
    x, y = cause @ torch.randn(6, 20, generator=g), cause @ torch.randn(6, 30, generator=g)
    maps = [torch.nn.Linear(20, 8, bias=False), torch.nn.Linear(30, 8, bias=False)]
    for m, source in zip(maps, (x, y), strict=True):
        with torch.no_grad():
            m.weight.copy_(torch.randn(m.weight.shape, generator=g) / source.shape[1] ** 0.5)
    t = torch.tensor(math.log(1 / 0.5), requires_grad=True)
    optimizer = torch.optim.Adam([*maps[0].parameters(), *maps[1].parameters(), t], lr=0.02)

    def right():
        a, b = (F.normalize(m(s), dim=1) for m, s in zip(maps, (x, y), strict=True))
        return ((a @ b.T).argmax(1) == torch.arange(48)).float().mean().item()

    before = right()
    for _ in range(150):
        optimizer.zero_grad()
        objectives.clip(maps[0](x), maps[1](y), temperature=(-t).exp()).backward()
        optimizer.step()
    assert before < 0.3
    assert right() == 1.0
    assert t.item() > math.log(1 / 0.5) + 0.5  # well told apart, it sharpens


@pytest.mark.parametrize(
    ("image", "text", "options", "says"),
    [
        (torch.ones(3, 2), torch.ones(4, 2), {}, r"\(3, 2\) and \(4, 2\)"),
        (torch.ones(0, 2), torch.ones(0, 2), {}, "too small"),
        (torch.ones(3, 2), torch.ones(3, 2), {"temperature": 0.0}, "temperature must be above 0"),
        (torch.ones(3, 2).long(), torch.ones(3, 2).long(), {}, "floating-point"),
    ],
)
def test_bad_input_is_refused(image, text, options, says):
    with pytest.raises(UserError, match=says):
        objectives.clip(image, text, **options)
