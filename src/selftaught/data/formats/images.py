"""Images: files and folders of them, arrays, shards, torchvision's data sets."""

from __future__ import annotations

from pathlib import Path

from selftaught._paths import expanded
from selftaught.data.arrays import open_image_arrays, open_npy
from selftaught.data.datasets import open_torchvision
from selftaught.data.decoding import IMAGE_SUFFIXES
from selftaught.data.files import ImageFiles, holds_any, open_files, open_folder, open_glob
from selftaught.data.formats._format import Format
from selftaught.data.image_source import ImageSource
from selftaught.data.shards import open_shard_file, open_shard_folder, open_shards
from selftaught.errors import UserError

__all__ = ["FORMATS"]

_FILES = tuple(suffix for suffix in IMAGE_SUFFIXES if suffix != ".npy")


def open_image(path: Path, name: str, *, channels: int | None = None) -> ImageFiles:
    """One image file; see `open_files`."""
    return open_files([path], name, channels=channels)


def open_named_images(address: str, *, channels: int | None = None) -> ImageSource:
    """``images:PATH``: a folder or a file read as images, whatever the shapes of its arrays suggest.

    Args:
        address: the folder or file.
        channels: to bring images to; None: what they have.

    Raises:
        UserError: there is no such path, or no image in it.
    """
    path = expanded(address)
    if path.is_dir():
        return open_folder(path, f"{path.resolve().name}/", channels=channels)
    if not path.is_file():
        raise UserError(f"images:{address}: no such file or folder")
    opened = open_npy if path.suffix.lower() == ".npy" else open_image
    return opened(path, path.name, channels=channels)


def _holds_shards(folder: Path) -> bool:
    """Whether there are shards in a folder, and no images beside them."""
    return holds_any(folder, (".tar",)) and not holds_any(folder, IMAGE_SUFFIXES)


FORMATS = (
    Format("image", 1, (".tar",), folder=open_shard_folder, holds=_holds_shards),
    Format("image", 1, IMAGE_SUFFIXES, files=open_files, folder=open_folder, pattern=open_glob),
    Format("image", 1, _FILES, file=open_image),
    Format("image", 1, (".npy",), file=open_npy),
    Format("image", 1, (".npz",), file=open_image_arrays, arrays=open_image_arrays),
    Format("image", 1, (".tar",), file=open_shard_file, pattern=open_shards, scheme="wds", address=open_shards),
    Format("image", 1, scheme="images", address=open_named_images),
    Format("image", 1, scheme="torchvision", address=open_torchvision),
)
