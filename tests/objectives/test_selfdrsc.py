"""SelfDRSC's losses against their formulas, written out in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from selftaught import UserError
from selftaught.objectives.selfdrsc import (
    feature_distance,
    flow_variation,
    selfdrsc,
    selfdrsc_distillation,
    selfdrsc_supervised,
)

G = torch.Generator().manual_seed(3)


def draw(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=G, dtype=torch.float64)


def phi(x: Tensor) -> Tensor:
    return (2 * x).sin()[..., ::2, ::2]


def charb(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.sqrt((x - y) ** 2 + 1e-9).mean())


def perc(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.abs(np.sin(2 * x) - np.sin(2 * y))[..., ::2, ::2].mean())


def variation(flow: np.ndarray) -> float:
    right = np.concatenate((flow[..., 1:], flow[..., -1:]), -1)
    below = np.concatenate((flow[..., 1:, :], flow[..., -1:, :]), -2)
    return float(((right - flow) ** 2 + (below - flow) ** 2).mean())


def test_the_loss_of_a_pair() -> None:
    made = {name: draw(2, 3, 6, 8) for name in ("t2b", "b2t", "t2b mid", "b2t mid")}
    pictures = {name: draw(2, 3, 6, 8).requires_grad_() for name in ("t2b", "b2t")}
    flows = [draw(2, 12, 3, 4) for _ in range(4)]
    found = selfdrsc(made, pictures, flows, phi)
    pairs = [(m.numpy(), pictures[name[:3]].detach().numpy()) for name, m in made.items()]
    near, alike = sum(charb(*p) for p in pairs), sum(perc(*p) for p in pairs)
    smooth = sum(variation(f.numpy()) for f in flows)
    assert float(found["reconstruction"]) == pytest.approx(near, rel=1e-10)
    assert float(found["perceptual"]) == pytest.approx(alike, rel=1e-10)
    assert float(found["variation"]) == pytest.approx(smooth, rel=1e-10)
    assert float(found["loss"]) == pytest.approx(near + 0.1 * alike + 0.1 * smooth, rel=1e-10)
    plain = selfdrsc(made, pictures, [], None)
    assert float(plain["loss"]) == pytest.approx(near, rel=1e-10)
    assert not plain["loss"].requires_grad  # none to the pictures


def test_a_still_scene_costs_the_root_of_epsilon() -> None:
    same = draw(1, 3, 5, 5)
    made = dict.fromkeys(("t2b", "b2t", "t2b mid", "b2t mid"), same)
    found = selfdrsc(made, {"t2b": same, "b2t": same}, [torch.ones(1, 12, 4, 4)], phi)
    assert float(found["loss"]) == pytest.approx(4 * np.sqrt(1e-9), rel=1e-6)


def test_gradients() -> None:
    x, y = draw(1, 2, 4, 4).requires_grad_(), draw(1, 2, 4, 4)
    flow = draw(1, 4, 3, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: feature_distance(a, y, phi), (x,))
    assert torch.autograd.gradcheck(flow_variation, (flow,))
    assert torch.autograd.gradgradcheck(flow_variation, (flow,))
    assert torch.autograd.gradcheck(lambda a: selfdrsc({"t2b": a}, {"t2b": y}, [flow.detach()], phi)["loss"], (x,))


def test_distillation_and_supervision() -> None:
    student, teacher = draw(2, 3, 3, 6, 8), draw(2, 3, 3, 6, 8)
    wanted = charb(student.numpy(), teacher.numpy()) + 0.1 * perc(student.numpy(), teacher.numpy())
    assert float(selfdrsc_distillation(student, teacher, phi)) == pytest.approx(wanted, rel=1e-10)
    flows = [draw(2, 12, 3, 4)]
    found = selfdrsc_supervised(student, teacher, flows, phi, smoothness=0.5)
    assert float(found["loss"]) == pytest.approx(wanted + 0.5 * variation(flows[0].numpy()), rel=1e-10)


def test_what_does_not_fit_is_refused() -> None:
    x = draw(1, 3, 4, 4)
    with pytest.raises(UserError, match="of none of the pictures"):
        selfdrsc({"left": x}, {"t2b": x, "b2t": x}, [])
    with pytest.raises(UserError, match="reconstructed"):
        selfdrsc({}, {"t2b": x, "b2t": x}, [])
    with pytest.raises(UserError, match="one shape"):
        selfdrsc_distillation(draw(1, 3, 3, 4, 4), draw(1, 1, 3, 4, 4))
    with pytest.raises(UserError, match="N, C, H, W"):
        flow_variation(draw(3, 4, 4))
