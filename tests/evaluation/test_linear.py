import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from selftaught.errors import UserError
from selftaught.evaluation import knn, linear, linear_sgd, logistic, probe
from selftaught.evaluation.linear import RECIPES


def objective(x, y, weight, bias, c, sample_weight=None):
    """scikit-learn's: sum of cross entropies + ||W||^2 / (2C), float64."""
    logits = x @ weight + bias
    loss = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(y)), y]
    weights = np.ones(len(y)) if sample_weight is None else sample_weight
    return float(loss @ weights + (weight**2).sum() / (2 * c))


def solve(x, y, k, strengths, **options):
    x = torch.as_tensor(x)
    space, z = logistic.make_space(x, logistic.moments(x))
    solution = logistic.fit(z, torch.as_tensor(y), k, strengths, energy=space.energy, **options)
    return space, solution


@pytest.mark.parametrize(("n", "d"), [(300, 12), (40, 90)])
def test_fit_is_scikit_learns_optimum(rng, n, d):
    y = np.arange(n) % 4
    x = rng.normal(size=(n, d)) * rng.uniform(0.01, 30, d) + rng.normal(size=(4, d))[y] + 5
    strengths = [1e-3, 0.1, 10.0]
    space, solution = solve(x, y, 4, strengths, tolerance=1e-14, max_iterations=2000)
    assert solution.converged.all()
    scaled = StandardScaler().fit_transform(x)
    for b, c in enumerate(strengths):
        reference = LogisticRegression(C=c, tol=1e-10, max_iter=20000).fit(scaled, y)
        weight = (space.rotation @ solution.weight[:, b]).numpy()
        ours = objective(scaled, y, weight, solution.bias[b].numpy(), c)
        theirs = objective(scaled, y, reference.coef_.T, reference.intercept_, c)
        assert ours == pytest.approx(theirs, rel=1e-6)
        assert ours <= theirs * (1 + 1e-9)
        np.testing.assert_allclose(weight, reference.coef_.T, atol=2e-3 * np.abs(reference.coef_).max())


def test_two_classes_are_scikit_learns_with_twice_the_strength(rng):
    x, y = rng.normal(size=(60, 5)), np.repeat([0, 1], 30)
    x[y == 1] += 0.7
    solution = logistic.fit(torch.tensor(x), torch.tensor(y), 2, [0.3], tolerance=1e-16, max_iterations=2000)
    reference = LogisticRegression(C=0.6, tol=1e-12, max_iter=20000).fit(x, y)
    weight = solution.weight[:, 0].numpy()
    np.testing.assert_allclose(weight[:, 1] - weight[:, 0], reference.coef_[0], rtol=1e-4)


def test_gradient_is_zero_at_the_solution(rng):
    """Stationarity of the literal objective by autograd: nothing of the solver is trusted."""
    x, y = torch.tensor(rng.normal(size=(80, 6))), torch.tensor(rng.integers(0, 3, 80))
    solution = logistic.fit(x, y, 3, [0.7], tolerance=1e-18, max_iterations=1000)
    weight, bias = solution.weight[:, 0].clone().requires_grad_(), solution.bias[0].clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(x @ weight + bias, y, reduction="sum") + weight.square().sum() / 1.4
    for gradient in torch.autograd.grad(loss, (weight, bias)):
        assert gradient.abs().max() < 1e-6


def test_weights_leave_samples_out_exactly(rng):
    """A fold by weights equals a fit on the remaining rows; problems of one batch do not disturb each other."""
    x, y = torch.tensor(rng.normal(size=(90, 5))), torch.tensor(rng.integers(0, 3, 90))
    kept = torch.tensor(rng.random((90, 3)) < 0.6)
    together = logistic.fit(x, y, 3, [0.1, 1.0, 5.0], sample_weight=kept, tolerance=1e-15, max_iterations=2000)
    for b, c in enumerate([0.1, 1.0, 5.0]):
        alone = logistic.fit(x[kept[:, b]], y[kept[:, b]], 3, [c], tolerance=1e-15, max_iterations=2000)
        torch.testing.assert_close(together.weight[:, b], alone.weight[:, 0], atol=1e-5, rtol=1e-4)


