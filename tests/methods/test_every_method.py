"""Every method by name on a folder of 4-channel images: train, evaluate, apply, export, report, load again."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

import selftaught
from selftaught import catalog, methods
from tests.harness import Killed, killing

pytestmark = pytest.mark.slow

CHANNELS, CLASSES, EACH = 4, 3, 16
KERNEL = str(Path(__file__).parent / "kernels" / "box.txt")
OPTIONS = {
    "c-bsn": {"patch": 24, "width": 16, "modules": 1},
    "perceptual-ssim": {"patch": 24, "code": 16},
    "infwide": {"patch": 24, "width": 4, "kernel_size": 5, "kernel_file": KERNEL},
    "multi-output-deblur": {"patch": 16, "kernel": 5, "choose_steps": 1, "width": 4},
    "text-erasing": {
        "patch": 32,
        "width": 2,
        "discriminator_width": 2,
        "discriminator_levels": 3,
        "features": "none",
        "boxes": "none",
    },
    "srgan": {"patch": 16, "pretrain_steps": 2, "content": "features", "discriminator_width": 4},
    **{slug: {"patch": 16} for slug in ("srresnet", "srcnn", "espcn", "bicubic")},
    **{slug: {"patch": 16, "hypercolumn": False, "feat_weight": 0.0} for slug in ("rrformer", "errnet")},
    "ibcln": {"patch": 24, "width": 4, "feat_weight": 0.0, "discriminator_width": 4},
    "scatsimclr": {"encoder": "scatsimclr-2", "image_size": 32},
    **{slug: {"encoder": "vit-pico", "image_size": 32} for slug in ("mae", "infinite-lr", "sit")},
    "genview": {"encoder": "resnet10-narrow", "image_size": 32, "autoencoder_steps": 10},
    "gopro": {},
    "np-edit": {
        "image_size": 32,
        "flow_width": 8,
        "judge_width": 8,
        "teacher_steps": 2,
        "judge_steps": 2,
        "warmup_steps": 2,
    },
    "retfiner": {},
    "uni4eye": {"encoder": "vit-pico-ranks", "image_size": 32},
    "laf": {"forget": "class=down", "vae_epochs": 1.0},
    "glare": {"prototypes": 16, "projector": "24-12", "head_warmup": 1},
    "beit": {"encoder": "vit-nano", "image_size": 32, "tokeniser_steps": 2, "words": 16},
    **{
        slug: {"encoder": "vit-nano", "image_size": 32}
        for slug in ("ibot", "jigsaw", "maskfeat", "msn", "relative-position", "rotation", "simmim")
    },
}
IMAGES = [slug for slug in methods.built() if "image" in methods.get(slug).modalities]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of 16-bit images with four channels; a class is a direction of stripes."""
    root = tmp_path_factory.mktemp("user") / "scenes"
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:32, :32]
    for name, wave in zip(("down", "across", "slanted"), (rows, columns, rows + columns), strict=True):
        (root / name).mkdir(parents=True)
        for i in range(EACH):
            stripes = np.sin(wave[..., None] / 2 + rng.uniform(0, 6, CHANNELS))
            image = 30000 + 15000 * stripes + rng.normal(0, 3000, (32, 32, CHANNELS))
            np.save(root / name / f"{i:02d}.npy", image.clip(0, 65535).astype(np.uint16))
    return root


