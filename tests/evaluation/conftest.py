import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture(scope="session")
def digits():
    """Half of scikit-learn's digits to train on, half to test on: (x, y, test x, test y), x (n, 64) in [0, 1]."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    x, y = data.data[order].astype(np.float32) / 16, data.target[order]
    return x[:900], y[:900], x[900:], y[900:]


@pytest.fixture(scope="session")
def blobs():
    """Ten Gaussian classes in 16 dimensions that overlap: (x, y, test x, test y)."""
    rng = np.random.default_rng(3)
    centres = 0.7 * rng.normal(size=(10, 16))
    y, test_y = np.arange(400) % 10, np.arange(300) % 10
    return centres[y] + rng.normal(size=(400, 16)), y, centres[test_y] + rng.normal(size=(300, 16)), test_y
