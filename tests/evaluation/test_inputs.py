import numpy as np
import pytest
import torch

from selftaught import catalog
from selftaught.errors import UserError
from selftaught.evaluation import PROTOCOLS, Protocol, _inputs, _protocol, knn, linear
from selftaught.evaluation._threads import threads_for

SPLIT = [name for name, protocol in PROTOCOLS.items() if protocol.inputs == "split"]


@pytest.mark.parametrize("name", SPLIT)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_features_name_the_side(name, bad, blobs):
    x, y, tx, ty = blobs
    broken = x.copy()
    broken[3, 2] = bad
    with pytest.raises(UserError, match=r"train features: NaN or infinity in 1 of 400"):
        PROTOCOLS[name](broken, y, tx, ty)
    with pytest.raises(ValueError, match="test features"):
        PROTOCOLS[name](x, y, broken, y)


@pytest.mark.parametrize("name", [n for n in SPLIT if n != "regression"])
def test_a_single_class_is_an_error(name, blobs):
    x, y, tx, ty = blobs
    with pytest.raises(UserError, match="only class 0"):
        PROTOCOLS[name](x, 0 * y, tx, 0 * ty)


@pytest.mark.parametrize("name", SPLIT)
def test_lengths_and_widths_must_match(name, blobs):
    x, y, tx, ty = blobs
    with pytest.raises(UserError, match="train"):
        PROTOCOLS[name](x, y[:-1], tx, ty)
    with pytest.raises(UserError, match="width 15 where the train features have 16"):
        PROTOCOLS[name](x, y, tx[:, :-1], ty)


def test_column_labels_half_precision_and_lists_give_the_same(blobs):
    x, y, tx, ty = blobs
    half, test_half = x.astype(np.float16), tx.astype(np.float16)
    reference = knn(half.astype(np.float32), y, test_half.astype(np.float32), ty)
    assert knn(half, y[:, None], test_half, ty[:, None]) == reference
    assert knn(torch.tensor(half), torch.tensor(y).float(), torch.tensor(test_half), ty.tolist()) == reference
    assert _inputs.as_features(torch.zeros(2, 3, dtype=torch.bfloat16)).dtype == torch.float32
    assert _inputs.as_features(np.zeros((2, 3))).dtype == torch.float64


def test_images_are_flattened_as_raw_input(digits):
    x, y, tx, ty = digits
    images, test_images = (255 * x).astype(np.uint8).reshape(-1, 1, 8, 8), (255 * tx).astype(np.uint8)
    assert knn(images, y, test_images.reshape(-1, 1, 8, 8), ty)["accuracy"].mean > 0.9


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.5] * 4, "whole numbers"),
        (np.eye(4), "one class index"),
        (["a"] * 4, "whole numbers"),
        ([0], "1 labels for 4"),
    ],
)
def test_labels_that_are_none(labels, message):
    with pytest.raises(UserError, match=message):
        _inputs.as_labels(labels, 4)


@pytest.mark.parametrize("x", [np.zeros(4), np.zeros((0, 3)), np.zeros((3, 0)), [["a", "b"]], [[1.0], [1.0, 2.0]]])
def test_features_that_are_none(x):
    with pytest.raises(UserError, match="features"):
        _inputs.as_features(x)


def test_labels_need_not_count_from_zero(blobs):
    x, y, tx, ty = blobs
    shifted = linear(x, 7 * y - 3, tx, 7 * ty - 3)
    assert shifted.numbers == linear(x, y, tx, ty).numbers
    assert shifted.figures["confusion"]["classes"] == [7 * c - 3 for c in range(10)]


def test_validation_folds_hold_every_sample_out_once_and_spread_the_classes(rng):
    labels = np.repeat([0, 1, 2, 3], [50, 23, 2, 1])
    folds = _inputs.validation_folds(labels, 5, rng)
    assert folds[:75].sum(1).tolist() == [1] * 75
    assert not folds[75].any()  # the only sample of its class
    assert folds[:50].sum(0).tolist() == [10] * 5
    assert set(folds[50:73].sum(0)) == {4, 5}
    assert folds[73:75].sum(0).max() == 1


def test_validation_folds_never_split_a_group(rng):
    groups = rng.integers(0, 7, 200)
    folds = _inputs.validation_folds(np.zeros(200), 3, rng, groups)
    assert (folds.sum(1) == 1).all()
    for g in range(7):
        assert len({tuple(row) for row in folds[groups == g]}) == 1
    assert folds.any(0).all()
    with pytest.raises(UserError, match="single group"):
        _inputs.validation_folds(np.zeros(4), 2, rng, np.zeros(4))


def test_threads_come_back_even_after_an_error():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(ZeroDivisionError), threads_for(10):
            _ = 1 / 0
        with threads_for(10):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        with threads_for(1e12):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_registry_is_complete_and_described():
    names = (
        "knn linear linear-sgd fewlabel retrieval diagnostics classify robustness finetune restoration clustering "
        "regression copy-detection geolocalisation fairness-retrieval fairness-labels hit-rate restricted layerwise"
    )
    assert set(names.split()) <= set(PROTOCOLS)
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name
        assert 10 < len(protocol.description) < 90
        assert "\n" not in protocol.description
        assert f'"{protocol.inputs}" (' in " ".join((Protocol.__doc__ or "").split())
    assert list(PROTOCOLS) == sorted(PROTOCOLS)
    assert catalog.protocols() == {name: protocol.description for name, protocol in PROTOCOLS.items()}


def test_a_protocol_declared_twice_is_an_error():
    with pytest.raises(ValueError, match="two protocols are called 'knn'"):
        _protocol.protocol("knn", "another of that name", inputs="split")(linear)
    assert PROTOCOLS["knn"].function is knn


@pytest.mark.slow
def test_importing_the_room_stays_light():
    import subprocess
    import sys

    heavy = "('sklearn', 'skimage', 'scipy', 'timm')"
    code = f"import sys, selftaught.evaluation; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
