"""Arrays in .npy and .npz files without holding them in memory, and the cache folder of the toolkit."""

from __future__ import annotations

import functools
import glob
import os
import shutil
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from filelock import FileLock

from selftaught.errors import UserError

_UNPACK_ABOVE = 1 << 28
_MEND = "set SELFTAUGHT_CACHE to another folder"
NO_ARCHIVE = (
    ValueError, KeyError, EOFError, OverflowError, NotImplementedError, RuntimeError, SyntaxError, tokenize.TokenError,
    struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What NumPy and zipfile raise for a damaged array or archive: beside bytes that are wrong a compression that nobody
knows, or a password."""
DAMAGED = (OSError, MemoryError, *NO_ARCHIVE)
"""What reading an .npz file raises that is not what was written; those of numpy's among them."""


def cache_folder() -> Path:
    """Where fetched data lies: ``$SELFTAUGHT_CACHE``, else ~/.cache/selftaught. It is made when something is put
    there.
    """
    return Path(os.environ.get("SELFTAUGHT_CACHE") or Path.home() / ".cache" / "selftaught")


def build_once(target: Path, build: Callable[[Path], None], mend: str = _MEND) -> Path:
    """Make `target` with `build(temporary path)` unless it is there; two processes at a time make it once, a killed
    one leaves nothing that the next does not take away.

    Args:
        target: file or folder.
        build: writes it to the path that it is given.
        mend: what to do where it can't be written.

    Raises:
        UserError: the folder can't be written to, or the disk is full.
    """
    if target.exists():
        return target
    temporary = target.with_name(f"{target.name}.part{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(str(target) + ".lock"):
            if not target.exists():
                for left in target.parent.glob(f"{glob.escape(target.name)}.part*"):  # of a process that was killed
                    _remove(left)
                build(temporary)
                os.replace(temporary, target)
    except OSError as error:
        raise UserError(f"{target.parent}: can't write there ({error.strerror or error}); {mend}") from None
    finally:
        _remove(temporary)
    return target


def kept_arrays(
    target: Path, make: Callable[[], Mapping[str, np.ndarray]], mend: str = _MEND, *, compressed: bool = False
) -> dict[str, np.ndarray]:
    """Arrays that take long to make: those kept in `target` (.npz), or made now and kept there.

    A file that is not what was written, as its checksums tell, is made again.

    Args:
        target: the file.
        make: the arrays by name; none of Python objects.
        mend: what to do where it can't be written.
        compressed: whether the file is.

    Raises:
        UserError: it can't be written.
    """
    save = np.savez_compressed if compressed else np.savez

    def build(part: Path) -> None:
        arrays = make()
        with part.open("wb") as file:
            save(file, **arrays)  # type: ignore[arg-type]

    for _ in range(3):  # another process may take away the damaged file, too
        build_once(target, build, mend)
        try:
            with np.load(target, allow_pickle=False) as kept:
                return {name: kept[name] for name in kept.files}
        except DAMAGED:
            _remove(target)
    raise UserError(f"{target}: not what was written just now; is the disk all right?")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def members(path: Path) -> list[str]:
    """The names of the arrays in an .npz file.

    Raises:
        UserError: it is no .npz file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return [name[:-4] for name in archive.namelist() if name.endswith(".npy")]
    except (*NO_ARCHIVE, OSError) as error:
        raise UserError(f"{path}: not a readable .npz file ({error})") from None


def open_array(path: str | Path, member: str | None = None) -> np.ndarray:
    """An array of a .npy file, or one member of an .npz file, mapped from disk where that is possible.

    Kept once per process. A member that is stored without compression is mapped in place; a compressed one is unpacked
    into memory, above 256 MB into the cache folder, and mapped from there.

    Raises:
        UserError: there is no such array, or it holds Python objects.
    """
    path = Path(os.path.abspath(path))
    status = path.stat()
    return _open(str(path), member, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=32)
def _open(path: str, member: str | None, size: int, changed: int) -> np.ndarray:
    where = path if member is None else f"{path}:{member}"
    try:
        if member is None:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo(f"{member}.npy")
            if info.compress_type == zipfile.ZIP_STORED:
                return _map_stored(path, info)
            if info.file_size <= _UNPACK_ABOVE:
                with archive.open(info) as file:
                    return np.lib.format.read_array(file, allow_pickle=False)
            target = cache_folder() / "unpacked" / f"{Path(path).stem}-{member}-{size}-{changed}.npy"
            build_once(target, lambda part: _extract(path, info, part))
            return np.load(target, mmap_mode="r", allow_pickle=False)
    except NO_ARCHIVE as error:
        if isinstance(error, UserError):
            raise
        objects = "pickle" in str(error) or "Python objects" in str(error)
        reason = "it holds Python objects, not numbers" if objects else "it is broken or cut short"
        raise UserError(f"{where}: not a readable array, {reason}") from None


def _map_stored(path: str, info: zipfile.ZipInfo) -> np.ndarray:
    """Map the bytes of an uncompressed member: its local header is 30 bytes, a name and an extra field, whose lengths
    stand in it.
    """
    with open(path, "rb") as file:
        file.seek(info.header_offset)
        head = file.read(30)
        file.seek(int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little"), os.SEEK_CUR)
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
        if dtype.hasobject:
            raise ValueError("pickle")
        if not all(shape):
            return np.zeros(shape, dtype=dtype)
        return np.memmap(path, dtype=dtype, mode="r", offset=file.tell(), shape=shape, order="F" if fortran else "C")


def _extract(path: str, info: zipfile.ZipInfo, part: Path) -> None:
    with zipfile.ZipFile(path) as archive, archive.open(info) as packed, part.open("wb") as plain:
        shutil.copyfileobj(packed, plain, 1 << 22)
