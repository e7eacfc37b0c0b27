from __future__ import annotations

import numpy as np
import pytest
import torch

from selftaught.data import open_source
from selftaught.data.labelling import labelling
from selftaught.data.source import LEFT_OUT, TEST, TRAIN, UNLABELLED
from selftaught.errors import UserError
from tests.data.helpers import encode, folder_of, picture

IMAGES = np.stack([picture(12, 14, seed=k) for k in range(8)])
NAN = float("nan")


@pytest.mark.parametrize(
    ("values", "labels", "classes"),
    [
        ([0, 1, 1, 0], [0, 1, 1, 0], ["0", "1"]),
        ([0, -1, 1, -1], [0, -1, 1, -1], ["0", "1"]),
        ([0.0, NAN, 1.0, -1.0], [0, -1, 1, -1], ["0", "1"]),
        ([-1, 1, 1, -1], [0, 1, 1, 0], ["-1", "1"]),
        ([-2, -1, 0, 5], [0, 1, 2, 3], ["-2", "-1", "0", "5"]),
        (["b", "", None, "a"], [1, -1, -1, 0], ["a", "b"]),
        ([3, None, 7, 7], [0, -1, 1, 1], ["3", "7"]),
        ([[0], [1], [1], [-1]], [0, 1, 1, -1], ["0", "1"]),
        ([[1, 0, 0], [0, 0, 1], [0, 1, 0], [0, 0, 1]], [0, 2, 1, 2], ["0", "1", "2"]),
        ([[1, 11], [11, 1], [1, 11], [1, 1]], [1, 2, 1, 0], ["1,1", "1,11", "11,1"]),
    ],
)
def test_what_is_a_class_and_what_is_missing(values, labels, classes):
    found = labelling(np.array(values, dtype=object) if None in np.ravel(values).tolist() else values)
    assert found.labels.tolist() == labels
    assert found.classes == classes
    if -1 in labels:
        assert found.given.tolist() == [UNLABELLED if k < 0 else TRAIN for k in labels]
        bare = labels.count(-1)
        assert ("1 sample has no label" if bare == 1 else f"{bare} samples have no label") in found.notes[0]
    else:
        assert (found.given, found.notes) == (None, ())


def test_numbers_that_are_not_whole_are_targets():
    found = labelling([0.5, NAN, 2.0, -7.25])
    assert (found.labels, found.classes) == (None, None)
    np.testing.assert_array_equal(found.targets, [0.5, NAN, 2.0, -7.25])
    assert labelling([10, 40, 25]).targets.tolist() == [10, 40, 25]
    assert labelling([10, 40, 25]).labels.tolist() == [0, 2, 1]
    assert labelling(["a", "b"]).targets is None
    assert labelling([0, 1], names=["10", "2"]).targets.tolist() == [10, 2]


def test_nothing_to_learn_from_labels():
    assert labelling([-1, -1, NAN]).notes == ("no labels: all are -1, NaN or empty",)
    assert "neither classes nor one number" in labelling([[0.5, 1.0], [0.1, 0.2]]).notes[0]
    assert "each sample has 2 of them" in labelling([[1, 1], [0, 1]], combine=False).notes[0]


@pytest.mark.parametrize("missing", [-1, NAN])
def test_partly_labelled_arrays(tmp_path, missing):
    labels = np.array([0, 1, 0, 1, 0, 1, missing, missing])
    np.savez(tmp_path / "a.npz", x=IMAGES, y=labels)
    for spec in (tmp_path / "a.npz", {"x": IMAGES, "y": labels}):
        train, test = (open_source(spec, split=s, by="ratio:0.34") for s in ("train", "test"))
        assert set(train.labels) == set(test.labels) == {0, 1}
        assert train.classes == ["0", "1"]
        assert len(train) + len(test) == 6
        wide = open_source(spec, split="pretrain", by="ratio:0.34")
        assert (len(wide), wide.labels) == (len(train) + 2, None)
        whole = open_source(spec, split="all")
        assert whole.labels.tolist() == [0, 1, 0, 1, 0, 1, -1, -1]
        assert "2 without label" in whole.describe()


def test_test_samples_without_labels_are_in_no_part(tmp_path):
    np.savez(tmp_path / "a.npz", train_x=IMAGES, train_y=[0, 1] * 4, test_x=IMAGES, test_y=[-1] * 8)
    train, test = (open_source(tmp_path / "a.npz", split=s) for s in ("train", "test"))
    assert all(n.startswith("train/") for n in [*train.names, *test.names])
    assert len(open_source(tmp_path / "a.npz", split="pretrain")) == len(train)
    given = open_source(tmp_path / "a.npz", split="all").given
    assert given.tolist() == [TRAIN] * 8 + [LEFT_OUT] * 8
    np.savez(tmp_path / "b.npz", train_x=IMAGES, train_y=[0, 1] * 4, test_x=IMAGES, test_y=[0, 1, NAN] + [1] * 5)
    half = open_source(tmp_path / "b.npz", split="test")
    assert half.labels.tolist() == [0, 1] + [1] * 5
    assert half.given.tolist() == [TEST] * 7