def test_without_rotation_the_optimum_is_the_same(rng, monkeypatch):
    y = np.arange(120) % 3
    x = rng.normal(size=(120, 10)) + rng.normal(size=(3, 10))[y]
    space, rotated = solve(x, y, 3, [0.5], tolerance=1e-14, max_iterations=1000)
    monkeypatch.setattr(logistic, "ROTATE_UP_TO", 4)
    plain_space, plain = solve(x, y, 3, [0.5], tolerance=1e-14, max_iterations=1000)
    assert plain_space.rotation is None
    torch.testing.assert_close(space.rotation @ rotated.weight[:, 0], plain.weight[:, 0], atol=1e-5, rtol=1e-4)


def test_float32_is_close_to_float64(digits):
    x, y, _, _ = digits
    space, single = solve(x, y, 10, [0.1, 10.0])
    wide_space, double = solve(x.astype(np.float64), y, 10, [0.1, 10.0])
    assert single.weight.dtype == torch.float32
    assert single.converged.all()
    a = single.logits(space(torch.tensor(x))).softmax(-1)
    b = double.logits(wide_space(torch.tensor(x, dtype=torch.float64))).softmax(-1)
    torch.testing.assert_close(a.double(), b, atol=5e-3, rtol=0)


def test_constant_features_and_constant_offsets_are_harmless(rng):
    x = np.concatenate([rng.normal(size=(50, 3)), np.full((50, 2), 1e4), np.zeros((50, 1))], 1).astype(np.float32)
    mean, scale = logistic.moments(torch.tensor(x))
    assert scale[3:].tolist() == [1, 1, 1]
    space, z = logistic.make_space(torch.tensor(x), (mean, scale))
    assert z.shape[1] == 3
    assert torch.isfinite(space(torch.tensor(x))).all()
    flat = torch.ones(6, 4)
    assert logistic.make_space(flat, logistic.moments(flat))[1].shape == (6, 1)


def test_probe_chooses_what_the_literal_search_chooses(blobs):
    """Every strength and fold with scikit-learn, on the same folds: the same held-out accuracies."""
    from selftaught.evaluation._inputs import validation_folds

    x, y, tx, _ = blobs
    strengths = (1e-4, 1e-2, 1.0)
    found = probe.fit_probe(
        torch.tensor(x), y, torch.tensor(tx), 10, strengths=strengths, folds=4, rng=np.random.default_rng(5)
    )
    held = validation_folds(y, 4, np.random.default_rng(5))
    scaled = StandardScaler().fit_transform(x)
    for c, accuracy in zip(strengths, found.accuracy, strict=True):
        right = 0
        for f in range(4):
            kept = ~held[:, f]
            model = LogisticRegression(C=c, tol=1e-8, max_iter=5000).fit(scaled[kept], y[kept])
            right += (model.predict(scaled[~kept]) == y[~kept]).sum()
        assert accuracy == pytest.approx(right / len(y), abs=3 / len(y))
    assert found.strength == strengths[int(np.argmax(found.accuracy))]


def test_linear_beats_knn_on_gaussian_classes_and_reports_all(blobs):
    x, y, tx, ty = blobs
    result = linear(x, y, tx, ty)
    assert result["accuracy"].mean > knn(x, y, tx, ty)["accuracy"].mean
    assert {"accuracy", "balanced_accuracy", "f1", "weighted_f1", "kappa", "auc"} == set(result.numbers)
    assert np.array(result.figures["confusion"]["matrix"]).sum() == len(ty)
    assert result.figures["regularisation"]["chosen"] in result.figures["regularisation"]["strengths"]
    assert all(number.low <= number.mean <= number.high for number in result.numbers.values())


def test_shuffled_labels_are_at_chance(blobs, rng):
    x, y, tx, ty = blobs
    shuffled = linear(x, rng.permutation(y), tx, rng.permutation(ty))  # both sides: the test clusters count as items
    assert shuffled["accuracy"].low <= 0.1 <= shuffled["accuracy"].high
    assert shuffled["auc"].mean == pytest.approx(0.5, abs=0.06)


def test_scaling_the_features_does_not_matter(blobs, rng):
    x, y, tx, ty = blobs
    scale, shift = rng.uniform(0.01, 100, 16), rng.normal(size=16)
    assert linear(scale * x + shift, y, scale * tx + shift, ty)["accuracy"] == linear(x, y, tx, ty)["accuracy"]


