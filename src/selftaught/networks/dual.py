"""An image tower and a text tower that meet in one space, with a second set of projectors for strong views."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from selftaught.errors import UserError
from selftaught.networks.heads import mlp
from selftaught.networks.text import TextTransformer

__all__ = ["DualEncoder", "clip_head"]

Head = Literal["linear", "mlp"]
MOST = math.log(100.0)
"""Where the logit scale ends: a factor of 100."""


def clip_head(width: int, dim: int, kind: Head = "linear", *, hidden: int = 4096) -> nn.Module:
    """From a tower's features (N, width) to the shared space (N, dim).

    Args:
        width: of the features.
        dim: of the shared space.
        kind: "linear", without bias and with weights of deviation width^-0.5, as in CLIP; or "mlp", three layers with
            BatchNorm and ReLU after the first two (arXiv 2305.08675).
        hidden: width of the MLP's hidden layers.

    Raises:
        UserError: another kind.
    """
    if kind == "mlp":
        return mlp([width, hidden, hidden, dim])
    if kind != "linear":
        raise UserError(f"projector {kind!r}: it may be linear or mlp")
    head = nn.Linear(width, dim, bias=False)
    nn.init.normal_(head.weight, std=width**-0.5)
    return head


def _unit(x: Tensor) -> Tensor:
    """Rows of length 1, in float32 at least: half precision would be off by a few thousandths."""
    return normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=1)


class DualEncoder(nn.Module):
    """Two towers and their heads: global ones (z) of weak views, local ones (h) of strong views.

    Args:
        image: encoder of images, with its width ``dim``.
        text: text tower.
        dim: width of the shared space.
        z_head: kind of the global heads.
        h_head: kind of the local heads.
        separate: whether there are local heads; without them the global ones serve strong views too.
        hidden: hidden width of heads that are MLPs.

    Attributes:
        scale: log of the factor on cosines of z, from log(1/0.07); ``scale_h`` that of h, from log(1/0.1).
    """

    def __init__(
        self,
        image: nn.Module,
        text: TextTransformer,
        *,
        dim: int = 256,
        z_head: Head = "linear",
        h_head: Head = "mlp",
        separate: bool = False,
        hidden: int = 4096,
    ) -> None:
        super().__init__()
        self.image, self.text, self.separate, self.dim = image, text, separate, dim
        width = int(image.dim)  # type: ignore[arg-type]
        self.z_image = clip_head(width, dim, z_head, hidden=hidden)
        self.z_text = clip_head(text.dim, dim, z_head, hidden=hidden)
        self.scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        if separate:
            self.h_image = clip_head(width, dim, h_head, hidden=hidden)
            self.h_text = clip_head(text.dim, dim, h_head, hidden=hidden)
            self.scale_h = nn.Parameter(torch.tensor(math.log(1 / 0.1)))

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, h, w), normalised -> their embeddings (N, dim) of length 1 in the shared space."""
        return self.embed_images(self.image(images))

    def embed_images(self, features: Tensor, head: str = "z") -> Tensor:
        """Features of images (N, D) -> (N, dim) of length 1, by the global ("z") or the local ("h") head."""
        return _unit(self._head(f"{head}_image")(features))

    def embed_texts(self, features: Tensor, head: str = "z") -> Tensor:
        """Features of texts (N, D) -> (N, dim) of length 1, by the global ("z") or the local ("h") head."""
        return _unit(self._head(f"{head}_text")(features))

    def _head(self, name: str) -> nn.Module:
        found = getattr(self, name, None)
        if not isinstance(found, nn.Module):
            raise UserError(f"no projector {name}: local projectors are there with separate_proj only; use z")
        return found

    @property
    def temperature(self) -> Tensor:
        """1 / factor on cosines of global projections."""
        return (-self.scale).exp()

    @property
    def local_temperature(self) -> Tensor:
        """1 / factor on cosines of local projections; the global one's without local heads."""
        return (-self.scale_h).exp() if self.separate else self.temperature

    @torch.no_grad()
    def clamp_scales(self) -> None:
        """Keep both factors within 1 .. 100: after every step."""
        for scale in (self.scale, *((self.scale_h,) if self.separate else ())):
            scale.clamp_(0, MOST)

    def spec(self) -> dict[str, Any]:
        """What the towers are, as JSON."""
        return {"name": "dual-encoder", "dim": self.dim, "encoder": dict(self.image.spec), "text": self.text.spec}  # type: ignore[arg-type]
