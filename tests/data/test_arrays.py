from __future__ import annotations

import io
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch

from selftaught.data import mapped, open_source
from selftaught.errors import UserError
from tests.data.helpers import picture
from tests.harness import DAMAGES, harmed


def medmnist(shape: tuple[int, ...], sizes: tuple[int, int, int] = (12, 4, 6)) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    table = {}
    for split, n in zip(("train", "val", "test"), sizes, strict=True):
        table[f"{split}_images"] = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
        table[f"{split}_labels"] = (np.arange(n) % 3).astype(np.uint8)[:, None]
    return table


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 3)])
def test_medmnist_layout(tmp_path, shape, compressed):
    table = medmnist(shape)
    (np.savez_compressed if compressed else np.savez)(tmp_path / "derma.npz", **table)
    train, val, test = (open_source(tmp_path / "derma.npz", split=s) for s in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (12, 4, 6)
    assert train.names[2] == "train/00002"
    assert test.names[5] == "test/00005"
    assert test.labels.tolist() == table["test_labels"].ravel().tolist()
    assert train.classes == ["0", "1", "2"]
    for source, split in ((train, "train"), (val, "val"), (test, "test")):
        np.testing.assert_array_equal(source.read(1).squeeze(), table[f"{split}_images"][1])
    assert train.read(0).shape == (28, 28, 1 if len(shape) == 2 else 3)
    assert train.value_range is None


def test_stored_members_are_mapped_and_compressed_ones_unpacked_to_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SELFTAUGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(mapped, "_UNPACK_ABOVE", 1000)
    x = np.random.default_rng(0).integers(0, 256, (9, 16, 16), dtype=np.uint8)
    np.savez(tmp_path / "plain.npz", x=x)
    np.savez_compressed(tmp_path / "packed.npz", x=x)
    for file in ("plain.npz", "packed.npz"):
        array = mapped.open_array(tmp_path / file, "x")
        assert isinstance(array, np.memmap)
        np.testing.assert_array_equal(array, x)
    assert len(list((tmp_path / "cache" / "unpacked").glob("*.npy"))) == 1
    np.savez(tmp_path / "fortran.npz", x=np.asfortranarray(x))
    np.testing.assert_array_equal(mapped.open_array(tmp_path / "fortran.npz", "x"), x)


@pytest.mark.parametrize(("image_key", "label_key"), [("x", "y"), ("images", "labels"), ("X", "target")])
def test_plain_arrays_in_an_npz(tmp_path, image_key, label_key):
    x = np.stack([picture(seed=k) for k in range(10)])
    np.savez(tmp_path / "a.npz", **{image_key: x, label_key: np.arange(10) % 2})
    train, test = open_source(tmp_path / "a.npz"), open_source(tmp_path / "a.npz", split="test")
    assert (len(train), len(test)) == (8, 2)
    assert sorted(test.labels.tolist()) == [0, 1]
    assert train.channels == 3
    index = int(train.names[0])
    np.testing.assert_array_equal(train.read(0), x[index])


def test_a_single_array_in_an_npz_and_a_npy(tmp_path):
    x = np.stack([picture(seed=k) for k in range(6)])
    np.savez(tmp_path / "one.npz", whatever=x)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "grey.npy", x[..., 0])
    np.save(tmp_path / "picture.npy", x[0])
    for file in ("one.npz", "x.npy"):
        source = open_source(tmp_path / file, split="all")
        assert (len(source), source.channels, source.labels) == (6, 3, None)
        np.testing.assert_array_equal(source.read(4), x[4])
    assert len(open_source(tmp_path / "grey.npy", split="all")) == 6
    assert open_source(tmp_path / "picture.npy", split="all").names == ["picture.npy"]


def test_arrays_tensors_and_dicts_in_memory():
    x = np.stack([picture(seed=k) for k in range(5)])
    for spec in (x, torch.from_numpy(x), torch.from_numpy(x).permute(0, 3, 1, 2), {"images": x}):
        source = open_source(spec, split="all")
        assert source.channels == 3
        np.testing.assert_array_equal(source.read(3), x[3])
    source = open_source({"x": x, "y": ["b", "a", "b", "a", "c"]}, split="all")
    assert source.labels.tolist() == [1, 0, 1, 0, 2]
    assert source.classes == ["a", "b", "c"]
    assert open_source(x, split="all", labels=[0, 1, 0, 1, 1]).labels.tolist() == [0, 1, 0, 1, 1]
    float_source = open_source(torch.rand(4, 3, 8, 8), split="all")
    assert float_source.read(0).shape == (8, 8, 3)
    assert len(float_source.value_range) == 3


def test_read_gives_memory_of_its_own():
    x = np.zeros((3, 4, 4, 3), np.uint8)
    source = open_source(x, split="all")
    source.read(0)[:] = 9
    assert not x.any()
    assert source.read(0).flags.writeable
    assert source.read(0).flags.c_contiguous


