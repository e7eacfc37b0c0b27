"""Restored pictures: what their files keep, how they are judged, and what is left out and said."""

from __future__ import annotations

import csv
import re
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from torch import nn

import selftaught
from selftaught import UserError, methods
from selftaught.cli import main
from selftaught.data import open_source
from selftaught.data.picture_facts import read_with_metadata
from selftaught.run import outputs, reporting
from selftaught.run.applying import Job
from selftaught.run.outputs._pictures import Beside, write_image
from selftaught.run.outputs.image import beyond, restore
from tests.conftest import write_photos


class Double(nn.Module):
    """Every pixel four times."""

    scale, receptive_radius = 2, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


class Enlarge(methods.SimCLR):
    """A method that delivers twice the pixels a side."""

    output, pixels = "image", "float32"

    def build(self) -> None:
        self.network = Double()

    def deliverable(self) -> nn.Module:
        return self.network


def enlarged(folder: Path, out: Path, channels: int = 3) -> Path:
    method = Enlarge(channels=channels, encoder="resnet10-narrow", image_size=16, projector="8-4").eval()
    job = Job(method, open_source(str(folder), split="all"), out)
    outputs.of("image").apply(job)
    return out


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> selftaught.Run:
    folder = tmp_path_factory.mktemp("denoiser")
    write_photos(folder / "in", count=8, classes=1)
    options = {"patch": 24, "width": 16, "modules": 1, "steps": 2, "batch_size": 4, "workers": 0, "quiet": True}
    return selftaught.train("c-bsn", str(folder / "in"), out=str(folder / "run"), **options)


# ---- files -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_exif_and_colour_profile_are_kept(tmp_path: Path, suffix: str) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Pillow.Exif()
    exif[0x010F] = "Maker"  # the camera's
    (tmp_path / "in").mkdir()
    picture = Pillow.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8))
    picture.save(tmp_path / f"in/a{suffix}", exif=exif.tobytes(), icc_profile=profile)
    found = Pillow.open(enlarged(tmp_path / "in", tmp_path / "out") / f"a{suffix}")
    assert found.size == (60, 40)
    assert found.getexif()[0x010F] == "Maker"
    assert found.info["icc_profile"] == profile


@pytest.mark.parametrize(("dtype", "suffix"), [(np.uint8, ".png"), (np.uint16, ".png"), (np.uint8, ".webp")])
@pytest.mark.parametrize("colours", [3, 1])
def test_alpha_is_carried_and_enlarged(tmp_path: Path, dtype: type, suffix: str, colours: int) -> None:
    if (colours, suffix) == (1, ".webp") or (colours, dtype) == (1, np.uint16):
        pytest.skip("no such file")
    top = np.iinfo(dtype).max
    rng = np.random.default_rng(0)
    image = rng.integers(0, top, (20, 24, colours)).astype(dtype)
    alpha = np.full((20, 24), top, dtype)
    alpha[:, :12] = 0
    (tmp_path / "in").mkdir()
    write_image(tmp_path / f"in/a{suffix}", image, Beside(alpha))
    path = enlarged(tmp_path / "in", tmp_path / "out") / f"a{suffix}"
    found, facts = read_with_metadata(path)
    assert found.shape == (40, 48, colours)
    assert found.dtype == dtype
    assert facts.alpha is not None
    assert facts.alpha.shape == (40, 48)
    assert (facts.alpha[:, :20] == 0).all()
    assert (facts.alpha[:, 28:] == top).all()
    np.testing.assert_array_equal(found[::2, ::2], image)


def test_a_profile_of_inks_is_not_kept_for_colours(tmp_path: Path) -> None:
    profile = bytearray(128)
    profile[16:20] = b"CMYK"
    picture = Pillow.new("CMYK", (9, 8), (10, 200, 30, 0))
    picture.save(tmp_path / "a.jpg", icc_profile=bytes(profile))
    image, facts = read_with_metadata(tmp_path / "a.jpg")
    assert image.shape == (8, 9, 3)
    assert facts.icc_profile is None
    Pillow.new("RGB", (9, 8)).save(tmp_path / "b.jpg", icc_profile=bytes(profile[:16] + b"RGB " + profile[20:]))
    assert read_with_metadata(tmp_path / "b.jpg")[1].icc_profile is not None


def test_a_deep_png_keeps_its_profile_and_depth(tmp_path: Path) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Pillow.Exif()
    exif[0x010F] = "Maker"
    image = np.random.default_rng(0).integers(0, 65535, (9, 11, 3), dtype=np.uint16)
    write_image(tmp_path / "a.png", image, Beside(None, exif.tobytes(), profile))
    found, facts = read_with_metadata(tmp_path / "a.png")
    np.testing.assert_array_equal(found, image)
    assert facts.icc_profile == profile
    assert Pillow.open(tmp_path / "a.png").getexif()[0x010F] == "Maker"


