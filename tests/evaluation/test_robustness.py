"""Attacks on a classifier whose worst case is known in closed form, corruptions by their own facts, domains, masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from selftaught import evaluation
from selftaught.errors import UserError
from selftaught.evaluation.corruptions import CORRUPTIONS, corrupt


class Linear(nn.Module):
    """Two classes by a plane: the exact effect of an attack is epsilon times the 1-norm of the weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(2 * 4 * 4))

    def margin(self, x: Tensor) -> Tensor:
        return (x.flatten(1) - 0.5) @ self.weight

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([-self.margin(x), self.margin(x)], 1) / 2


def plane(count: int = 200) -> tuple[Linear, Tensor, Tensor]:
    model = Linear()
    x = 0.3 + 0.4 * torch.rand(count, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    return model, x, (model.margin(x) > 0).long()


@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
def test_an_attack_reaches_the_exact_worst_case_of_a_linear_classifier(attack: str) -> None:
    model, x, y = plane()
    epsilon = 8 / 255
    found = getattr(evaluation, attack)(model, x, y, epsilon=epsilon)
    sign = (2 * y - 1).float()
    torch.testing.assert_close(
        sign * model.margin(found), sign * model.margin(x) - epsilon * model.weight.abs().sum(), atol=1e-4, rtol=0
    )
    assert (found - x).abs().max() <= epsilon + 1e-6
    assert model.weight.grad is None
    assert not found.requires_grad


def test_attacked_pixels_stay_pixels() -> None:
    model, _, _ = plane()
    x = torch.rand(20, 2, 4, 4, generator=torch.Generator().manual_seed(2)).round()
    y = (model.margin(x) > 0).long()
    for epsilon in (0.02, 0.5):
        found = evaluation.pgd(model, x, y, epsilon=epsilon, steps=5)
        assert 0 <= found.min() <= found.max() <= 1
        assert (found - x).abs().max() <= epsilon + 1e-6
    with pytest.raises(UserError, match="epsilon"):
        evaluation.pgd(model, x, y, epsilon=2.0)


def test_the_protocol_counts_what_survives() -> None:
    model, x, y = plane()
    wrong = y.clone()
    wrong[:20] = 1 - wrong[:20]
    state = torch.random.get_rng_state()
    found = evaluation.robustness(model, x, wrong, epsilons=(8, 2), corruptions=(), steps=5, batch=64)
    assert torch.equal(state, torch.random.get_rng_state())
    reach = model.weight.abs().sum() / 255
    kept = {eps: float(((model.margin(x).abs() > eps * reach)[20:]).sum()) / 200 for eps in (2, 8)}
    assert found["accuracy"].mean == pytest.approx(0.9)
    for attack in ("fgsm", "pgd"):
        assert [point["epsilon"] for point in found.figures["attacks"][attack]] == [2, 8]
        for epsilon, share in kept.items():
            assert found[f"{attack}@{epsilon}"].mean == pytest.approx(share)
    assert 0 < kept[8] < kept[2] < 0.9
    assert found["pgd@2"].low <= found["pgd@2"].mean <= found["pgd@2"].high
    again = evaluation.robustness(model, x, wrong, epsilons=(8, 2), corruptions=(), steps=5, batch=7)
    assert again.to_dict() == found.to_dict()


def test_the_protocol_averages_corruptions_and_names_domains() -> None:
    calls: list[int] = []

    def dark(x: Tensor) -> Tensor:
        calls.append(len(x))
        bright = x.mean((1, 2, 3)) - 0.5
        return torch.stack([-bright, bright], 1)

    images = np.full((40, 3, 12, 12), 0.45, np.float32)
    groups = ["sun"] * 30 + ["rain"] * 10
    truth = np.array([0] * 36 + [1] * 4)
    found = evaluation.robustness(
        dark, images, truth, attacks=(), corruptions=("brightness", "contrast"), severities=(1, 2), groups=groups
    )
    # 0.45 + 0.1 is class 1 already; less contrast leaves the mean where it was.
    assert found["accuracy"].mean == pytest.approx(0.9)
    assert found["contrast"].mean == pytest.approx(0.9)
    assert found["brightness"].mean == pytest.approx(0.1)
    assert found["corrupted"].mean == pytest.approx(0.5)
    assert found["worst_group"].mean == found["accuracy: domain rain"].mean == pytest.approx(0.6)
    assert found["gap"].mean == pytest.approx(0.4)
    assert sum(calls) == 40 * 5


def test_domains_of_scores() -> None:
    scores = np.eye(3)[[0, 1, 2, 0, 1, 2]]
    found = evaluation.domains(scores, [0, 1, 2, 0, 0, 0], [0, 0, 0, 7, 7, 7], name="site")
    assert found["accuracy"].mean == pytest.approx(4 / 6)
    assert found["worst_group"].mean == found["accuracy: site 7"].mean == pytest.approx(1 / 3)
    assert found["gap"].mean == pytest.approx(2 / 3)
    assert evaluation.domains(scores, [0, 1, 2, 0, 0, 0], ["a"] * 6)["gap"].mean == 0
    with pytest.raises(UserError, match="one group per sample"):
        evaluation.domains(scores, [0] * 6, ["a"])


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_corruption_grows_with_its_severity(kind: str, channels: int) -> None:
    rows = np.linspace(0, 1, 48)
    image = 0.5 + 0.3 * np.sin(40 * rows)[:, None, None] * np.cos(25 * rows)[None, :, None] * np.ones((1, 1, channels))
    apart = []
    for severity in (1, 3, 5):
        found = corrupt(image, kind, severity, rng=np.random.default_rng(0))
        assert found.shape == image.shape
        assert found.dtype == np.float32
        assert 0 <= found.min() <= found.max() <= 1
        apart.append(float(np.abs(found - image).mean()))
    assert 0 < apart[0] < apart[1] < apart[2]


def test_corruptions_are_what_their_names_say() -> None:
    flat = np.full((64, 64, 2), 0.4, np.float32)
    rng = np.random.default_rng(0)
    noise = corrupt(flat, "gaussian_noise", 1, rng=rng) - flat
    assert noise.std() == pytest.approx(0.08, rel=0.05)
    shot = corrupt(flat, "shot_noise", 1, rng=rng) - flat
    assert shot.std() == pytest.approx((0.4 / 60) ** 0.5, rel=0.05)
    impulse = corrupt(flat, "impulse_noise", 5, rng=rng)
    assert (impulse != np.float32(0.4)).mean() == pytest.approx(0.27, abs=0.02)
    assert set(np.unique(impulse).tolist()) == {0.0, float(np.float32(0.4)), 1.0}
    for kind in ("gaussian_blur", "defocus_blur", "motion_blur", "contrast", "pixelate"):
        np.testing.assert_allclose(corrupt(flat, kind, 5), flat, atol=5e-5)  # nothing to blur on a flat image
    spot = np.zeros((65, 65, 1))
    spot[32, 32] = 1
    for kind in ("gaussian_blur", "defocus_blur", "motion_blur"):
        blurred = corrupt(spot, kind, 3, rng=np.random.default_rng(1))[..., 0]
        assert blurred.sum() == pytest.approx(1, abs=1e-4)
        spread = np.array([(blurred * (np.arange(65) - 32)[:, None] ** 2).sum(),
                           (blurred * (np.arange(65) - 32)[None] ** 2).sum()])  # fmt: skip
        if kind == "gaussian_blur":
            assert spread == pytest.approx((0.02 * 65) ** 2, rel=0.05)
        if kind == "defocus_blur":
            assert spread == pytest.approx((0.03 * 65) ** 2 / 4, rel=0.25)
        if kind == "motion_blur":
            assert spread.sum() == pytest.approx((0.1 * 65) ** 2 / 12, rel=0.35)
    same = [corrupt((255 * spot).astype(np.uint8), "gaussian_noise", rng=np.random.default_rng(5)) for _ in range(2)]
    np.testing.assert_array_equal(*same)
    for bad, words in ((("snowfall", 1), "one of"), (("contrast", 6), "1 to 5")):
        with pytest.raises(UserError, match=words):
            corrupt(flat, *bad)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"images": torch.full((4, 2, 4, 4), 1.5)}, "outside"),
        ({"images": torch.zeros(4, 2, 4)}, "pass \\(n, C, H, W\\)"),
        ({"attacks": ("cw",)}, "one of"),
        ({"epsilons": (0,)}, "epsilons"),
        ({"truth": [0, 1]}, "2 labels for 4"),
    ],
)
def test_errors_name_the_argument(options: dict, words: str) -> None:
    given = {"images": torch.zeros(4, 2, 4, 4), "truth": [0, 1, 0, 1]} | options
    with pytest.raises(UserError, match=words):
        evaluation.robustness(Linear(), given.pop("images"), given.pop("truth"), **given)
