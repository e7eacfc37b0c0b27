from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from selftaught import report
from selftaught.errors import UserError
from selftaught.report import images, restored
from tests.report import samples


def test_uint8_passes_unchanged() -> None:
    photo = samples.photo("cat")
    assert np.array_equal(images.to_uint8(photo), photo)
    assert np.array_equal(images.to_uint8(photo[..., 0]), photo[..., 0])
    assert np.array_equal(images.to_uint8(photo[..., :1]), photo[..., 0])


def test_png_round_trip_is_exact() -> None:
    photo = samples.photo("cat")[:40, :50]
    assert np.array_equal(images.decode(images.encode(photo, format="png")), photo)
    assert np.array_equal(images.decode(images.data_uri(images.encode(photo[..., 0], format="png"))), photo[..., 0])


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 6, 13, 200])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.bool_])
def test_any_channel_count_and_type(channels: int, dtype: Any) -> None:
    rng = np.random.default_rng(0)
    image = (rng.random((16, 20, channels)) * (1 if dtype in (np.float32,) else 3)).astype(dtype)
    shown = images.to_uint8(image)
    assert shown.dtype == np.uint8
    assert shown.shape == ((16, 20) if channels == 1 else (16, 20, 3))
    file = Image.open(io.BytesIO(base64.b64decode(images.encode(image))))
    assert file.size == (20, 16)


def test_four_channels_show_the_first_three() -> None:
    image = np.random.default_rng(0).integers(0, 255, (8, 8, 4)).astype(np.uint8)
    assert np.array_equal(images.to_uint8(image), image[..., :3])


def test_two_channels_are_red_and_cyan() -> None:
    image = np.zeros((1, 2, 2), np.uint8)
    image[0, 0, 0] = image[0, 1, 1] = 255
    assert images.to_uint8(image).tolist() == [[[255, 0, 0], [0, 255, 255]]]


@pytest.mark.parametrize(("channels", "bands"), [(5, (4, 2, 0)), (6, (5, 3, 1)), (12, (10, 6, 2)), (13, (10, 6, 2))])
def test_false_colour_spreads_its_bands(channels: int, bands: tuple[int, int, int]) -> None:
    assert images.false_colour_bands(channels) == bands
    image = np.zeros((10, 10, channels), np.float32)
    image[:5, :, bands[0]] = 7000
    image[:, :5, bands[2]] = -3
    shown = images.to_uint8(image)
    assert shown[0, 0].tolist() == [255, 128, 0]
    assert shown[9, 9].tolist() == [0, 128, 255]


def test_float_between_zero_and_one_is_not_stretched() -> None:
    image = np.array([[0.2, 0.4], [0.6, 0.5]])
    assert images.to_uint8(image).tolist() == [[51, 102], [153, 128]]


def test_other_ranges_are_stretched_or_taken_as_told() -> None:
    image = np.linspace(-4, 12, 256).reshape(16, 16)
    shown = images.to_uint8(image)
    assert (shown.min(), shown.max()) == (0, 255)
    told = images.to_uint8(np.array([[0, 2048, 4095, 9000]], np.uint16), (0, 4095))
    assert told.tolist() == [[0, 128, 255, 255]]


def test_nan_is_black_and_constant_is_grey() -> None:
    image = np.array([[np.nan, 1.0, 0.0, np.inf]])
    assert images.to_uint8(image).tolist() == [[0, 255, 0, 255]]
    assert images.to_uint8(np.full((2, 2), 900, np.uint16)).tolist() == [[128, 128], [128, 128]]
    assert images.to_uint8(np.full((2, 2, 7), np.nan)).max() == 0


@pytest.mark.parametrize("shape", [(4,), (0, 4, 3), (4, 4, 0), (2, 2, 2, 2)])
def test_what_is_no_image_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="an image is an array"):
        images.to_uint8(np.zeros(shape))


def test_encode_shrinks_but_never_enlarges_and_picks_the_smaller_file() -> None:
    photo = samples.photo("cat")
    assert images.dimensions(images.encode(photo, size=100)) == (100, 67)
    assert images.dimensions(images.encode(photo[:20, :30], size=100)) == (30, 20)
    assert images.data_uri(images.encode(photo)).startswith("data:image/webp")
    flat = np.zeros((64, 64), np.uint8)
    assert len(images.encode(flat)) == min(len(images.encode(flat, format=form)) for form in ("png", "jpeg", "webp"))


