from __future__ import annotations

import gzip
import importlib.util
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from selftaught.data import EMBEDDED_NAMES, fetch, list_embedded, open_source, packages
from selftaught.data.builtin import fashion_mnist as fashion
from selftaught.data.builtin.photos import PHOTOS, pixels, split_regions, tile_grid
from selftaught.data.timeseries import read_ts
from selftaught.errors import UserError


def installed(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"{package} is not installed")


def overlap(a: np.ndarray, b: np.ndarray, tile: int) -> np.ndarray:
    """(len(a), len(b)) whether tiles with these top left corners share a pixel."""
    return (np.abs(a[:, None] - b[None]) < tile).all(axis=2)


@pytest.mark.parametrize("options", ["", "?tile=64", "?tile=128", "?tile=160", "?stride=40", "?train=37&test=11"])
def test_no_test_tile_touches_a_training_tile(options):
    whole = open_source(f"photos{options}", split="all")
    side = whole.tile
    for k in range(len(PHOTOS)):
        boxes = [whole.boxes[(whole.labels == k) & (whole.given == code)] for code in (0, 2)]
        assert all(len(b) for b in boxes)
        assert not overlap(*boxes, side).any()
        height, width = pixels(k).shape[:2]
        for b in boxes:
            assert b.min() >= 0
            assert (b + side <= [height, width]).all()
            assert len(np.unique(b, axis=0)) == len(b)


def test_photos_are_balanced_and_are_the_pixels_of_their_boxes():
    train, test = open_source("photos"), open_source("photos", split="test")
    assert np.bincount(train.labels).tolist() == [200] * len(PHOTOS)
    assert np.bincount(test.labels).tolist() == [50] * len(PHOTOS)
    assert train.classes == [p.name for p in PHOTOS]
    assert len(set(train.names) | set(test.names)) == len(train) + len(test)
    for i in (0, 1234, 3399):
        _, photo, corner = train.names[i].split("/")
        y, x = map(int, corner.split("-"))
        picture = pixels(train.classes.index(photo))
        np.testing.assert_array_equal(train.read(i), picture[y : y + 96, x : x + 96])
    assert train.read(0).flags.writeable
    assert train.value_range is None
    assert open_source("photos").fingerprint() == train.fingerprint() != test.fingerprint()
    assert len(pickle.dumps(train)) < 300_000


def test_with_a_stride_the_smallest_photograph_sets_the_number():
    source = open_source("photos?stride=60")
    counts = np.bincount(source.labels)
    assert len(set(counts)) == 1
    assert 1 < counts[0] < 200


def test_enlarged_tiles_show_the_same_and_are_smoother():
    plain, large = open_source("photos?tile=24"), open_source("photos?tile=24&enlarge=4")
    assert plain.names == large.names
    assert plain.fingerprint() != large.fingerprint()
    for i in (0, 700, 2500):
        small, big = plain.read(i).astype(float), large.read(i).astype(float)
        assert big.shape == (96, 96, 3)
        assert np.abs(big.reshape(24, 4, 24, 4, 3).mean((1, 3)) - small).mean() < 6
        assert np.abs(np.diff(big, axis=0)).mean() < 0.5 * np.abs(np.diff(small, axis=0)).mean()


def test_photos_are_photographs_in_colour():
    assert len(PHOTOS) == 17
    assert len({p.name for p in PHOTOS}) == 17
    for k in range(17):
        image = pixels(k)
        assert image.dtype == np.uint8
        assert image.shape[2] == 3
        assert image.std() > 5
        assert not image.flags.writeable


def test_whole_photos():
    train, test = open_source("photos:whole"), open_source("photos:whole", split="test")
    assert set(test.names) == {p.name for p in PHOTOS if p.held_out}
    assert len(train) + len(test) == 17
    assert train.labels is None
    assert test.read(0).shape == (300, 451, 3)