def test_grey_pictures_through_a_model_of_colours_stay_grey(denoiser, tmp_path: Path) -> None:
    write_photos(tmp_path / "grey", count=2, classes=1, channels=1)
    assert denoiser.apply(tmp_path / "grey", tmp_path / "out") == 2
    assert cv2.imread(str(tmp_path / "out/000.png"), cv2.IMREAD_UNCHANGED).ndim == 2


# ---- judging -----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy and clean pictures; one without a partner, one of another size, one that is broken."""
    folder = tmp_path_factory.mktemp("pairs")
    write_photos(folder / "clean", count=6, classes=1)
    rng = np.random.default_rng(0)
    (folder / "noisy").mkdir()
    for k, path in enumerate(sorted((folder / "clean").iterdir())):
        image = cv2.imread(str(path)).astype(float)
        noisy = np.clip(image + rng.normal(0, 5 + 5 * k, image.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / "noisy" / path.with_suffix(".bmp").name), noisy)
    (folder / "clean/005.png").unlink()
    cv2.imwrite(str(folder / "clean/004.png"), np.zeros((20, 20, 3), np.uint8))
    (folder / "noisy/003.bmp").write_bytes(b"BM nothing")
    return folder


def test_what_has_no_reference_is_left_out_and_listed(denoiser, pairs: Path) -> None:
    said: list[str] = []
    found = denoiser.evaluate(str(pairs / "noisy"), clean=str(pairs / "clean"), say=said.append)["restoration"]
    assert len(found["this"].figures["per_image"]["psnr"]) == 3
    for part in ("3 images left out", "005.bmp: no clean image of its name", "004.bmp: is made 48x48x3"):
        assert part in found["this"].note
    assert sum(line.startswith("skipped ") for line in said) == 3
    rows = found["raw"].figures["worst_first"]
    assert [row["name"] for row in rows] == ["002.bmp", "001.bmp", "000.bmp"]
    (pairs / "none").mkdir(exist_ok=True)
    cv2.imwrite(str(pairs / "none/other.png"), np.zeros((48, 48, 3), np.uint8))
    with pytest.raises(UserError, match=r"no image can be judged .*no clean image of its name"):
        denoiser.evaluate(str(pairs / "noisy"), clean=str(pairs / "none"))


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders of a video, of moving bars in one, and with noise in the other."""
    av: Any = pytest.importorskip("av")
    folder = tmp_path_factory.mktemp("films")
    bars = (np.arange(96) // 6 % 2 * 120 + 60).astype(np.float64)
    clean = np.stack([np.roll(bars, t)[None, :48, None].repeat(48, 0).repeat(3, 2) for t in range(6)])
    noise = np.random.default_rng(0).normal(0, 25, clean.shape)
    for name, frames in (("clean", clean), ("noisy", clean + noise)):
        (folder / name).mkdir()
        with av.open(str(folder / name / "a.mkv"), "w") as file:
            stream = file.add_stream("ffv1", rate=25)
            stream.width, stream.height, stream.pix_fmt = 48, 48, "bgr0"
            for picture in frames.clip(0, 255).astype(np.uint8):
                file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            file.mux(stream.encode())
    return folder


def test_videos_are_judged_frame_by_frame(denoiser, films: Path) -> None:
    found = denoiser.evaluate(str(films / "noisy"), clean=str(films / "clean"))["restoration"]
    noisy, clean = (
        open_source(str(films / name), modality="clip", split="all").read(0) / np.float32(255)
        for name in ("noisy", "clean")
    )
    made = np.stack([restore(denoiser.method.eval(), frame) for frame in noisy])
    assert len(made) == 6
    for kind, frames in (("this", made), ("raw", noisy)):
        errors = np.square(frames - clean).mean((1, 2, 3))
        per_frame = found[kind].figures["per_frame"]["a.mkv"]["psnr"]
        np.testing.assert_allclose(per_frame, -10 * np.log10(errors), atol=0.02)
    assert found["raw"]["flicker"].mean > 10
    page = denoiser.report().read_text(encoding="utf-8")
    assert "frame by frame" in page.lower()


def test_videos_are_degraded_frame_by_frame_and_enlarged(films: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write_photos(folder, count=4, classes=1)
    run = selftaught.train("bicubic", str(folder), out=str(tmp_path / "run"), steps=1, workers=0, quiet=True, scale=2)
    (tmp_path / "films").mkdir()
    for number in range(6):
        shutil.copy(films / "clean" / "a.mkv", tmp_path / "films" / f"{number}.mkv")
    found = run.evaluate(str(tmp_path / "films"))["restoration"]
    assert found["this"]["psnr"].mean == pytest.approx(found["raw"]["psnr"].mean)
    assert {len(one["psnr"]) for one in found["this"].figures["per_frame"].values()} == {6}


def test_videos_and_pictures_are_not_compared(denoiser, pairs: Path, films: Path) -> None:
    with pytest.raises(UserError, match="give videos for both, or pictures"):
        denoiser.evaluate(str(pairs / "noisy"), clean=str(films / "clean"))


def test_pictures_are_not_made_videos_in_silence(denoiser, pairs: Path, tmp_path: Path) -> None:
    for into in ("video", "frames"):
        with pytest.raises(UserError, match=f'into="{into}": is for videos.*frames:FOLDER'):
            denoiser.apply(str(pairs / "noisy"), tmp_path / "out", into=into)
    assert not (tmp_path / "out").exists()
    (tmp_path / "frames").mkdir()
    for number in range(3):
        cv2.imwrite(str(tmp_path / "frames" / f"{number}.png"), np.full((48, 48, 3), 60 * number, np.uint8))
    assert denoiser.apply(f"frames:{tmp_path / 'frames'}", tmp_path / "film", into="video") == 1
    assert (tmp_path / "film" / "clip.mp4").is_file()


def test_bands_are_no_colours_with_transparency(denoiser, pairs: Path, tmp_path: Path) -> None:
    """A network of three channels never sees red, green and blue mixed with white by near infrared."""
    for folder in ("noisy", "clean"):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "a.npy", np.full((48, 48, 4), 90, np.uint8))
    data, clean = str(tmp_path / "noisy"), str(tmp_path / "clean")
    with pytest.raises(UserError, match="the fourth is not marked as transparency"):
        denoiser.evaluate(data, clean=clean)
    with pytest.raises(UserError, match="the fourth is not marked as transparency"):
        denoiser.apply(data, tmp_path / "out")


def test_luma_and_border_on_request(denoiser, pairs: Path, capsys) -> None:
    data, clean = str(pairs / "noisy"), str(pairs / "clean")
    plain = denoiser.evaluate(data, clean=clean)["restoration"]["raw"]
    luma = denoiser.evaluate(data, clean=clean, channel="y", shave=4)["restoration"]["raw"]
    assert luma["psnr"].mean > plain["psnr"].mean + 1
    assert "on the Y channel; without 4 pixels at the border" in luma.note
    arguments = ["evaluate", str(denoiser.path), "--data", data, "--clean", clean, "--channel", "y", "--shave", "4"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert f"{luma['psnr'].mean:.2f}" in said
    table = denoiser.evaluation(data).items("restoration")
    assert f"the worst first: {table}" in said
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    decibels = [float(row["psnr"]) for row in rows]
    assert decibels == sorted(decibels)
    with pytest.raises(UserError, match="shave 30: leaves nothing"):
        denoiser.evaluate(data, clean=clean, shave=30)


def test_a_restorer_has_no_other_protocol(denoiser) -> None:
    with pytest.raises(UserError, match='protocols="knn": c-bsn restores images; it may be restoration'):
        denoiser.evaluate(protocols=["knn"])


def test_the_worst_pictures_stay_on_the_page(denoiser, pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return cls(2031, 2, 3, 4, 5)

    monkeypatch.setattr(reporting, "datetime", Later)
    found = denoiser.evaluate(str(pairs / "noisy"), clean=str(pairs / "clean"))
    page = selftaught.load(denoiser.path).report().read_text()
    order = [page.index(row["name"]) for row in found["restoration"]["this"].figures["worst_first"]]
    assert order == sorted(order)
    assert "judged on noisy/" in page
    assert re.search(r"Written\W[^0-9]*2031-02-03 04:05", page), "when the page was written, not the run trained"
    assert len(page) < 3 << 20, "a page with small pictures is small"


def test_adapting_is_refused_where_the_method_does_not(denoiser, pairs: Path, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(UserError, match="adapt: c-bsn does not adapt"):
        denoiser.apply(pairs / "noisy", tmp_path / "out", adapt=True)
    seen: list[int] = []

    def adapt(self: methods.CBSN, source: object) -> None:
        seen.append(len(source))  # type: ignore[arg-type]
        with torch.no_grad():
            for parameter in self.network.parameters():
                parameter.zero_()

    monkeypatch.setattr(methods.CBSN, "adapt", adapt, raising=False)
    before = {k: v.clone() for k, v in denoiser.encoder.state_dict().items()}
    assert denoiser.apply(pairs / "noisy", tmp_path / "out", adapt=True) == 5
    assert seen == [6]
    assert all(torch.equal(v, before[k]) for k, v in denoiser.encoder.state_dict().items())
    with pytest.raises(UserError, match="holds results of other options"):
        denoiser.apply(pairs / "noisy", tmp_path / "out")


# ---- counts ------------------------------------------------------------------------------------------------------
def test_counts_and_floats_are_learnt_judged_and_given_back_in_their_range(tmp_path: Path) -> None:
    """Twelve bits in sixteen: the network sees their range, not a thirtieth of it, and PSNR is of that range."""
    rng = np.random.default_rng(0)
    clean = cv2.resize(rng.uniform(200, 2200, (8, 8, 8)), (48, 48)).transpose(2, 0, 1)  # (8, H, W) counts
    noisy = clean + rng.normal(0, 100, clean.shape)
    for kind, scale, dtype in (("counts", 1.0, np.uint16), ("floats", 1e-5, np.float32)):
        for part, images in (("noisy", noisy), ("clean", clean)):
            (tmp_path / kind / part).mkdir(parents=True)
            for i, image in enumerate(images):
                cv2.imwrite(str(tmp_path / kind / part / f"{i}.tif"), (image * scale).round(6).astype(dtype))
        options = {"patch": 24, "width": 16, "modules": 1, "steps": 2, "batch_size": 4, "workers": 0, "quiet": True}
        run = selftaught.train("c-bsn", str(tmp_path / kind / "noisy"), out=str(tmp_path / kind / "run"), **options)
        low, high = run.method.value_range[0]
        assert (low, high) == pytest.approx((160 * scale, 2240 * scale), rel=0.2)
        found = run.evaluate(clean=str(tmp_path / kind / "clean"))["restoration"]["raw"]
        expected = 20 * np.log10((high - low) / (100 * scale))
        assert found["psnr"].mean == pytest.approx(expected, abs=0.5)
        run.apply(str(tmp_path / kind / "noisy"), tmp_path / kind / "out")
        again = cv2.imread(str(tmp_path / kind / "out" / "3.tif"), cv2.IMREAD_UNCHANGED)
        assert again.dtype == dtype
        assert 140 * scale < again.min() <= again.max() < 2700 * scale


def test_what_lies_beyond_the_measured_range_is_not_cut_off() -> None:
    given, made = np.array([[-0.5, 0.5, 3.0, 1.2]]), np.array([[0.0, 0.4, 1.0, 0.9]])
    np.testing.assert_array_equal(beyond(given, made), [[-0.5, 0.4, 3.0, 0.9]])
    np.testing.assert_array_equal(beyond(given, made[:, :2]), made[:, :2])


def test_noise_added_to_counts_is_of_their_range(tmp_path: Path) -> None:
    from selftaught.run.samples import degraded, facts

    counts = np.random.default_rng(0).integers(100, 2100, (4, 32, 32, 1)).astype(np.uint16)
    for i, image in enumerate(counts):
        cv2.imwrite(str(tmp_path / f"{i}.tif"), image)
    noisy = degraded(open_source(tmp_path, split="all"), "gaussian:25.5")
    (low, high), *_ = facts(noisy, "float32")["value_range"]
    assert (low, high) == pytest.approx((100, 2100), abs=8)
    left = noisy.read(0) - (counts[0] - low) / (high - low)
    assert left.std() == pytest.approx(0.1, rel=0.1)
    assert list(noisy.unit_scale()) == []


def test_a_picture_with_alpha_is_judged_by_the_colours_that_are_restored(denoiser, tmp_path: Path) -> None:
    write_photos(tmp_path / "plain/clean", count=3, classes=1)
    rng = np.random.default_rng(0)
    for kind in ("plain/noisy", *(f"{veiled}/{one}" for veiled in ("one", "all") for one in ("clean", "noisy"))):
        (tmp_path / kind).mkdir(parents=True)
    for k, path in enumerate(sorted((tmp_path / "plain/clean").iterdir())):
        clean = cv2.imread(str(path))
        noisy = np.clip(clean + rng.normal(0, 20, clean.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(tmp_path / "plain/noisy" / path.name), noisy)
        for kind, picture in (("clean", clean), ("noisy", noisy)):
            veiled = np.dstack([picture, np.full(picture.shape[:2], 60, np.uint8)])
            cv2.imwrite(str(tmp_path / "one" / kind / path.name), picture if k else veiled)
            cv2.imwrite(str(tmp_path / "all" / kind / path.name), veiled)
    plain = denoiser.evaluate(str(tmp_path / "plain/noisy"), clean=str(tmp_path / "plain/clean"))["restoration"]
    for noisy, clean in (("one", "one"), ("one", "plain"), ("all", "all"), ("plain", "all")):
        found = denoiser.evaluate(str(tmp_path / noisy / "noisy"), clean=str(tmp_path / clean / "clean"))["restoration"]
        for kind in ("this", "raw"):
            assert found[kind]["psnr"].mean == pytest.approx(plain[kind]["psnr"].mean, abs=1e-4)
