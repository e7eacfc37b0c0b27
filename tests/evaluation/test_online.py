import numpy as np
import pytest

from selftaught.errors import UserError
from selftaught.evaluation import OnlineKNN, knn


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