def test_sprite_sheet_keeps_the_order() -> None:
    tiles = [np.full((10, 14, 3), 25 * i, np.uint8) for i in range(7)]
    sheet = images.sprite_sheet(tiles, tile=16, columns=3)
    pixels = images.decode(sheet["image"])
    assert pixels.shape == (48, 48, 3)
    for i in range(7):
        y, x = 16 * (i // 3) + 8, 16 * (i % 3) + 8
        assert abs(int(pixels[y, x, 0]) - 25 * i) <= 3
    assert images.sprite_sheet(tiles)["columns"] == 3
    with pytest.raises(UserError, match="at least one image"):
        images.sprite_sheet([])
    with pytest.raises(UserError, match="too large"):
        images.sprite_sheet(tiles, tile=6000, columns=3)


def test_sprites_of_a_thousand_photographs_stay_small() -> None:
    rng = np.random.default_rng(0)
    tiles = [samples.crop(samples.PHOTOS[i % 12], rng) for i in range(1000)]
    assert len(images.sprite_sheet(tiles, tile=48)["image"]) < 2_500_000


def test_contact_sheet_places_tiles() -> None:
    rows = [[np.full((8, 8), 0, np.uint8)] * 3, [np.full((8, 8, 3), 90, np.uint8)]]
    sheet = images.contact_sheet(rows, tile=10, gap=2)
    assert sheet.shape == (26, 38, 3)
    assert sheet[5, 5].tolist() == [0, 0, 0]
    assert sheet[15, 5].tolist() == [90, 90, 90]
    assert sheet[15, 30].tolist() == [255, 255, 255]
    with pytest.raises(UserError, match="at least one"):
        images.contact_sheet([[]])


def test_psnr_is_the_textbook_formula() -> None:
    a, b = np.zeros((4, 4), np.uint8), np.full((4, 4), 10, np.uint8)
    assert images.psnr(a, b) == pytest.approx(10 * np.log10(255**2 / 100), abs=1e-12)
    assert images.psnr(a, a) is None
    assert images.psnr(a, b[:2]) is None


def test_crop_boxes_find_detail_and_flat_parts() -> None:
    image = np.full((128, 192), 120, np.uint8)
    image[64:, 128:] = np.random.default_rng(0).integers(0, 255, (64, 64))
    detail, flat = images.crop_boxes(image, 64)
    assert detail == [128, 64, 64, 64]
    assert image[flat[1] : flat[1] + 64, flat[0] : flat[0] + 64].std() == 0
    assert images.crop_boxes(np.zeros((1, 1), np.uint8)) == [[0, 0, 1, 1]]


def test_webp_is_smaller_close_and_taken_by_the_page() -> None:
    photo = samples.photo("coffee")[:200, :200]
    files = {form: images.encode(photo, format=form, quality=80) for form in ("png", "jpeg", "webp", "auto")}
    assert len(files["webp"]) < 0.8 * len(files["jpeg"])
    assert files["auto"] == files["webp"]
    assert images.psnr(images.decode(files["webp"]), photo) > 30
    assert images.data_uri(files["webp"]).startswith("data:image/webp;")
    views = {"rows": [[files["webp"]]]}
    assert report.validate({"views": views})["views"]["rows"] == views["rows"]


def test_a_restorers_page_is_small_and_its_enlarged_parts_are_exact() -> None:
    rng = np.random.default_rng(0)
    clean = np.kron(samples.photo("astronaut")[:160, :160], np.ones((4, 4, 1))).astype(np.uint8)
    noisy = np.clip(clean + 25 * rng.normal(size=clean.shape), 0, 255).astype(np.uint8)
    files = {k: images.encode(v, format="png") for k, v in (("noisy", noisy), ("restored", clean), ("clean", clean))}
    box = [40, 60, 64, 64]
    plate = restored.plate({"name": "a", "crops": [box], **files})
    assert len(plate["uris"]["noisy"]) < 0.3 * len(files["noisy"])
    cut = {cell["name"]: images.decode(cell["uri"]) for cell in plate["crops"][0]["cells"]}
    assert np.array_equal(cut["input"], noisy[60:124, 40:104])
    assert np.array_equal(cut["clean"], clean[60:124, 40:104])
    assert len(report.render([{"restoration": [{"name": str(k), **files} for k in range(6)]}])) < 1_600_000


def test_errors_are_mapped_on_one_scale() -> None:
    clean = np.full((30, 40, 3), 100, np.uint8)
    noisy, better = clean.copy(), clean.copy()
    noisy[:, :20] += 30
    better[:, :20, 0] += 45  # 15 on the mean
    assert restored.error_map(noisy, clean, 30)[0, 0].tolist() == [255, 255, 255]
    assert restored.error_map(better, clean, 30)[0, 0].tolist() == [255, 128, 0]
    assert restored.error_map(better, clean, 30)[0, 30].tolist() == [0, 0, 0]
    assert restored.error_map(noisy[..., 0], clean[..., 0], 90)[0, 0].tolist() == [255, 0, 0]
    files = {k: images.encode(v, format="png") for k, v in (("noisy", noisy), ("restored", better), ("clean", clean))}
    errors = restored.plate(files)["errors"]
    assert errors["most"] == 30
    made = {cell["name"]: images.decode(cell["uri"]).astype(int) for cell in errors["cells"]}
    assert np.abs(made["input"][15, 10] - 255).max() < 12
    assert np.abs(made["restored"][15, 10] - [255, 128, 0]).max() < 40
    assert "white 30 grey levels" in report.render([{"restoration": [files]}])
    assert restored.plate(files | {"noisy": images.encode(noisy[:20], format="png")})["errors"] is None
    assert "error map" not in report.render([{"restoration": [{k: files[k] for k in ("noisy", "restored")}]}])


def test_a_film_is_its_frames_side_by_side() -> None:
    frames = np.repeat(np.arange(0, 240, 30, dtype=np.uint8)[:, None, None, None], 3, 3)
    for side, expected in ((16, 64), (200, 72)):
        whole = frames * np.ones((1, side, side, 1), np.uint8)
        strip = Image.open(io.BytesIO(base64.b64decode(images.film(whole, side=72))))
        assert strip.size == (8 * expected, expected)
        levels = np.asarray(strip.convert("L"))[expected // 2, expected // 2 :: expected]
        assert np.abs(levels.astype(int) - np.arange(0, 240, 30)).max() < 12
