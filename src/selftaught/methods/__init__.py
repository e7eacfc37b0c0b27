"""The methods, one file per system; imported when first used.

>>> from selftaught import methods
>>> methods.DCL(encoder="resnet18", image_size=32)
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from selftaught import catalog
from selftaught.errors import UserError

_CLASSES = {
    "SimCLR": "simclr",
    "DCL": "dcl",
    "BarlowTwins": "barlow_twins",
    "MixedBarlowTwins": "mixed_barlow_twins",
    "VICReg": "vicreg",
    "BYOL": "byol",
    "SimSiam": "simsiam",
    "SwAV": "swav",
    "SEER": "seer",
    "DINO": "dino",
    "ReSSL": "ressl",
    "GroCo": "groco",
    "AMCL": "amcl",
    "CACR": "cacr",
    "ISogCLR": "isogclr",
    "CBSN": "c_bsn",
    "FrameProjections": "frame_projections",
    "ScatSimCLR": "scatsimclr",
    "ProjectionHead": "projection_head",
    "MoCoV2": "moco_v2",
    "MoCoV3": "moco_v3",
    "MoCHi": "mochi",
    "NNCLR": "nnclr",
    "SupCon": "supcon",
    "Supervised": "supervised",
    "LVMMed": "lvm_med",
    "SLA": "sla",
    "CoreTuning": "core_tuning",
    "LAF": "laf",
}

__all__ = ["get", *_CLASSES]


def get(slug: str) -> Any:
    """The class of a method by its slug.

    Raises:
        UserError: no such method, or it is in the catalogue but not built yet.
    """
    card = catalog.card(slug)
    module = slug.replace("-", "_")
    for name, file in _CLASSES.items():
        if file == module:
            return getattr(import_module(f"selftaught.methods.{module}"), name)
    if card.built:
        raise UserError(f"{card.slug} is no single method to train; run: {card.command}")
    raise UserError(f"{card.slug} is in the catalogue but not built yet; built: {', '.join(built())}")


def built() -> list[str]:
    """Slugs of the methods that run."""
    return sorted(file.replace("_", "-") for file in _CLASSES.values())


def __getattr__(name: str) -> Any:
    if name in _CLASSES:
        return getattr(import_module(f"selftaught.methods.{_CLASSES[name]}"), name)
    raise AttributeError(f"module 'selftaught.methods' has no attribute {name!r}")
