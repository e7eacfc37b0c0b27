"""Blur kernels as files: grey pictures, NumPy arrays, tables of text."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from selftaught._paths import expanded
from selftaught._reading import regular, text_of
from selftaught.data.decoding import decode, read_bytes
from selftaught.errors import SampleError, UserError

__all__ = ["kernel_file_beside", "kernel_of_array", "read_kernel"]

TEXT = (".txt", ".csv")


def kernel_of_array(values: np.ndarray, name: str) -> np.ndarray:
    """An array (h, w) or picture (h, w, C) as a kernel: channels averaged, sum 1, (h, w) float32.

    Raises:
        UserError: no kernel: another shape, negative or no mass, values that aren't finite.
    """
    array = np.asarray(values, np.float64)
    array = array.mean(2) if array.ndim == 3 else array
    if array.ndim != 2 or 0 in array.shape or not np.isfinite(array).all():
        raise UserError(f"{name}: a kernel is a table of finite numbers (height, width), got shape {np.shape(values)}")
    if array.min() < 0 or not array.sum() > 0:
        raise UserError(f"{name}: a kernel has values of 0 or more and some above; this one sums to {array.sum():.3g}")
    return (array / array.sum()).astype(np.float32)


def read_kernel(path: str | Path) -> np.ndarray:
    """A kernel from a file: a grey picture, an array (.npy) or a table of numbers (.txt, .csv); (h, w) float32, sum 1.

    Raises:
        UserError: it can't be read, or holds no kernel.
    """
    path = expanded(path)
    try:
        if path.suffix.lower() in TEXT:
            text = text_of(path).replace(";", ",").replace(",", " ")
            values = np.array([[float(word) for word in line.split()] for line in text.splitlines() if line.strip()])
        elif path.suffix.lower() == ".npy":
            values = np.load(regular(path), allow_pickle=False)
        else:
            values = decode(read_bytes(path, str(path)), str(path))
    except (OSError, ValueError, EOFError, SampleError) as error:
        raise UserError(
            f"{path}: no kernel can be read from it ({error}); give a picture, .npy, .txt or .csv"
        ) from None
    return kernel_of_array(values, str(path))


def kernel_file_beside(root: str | Path, name: str) -> Path | None:
    """The file of a picture's kernel: NAME.kernel.txt or .csv beside it, or kernel.txt for all of its folder.

    Of photo.jpg it is photo.jpg.kernel.txt, which tells it from photo.tif's, or else photo.kernel.txt.

    Args:
        root: the source's folder.
        name: of the picture, relative to it.

    Returns:
        the file, or None where there is none, up to the source's folder.
    """
    relative = PurePosixPath(name)
    folders = [relative.parent, *relative.parent.parents]
    own = [relative.parent / f"{called}.kernel" for called in (relative.name, relative.stem)]
    places = own + [folder / "kernel" for folder in folders]
    for place in places:
        for suffix in TEXT:
            path = Path(root) / f"{place}{suffix}"
            if path.is_file():
                return path
    return None