def test_groups_part_the_splits():
    x = np.zeros((30, 4, 4), np.uint8)
    subject = np.repeat([7, 3, 9, 1, 5], 6)
    table = {"x": x, "subject": subject}
    train, test = open_source(table), open_source(table, split="test")
    assert set(train.groups) & set(test.groups) == set()
    assert (len(train), len(test)) == (24, 6)


def test_fingerprints_follow_the_content(tmp_path):
    x = np.zeros((3, 4, 4), np.uint8)
    first = open_source(x, split="all").fingerprint()
    assert open_source(x.copy(), split="all").fingerprint() == first
    assert open_source(x + 1, split="all").fingerprint() != first
    np.save(tmp_path / "a.npy", np.zeros((5, 9, 9), np.uint8))
    on_disk = open_source(tmp_path / "a.npy", split="all").fingerprint()
    np.save(tmp_path / "a.npy", np.ones((5, 9, 9), np.uint8))
    assert open_source(tmp_path / "a.npy", split="all").fingerprint() != on_disk


def test_files_are_pickled_as_paths(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((200, 64, 64), np.uint8))
    source = open_source(tmp_path / "a.npz", split="all")
    assert len(pickle.dumps(source)) < 20_000
    assert pickle.loads(pickle.dumps(source)).read(199).shape == (64, 64, 1)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"q": np.zeros((2, 4, 4)), "r": np.zeros(2)}, "no images in it; it wants train_images"),
        ({"x": np.zeros((2, 4, 4)), "y": np.zeros(3)}, "3 labels or groups for 2 samples"),
        ({"x": np.zeros((2, 4))}, r"images must be numbers \(N, H, W\)"),
        ({"x": np.zeros((0, 4, 4))}, "no sample in it"),
        ({"train_images": np.zeros((2, 4, 4)), "test_images": np.zeros((2, 5, 5))}, "different shapes"),
    ],
)
def test_errors_of_one_line(table, said, tmp_path):
    np.savez(tmp_path / "t.npz", **table)
    for spec in (table, tmp_path / "t.npz"):
        with pytest.raises(UserError, match=said) as error:
            open_source(spec, split="all")
        assert "\n" not in str(error.value)


def test_broken_and_pickled_files(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}, {}]), allow_pickle=True)
    with pytest.raises(UserError, match="Python objects"):
        open_source(tmp_path / "objects.npy")
    (tmp_path / "broken.npz").write_bytes(b"PK nothing")
    with pytest.raises(UserError, match=r"not a readable \.npz"):
        open_source(tmp_path / "broken.npz")
    np.save(tmp_path / "cut.npy", np.zeros((50, 9, 9)))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:5000])
    with pytest.raises(UserError, match="broken or cut short"):
        open_source(tmp_path / "cut.npy")


def test_an_array_that_claims_27_tib_is_named_and_takes_no_memory(tmp_path):
    header = io.BytesIO()
    claim = {"descr": "|u1", "fortran_order": False, "shape": (10_000_000, 1000, 1000, 3)}
    np.lib.format.write_array_header_1_0(header, claim)
    (tmp_path / "x.npy").write_bytes(header.getvalue() + bytes(100))
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
        file.writestr("images.npy", header.getvalue() + bytes(100))
    for name in ("x.npy", "x.npz"):
        before = tracemalloc.start() or tracemalloc.get_traced_memory()[0]
        with pytest.raises(UserError, match=name) as error:
            open_source(tmp_path / name, split="all")
        assert "\n" not in str(error.value)
        assert tracemalloc.get_traced_memory()[1] - before < 2**26
        tracemalloc.stop()


def test_what_a_killed_process_left_unpacked_is_taken_away(tmp_path):
    target = tmp_path / "unpacked" / "x.npy"
    for left in (target.with_name("x.npy.part12"), target.with_name("other.npy.part12")):
        left.parent.mkdir(exist_ok=True)
        left.write_bytes(b"half")
    mapped.build_once(target, lambda part: part.write_bytes(b"whole"))
    assert {p.name for p in target.parent.iterdir() if p.suffix != ".lock"} == {"x.npy", "other.npy.part12"}
    assert target.read_bytes() == b"whole"


@pytest.mark.parametrize("damage", DAMAGES)
def test_kept_arrays_are_made_once_and_again_where_they_are_damaged(damage, tmp_path):
    made = []

    def make():
        made.append(1)
        return {"x": np.arange(500), "name": np.array(["a", ""])}

    for _ in range(2):
        np.testing.assert_array_equal(mapped.kept_arrays(tmp_path / "k.npz", make)["x"], np.arange(500))
    assert len(made) == 1
    harmed(tmp_path / "k.npz", damage)
    found = mapped.kept_arrays(tmp_path / "k.npz", make)
    np.testing.assert_array_equal(found["x"], np.arange(500))
    assert found["name"].tolist() == ["a", ""]
    assert len(made) == (1 if damage == "a tail" else 2)
