from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from selftaught.data import PackedSource, _packing, as_uint8, cache, open_source, pack
from selftaught.data.cache import reduce_to
from selftaught.errors import SampleError, UserError
from tests.data.helpers import damage_file, encode, folder_of, picture, write


@pytest.fixture
def folder(tmp_path):
    root = folder_of(tmp_path / "pics", ["a/1.png", "a/2.png", "b/1.png", "b/2.png"])
    write(root / "b" / "3.jpg", encode(picture(300, 420), "JPEG", quality=95))
    write(root / "a" / "broken.png", b"no picture")
    return root


def packs(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("*") if p.is_dir())


def test_a_pack_reads_like_its_source(folder, tmp_path):
    source = open_source(folder, split="all")
    seen = []
    packed = pack(source, 1000, tmp_path / "packs", progress=lambda done, total: seen.append(done))
    assert isinstance(packed, PackedSource)
    assert packed.names == list(source.names)
    assert packed.classes == ["a", "b"]
    np.testing.assert_array_equal(packed.labels, source.labels)
    assert seen == [1, 2, 3, 4, 5, 6]
    for i, name in enumerate(source.names):
        if name == "a/broken.png":
            for one in (source, packed):
                with pytest.raises(SampleError) as error:
                    one.read(i)
                assert (error.value.name, error.value.reason) == (name, "not an image that OpenCV or Pillow can read")
        else:
            np.testing.assert_array_equal(packed.read(i), source.read(i))
    assert packed.read(0).flags.writeable
    assert "packed" in packed.describe()


def test_the_shorter_side_is_reduced(folder, tmp_path):
    source = open_source(folder, split="all")
    packed = pack(source, 100, tmp_path / "packs")
    last = list(source.names).index("b/3.jpg")
    assert packed.read(last).shape == (100, 140, 3)
    assert packed.read(0).shape == (20, 24, 3)
    full = reduce_to(source.read(last), 100)
    assert np.abs(packed.read(last).astype(int) - full).mean() < 2
    assert packed.fingerprint() != pack(source, 90, tmp_path / "packs").fingerprint()
    assert len(packs(tmp_path / "packs")) == 2


def test_any_number_of_channels_and_sixteen_bits(tmp_path):
    images = np.random.default_rng(0).integers(0, 4000, (7, 30, 44, 13)).astype(np.uint16)
    source = open_source(images, split="all")
    packed = pack(source, 20, tmp_path)
    assert packed.read(2).shape == (20, 29, 13)
    assert packed.value_range == source.value_range
    np.testing.assert_array_equal(pack(source, 30, tmp_path).read(2), as_uint8(images[2], source.value_range))
    assert reduce_to(images[0, :, :, :1].astype(np.uint8), 10).shape == (10, 15, 1)


def test_a_second_opening_packs_nothing(folder, tmp_path, monkeypatch):
    source = open_source(folder, split="all")
    pack(source, 64, tmp_path / "packs")
    monkeypatch.setattr(cache, "_build", lambda *a, **k: pytest.fail("packed again"))
    assert len(pack(open_source(folder, split="all"), 64, tmp_path / "packs")) == 6


def test_splits_have_packs_of_their_own(folder, tmp_path):
    train, test = open_source(folder, by="ratio:0.4"), open_source(folder, by="ratio:0.4", split="test")
    first, second = pack(train, 64, tmp_path / "packs"), pack(test, 64, tmp_path / "packs")
    assert (first.names, second.names) == (train.names, test.names)
    assert len(packs(tmp_path / "packs")) == 2


def test_a_changed_source_is_packed_anew_and_the_old_pack_goes(folder, tmp_path):
    before = pack(open_source(folder, split="all"), 64, tmp_path / "packs")
    old = before.read(0)
    write(folder / "a" / "1.png", picture(20, 24, seed=77))
    after = pack(open_source(folder, split="all"), 64, tmp_path / "packs")
    np.testing.assert_array_equal(after.read(0), picture(20, 24, seed=77))
    assert packs(tmp_path / "packs") == [after.folder]
    np.testing.assert_array_equal(before.read(0), old)


