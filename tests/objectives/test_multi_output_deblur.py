"""Losses of several heads against their formulas, what only the best head may learn, and the toy of the sheet."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from selftaught import objectives
from selftaught.errors import UserError
from selftaught.networks.multi_output import add_heads, combined_heads, head_pairs

EPS = 1e-8


def draw(heads: int = 4, batch: int = 3, channels: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    sharp = torch.rand(batch, channels, 6, 7, generator=generator, dtype=torch.float64)
    noise = torch.rand(batch, heads, channels, 6, 7, generator=generator, dtype=torch.float64)
    return sharp[:, None] + 0.2 * noise, sharp


def laplacian(x: np.ndarray) -> np.ndarray:
    taps = np.array([0.05, 0.25, 0.4, 0.25, 0.05])

    def smooth(plane: np.ndarray) -> np.ndarray:
        wide, out = np.pad(plane, 2, mode="edge"), np.zeros_like(plane)
        for i in range(plane.shape[0]):
            for j in range(plane.shape[1]):
                out[i, j] = (wide[i : i + 5, j : j + 5] * np.outer(taps, taps)).sum()
        return out

    found = np.zeros_like(x)
    for place in np.ndindex(x.shape[:-2]):
        low = np.zeros_like(x[place])
        low[::2, ::2] = 4 * smooth(x[place])[::2, ::2]
        found[place] = x[place] - smooth(low)
    return found


def test_the_losses_as_written() -> None:
    made, sharp = draw()
    y, x = made.numpy(), sharp.numpy()
    psnr, mse, l1, whole = [], [], [], []
    for n in range(3):
        squared = [((y[n, h] - x[n]) ** 2).mean() for h in range(4)]
        psnr.append(10 / math.log(10) * math.log(min(squared) + EPS))
        mse.append(min(squared))
        l1.append(min(np.abs(y[n, h] - x[n]).mean() for h in range(4)))
        whole.append(
            min(
                np.sqrt((y[n, h] - x[n]) ** 2 + 1e-6).mean()
                + 0.05 * np.sqrt((laplacian(y[n, h]) - laplacian(x[n])) ** 2 + 1e-6).mean()
                for h in range(4)
            )
        )
    assert objectives.multi_head_psnr(made, sharp).item() == pytest.approx(np.mean(psnr), rel=1e-12)
    assert objectives.multi_head_mse(made, sharp).item() == pytest.approx(np.mean(mse), rel=1e-12)
    assert objectives.multi_head_l1(made, sharp).item() == pytest.approx(np.mean(l1), rel=1e-12)
    assert objectives.multi_head(made, sharp).item() == pytest.approx(np.mean(whole), rel=1e-12)
    stages = objectives.multi_output_deblur([made, made], sharp, weight=0.5)
    assert stages.item() == pytest.approx(np.mean(psnr), rel=1e-12)
    one = objectives.charbonnier_edge(made[:, 0], sharp)
    assert one.item() == pytest.approx(objectives.multi_head(made[:, :1], sharp).item(), rel=1e-12)


def test_one_head_is_the_ordinary_loss_and_a_constant_error_has_its_decibels() -> None:
    made, sharp = draw(heads=1)
    mse = (made[:, 0] - sharp).square().mean((1, 2, 3))
    plain = 10 * (mse + EPS).log10().mean()
    assert objectives.multi_head_psnr(made, sharp).item() == pytest.approx(plain.item(), abs=1e-9)
    constant = objectives.multi_head_psnr(sharp[:, None] + 0.1, sharp)
    assert constant.item() == pytest.approx(-20, abs=1e-4)
    assert objectives.multi_head_psnr(sharp[:, None], sharp).item() == pytest.approx(-80)


def test_order_of_heads_is_nothing_and_combinations_only_help() -> None:
    made, sharp = draw()
    plain = objectives.multi_head_psnr(made, sharp)
    assert objectives.multi_head_psnr(made[:, [2, 0, 3, 1]], sharp).item() == pytest.approx(plain.item(), rel=1e-12)
    assert objectives.multi_head_psnr(combined_heads(made), sharp) <= plain


def test_pairs_of_heads() -> None:
    heads = torch.randn(2, 4, 3, 2, 2)
    assert head_pairs(4)[:6] == [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]
    combined = combined_heads(heads)
    assert combined.shape[1] == 10
    for place, (i, j) in enumerate(head_pairs(4)):
        torch.testing.assert_close(combined[:, place], (heads[:, i] + heads[:, j]) / 2)
    image = torch.rand(2, 3, 2, 2)
    torch.testing.assert_close(add_heads(image, heads), combined + image[:, None])
    torch.testing.assert_close(add_heads(image, heads, combine=False), heads + image[:, None])


def test_only_the_winner_learns_and_a_pair_by_halves() -> None:
    made, sharp = draw(batch=1)
    residuals = (made - sharp[:, None]).requires_grad_()
    objectives.multi_head_psnr(residuals + sharp[:, None], sharp).backward()
    winner = objectives.best_head(objectives.head_distances(made, sharp)).item()
    lengths = residuals.grad.flatten(2).norm(dim=2)[0]  # type: ignore[union-attr]
    assert [h for h in range(4) if lengths[h] > 0] == [winner]
    heads = torch.stack([torch.full((3, 6, 7), 0.1), torch.full((3, 6, 7), -0.1)])[None].double().requires_grad_()
    output = sharp[:, None] + combined_heads(heads) + 0.01
    assert objectives.best_head(objectives.head_distances(output, sharp)).item() == 1
    objectives.multi_head_psnr(output, sharp).backward()
    torch.testing.assert_close(heads.grad[:, 0], heads.grad[:, 1])  # type: ignore[index]
    assert heads.grad.abs().sum() > 0  # type: ignore[union-attr]


@pytest.mark.parametrize("loss", ["psnr", "mse", "l1"])
def test_distances_that_are_known_change_nothing(loss: str) -> None:
    g = torch.Generator().manual_seed(3)
    stages = [torch.rand(3, 4, 3, 5, 6, generator=g).requires_grad_() for _ in range(2)]
    target = torch.rand(3, 3, 5, 6, generator=g)
    known = objectives.head_distances(stages[-1].detach(), target, distance="l1" if loss == "l1" else "mse")

    def found(**more: object) -> tuple[torch.Tensor, ...]:
        value = objectives.multi_output_deblur(stages, target, loss=loss, **more)
        return value, *torch.autograd.grad(value, stages)

    for ours, anew in zip(found(last=known), found(), strict=True):
        torch.testing.assert_close(ours, anew, rtol=0, atol=0)
    with pytest.raises(UserError, match="not those of"):
        found(last=known[:2])
    with pytest.raises(UserError, match="charbonnier_edge"):
        objectives.multi_output_deblur(stages, target, loss="charbonnier_edge", last=known)


def test_the_choices_that_are_not_the_papers() -> None:
    made, sharp = draw()
    errors = (made - sharp[:, None]).square().mean(2)
    pixel = objectives.multi_head_mse(made, sharp, select="pixel")
    assert pixel.item() == pytest.approx(errors.min(1).values.mean().item(), rel=1e-12)
    means = (made - sharp[:, None]).square().mean((2, 3, 4)).sort(1).values
    soft = (0.9 * means[:, 0] + 0.1 * means[:, 1:].mean(1)).mean()
    assert objectives.multi_head_mse(made, sharp, soft=0.1).item() == pytest.approx(soft.item(), rel=1e-12)
    luma = objectives.rgb_to_y(sharp)
    by_hand = (65.481 * sharp[:, 0] + 128.553 * sharp[:, 1] + 24.966 * sharp[:, 2] + 16) / 255
    torch.testing.assert_close(luma[:, 0], by_hand)
    expected = objectives.multi_head_psnr(objectives.rgb_to_y(made), luma)
    assert objectives.multi_head_psnr(made, sharp, to_y=True).item() == pytest.approx(expected.item(), rel=1e-12)


def test_win_rates_and_gradients() -> None:
    made, sharp = draw()
    distances = objectives.head_distances(made, sharp)
    rates = objectives.win_rates(distances)
    assert rates.sum().item() == pytest.approx(1)
    assert rates[objectives.best_head(distances)].gt(0).all()
    made = made[:1, :2].clone().requires_grad_()
    for function in (objectives.multi_head_psnr, objectives.multi_head, objectives.multi_head_l1):
        assert torch.autograd.gradcheck(lambda u, f=function: f(u, sharp[:1]), (made,))


def test_what_does_not_fit_is_refused() -> None:
    made, sharp = draw()
    with pytest.raises(UserError, match="heads are chosen per image"):
        objectives.multi_head(made, sharp, select="pixel")
    with pytest.raises(UserError, match="to_y goes with"):
        objectives.multi_output_deblur(made, sharp, loss="l1", to_y=True)
    with pytest.raises(UserError, match="one stage or more"):
        objectives.multi_output_deblur([], sharp)


@pytest.mark.slow
def test_several_heads_learn_an_ambiguity_that_one_averages() -> None:
    """The sheet's toy: the label is the image shifted left or right by chance, the input the mean of both."""

    def learn(heads: int) -> tuple[float, float]:
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
            nn.Conv2d(16, heads, 3, padding=1),
        )  # fmt: skip
        optimiser = torch.optim.Adam(net.parameters(), lr=2e-3)
        for step in range(301):
            x = nn.functional.avg_pool2d(torch.rand(16 if step < 300 else 200, 1, 18, 20), 3, 1)
            left, right = x[..., :-2], x[..., 2:]
            side = (torch.rand(len(x)) < 0.5).view(-1, 1, 1, 1)
            blurred, sharp = (left + right) / 2, torch.where(side, left, right)
            output = add_heads(blurred, net(blurred).unsqueeze(2))
            if step < 300:
                optimiser.zero_grad()
                objectives.multi_head_psnr(output, sharp).backward()
                optimiser.step()
        decibels = -10 * objectives.head_distances(output, sharp).log10()
        return decibels.max(1).values.mean().item(), decibels.mean(0).max().item()

    one, several = learn(1), learn(4)
    assert several[0] > one[0] + 3
    assert several[1] > one[1] - 1


def test_no_head_is_the_best_among_unknown_distances() -> None:
    distances = torch.tensor([[0.3, math.nan, 0.1], [0.2, 0.4, 0.1]])
    with pytest.raises(UserError, match="NaN"):
        objectives.best_head(distances)
    assert objectives.best_head(distances[1:]).tolist() == [2]
    assert objectives.win_rates(distances).isnan().all()  # a training ends with its own words on that
    assert objectives.win_rates(distances[1:]).tolist() == [0, 0, 1]