def test_regression_arrays_have_targets_and_can_be_split(tmp_path):
    y = np.linspace(-1, 1, 8)
    source = open_source({"x": IMAGES, "y": y}, split="test")
    assert source.labels is None
    at = [int(n) for n in source.names]
    np.testing.assert_array_equal(source.targets, y[at])
    series = open_source({"x": IMAGES[..., 0], "y": y}, modality="series", split="all")
    np.testing.assert_array_equal(series.targets, y)


def test_regression_files(tmp_path):
    head = "@problemName r\n@timeStamps false\n@univariate true\n@targetlabel true\n@data\n"
    (tmp_path / "r_TRAIN.ts").write_text(head + "1,2,3:10.5\n4,5,6:-2\n1,1,1:?\n")
    (tmp_path / "r_TEST.ts").write_text(head + "7,8,9:100\n")
    source = open_source(tmp_path, modality="series", split="all")
    assert (source.labels, source.classes) == (None, None)
    np.testing.assert_array_equal(source.targets, [10.5, -2, NAN, 100])
    assert open_source(tmp_path, modality="series", split="test").targets.tolist() == [100]
    (tmp_path / "r_TEST.ts").write_text(head + "7,8,9:much\n")
    with pytest.raises(UserError, match="a target is no number"):
        open_source(tmp_path, modality="series")
    named = head.replace("@targetlabel true", "@classLabel true 20 3")
    (tmp_path / "c.ts").write_text(named + "1,2,3:20\n4,5,6:3\n")
    source = open_source(tmp_path / "c.ts", split="all")
    assert (source.labels.tolist(), source.targets.tolist()) == ([0, 1], [20, 3])


def test_wide_arrays_are_not_turned_in_silence():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 64, 50))
    source = open_source(x, modality="series", split="all")
    assert (source.channels, source.read(0).shape) == (64, (64, 50))
    np.testing.assert_allclose(source.read(2), x[2], rtol=1e-6)
    assert list(source.notes) == ["64 x 50 is taken as 64 channels of 50 instants; else say layout=ntc"]
    assert open_source(x, modality="series", split="all", layout="ntc").channels == 50
    turned = open_source(x[:, :, :6], modality="series", split="all")
    assert (turned.channels, len(turned.notes)) == (6, 1)
    assert list(open_source(x[:, :6], modality="series", split="all").notes) == []


class Listed(torch.utils.data.Dataset):
    def __init__(self, labels, seed=0):
        self.targets, self.seed = labels, seed

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, i):
        return picture(12, 14, seed=self.seed + i), self.targets[i]


def test_torch_datasets_with_missing_labels_and_targets():
    source = open_source(Listed([0, 1, -1, 1, 0, -1]), split="all")
    assert source.given.tolist() == [TRAIN, TRAIN, UNLABELLED, TRAIN, TRAIN, UNLABELLED]
    values = open_source(Listed([0.25, 1.5, 3.0]), split="all")
    assert (values.labels, values.targets.tolist()) == (None, [0.25, 1.5, 3.0])


def test_fingerprints_of_torch_datasets_follow_content_classes_and_names(tmp_path):
    from torchvision.datasets import ImageFolder

    folder_of(tmp_path, [f"{c}/{i}.png" for c in "ab" for i in range(40)])

    def fingerprint():
        return open_source(ImageFolder(tmp_path), split="all").fingerprint()

    assert open_source(ImageFolder(tmp_path), split="all").names[41] == "b/1.png"
    seen = [fingerprint()]
    (tmp_path / "a" / "20.png").write_bytes(encode(picture(20, 24, seed=99), "PNG"))
    seen.append(fingerprint())
    (tmp_path / "b").rename(tmp_path / "c")
    seen.append(fingerprint())
    (tmp_path / "a" / "3.png").rename(tmp_path / "a" / "zz.png")
    seen.append(fingerprint())
    assert len(set(seen)) == 4
    assert open_source(Listed([0, 1] * 20), split="all").fingerprint() != (
        open_source(Listed([0, 1] * 20, seed=1), split="all").fingerprint()
    )


def test_fingerprints_of_arrays_follow_the_names_of_classes():
    prints = {
        open_source({"x": IMAGES, "y": [0, 1] * 4, "classes": classes}, split="all").fingerprint()
        for classes in (["cat", "dog"], ["cat", "cow"])
    }
    assert len(prints) == 2