def test_folders_of_one_name_keep_their_packs_and_a_new_file_replaces_one(tmp_path):
    for place in ("x", "y"):
        pack(open_source(folder_of(tmp_path / place / "pics", ["1.png", "2.png"]), split="all"), 64, tmp_path / "packs")
    assert len(packs(tmp_path / "packs")) == 2
    before = set(packs(tmp_path / "packs"))
    write(tmp_path / "x" / "pics" / "3.png", picture(seed=3))
    packed = pack(open_source(tmp_path / "x" / "pics", split="all"), 64, tmp_path / "packs")
    assert len(packed) == 3
    assert packed.folder not in before
    assert len(packs(tmp_path / "packs")) == len(before)


def test_a_pack_that_vanishes_is_a_bad_sample(folder, tmp_path):
    packed = pack(open_source(folder, split="all"), 64, tmp_path / "packs")
    shutil.rmtree(packed.folder)
    with pytest.raises(SampleError, match="the packed cache is gone"):
        pickle.loads(pickle.dumps(packed)).read(0)


@pytest.mark.parametrize("damage", ["short", "bytes", "index", "head", "samples", "gone"])
def test_a_damaged_pack_is_made_again(folder, tmp_path, damage):
    source = open_source(folder, split="all")
    where = pack(source, 64, tmp_path / "packs").folder
    files = {"index": "index.npz", "head": "pack.json", "samples": "samples.json"}
    file = where / files.get(damage, "pixels.bin")
    damage_file(file, damage)
    again = pack(source, 64, tmp_path / "packs")
    for i in (0, 1, 3):
        np.testing.assert_array_equal(again.read(i), source.read(i))


def test_a_pack_is_pickled_without_its_pixels(tmp_path):
    packed = pack(open_source("photos?train=20&test=1"), 96, tmp_path)
    packed.read(0)
    data = pickle.dumps(packed)
    assert len(data) < packed.nbytes / 20
    np.testing.assert_array_equal(pickle.loads(data).read(5), packed.read(5))
    part = packed.subset([3, 1])
    np.testing.assert_array_equal(part.read(0), packed.read(3))


def test_a_disk_that_is_short_is_refused_before_anything_is_written(folder, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(_packing.shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 50_000, 50_000))
    with pytest.raises(UserError, match=r"wants about .* GB and the disk has 5e-05 GB free; choose another folder"):
        pack(open_source(folder, split="all"), 200, tmp_path / "packs")
    assert not packs(tmp_path / "packs")


def test_a_stop_in_the_middle_leaves_no_pack(folder, tmp_path):
    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    source = open_source(folder, split="all")
    with pytest.raises(KeyboardInterrupt):
        pack(source, 64, tmp_path / "packs", progress=stop)
    assert not packs(tmp_path / "packs")
    assert len(pack(source, 64, tmp_path / "packs")) == 6


def test_what_cannot_be_packed(folder, tmp_path):
    with pytest.raises(UserError, match="only images and clips are packed"):
        pack(open_source(np.zeros((3, 2, 9)), modality="series", split="all"), 64, tmp_path)
    with pytest.raises(UserError, match="max_side=0"):
        pack(open_source(folder), 0, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't be written"):
        pack(open_source(folder), 64, tmp_path / "file" / "below")


@pytest.mark.slow
def test_two_processes_make_one_pack(folder, tmp_path):
    code = (
        "import sys; from selftaught.data import cache, open_source, pack; built = []; real = cache._build;"
        "cache._build = lambda *a, **k: (built.append(1), real(*a, **k));"
        "p = pack(open_source(sys.argv[1], split='all'), 64, sys.argv[2]);"
        "print(len(built), sum(int(p.read(i).sum()) for i in (0, 1, 3, 4, 5)))"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(folder), str(tmp_path / "packs")], stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    said = [p.communicate(timeout=120)[0].split() for p in running]
    assert sorted(s[0] for s in said) == ["0", "0", "1"]
    assert len({s[1] for s in said}) == 1
    (only,) = packs(tmp_path / "packs")
    assert json.loads((only / "pack.json").read_text())["n"] == 6
