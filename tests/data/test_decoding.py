from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from selftaught.data.decoding import decode, header, pil_to_array
from selftaught.data.integrity import jpeg_size
from selftaught.errors import SampleError
from tests.data.helpers import encode, picture


def tiff(array: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def reason(data: bytes) -> str:
    with pytest.raises(SampleError) as error:
        decode(data, "x")
    assert error.value.name == "x"
    return error.value.reason


@pytest.mark.parametrize(
    ("kind", "channels"),
    [(k, c) for k in ("PNG", "TIFF") for c in (1, 3, 4)] + [("BMP", 1), ("BMP", 3), ("WEBP", 3)],
)
def test_lossless_formats_give_back_every_pixel_in_rgb_order(kind, channels):
    options = {"lossless": True} if kind == "WEBP" else {}
    image = picture(channels=channels)
    got = decode(encode(image, kind, **options), "x")
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, image)


def test_jpeg_is_rgb_and_close():
    image = picture()
    got = decode(encode(image, "JPEG", quality=95), "x")
    assert np.abs(got.astype(int) - image).mean() < 3
    assert np.abs(got[..., ::-1].astype(int) - image).mean() > 20


def test_grey_jpeg_keeps_one_channel():
    assert decode(encode(picture(channels=1), "JPEG"), "x").shape == (48, 64, 1)


def test_cmyk_jpeg_becomes_rgb():
    image = picture()
    got = decode(encode(image, "JPEG", mode="CMYK", quality=95), "x")
    assert got.shape == image.shape
    assert np.abs(got.astype(int) - image).mean() < 3


def test_a_tiff_of_inks_becomes_rgb_and_lab_is_refused():
    """As four bands, or three read as red, green and blue, they would be learnt from without a word."""
    image = picture()
    data = encode(image, "TIFF", mode="CMYK")
    np.testing.assert_allclose(decode(data, "x"), image, atol=2)
    assert header(data, "x").channels == 3
    assert "TIFF in CIELAB colours; convert it to RGB" in reason(tiff(image, photometric="cielab"))


@pytest.mark.parametrize(("orientation", "turn"), [(1, 0), (6, 3), (3, 2), (8, 1)])
def test_exif_orientation_turns_a_jpeg_upright(orientation, turn):
    image, exif = picture(), Image.Exif()
    exif[0x0112] = orientation
    got = decode(encode(image, "JPEG", quality=95, exif=exif), "x")
    assert np.abs(got.astype(int) - np.rot90(image, turn)).mean() < 2


def test_palette_png_becomes_its_colours():
    image = np.zeros((10, 12, 3), np.uint8)
    image[:, 6:] = (255, 0, 102)
    np.testing.assert_array_equal(decode(encode(image, "PNG", mode="P"), "x"), image)


def test_one_bit_png_becomes_0_and_255():
    image = np.zeros((8, 8), np.uint8)
    image[:, 4:] = 255
    np.testing.assert_array_equal(decode(encode(image, "PNG", mode="1"), "x")[..., 0], image)


def test_sixteen_bit_png_keeps_its_bits():
    image = (picture(channels=3).astype(np.uint16) << 8) + 7
    ok, data = cv2.imencode(".png", image[..., ::-1])
    assert ok
    got = decode(data.tobytes(), "x")
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(got, image)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize(
    ("axes", "options"),
    [
        ("hwc", {"photometric": "minisblack", "planarconfig": "contig"}),
        ("chw", {"photometric": "minisblack", "planarconfig": "separate"}),
        ("chw", {"photometric": "minisblack"}),
        ("hwc", {"photometric": "minisblack", "planarconfig": "contig", "compression": "zlib"}),
    ],
)
def test_thirteen_channel_tiff_in_every_layout(axes, options, dtype):
    image = np.random.default_rng(0).integers(0, 200, (40, 56, 13)).astype(dtype)
    stored = image if axes == "hwc" else np.ascontiguousarray(np.moveaxis(image, 2, 0))
    got = decode(tiff(stored, **options), "x")
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, image)


def test_narrow_rgb_pictures_are_never_turned_round():
    image = picture(2, 30)
    for data in (encode(image, "PNG"), encode(image, "TIFF"), tiff(image, photometric="rgb")):
        np.testing.assert_array_equal(decode(data, "x"), image)


def test_lzw_and_jpeg_tiffs_come_from_opencv():
    image = picture()
    np.testing.assert_array_equal(decode(encode(image, "TIFF", compression="tiff_lzw"), "x"), image)
    assert np.abs(decode(encode(image, "TIFF", compression="jpeg", quality=95), "x").astype(int) - image).mean() < 4


def test_what_only_imagecodecs_can_unpack_is_named(tmp_path):
    image = np.zeros((16, 20, 13), np.uint8)
    (tmp_path / "a.tif").write_bytes(tiff(image, photometric="minisblack", planarconfig="contig"))
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        file.pages.first.tags["Compression"].overwrite(5)
    assert reason((tmp_path / "a.tif").read_bytes()) == (
        "TIFF with LZW compression and 13 channels (pip install imagecodecs)"
    )


def test_other_number_types_become_float32():
    values = np.random.default_rng(0).normal(size=(9, 11, 5))
    got = decode(npy(values), "x")
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, values.astype(np.float32))
    assert decode(npy(np.arange(12, dtype=np.int32).reshape(3, 4)), "x").dtype == np.float32
    np.testing.assert_array_equal(decode(npy(np.eye(3, dtype=bool)), "x")[..., 0], np.eye(3, dtype=np.uint8) * 255)