def test_groups_keep_subjects_apart():
    """Features that give the subject away, classes that are the subject's: only held-out subjects show that."""
    rng = np.random.default_rng(0)
    subject = np.repeat(np.arange(20), 15)
    y = rng.integers(0, 2, 20)[subject]
    x = rng.normal(size=(20, 40))[subject] + 0.05 * rng.normal(size=(300, 40))
    mixed, apart = linear(x, y, x, y), linear(x, y, x, y, groups=subject)
    assert max(mixed.figures["regularisation"]["accuracy"]) > 0.98
    assert max(apart.figures["regularisation"]["accuracy"]) < 0.8


def test_one_sample_per_class_and_a_class_unseen(blobs):
    x, y, tx, ty = blobs
    result = linear(x[:10], y[:10], tx, ty)
    assert result.figures["regularisation"]["chosen"] == probe.DEFAULT_STRENGTH
    assert result["accuracy"].mean > 0.2
    lacking = linear(x[y < 8], y[y < 8], tx, ty)
    assert "classes 8, 9 not in the training set" in lacking.note
    assert lacking.figures["per_class"]["accuracy"][8:] == [0.0, 0.0]


def test_a_single_strength_is_used_as_it_is(blobs):
    x, y, tx, ty = blobs
    reference = LogisticRegression(C=0.3, tol=1e-8, max_iter=5000)
    scaler = StandardScaler().fit(x)
    expected = reference.fit(scaler.transform(x), y).score(scaler.transform(tx), ty)
    assert linear(x, y, tx, ty, strengths=[0.3])["accuracy"].mean == pytest.approx(expected, abs=1 / len(ty))
    with pytest.raises(UserError, match="strengths"):
        linear(x, y, tx, ty, strengths=[])


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_recipes_run_and_learn(recipe, digits):
    x, y, tx, ty = digits
    result = linear_sgd(x, y, tx, ty, recipe=recipe, epochs=8)
    assert len(result.figures["history"]) == 8
    assert result["accuracy"].mean > 0.5
    assert ("chosen" in result.note) == (recipe == "medmnist")


def test_sgd_step_by_step(rng):
    """Four epochs of full batches by hand: momentum 0.9, decay, the cosine per epoch, N(0, 0.01) start."""
    x, y = rng.normal(size=(30, 4)), np.arange(30) % 3
    tx, ty = rng.normal(size=(20, 4)), np.arange(20) % 3
    generator = torch.Generator().manual_seed(11)
    weight, bias = 0.01 * torch.randn(3, 4, generator=generator).double().numpy(), np.zeros(3)
    speed_w, speed_b, losses = 0 * weight, 0 * bias, []
    for epoch in range(4):
        logits = x @ weight.T + bias
        losses.append(np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(30), y]))
        error = np.exp(logits) / np.exp(logits).sum(1, keepdims=True) - np.eye(3)[y]
        speed_w = 0.9 * speed_w + error.T @ x / 30 + 0.05 * weight
        speed_b = 0.9 * speed_b + error.mean(0) + 0.05 * bias
        rate = 0.2 * (1 + np.cos(np.pi * epoch / 4)) / 2
        weight, bias = weight - rate * speed_w, bias - rate * speed_b
    result = linear_sgd(x, y, tx, ty, lr=0.2, weight_decay=0.05, batch=64, epochs=4, seed=11)
    assert result.figures["history"] == pytest.approx(losses, rel=1e-6)
    matrix = np.zeros((3, 3), int)
    np.add.at(matrix, (ty, (tx @ weight.T + bias).argmax(1)), 1)
    assert result.figures["confusion"]["matrix"] == matrix.tolist()


def test_sgd_says_what_is_wrong(blobs):
    x, y, tx, ty = blobs
    for options, message in (
        ({"recipe": "none"}, "recipe"),
        ({"optimizer": "lion"}, "optimizer"),
        ({"epochs": 0}, "epochs"),
        ({"lr": ()}, "lr: empty"),
    ):
        with pytest.raises(UserError, match=message):
            linear_sgd(x, y, tx, ty, **options)
    with pytest.raises(UserError, match="not finite"):
        linear_sgd(1e19 * x, y, tx, ty, lr=1e300)


def test_sgd_is_reproducible_and_seeded(blobs):
    x, y, tx, ty = blobs
    assert linear_sgd(x, y, tx, ty, epochs=2) == linear_sgd(x, y, tx, ty, epochs=2)
    assert linear_sgd(x, y, tx, ty, epochs=2).figures != linear_sgd(x, y, tx, ty, epochs=2, seed=1).figures
