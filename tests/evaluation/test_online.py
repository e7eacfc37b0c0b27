import numpy as np
import pytest

from selftaught.errors import UserError
from selftaught.evaluation import OnlineKNN, knn, monitor, monitor_rows


def test_score_is_the_protocols_accuracy(blobs):
    x, y, tx, ty = blobs
    expected = knn(x, y, tx, ty, k=15, temperature=0.2)["accuracy"].mean
    assert OnlineKNN(x, y, k=15, temperature=0.2).score(tx, ty) == pytest.approx(expected)
    bank = OnlineKNN(k=15, temperature=0.2)
    for start in range(0, 400, 64):
        bank.update(x[start : start + 64], y[start : start + 64])
    assert len(bank) == 400
    assert bank.score(tx, ty) == pytest.approx(expected)


def test_the_newest_stay(blobs):
    x, y, tx, ty = blobs
    bank = OnlineKNN(x, (y + 1) % 10, capacity=150)
    bank.update(x[:100], y[:100]).update(x[100:300], y[100:300])
    assert len(bank) == 150
    assert bank.score(tx, ty) == OnlineKNN(x[150:300], y[150:300]).score(tx, ty)
    assert len(bank.reset()) == 0
    assert bank.update(x[:7, :3], y[:7]).predict(x[:7, :3]).shape == (7,)


def test_predictions_are_labels_not_positions():
    bank = OnlineKNN(np.eye(3), [40, -7, 12], k=1)
    assert bank.predict(np.eye(3)[[1, 2, 0]]).tolist() == [-7, 12, 40]
    assert bank.score(np.eye(3), [40, 99, 12]) == pytest.approx(2 / 3)


def test_errors(blobs):
    x, y, _, _ = blobs
    with pytest.raises(UserError, match="empty"):
        OnlineKNN().predict(x)
    with pytest.raises(UserError, match="width 3"):
        OnlineKNN(x, y).predict(x[:, :3])
    with pytest.raises(UserError, match="reset it"):
        OnlineKNN(x, y).update(x[:, :3], y)
    with pytest.raises(UserError, match="NaN"):
        OnlineKNN(x, y).update(np.nan * x, y)
    with pytest.raises(UserError, match="together"):
        OnlineKNN(x)
    with pytest.raises(UserError, match="capacity"):
        OnlineKNN(capacity=0)


def test_the_bank_has_every_class_and_their_shares(rng):
    labels = np.concatenate([np.zeros(900), np.ones(99), [2.0]]).astype(int)
    bank, test, why = monitor_rows(labels, labels, bank=100, test=50)
    assert why == ""
    assert len(bank) == 100
    assert len(test) == 50
    counts = np.bincount(labels[bank])
    assert counts.min() == 1
    assert 87 <= counts[0] <= 91
    assert (np.diff(bank) > 0).all()
    again, _, _ = monitor_rows(labels, labels, bank=100, test=50)
    np.testing.assert_array_equal(bank, again)
    other, _, _ = monitor_rows(labels, labels, bank=100, test=50, seed=1)
    assert not np.array_equal(bank, other)
    few, all_test, _ = monitor_rows([0, 1, 1], [1, 0, 7, 7])
    assert few.tolist() == [0, 1, 2]
    assert all_test.tolist() == [0, 1]  # class 7 can't be answered


@pytest.mark.parametrize(
    ("train", "test", "why"),
    [
        (None, None, "no labels"),
        ([3, 3, 3], [3], "1 class in the training samples"),
        ([], [], "0 class in the training samples"),
        ([0, 1], [2, 2], "no held-out sample of a class"),
        ([0, 1], [], "no held-out sample of a class"),
        (np.arange(50), np.arange(50), "50 classes, more than the 20"),
    ],
)
def test_what_cannot_be_watched_is_said_and_never_raises(train, test, why):
    bank, rows, said = monitor_rows(train, test, bank=20)
    assert why in said
    assert "\n" not in said
    assert len(bank) == len(rows) == 0


def test_a_monitor_never_stops_a_training(blobs):
    x, y, tx, ty = blobs
    for by in ("knn", "linear"):
        accuracy, why = monitor(x, y, tx, ty, by=by)
        assert accuracy > 0.3
        assert why == ""
        for bad in ((x, 0 * y, tx, ty), (np.nan * x, y, tx, ty), (x[:0], y[:0], tx, ty)):
            accuracy, why = monitor(*bad, by=by)
            assert accuracy is None
            assert why
            assert "\n" not in why
    assert monitor(x, y, tx, ty)[0] == knn(x, y, tx, ty)["accuracy"].mean
    assert monitor(x[:3], [0, 1, 1], tx[:2], [5, 5])[0] == 0.0
    with pytest.raises(TypeError):
        monitor(x, y, tx, ty, by="knn", k="twenty")  # a bug of ours is not swallowed