def test_npy_with_channels_first_is_turned():
    image = np.random.default_rng(0).integers(0, 9, (13, 32, 40)).astype(np.uint16)
    np.testing.assert_array_equal(decode(npy(image), "x"), np.moveaxis(image, 0, 2))


@pytest.mark.parametrize("cut", [1, 2, 30, 0.25, 0.5, 0.9])
@pytest.mark.parametrize(
    ("kind", "options"), [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {})]
)
def test_truncated_files_are_told(kind, options, cut):
    data = encode(picture(120, 160), kind, **options)
    keep = int(len(data) * cut) if isinstance(cut, float) else len(data) - cut
    assert "truncated" in reason(data[:keep])


@pytest.mark.parametrize("kind", ["BMP", "TIFF"])
def test_half_a_bmp_or_tiff_is_refused(kind):
    data = encode(picture(120, 160), kind)
    assert reason(data[: len(data) // 2])


def test_jpeg_with_something_after_the_picture_is_fine():
    data = encode(picture(), "JPEG")
    np.testing.assert_array_equal(decode(data + b"appended by a camera", "x"), decode(data, "x"))
    np.testing.assert_array_equal(decode(data + b"\0" * 100, "x"), decode(data, "x"))


def test_a_flipped_bit_in_a_png_is_found_by_its_checksum():
    data = bytearray(encode(picture(), "PNG"))
    data[len(data) // 2] ^= 1
    assert "checksum of IDAT" in reason(bytes(data))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(value):
    image = np.zeros((4, 5, 2), np.float32)
    image[1, 2, 0] = value
    assert "NaN or infinite values" in reason(npy(image))
    assert "NaN or infinite values" in reason(tiff(image, photometric="minisblack", planarconfig="contig"))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty file"),
        (b"not a picture at all", "not an image"),
        (npy(np.zeros((0, 5))), "zero size"),
        (npy(np.array([["a", "b"]])), "no type for pixels"),
        (npy(np.zeros(7)), "1 axes"),
        (npy(np.zeros((2, 3, 4, 5))), "4 axes"),
        (npy(np.zeros((9, 9)))[:-8], "truncated .npy"),
        (b"II*\0garbage", "broken TIFF"),
    ],
)
def test_what_is_no_image_is_named(data, said):
    assert said in reason(data)


def test_reduced_decoding_keeps_the_shorter_side():
    data = encode(picture(400, 520), "JPEG", quality=95)
    full = decode(data, "x")
    for min_side, side in ((None, 400), (400, 400), (201, 400), (200, 200), (100, 100), (51, 100), (50, 50), (1, 50)):
        got = decode(data, "x", min_side)
        assert min(got.shape[:2]) == side
        assert got.shape[2] == 3
    half = cv2.resize(full, (260, 200), interpolation=cv2.INTER_AREA)
    assert np.abs(decode(data, "x", 200).astype(int) - half).mean() < 2


def test_reduced_grey_and_turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(encode(picture(400, 520, 1), "JPEG"), "x", 100).shape == (100, 130, 1)
    assert decode(encode(picture(400, 520), "JPEG", exif=exif), "x", 100).shape == (130, 100, 3)


def test_jpeg_size_reads_the_frame_header():
    assert jpeg_size(encode(picture(37, 53), "JPEG", progressive=True)) == (37, 53, 3)
    assert jpeg_size(encode(picture(37, 53, 1), "JPEG", exif=b"Exif\0\0" + b"\xff" * 500)) == (37, 53, 1)
    assert jpeg_size(b"\xff\xd8\xff\xd9") is None


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("PNG", m) for m in ("L", "RGB", "RGBA", "P", "LA", "1")]
    + [("JPEG", m) for m in ("L", "RGB", "CMYK")]
    + [("WEBP", "RGB"), ("WEBP", "RGBA"), ("TIFF", "RGB"), ("BMP", "RGB")],
)
def test_header_says_what_decode_gives(kind, mode):
    data = encode(picture(), kind, mode=mode)
    image = decode(data, "x")
    assert header(data, "x") == (image.shape[2], str(image.dtype))


def test_transparent_palette_keeps_alpha():
    data = encode(picture(), "PNG", mode="P", transparency=0)
    assert decode(data, "x").shape[2] == 4 == header(data, "x").channels


@pytest.mark.parametrize(("mode", "channels"), [("P", 3), ("1", 1), ("LA", 4), ("CMYK", 3), ("RGBA", 4), ("L", 1)])
def test_pillow_images_as_arrays(mode, channels):
    array = pil_to_array(Image.fromarray(picture()).convert(mode))
    assert (1 if array.ndim == 2 else array.shape[2]) == channels
    assert array.dtype == np.uint8


def test_png_checksums_are_really_those_of_the_standard():
    data = encode(picture(), "PNG")
    assert zlib.crc32(data[12:29]) == int.from_bytes(data[29:33], "big")


def test_a_picture_that_claims_to_be_vast_is_named_and_takes_no_memory() -> None:
    """60,000 x 60,000 pixels in a file of some hundred bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(60_001) * 3, 9)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    with pytest.raises(SampleError):
        decode(data, "vast.png")


def test_warnings_of_the_decoder_do_not_reach_the_terminal(capfd):
    """A colour profile that libpng takes exception to is in millions of files; its words would tear a progress bar."""
    image = picture()
    whole = encode(image, "PNG")
    wrong = b"sRGB\0\0" + zlib.compress(b"no profile at all")
    chunk = struct.pack(">I", len(wrong)) + b"iCCP" + wrong + struct.pack(">I", zlib.crc32(b"iCCP" + wrong))
    np.testing.assert_array_equal(decode(whole[:33] + chunk + whole[33:], "x.png"), image)
    told = capfd.readouterr()
    assert told.out + told.err == ""