def _check_restored(run: Any, folder: Path, cleaned: Path) -> None:
    """Every file holds what the trained network makes of the file of its name, in that file's own units."""
    low, high = (np.array(side, dtype=float) for side in run.method.value_range or (0, 65535))
    moved = []
    for path in sorted(folder.rglob("*.npy"))[:: EACH // 2]:
        image = np.load(path)
        found = np.load(cleaned / path.relative_to(folder))
        unit = torch.from_numpy((image - low) / (high - low)).float().permute(2, 0, 1)[None]
        with torch.inference_mode():
            network = run.method.eval().deliverable()
            out = network(unit)[0].permute(1, 2, 0).double().numpy()
        scale = getattr(network, "scale", 1)
        assert (found.shape, found.dtype) == ((32 * scale, 32 * scale, CHANNELS), np.uint16)
        expected = (low + out * (high - low)).clip(0, 65535)
        np.testing.assert_allclose(found, expected, atol=3)
        moved.append(np.abs(found[::scale, ::scale].astype(float) - image).mean())
    assert min(moved) > 300, "the images came back as they were"


@pytest.fixture(scope="module")
def classifier(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A finished run for the methods that change one."""
    out = str(tmp_path_factory.mktemp("runs") / "classifier")
    options = {"encoder": "cnn-small", "image_size": 32, "steps": 3, "batch_size": 12}
    selftaught.train("supervised", folder, out=out, preset="laptop", quiet=True, **options)
    return out


@pytest.fixture(scope="module")
def words(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A finished run that knows words, for the methods that adapt one."""
    out = str(tmp_path_factory.mktemp("runs") / "words")
    options = {"encoder": "cnn-small", "image_size": 32, "steps": 3, "batch_size": 12}
    selftaught.train("clip", folder, out=out, preset="laptop", quiet=True, **options)
    return out


@pytest.fixture(scope="module")
def transformer(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A finished run of a vision transformer, for the methods that adapt one."""
    out = str(tmp_path_factory.mktemp("runs") / "transformer")
    options = {"encoder": "vit-pico", "image_size": 32, "steps": 3, "batch_size": 12}
    selftaught.train("simclr", folder, out=out, preset="laptop", quiet=True, **options)
    return out


@pytest.mark.parametrize("slug", IMAGES)
def test_it_trains_evaluates_applies_exports_and_reports(
    slug: str, folder: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    out = tmp_path / "run"
    options = OPTIONS.get(slug, {"encoder": "resnet10-narrow", "image_size": 32})
    if methods.get(slug).transforms:
        original = {"gopro": "words", "glare": "transformer"}.get(slug, "classifier")
        options = options | {"init": request.getfixturevalue(original)}
    options = options | {"preset": "laptop", "steps": 3, "batch_size": 12, "quiet": True}
    with killing(None) as moments:
        run = selftaught.train(slug, folder, out=str(out), **options)
    assert run.method.channels == CHANNELS
    if len(methods.get(slug).stages) > 1:  # whose seams are the method's own
        with pytest.raises(Killed), killing(moments[0] // 2):
            selftaught.train(slug, folder, out=str(tmp_path / "cut"), **options)
        cut = selftaught.train(slug, resume=tmp_path / "cut", quiet=True)
        one, two = (load_file(r.path / "encoder.safetensors") for r in (run, cut))
        assert all(torch.equal(one[name], two[name]) for name in one)

    output = run.method.output
    if output == "image":
        cleaned = tmp_path / "clean"
        assert run.apply(folder, cleaned) == CLASSES * EACH
        _check_restored(run, folder, cleaned)
    elif output == "edit":
        assert run.evaluate()["editing"]["raw"]["change"].mean == 0
        edited = tmp_path / "edited"
        assert run.apply(folder, edited, instruction="turn it into across") == CLASSES * EACH
        assert np.load(next(edited.rglob("*.npy"))).shape == (32, 32, CHANNELS)
    else:
        judged = run.evaluate(protocols=["classify" if output in ("classes", "weights") else "knn"])
        (kinds,) = judged.values()
        assert {"this", "random"} <= set(kinds)
        shares = [result["accuracy"].mean for result in kinds.values()]
        assert all(0 < share <= 1 for share in shares)
        table = tmp_path / "found.parquet"
        assert run.apply(folder, table) == CLASSES * EACH
        column = "probabilities" if output in ("classes", "weights") else "embedding"
        rows = np.stack(pq.read_table(table)[column].to_numpy())
        assert np.isfinite(rows).all()
        assert np.ptp(rows, axis=0).max() > 0, "the same answer to every image"

    exported = run.export("safetensors", tmp_path / "exported")
    weights = load_file(next(exported.parent.rglob("*.safetensors")))
    assert all(torch.isfinite(w).all() for w in weights.values())
    page = run.report().read_text(encoding="utf-8")
    assert html.escape(catalog.card(slug).title) in page
    assert "data:image" in page

    again = selftaught.load(out)
    torch.manual_seed(0)
    x = torch.rand(2, CHANNELS, 32, 32)
    with torch.inference_mode():
        before, after = (r.method.eval().deliverable()(x) for r in (run, again))
    torch.testing.assert_close(after, before)
