"""Files inside Debian packages: where the package is installed, else downloaded by apt-get, without root."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from selftaught.errors import UserError

__all__ = ["debian_files"]


def debian_files(package: str, folder: str, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """The wanted files of a Debian package, one after another.

    Args:
        package: its name.
        folder: the folder that it installs, such as "/usr/share/tuxpaint/stamps".
        wanted: of a path relative to that folder: whether it is wanted.

    Yields:
        (path relative to the folder, content).

    Raises:
        UserError: the package isn't installed, and can't be downloaded here.
    """
    root = Path(folder)
    if root.is_dir():
        for path in sorted(root.rglob("*")):
            relative = path.relative_to(root).as_posix()
            if path.is_file() and wanted(relative):
                yield relative, path.read_bytes()
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield from _members(_downloaded(package, Path(scratch)), f".{folder}/", wanted)


def _downloaded(package: str, scratch: Path) -> bytes:
    """The tar archive in a package that apt-get downloads."""
    mend = f"install it (sudo apt-get install {package}) or go online once"
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise UserError(f"the data lie in Debian's package {package}, and there is no apt-get here to fetch it")
    scratch.chmod(0o755)  # apt downloads as a user of its own
    try:
        subprocess.run(
            ["apt-get", "download", package], cwd=scratch, check=True, capture_output=True, timeout=600, text=True
        )
        file = next(scratch.glob("*.deb"))
        unpack = ["dpkg-deb", "--fsys-tarfile", str(file)]
        return subprocess.run(unpack, check=True, capture_output=True, timeout=300).stdout
    except (OSError, StopIteration, subprocess.SubprocessError) as error:
        raise UserError(f"the data lie in Debian's package {package}, which can't be downloaded; {mend}") from error


def _members(archive: bytes, prefix: str, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in sorted(tar.getmembers(), key=lambda m: m.name):
            relative = member.name.removeprefix(prefix)
            file = tar.extractfile(member) if member.name.startswith(prefix) and wanted(relative) else None
            if file is not None:
                yield relative, file.read()
