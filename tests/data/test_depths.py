from __future__ import annotations

import copy
import io
import itertools
import json
import pickle

import cv2
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from selftaught.data import Scale, as_uint8, open_source
from selftaught.data.decoding import decode, header
from selftaught.data.orientation import upright
from selftaught.data.picture_facts import read_with_metadata
from selftaught.data.pixels import not_premultiplied
from selftaught.data.scaling import from_unit, of_depth, to_unit, unit_scale
from selftaught.errors import SampleError
from tests.data.helpers import encode, picture, write

RNG = np.random.default_rng(0)


def tiff(array: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def png16(image: np.ndarray) -> bytes:
    ok, data = cv2.imencode(".png", image if image.ndim == 2 or image.shape[2] == 1 else image[..., ::-1])
    assert ok
    return data.tobytes()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("measured", [True, False])
def test_counts_come_back_exactly(bits, measured):
    dtype = np.uint8 if bits == 8 else np.uint16
    image = RNG.integers(0, 2**bits, (40, 50, 3)).astype(dtype)
    image[0, 0], image[0, 1] = 0, 2**bits - 1
    pairs = [[37.2, 0.9 * 2**bits]] * 3 if measured else None
    unit = to_unit(image, pairs)
    assert unit.dtype == np.float32
    np.testing.assert_array_equal(from_unit(unit, dtype, pairs), image)
    low, high = (37.2, 0.9 * 2**bits) if measured and bits > 8 else (0, 2 ** (8 if bits == 8 else 16) - 1)
    np.testing.assert_allclose(unit, (image - np.float64(low)) / (high - low), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("pairs", [None, [[-3.0, 900.0]], [[-1024.0, 3071.0], [0.0, 1e-4]]])
def test_floats_come_back_to_their_precision(pairs):
    span = np.array([p[1] - p[0] for p in pairs or [[0, 1]]])
    image = (RNG.normal(size=(30, 20, 2)) * span + 5).astype(np.float32)
    again = from_unit(to_unit(image, pairs), "float32", pairs)
    assert again.dtype == np.float32
    assert (np.abs(again - image) <= 4e-7 * (np.abs(image) + span)).all()


def test_values_outside_the_range_and_flat_channels_survive():
    image = np.array([[[5.0], [-2.0], [1.0]]], np.float32)
    assert to_unit(image, [[0.0, 2.0]]).ravel().tolist() == [2.5, -1.0, 0.5]
    np.testing.assert_array_equal(from_unit(to_unit(image, [[3.0, 3.0]]), np.float32, [[3.0, 3.0]]), image)
    assert from_unit(np.array([[1.7, -0.3]], np.float32), np.uint16).tolist() == [[65535, 0]]
    assert from_unit(np.array([[0.5]], np.float32), np.uint8).tolist() == [[128]]
    assert from_unit(np.array([[-0.001, 0.5]]), np.int16, [[-1000.0, 3000.0]]).tolist() == [[-1004, 1000]]
    with pytest.raises(ValueError, match="2 channels, the image 3"):
        to_unit(np.zeros((2, 2, 3), np.float32), [[0, 1], [0, 1]])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_where_0_is_white_values_are_inverted_at_8_and_16_bits(dtype, compression, tmp_path):
    image = RNG.integers(0, np.iinfo(dtype).max, (12, 17)).astype(dtype)
    if compression == "lzw":
        ok, data = cv2.imencode(".tiff", image, [cv2.IMWRITE_TIFF_COMPRESSION, 5])
        assert ok
        (tmp_path / "a.tif").write_bytes(data.tobytes())
        with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
            file.pages.first.tags["PhotometricInterpretation"].overwrite(0)
        data = (tmp_path / "a.tif").read_bytes()
    else:
        data = tiff(image, photometric="miniswhite", compression=compression)
    got = decode(data, "x")
    assert got.dtype == dtype
    np.testing.assert_array_equal(got[..., 0], np.iinfo(dtype).max - image)


def test_bytes_of_either_order(tmp_path):
    image = RNG.integers(0, 65536, (20, 24, 3)).astype(np.uint16)
    got = decode(npy(image.astype(">u2")), "x")
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(got, image)
    assert header(npy(image.astype(">u2")), "x") == (3, "uint16")
    stack = RNG.integers(0, 4000, (6, 16, 18)).astype(">u2")
    np.save(tmp_path / "a.npy", stack)
    source = open_source(tmp_path / "a.npy", split="all")
    assert (source.read(2).dtype, source.depth) == (np.uint16, "uint16")
    np.testing.assert_array_equal(source.read(2)[..., 0], stack[2])
    np.testing.assert_array_equal(decode(tiff(image, byteorder=">", photometric="rgb"), "x"), image)


@pytest.mark.parametrize("suffix", ["jpg", "bmp", "webp", "png"])
@pytest.mark.parametrize("kind", ["png", "tiff", "npy"])
def test_sixteen_bits_under_the_name_of_another_format(tmp_path, suffix, kind):
    images = [RNG.integers(0, 65536, (300, 320)).astype(np.uint16) for _ in range(3)]
    for k, image in enumerate(images):
        data = {"png": png16, "tiff": tiff, "npy": npy}[kind](image)
        (tmp_path / f"{k}.{suffix}").write_bytes(data)
    source = open_source(tmp_path, split="all")
    assert (source.depth, source.channels) == ("uint16", 1)
    assert source.value_range[0][1] > 60_000
    np.testing.assert_array_equal(source.read(1)[..., 0], images[1])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_premultiplied_alpha_is_divided_again(dtype):
    top = {np.uint8: 255, np.uint16: 65535, np.float32: 1.0}[dtype]
    rgba = RNG.uniform(0, 1, (9, 11, 4))
    rgba[..., 3] = RNG.uniform(0.5, 1, (9, 11))
    rgba[0, 0, 3] = 0
    stored = np.concatenate([rgba[..., :3] * rgba[..., 3:], rgba[..., 3:]], axis=2) * top
    stored = np.rint(stored).astype(dtype) if dtype != np.float32 else stored.astype(dtype)
    got = decode(tiff(stored, photometric="rgb", extrasamples=["assocalpha"]), "x") / top
    assert np.abs(got - rgba)[1:].max() < 3 / 255
    assert (got[0, 0] == 0).all()
    np.testing.assert_array_equal(decode(tiff(stored, photometric="rgb", extrasamples=["unassalpha"]), "x"), stored)
    np.testing.assert_array_equal(not_premultiplied(stored)[..., 3], stored[..., 3])


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """By Pillow, to compare with."""
    how = {
        1: None, 2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270",
        7: "TRANSVERSE", 8: "ROTATE_90",
    }[orientation]  # fmt: skip
    made = Image.fromarray(image)
    return np.asarray(made if how is None else made.transpose(Image.Transpose[how]))


@pytest.mark.parametrize(
    ("orientation", "kind"), itertools.product(range(1, 9), ["JPEG", "PNG", "WEBP", "TIFF", "TIFF-lzw", "TIFF-16"])
)
def test_exif_orientation_in_every_format(orientation, kind):
    image, exif = picture(40, 60), Image.Exif()
    exif[0x0112] = orientation
    wanted = turned(image, orientation)
    np.testing.assert_array_equal(upright(image, orientation), wanted)
    if kind == "TIFF-16":
        wide = image.astype(np.uint16) * 257
        data = tiff(wide, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
        np.testing.assert_array_equal(decode(data, "x"), turned(image, orientation).astype(np.uint16) * 257)
        return
    options = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}, "TIFF-lzw": {"compression": "tiff_lzw"}}
    got = decode(encode(image, kind.partition("-")[0], exif=exif, **options.get(kind, {})), "x")
    assert got.shape == wanted.shape
    assert np.abs(got.astype(int) - wanted).mean() < (2 if kind == "JPEG" else 1e-9)


class Opened(torch.utils.data.Dataset):
    """As people write it: open, perhaps convert, hand over."""

    def __init__(self, paths, convert):
        self.paths, self.convert = paths, convert

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        image = Image.open(self.paths[i])
        return image.convert("RGB") if self.convert else image, i % 2


@pytest.mark.parametrize("convert", [True, False])
def test_pillow_images_of_a_dataset_stand_upright(tmp_path, convert):
    paths = []
    for k, kind in enumerate(("JPEG", "PNG", "WEBP", "TIFF")):
        exif = Image.Exif()
        exif[0x0112] = 6
        paths.append(write(tmp_path / f"{k}.{kind.lower()}", encode(picture(40, 60), kind, exif=exif)))
    source = open_source(Opened(paths, convert), split="all")
    for i in range(4):
        assert source.read(i).shape == (60, 40, 3)


def test_a_file_is_scaled_alike_whatever_lies_beside_it(tmp_path):
    wide = (picture(24, 30, 1, seed=9).astype(np.uint16) * 257)[..., 0]
    for folder, others in (("eight", 255), ("twelve", 4095)):
        for k in range(6):
            image = picture(24, 30, 1, seed=k)[..., 0].astype(np.uint16) * others // 255
            data = png16(image) if others > 255 else encode(image.astype(np.uint8)[..., None], "PNG")
            write(tmp_path / folder / f"{k}.png", data)
        write(tmp_path / folder / "wide.png", png16(wide))
    eight, twelve = (open_source(tmp_path / f, split="all") for f in ("eight", "twelve"))
    assert (eight.depth, eight.value_range) == ("uint8", None)
    assert twelve.depth == "uint16"
    got = as_uint8(eight.read(6), eight.value_range)
    np.testing.assert_array_equal(got[..., 0], wide // 257)
    assert eight.read(6).dtype == np.uint16
    run = of_depth(twelve.read(6), "uint8", "wide.png")
    np.testing.assert_array_equal(as_uint8(run), got)


def test_counts_of_unknown_range_among_eight_bits_are_refused(tmp_path):
    for k in range(5):
        write(tmp_path / f"{k}.png", picture(24, 30, 1, seed=k))
    write(tmp_path / "twelve.png", png16(RNG.integers(0, 4096, (24, 30)).astype(np.uint16)))
    np.save(tmp_path / "float.npy", RNG.normal(size=(24, 30)).astype(np.float32))
    np.save(tmp_path / "unit.npy", np.full((24, 30), 0.5, np.float32))
    source = open_source(tmp_path, split="all")
    assert source.value_range is None
    for name, said in (("twelve.png", "16-bit values up to 40"), ("float.npy", "float values -")):
        for read in (source.read, source.read_checked):
            with pytest.raises(SampleError, match=said):
                read(source.names.index(name))
    assert (as_uint8(source.read(source.names.index("unit.npy"))) == 128).all()


def test_eight_bits_and_floats_among_sixteen_are_scaled_by_their_own_type(tmp_path):
    for k in range(5):
        write(tmp_path / f"{k}.png", png16(RNG.integers(0, 4096, (24, 30)).astype(np.uint16)))
    write(tmp_path / "eight.png", picture(24, 30, 1))
    np.save(tmp_path / "unit.npy", np.full((24, 30), 0.5, np.float32))
    source = open_source(tmp_path, split="all")
    assert source.depth == "uint16"
    assert 4000 < source.value_range[0][1] < 4096
    eight = source.read(source.names.index("eight.png"))
    np.testing.assert_array_equal(as_uint8(eight, source.value_range), picture(24, 30, 1))
    assert (as_uint8(source.read(source.names.index("unit.npy")), source.value_range) == 128).all()


def test_a_run_scales_a_file_alike_in_any_folder(tmp_path):
    """The same three files beside 8-bit and beside 12-bit neighbours, for runs of 8 bits, 12 bits and floats."""
    twelve = (picture(24, 30, 1, seed=7)[..., 0].astype(np.uint16) * 4095) // 255
    files = {"wide.png": png16(picture(24, 30, 1, seed=9)[..., 0].astype(np.uint16) * 257), "twelve.png": png16(twelve)}
    files["eight.png"] = encode(picture(24, 30, 1, seed=8), "PNG")
    for folder, top in (("a", 255), ("b", 4095)):
        for k in range(6):
            image = picture(24, 30, 1, seed=k)[..., 0].astype(np.uint16) * top // 255
            write(tmp_path / folder / f"{k}.png", png16(image) if top > 255 else encode(image.astype(np.uint8), "PNG"))
        for name, data in files.items():
            write(tmp_path / folder / name, data)
    for run in (Scale(None, "uint8"), Scale([[0.0, 4095.0]], "uint16"), Scale([[-1.0, 2.0]], "float32")):
        found = []
        for folder in "ab":
            source = open_source(tmp_path / folder, split="all").subset(range(9))
            by, seen = source.scaled_as(run), {}
            for name in files:
                try:
                    seen[name] = as_uint8(source.read(source.names.index(name)), by).tobytes()
                except SampleError as error:
                    seen[name] = error.reason.partition(" ")[0]
            found.append(seen)
        assert found[0] == found[1]
        assert found[0]["eight.png"] == picture(24, 30, 1, seed=8).tobytes()
        if run.depth == "uint16":
            np.testing.assert_allclose(
                np.frombuffer(found[0]["twelve.png"], np.uint8), twelve.ravel() / 4095 * 255, atol=1
            )
        else:
            assert found[0]["twelve.png"] == "16-bit"
            assert found[0]["wide.png"] == picture(24, 30, 1, seed=9).tobytes()


def test_a_scale_goes_wherever_a_value_range_goes():
    scale = Scale([[1, 2], [3, 4.5]], "uint16")
    assert json.loads(json.dumps(scale)) == [[1.0, 2.0], [3.0, 4.5]] == scale
    for again in (pickle.loads(pickle.dumps(scale)), copy.deepcopy(scale)):
        assert (again, again.depth) == (scale, "uint16")
    assert Scale() == []


def described(kind: str, image: Image.Image, path, **options: object) -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[271] = 6, "Maker"
    exif.get_ifd(34665)[36867] = "2024:05:01 12:00:00"
    image.save(path, kind, exif=exif, icc_profile=b"profile" * 20, **options)
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_metadata_that_a_restored_picture_keeps(tmp_path, kind):
    rgba = picture(20, 30, 4)
    shown = Image.fromarray(rgba if kind != "JPEG" else rgba[..., :3])
    described(kind, shown, tmp_path / "a", **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    image, facts = read_with_metadata(tmp_path / "a")
    assert image.shape == (30, 20, 3)
    assert (facts.orientation, facts.bit_depth, facts.icc_profile) == (6, 8, b"profile" * 20)
    if kind != "JPEG":
        np.testing.assert_array_equal(image, upright(rgba, 6)[..., :3])
        np.testing.assert_array_equal(facts.alpha, upright(rgba, 6)[..., 3])
    else:
        assert facts.alpha is None
    Image.fromarray(image).save(tmp_path / "b.png", exif=facts.exif, icc_profile=facts.icc_profile)
    with Image.open(tmp_path / "b.png") as again:
        assert again.getexif().get(0x0112, 1) == 1
        assert again.getexif()[271].rstrip("\0") == "Maker"
        if kind != "TIFF":  # Pillow writes no such block into a TIFF
            assert again.getexif().get_ifd(34665)[36867] == "2024:05:01 12:00:00"
        assert again.info["icc_profile"] == facts.icc_profile


def test_metadata_of_grey_deep_and_many_channels(tmp_path):
    write(tmp_path / "la.png", encode(picture(20, 30, 1), "PNG", mode="LA"))
    image, facts = read_with_metadata(tmp_path / "la.png")
    assert (image.shape, facts.mode, facts.alpha.shape) == ((20, 30, 1), "LA", (20, 30))
    bands = RNG.integers(0, 4096, (16, 18, 4)).astype(np.uint16)
    write(
        tmp_path / "b.tif",
        tiff(bands, photometric="minisblack", planarconfig="contig", extratags=[(281, 3, 1, 4095, True)]),
    )
    image, facts = read_with_metadata(tmp_path / "b.tif")
    np.testing.assert_array_equal(image, bands)
    assert (facts.alpha, facts.exif, facts.bit_depth) == (None, None, 12)
    np.save(tmp_path / "c.npy", bands)
    assert read_with_metadata(tmp_path / "c.npy")[1] == (None, None, None, "", 16, 1)
    with pytest.raises(SampleError, match="missing"):
        read_with_metadata(tmp_path / "none.png")


@pytest.mark.parametrize(
    ("pairs", "depth", "taken"),
    [
        (None, "uint8", []),
        ([[110.0, 2100.0]], "uint16", [[110.0, 2100.0]]),
        ([[900.0, 61_000.0]], "uint16", []),
        ([[0.01, 0.97]] * 3, "float32", []),
        ([[0.0, 0.02]], "float32", [[0.0, 0.02]]),
        ([[-5.0, 0.9]], "float32", [[-5.0, 0.9]]),
        ([[0.0, 255.0]], "float32", [[0.0, 255.0]]),
    ],
)
def test_counts_and_floats_of_other_ranges_are_restored_in_their_measured_range(pairs, depth, taken):
    scale = unit_scale(pairs, depth)
    assert (list(scale), scale.depth) == (taken, depth)


def test_a_run_of_counts_takes_other_types_by_theirs():
    run = Scale([[100.0, 2100.0]], "uint16")
    counts = np.array([[[100], [1100], [2100]]], np.uint16)
    np.testing.assert_allclose(to_unit(counts, run)[0, :, 0], [0, 0.5, 1])
    np.testing.assert_array_equal(from_unit(to_unit(counts, run), np.uint16, run), counts)
    np.testing.assert_allclose(to_unit(np.array([[[51], [255]]], np.uint8), run)[0, :, 0], [0.2, 1])
    with pytest.raises(SampleError, match="whose range is not known"):
        to_unit(counts, Scale(None, "uint8"))
