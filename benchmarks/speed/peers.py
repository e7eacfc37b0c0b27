"""The packages that people use otherwise: installed once into a folder of their own, with their documented views.

Their own packages come first on the path, everything else (torch above all) is shared with this environment, so that
both sides run on the same libraries. Without a package index their rows are left out, and the output says so.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import PEERS
from PIL import Image
from torch import Tensor

_FOLDER = Path(__file__).parent / ".peers"
_HYDRA = ("hydra-core", "omegaconf", "antlr4-python3-runtime==4.9.*")
_NEEDS: dict[str, tuple[str, ...]] = {
    "lightly": _HYDRA,
    "albumentations": (
        "albucore==0.0.24", "stringzilla", "simsimd", "pydantic", "pydantic-core", "annotated-types",
        "typing-inspection",
    ),
    "kornia": ("kornia-rs",),
    "stable-pretraining": (
        *_HYDRA, "hydra-submitit-launcher", "loguru", "richuru",
        "requests-cache", "cattrs", "url-normalize", "prettytable", "wcwidth", "zstandard", "typer", "shellingham",
        "tabulate", "minari", "gymnasium", "farama-notifications", "kornia", "kornia-rs", "transformers",
        "tokenizers", "regex",
    ),
}  # fmt: skip


def peer(name: str) -> Any:
    """The module of a package in ``common.PEERS``, or None where it can't be had."""
    if name not in PEERS:
        raise ValueError(f"{name}: not one of {', '.join(PEERS)}")
    site = _FOLDER / name
    if not site.exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), name]
        if subprocess.run([*command, *_NEEDS[name]], check=False).returncode:
            print(f"{name} can't be installed here: its rows are left out")
            return None
    if str(site) not in sys.path:
        sys.path.insert(0, str(site))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name.replace("-", "_"))
    except ImportError as error:
        print(f"{name} can't be imported ({error}): its rows are left out")
        return None


def rate_of(script: Path, *arguments: Any) -> float:
    """What a script in a process of its own prints last: a rate. How OpenMP waits there is left to its default."""
    command = [sys.executable, str(script), *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"{script.name} failed: {done.stderr.strip().splitlines()[-1]}")
    return float(done.stdout.strip().splitlines()[-1])


def lightly_views(size: int, **options: Any) -> Callable[[Image.Image], list[Tensor]] | None:
    """lightly's SimCLR views as documented, or None."""
    if peer("lightly") is None:
        return None
    from lightly.transforms import SimCLRTransform

    return SimCLRTransform(input_size=size, **options)


def stable_pretraining_views(size: int) -> Callable[[dict[str, Any]], dict[str, Any]] | None:
    """stable-pretraining's SimCLR views of its CIFAR-10 benchmark: no blur, weaker colours than SimCLR's. Or None."""
    if peer("stable-pretraining") is None:
        return None
    from stable_pretraining.data import dataset_stats, transforms

    def one() -> Any:
        return transforms.Compose(
            transforms.RGB(),
            transforms.RandomResizedCrop((size, size)),
            transforms.RandomHorizontalFlip(p=0.5),
            transforms.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, p=0.8),
            transforms.RandomGrayscale(p=0.2),
            transforms.ToImage(**dataset_stats.CIFAR10),
        )

    return transforms.MultiViewTransform([one(), one()])
