"""Every restorer of pictures in tiles: seams stay below one grey level against the whole picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from selftaught import methods
from selftaught.run.outputs.image import restore

RESTORERS: dict[str, tuple[str, dict[str, Any]]] = {
    "nafnet": ("multi-output-deblur", {"width": 8, "encoder": "1-1", "decoder": "1-1", "patch": 32, "kernel": 5}),
    "srresnet": ("srresnet", {"features": 8, "blocks": 2}),
    "espcn": ("espcn", {}),
    "srcnn": ("srcnn", {}),
    "bicubic": ("bicubic", {}),
    "rrformer": (
        "rrformer",
        {"width": 8, "dim": 8, "blocks": 1, "depth": 2, "heads": 2, "hypercolumn": False, "feat_weight": 0.0}
        | {"gan_weight": 0.0, "final": "residual", "overlap": 32},
    ),
    "ibcln": ("ibcln", {"width": 4, "feat_weight": 0.0, "gan_weight": 0.0, "overlap": 32}),
    "c-bsn": ("c-bsn", {"width": 8, "modules": 2, "patch": 30}),
}


@pytest.mark.parametrize("name", list(RESTORERS))
def test_seams_are_below_one_grey_level(name: str) -> None:
    slug, options = RESTORERS[name]
    torch.manual_seed(0)
    method = methods.get(slug)(channels=3, **options).eval()
    with torch.no_grad():
        for parameter in method.parameters():  # a new network may be the identity
            if parameter.abs().max() == 0:
                parameter.normal_(0, 0.1)
    rng = np.random.default_rng(0)
    image = rng.random((12, 14, 3), dtype=np.float32).repeat(13, 0).repeat(14, 1)[:150, :191]
    whole, tiled = restore(method, image, tile=0), restore(method, image, tile=96)
    assert whole.shape == tiled.shape
    assert whole.std() > 0.01
    assert np.abs(whole - tiled).max() < 1 / 255
