"""`fashion-mnist`: 60,000 + 10,000 grey pictures of clothes, 28x28, ten classes (Xiao et al. 2017, arXiv 1708.07747).

Looked for in the cache folder, then among Debian's installed packages; else torchvision downloads it; else apt-get
does, without root.
"""

from __future__ import annotations

import gzip
import io
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from selftaught.data.arrays import ImageArrays, Piece, Pieces
from selftaught.data.builtin._entry import Entry
from selftaught.data.datasets import short_timeout
from selftaught.data.mapped import build_once, cache_folder, open_array
from selftaught.errors import UserError

CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
_DEBIAN = Path("/usr/share/datasets/fashion-mnist")
_FILES = {
    "train-images": "train-images-idx3-ubyte", "train-labels": "train-labels-idx1-ubyte",
    "test-images": "t10k-images-idx3-ubyte", "test-labels": "t10k-labels-idx1-ubyte",
}  # fmt: skip
_SHAPES = {
    "train-images": (60000, 28, 28),
    "train-labels": (60000,),
    "test-images": (10000, 28, 28),
    "test-labels": (10000,),
}


def open_fashion_mnist() -> ImageArrays:
    """Fashion-MNIST with its given split, (28, 28, 1) uint8, mapped from the cache folder; fetched first where it
    isn't there.

    Raises:
        UserError: it is nowhere, and can't be fetched: the one sentence says what to do.
    """
    folder = fetch_fashion_mnist()
    paths = {key: str(folder / f"{key}.npy") for key in _FILES}
    labels = np.concatenate([np.load(paths["train-labels"]), np.load(paths["test-labels"])]).astype(np.int64)
    parts = [Piece(paths[f"{split}-images"], None, None, split) for split in ("train", "test")]
    for part in parts:
        open_array(str(part.path))
    return ImageArrays(Pieces(parts, labels, list(CLASSES), None), "fashion-mnist", stamp="fashion-mnist 20200523")


def fashion_mnist_folder() -> Path:
    """Where the four arrays lie, or will lie, in the cache folder."""
    return cache_folder() / "fashion-mnist"


def fetch_fashion_mnist() -> Path:
    """The folder of the four .npy files, made if need be; two processes at a time make it once.

    Raises:
        UserError: none of the ways to it worked.
    """
    return build_once(fashion_mnist_folder(), _build)


def _build(folder: Path) -> None:
    tried = []
    for way in (_from_debian_folder, _from_torchvision, _from_apt):
        try:
            with tempfile.TemporaryDirectory() as scratch:
                found = way(Path(scratch))
                arrays = {key: read_idx(found(name)) for key, name in _FILES.items()}
        except (OSError, RuntimeError, ValueError, KeyError, subprocess.SubprocessError) as error:
            tried.append(f"{way.__name__.removeprefix('_from_')}: {' '.join(str(error).split())[:60]}")
            continue
        if {key: array.shape for key, array in arrays.items()} == _SHAPES:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            for key, array in arrays.items():
                np.save(folder / f"{key}.npy", array)
            return
        tried.append(f"{way.__name__.removeprefix('_from_')}: other shapes than Fashion-MNIST has")
    raise UserError(
        "fashion-mnist can't be fetched here: go online once and run 'selftaught data fetch fashion-mnist', or install "
        f"Debian's package dataset-fashion-mnist, or use the built-in photos or digits instead ({'; '.join(tried)})"
    )


def read_idx(data: bytes) -> np.ndarray:
    """The array in an IDX file of bytes, gzipped or not: two zeros, type 8, number of axes, big-endian sizes, then the
    values.

    Raises:
        ValueError: it isn't one, or it is cut short.
    """
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise ValueError("not an IDX file of bytes")
    axes = data[3]
    shape = tuple(int.from_bytes(data[4 + 4 * k : 8 + 4 * k], "big") for k in range(axes))
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * axes)
    if values.size != int(np.prod(shape)):
        raise ValueError(f"IDX file holds {values.size} values, its header says {shape}")
    return values.reshape(shape)


def _from_debian_folder(scratch: Path) -> Callable[[str], bytes]:
    if not _DEBIAN.is_dir():
        raise FileNotFoundError("package not installed")
    return lambda name: (_DEBIAN / f"{name}.gz").read_bytes()


def _from_torchvision(scratch: Path) -> Callable[[str], bytes]:
    from torchvision.datasets import FashionMNIST

    with short_timeout():
        FashionMNIST(str(scratch), download=True)
    return lambda name: (scratch / "FashionMNIST" / "raw" / name).read_bytes()


def _from_apt(scratch: Path) -> Callable[[str], bytes]:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise FileNotFoundError("no apt-get here")
    scratch.chmod(0o755)
    subprocess.run(
        ["apt-get", "download", "dataset-fashion-mnist"],
        cwd=scratch,
        check=True,
        capture_output=True,
        timeout=300,
        text=True,
    )
    package = next(scratch.glob("*.deb"))
    unpacked = subprocess.run(
        ["dpkg-deb", "--fsys-tarfile", str(package)], check=True, capture_output=True, timeout=60
    ).stdout

    def member(name: str) -> bytes:
        with tarfile.open(fileobj=io.BytesIO(unpacked)) as archive:
            file = archive.extractfile(f".{_DEBIAN}/{name}.gz")
            if file is None:
                raise KeyError(name)
            return file.read()

    return member


ENTRIES = (
    Entry(
        "fashion-mnist",
        "image",
        "Fashion-MNIST, 28x28 grey, 10 classes, 60,000 + 10,000",
        "torchvision's download, or Debian's dataset-fashion-mnist",
        open_fashion_mnist,
        fetch=fetch_fashion_mnist,
        here=lambda: fashion_mnist_folder().is_dir(),
    ),
)