def test_regions_share_an_edge_and_no_pixel():
    assert split_regions((300, 451), "right", 96, "x") == ((0, 0, 300, 316), (0, 316, 300, 451))
    assert split_regions((500, 400), "bottom", 96, "x") == ((0, 0, 350, 400), (350, 0, 500, 400))
    assert split_regions((300, 300), "right", 96, "x")[1] == (0, 180, 300, 300)
    with pytest.raises(UserError, match="tile=200 fits no training and test region"):
        open_source("photos?tile=200")
    for bad in ("tile=0", "stride=0", "train=0", "test=-1"):
        with pytest.raises(UserError, match="must be at least 1"):
            open_source(f"photos?{bad}")


def test_tile_grid():
    assert tile_grid((10, 20, 110, 120), 100, None, 50).tolist() == [[10, 20]]
    assert tile_grid((0, 0, 20, 30), 10, 10, 99).tolist() == [[0, 0], [0, 10], [0, 20], [10, 0], [10, 10], [10, 20]]
    grid = tile_grid((0, 0, 200, 300), 50, None, 40)
    assert len(grid) >= 40
    assert grid.max(axis=0).tolist() == [150, 250]


def test_digits():
    from sklearn.datasets import load_digits

    whole, test = open_source("digits", split="all"), open_source("digits", split="test")
    reference = load_digits()
    assert whole.labels.tolist() == reference.target.tolist()
    np.testing.assert_array_equal(whole.read(700)[..., 0], np.rint(reference.images[700] * 255 / 16))
    assert (len(whole), len(test), whole.channels) == (1797, 359, 1)
    assert np.bincount(test.labels).min() >= 35


@installed("seglearn")
def test_watch_is_split_by_subject():
    train, test = open_source("watch"), open_source("watch", split="test")
    assert (len(train) + len(test), train.channels, train.rate) == (2229, 6, 50.0)
    assert set(train.groups) == set(range(1, 8))
    assert set(test.groups) == {8, 9, 10}
    assert len(train.classes) == 7
    assert train.read(0).shape == (6, 200)
    half, shifted = open_source("watch?step=50", split="all"), open_source("watch?window=100&step=100", split="all")
    assert len(half) > 4200
    np.testing.assert_array_equal(half.read(1)[:, :100], half.read(0)[:, 50:150])
    assert shifted.read(0).shape == (6, 100)
    with pytest.raises(UserError, match="watch: no recording has 9999 instants"):
        open_source("watch?window=9999")


@installed("seglearn")
def test_watch_holds_the_recordings_as_they_are():
    path = packages.data_file("seglearn", "data/watch_dataset.npy")
    table = np.load(path, allow_pickle=True).item()
    source = open_source("watch", split="all")
    i = source.names.index("subject10/001@300")
    np.testing.assert_allclose(source.read(i), table["X"][1][300:500].T, rtol=1e-6)
    assert source.labels[i] == table["y"][1]
    assert source.groups[i] == table["subject"][1] == 10


@installed("aeon")
def test_basic_motions_and_japanese_vowels():
    train, test = open_source("basic-motions"), open_source("basic-motions", split="test")
    assert (len(train), len(test), train.channels, train.rate) == (40, 40, 6, 10.0)
    assert train.classes == ["Standing", "Running", "Walking", "Badminton"]
    assert np.bincount(test.labels).tolist() == [10] * 4
    assert train.read(0).shape == (6, 100)
    np.testing.assert_allclose(train.read(0)[0, :3], [0.079106, 0.079106, -0.903497])
    folder = packages.data_file("aeon", "datasets/data/JapaneseVowels")
    vowels = open_source(folder, split="all")
    assert (len(vowels), vowels.channels, vowels.read(0).shape[1]) == (640, 12, 29)
    lengths = {s.shape[1] for s in read_ts(folder / "JapaneseVowels_TEST.ts").series}
    assert (min(lengths), max(lengths)) == (7, 29)


