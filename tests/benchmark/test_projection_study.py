"""The synthetic study: gradient descent finds the closed form, layer by layer."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from selftaught import objectives
from selftaught.benchmark import projection_study
from selftaught.benchmark.projection_study import PHI, SIGMA, feature_weights, lowest_loss, train_layers
from selftaught.errors import UserError


def test_the_closed_form_by_hand() -> None:
    weights = feature_weights(PHI, SIGMA)
    np.testing.assert_allclose(weights[1], [0.8, 1.32075, 0.81967, 3.0], atol=1e-5)
    np.testing.assert_allclose(weights[0], [0.894, 1.149, 0.905, 1.732], atol=5e-4)
    assert lowest_loss(PHI, SIGMA) == pytest.approx(-2.47272, abs=1e-5)
    three = feature_weights(PHI, SIGMA, 3)
    np.testing.assert_allclose(three, [weights[1] ** (1 / 3), weights[1] ** (2 / 3), weights[1]], rtol=1e-12)
    shares = feature_weights(PHI, SIGMA, 4) / feature_weights(PHI, SIGMA, 4).max(1, keepdims=True)
    assert (np.diff(shares[:, 0]) < 0).all()  # weights grow more unequal layer by layer


def test_the_sheets_experiment_from_a_small_random_start() -> None:
    found = train_layers(PHI, SIGMA, steps=40_000)
    np.testing.assert_allclose(found["weights"][1], [0.800, 1.321, 0.820, 3.000], atol=1e-3)
    np.testing.assert_allclose(found["weights"][0], [0.894, 1.149, 0.905, 1.732], rtol=5e-3)
    assert found["loss"] == pytest.approx(-2.47272, abs=1e-5)


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_from_a_balanced_start_the_layers_share_the_weight_evenly(layers: int) -> None:
    found = train_layers(PHI, SIGMA, layers=layers, steps=8000, lr=0.02, scale=0.5, balanced=True, seed=3)
    np.testing.assert_allclose(found["weights"], feature_weights(PHI, SIGMA, layers), rtol=1e-5)


def test_a_large_unbalanced_start_breaks_the_square_root_but_not_the_output() -> None:
    found = train_layers(PHI, SIGMA, steps=8000, lr=0.01, scale=0.5)
    closed = feature_weights(PHI, SIGMA)
    np.testing.assert_allclose(found["weights"][1], closed[1], rtol=1e-3)
    assert np.abs(found["weights"][0] / closed[0] - 1).max() > 0.05


def test_a_narrow_network_keeps_the_features_with_most_signal() -> None:
    found = train_layers(PHI, SIGMA, width=2, steps=8000, lr=0.02, scale=0.5, balanced=True)
    closed = feature_weights(PHI, SIGMA, width=2)
    assert (closed > 0).sum(1).tolist() == [2, 2]
    np.testing.assert_allclose(found["weights"][1], closed[1], atol=1e-3)


@pytest.mark.parametrize("kappa", [1.0, 1.3, 2.0])
def test_the_fixed_head_leaves_the_output_alone_and_moves_the_layer_below(kappa: float) -> None:
    found = train_layers(PHI, SIGMA, layers=1, kappa=kappa, steps=40_000)
    pre, post = found["weights"]
    np.testing.assert_allclose(post, feature_weights(PHI, SIGMA)[-1], rtol=1e-4)
    if kappa == 1:
        np.testing.assert_array_equal(pre, post)
    else:
        assert (pre > post).all()


def test_the_descent_follows_the_gradient_of_the_objective() -> None:
    found = train_layers(PHI, SIGMA, layers=3, kappa=1.2, steps=1, lr=0.1, scale=0.4, seed=5)
    rng = np.random.default_rng(5)
    weights = [torch.tensor(0.4 * rng.standard_normal(s), requires_grad=True) for s in [(6, 4), (6, 6), (6, 6)]]
    head = torch.diag(torch.tensor(1.2, dtype=torch.float64) ** -torch.arange(6))
    phi, sigma = torch.tensor(PHI, dtype=torch.float64), torch.tensor(SIGMA, dtype=torch.float64)
    loss = objectives.spectral_population(head @ weights[2] @ weights[1] @ weights[0], phi, sigma)
    assert found["history"][0] == pytest.approx(loss.item(), rel=1e-12)
    loss.backward()
    moved = [(w - 0.1 * w.grad).detach() for w in weights]
    chain = [moved[0], moved[1] @ moved[0], moved[2] @ moved[1] @ moved[0], head @ moved[2] @ moved[1] @ moved[0]]
    np.testing.assert_allclose(found["weights"], [w.norm(dim=0).numpy() for w in chain], rtol=1e-12)


def test_the_study_writes_its_numbers_and_its_figure(tmp_path) -> None:
    found = projection_study.run(out=tmp_path, steps=4000, say=lambda line: None)
    stored = json.loads((tmp_path / "projection-study.json").read_text())
    assert stored == json.loads(json.dumps(found))
    assert max(depth["error"] for depth in found["depths"]) < 1e-3
    noise, strength = found["sweeps"]["noise"], found["sweeps"]["strength"]
    assert all(pre >= post for pre, post in zip(noise["pre"], noise["post"], strict=True))
    assert noise["post"][-1] < 0.2 < noise["pre"][-1]
    top = int(np.argmax(strength["post"]))
    assert 0 < top < len(strength["post"]) - 1  # too weak and too strong are both down-weighted
    assert "<svg" in (tmp_path / "projection-study.svg").read_text()[:500]


def test_wrong_input_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="as many of both"):
        feature_weights((1.0, 2.0), (0.1,))
    with pytest.raises(UserError, match="negative"):
        feature_weights((1.0, 0.0), (0.1, 0.0))
    with pytest.raises(UserError, match="layers=0"):
        train_layers(PHI, SIGMA, layers=0)
    with pytest.raises(UserError, match="lower it"), np.errstate(all="ignore"):
        train_layers(PHI, SIGMA, lr=5.0, scale=1.0, steps=100)


def test_pasted_digits_are_in_the_middle_and_lost_as_often_as_asked() -> None:
    torch.manual_seed(0)
    digits = torch.ones(400, 1, 4, 4)
    view = projection_study.paste(torch.zeros(400, 1, 12, 12), digits, digit_scale=0.3, drop_prob=0.25)
    shown = view.flatten(1).sum(1) > 0
    assert 0.2 < 1 - shown.double().mean() < 0.3
    expected = torch.zeros(12, 12)
    expected[4:8, 4:8] = 0.3
    torch.testing.assert_close(view[shown][:, 0], expected.expand(int(shown.sum()), 12, 12))
    objects = torch.zeros(50, 1, 12, 12)
    objects[:, :, 5, 6] = 1.0
    moved = projection_study.paste(objects, digits[:50], digit_scale=0.0)
    places = moved[:, 0].flatten(1).argmax(1)
    assert {int(p) // 12 for p in places} == set(range(2, 9))
    assert {int(p) % 12 for p in places} == set(range(3, 10))
    assert moved.flatten(1).max(1).values.min() >= 0.6
    assert moved.flatten(1).max(1).values.max() <= 1.4


@pytest.mark.slow
def test_a_digit_that_views_lose_is_better_known_before_the_head() -> None:
    found = projection_study.digits_study(drop_probs=(0.8,), samples=600, steps=70, seeds=(0,), say=lambda line: None)
    assert [row["seed"] for row in found] == [0]
    assert found[0]["digit pre"] - found[0]["digit post"] > 0.02