def test_the_list_names_what_is_missing(monkeypatch):
    rows = {row.name: row for row in list_embedded()}
    assert tuple(rows) == EMBEDDED_NAMES
    assert rows["photos"].present
    assert rows["watch"].modality == "series"
    assert "nothing to fetch" in fetch("digits")
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n: None if n in ("seglearn", "aeon", "skimage") else real(n)
    )
    assert not {row.name: row.present for row in list_embedded()}["watch"]
    for name, command in (
        ("watch", "pip install --no-deps seglearn"),
        ("basic-motions", "pip install --no-deps aeon"),
        ("photos:whole", "pip install scikit-image"),
    ):
        for opener in (open_source, fetch):
            with pytest.raises(UserError, match=f"not installed; run: {command}"):
                opener(name)
    with pytest.raises(UserError, match=r"no built-in data set 'digit' \(did you mean digits"):
        fetch("digit")


def test_a_package_that_lost_its_file():
    with pytest.raises(UserError, match="the installed sklearn has no data/nothing"):
        packages.data_file("sklearn", "data/nothing")
    assert packages.package_folder("no_such_package_at_all") is None


def idx(values: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
    return gzip.compress(head + values.astype(np.uint8).tobytes(), 1)


def test_idx_files():
    values = np.random.default_rng(0).integers(0, 256, (3, 4, 5)).astype(np.uint8)
    np.testing.assert_array_equal(fashion.read_idx(idx(values)), values)
    np.testing.assert_array_equal(fashion.read_idx(gzip.decompress(idx(values))), values)
    with pytest.raises(ValueError, match="not an IDX"):
        fashion.read_idx(b"\0\0\x0d\x01")
    with pytest.raises(ValueError, match="its header says"):
        fashion.read_idx(gzip.decompress(idx(values))[:-1])


SMALL = {"train-images": (600, 28, 28), "train-labels": (600,), "test-images": (100, 28, 28), "test-labels": (100,)}


@pytest.fixture
def debian(tmp_path, monkeypatch):
    """A folder laid out as Debian's package has it, and an empty cache."""
    folder = tmp_path / "debian"
    folder.mkdir()
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (100, 28, 28), dtype=np.uint8)
    for stem, n in (("train", 600), ("t10k", 100)):
        (folder / f"{stem}-images-idx3-ubyte.gz").write_bytes(idx(np.tile(small, (n // 100, 1, 1))))
        (folder / f"{stem}-labels-idx1-ubyte.gz").write_bytes(idx(np.arange(n) % 10))
    monkeypatch.setattr(fashion, "_DEBIAN", folder)
    monkeypatch.setattr(fashion, "_SHAPES", SMALL)
    monkeypatch.setenv("SELFTAUGHT_CACHE", str(tmp_path / "cache"))
    return small


def test_fashion_mnist_is_unpacked_once_and_mapped(debian, tmp_path):
    assert not {row.name: row.present for row in list_embedded()}["fashion-mnist"]
    train, test = open_source("fashion-mnist?n=300"), open_source("fashion-mnist", split="test")
    assert {row.name: row.present for row in list_embedded()}["fashion-mnist"]
    assert (len(train), len(test), test.channels) == (300, 100, 1)
    assert np.bincount(train.labels).tolist() == [30] * 10
    np.testing.assert_array_equal(test.read(51)[..., 0], debian[51])
    assert test.names[51] == "test/00051"
    assert test.classes[0] == "T-shirt/top"
    shutil.rmtree(tmp_path / "debian")
    assert open_source("fashion-mnist", split="test").fingerprint() == test.fingerprint()
    assert fetch("fashion-mnist") == f"fashion-mnist is in {tmp_path}/cache/fashion-mnist"
    assert len(pickle.dumps(test)) < 20_000
    assert sorted(p.name for p in (tmp_path / "cache" / "fashion-mnist").iterdir()) == [
        "test-images.npy", "test-labels.npy", "train-images.npy", "train-labels.npy",
    ]  # fmt: skip


@pytest.mark.slow
def test_two_processes_fetch_fashion_mnist_once(debian, tmp_path):
    code = (
        "import sys; from pathlib import Path; from selftaught.data import open_source;"
        "from selftaught.data.builtin import fashion_mnist as fashion;"
        f"fashion._DEBIAN = Path(sys.argv[1]); fashion._SHAPES = {SMALL};"
        "s = open_source('fashion-mnist', split='test'); print(s.read(51).sum())"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "debian")], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = {p.communicate(timeout=120)[0].strip() for p in running}
    assert said == {str(int(debian[51].sum()))}
    assert not list((tmp_path / "cache").glob("*.part*"))


def test_when_no_way_to_fashion_mnist_works_one_sentence_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("SELFTAUGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", "")

    def offline(scratch: Path):
        raise RuntimeError("no network here")

    monkeypatch.setattr(fashion, "_DEBIAN", tmp_path / "nowhere")
    monkeypatch.setattr(fashion, "_from_torchvision", offline)
    with pytest.raises(UserError, match="selftaught data fetch fashion-mnist") as error:
        open_source("fashion-mnist")
    assert "no network here" in str(error.value)
    assert "no apt-get here" in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "cache" / "fashion-mnist").exists()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None, reason="no apt-get here")
def test_fashion_mnist_through_apt(tmp_path):
    try:
        found = fashion._from_apt(tmp_path)
    except (subprocess.SubprocessError, OSError):
        pytest.skip("apt-get can't reach the package")
    labels = fashion.read_idx(found("t10k-labels-idx1-ubyte"))
    images = fashion.read_idx(found("t10k-images-idx3-ubyte"))
    assert np.bincount(labels).tolist() == [1000] * 10
    assert images.shape == (10000, 28, 28)
    assert labels[:5].tolist() == [9, 2, 1, 1, 6]


def test_embedded_rows_are_plain_data():
    assert json.dumps([row.__dict__ for row in list_embedded()])


def test_textures_are_told_by_their_spectrum_and_not_by_grey_values():
    source = open_source("textures?train=60&test=20", split="all")
    samples = [source.sample(i) for i in range(80)]
    grey = np.stack([sample["image"][..., 0] for sample in samples]).astype(float)
    masks = np.stack([sample["mask"] for sample in samples])
    assert grey.shape == masks.shape == (80, 32, 32)
    assert set(np.unique(masks)) == {0, 1, 2, 3}
    levels = [grey[masks == k].mean() for k in range(4)]
    assert max(levels) - min(levels) < 0.25 * grey.std()
    steep = np.abs(np.diff(grey, axis=2)), np.abs(np.diff(grey, axis=1))
    across = [steep[0][masks[:, :, 1:] == k].mean() / steep[1][masks[:, 1:] == k].mean() for k in range(4)]
    assert max(across) > 1.5 * min(across), "the cloths have directions"
    again = open_source("textures?train=60&test=20", split="all").sample(5)
    np.testing.assert_array_equal(again["image"], samples[5]["image"])
    np.testing.assert_array_equal(again["mask"], samples[5]["mask"])
    other = open_source("textures?train=60&test=20&world=1", split="all")
    assert other.fingerprint() != source.fingerprint()
    assert not np.array_equal(other.read(5), samples[5]["image"])
    assert len(open_source("textures?train=60&test=20", split="test")) == 20
    plain = open_source("textures?train=60&test=20&patches=0", split="all")
    assert plain.fingerprint() != source.fingerprint()
    for i in range(8):
        (only,) = np.unique(plain.sample(i)["mask"])
        ground = (masks[i] == only) & (grey[i] == plain.read(i)[..., 0])
        assert ground.mean() > 0.05  # the same picture without what lies on it
    with pytest.raises(UserError, match="kinds=1 must be at least 2"):
        open_source("textures?kinds=1")
