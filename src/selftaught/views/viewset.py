"""Several views of one image, ready to call: ``x1, x2 = views.simclr(96)(image)``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from selftaught.errors import UserError
from selftaught.views.pipeline import Params, Pipeline

if TYPE_CHECKING:
    import torch

__all__ = [
    "ViewSet",
]

Seed = "int | np.random.Generator | torch.Generator | None"


class ViewSet(Sequence[Pipeline]):
    """A list of pipelines, one per view, and a call that makes them all from one image or one batch.

    Args:
        pipelines: at least one :class:`Pipeline`.
        seed: fixes the chance of all later calls; None (default) draws it from the system.

    Raises:
        UserError: no pipeline given, or something else than pipelines.
    """

    def __init__(self, pipelines: Sequence[Pipeline], seed: int | None = None) -> None:
        self.pipelines = tuple(pipelines)
        if not self.pipelines or not all(isinstance(one, Pipeline) for one in self.pipelines):
            raise UserError("ViewSet: give at least one Pipeline, one per view")
        self._rng = np.random.default_rng(seed)

    def __len__(self) -> int:
        return len(self.pipelines)

    @overload
    def __getitem__(self, index: int) -> Pipeline: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Pipeline, ...]: ...
    def __getitem__(self, index: int | slice) -> Pipeline | tuple[Pipeline, ...]:
        return self.pipelines[index]

    def __iter__(self) -> Iterator[Pipeline]:
        return iter(self.pipelines)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ViewSet) and self.pipelines == other.pipelines

    def __hash__(self) -> int:
        return hash(self.pipelines)

    def __repr__(self) -> str:
        return "ViewSet(\n" + "".join(f"  {pipeline!r},\n" for pipeline in self.pipelines) + ")"

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, as YAML and JSON write them; :meth:`from_dict` reads it back."""
        return {"views": [pipeline.to_dict() for pipeline in self.pipelines]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], seed: int | None = None) -> ViewSet:
        """Read what :meth:`to_dict` wrote."""
        if "views" not in data:
            raise UserError(f"ViewSet: a mapping with 'views' is needed, got {sorted(data)}")
        return cls([Pipeline.from_dict(one) for one in data["views"]], seed=seed)

    def sample(self, rng: np.random.Generator, height: int, width: int) -> list[Params]:
        """Draw the parameters of every view of one image of this height and width, in pixels."""
        return [pipeline.sample(rng, height, width) for pipeline in self.pipelines]

    def __call__(self, image: Any, *, seed: int | np.random.Generator | torch.Generator | None = None) -> list[Any]:
        """Make every view of an image.

        Args:
            image: (H, W, C) or (H, W) array, (C, H, W) tensor, PIL image, or the path of an image file. An
                (N, C, H, W) tensor is taken as a batch, each sample with parameters of its own, on its device.
                uint8; crops, flips and dihedral turns alone take any dtype.
            seed: an integer, a NumPy or a torch generator; None (default) continues the set's own stream.

        Returns:
            One view per pipeline, of the kind that was given: (h, w, C) arrays, (C, h, w) or (N, C, h, w) tensors,
            PIL images; arrays for a path.

        Raises:
            UserError: no image, an unreadable file, a dtype the operations can't take, an image smaller than a crop.
        """
        rng = self._generator(seed)
        if isinstance(image, str | Path):
            return self._views(_decode(image), rng)
        if isinstance(image, np.ndarray):
            views = self._views(image, rng)
            return [view[:, :, 0] for view in views] if image.ndim == 2 else views
        kind = type(image).__module__.partition(".")[0]
        if kind == "PIL":
            return self._pil(image, rng)
        if kind == "torch" or hasattr(image, "detach"):
            return self._tensor(image, rng)
        raise UserError(f"views: an image is an array, a tensor, a PIL image or a path, got {type(image).__name__}")

    def _generator(self, seed: Any) -> np.random.Generator:
        if seed is None:
            return self._rng
        if hasattr(seed, "initial_seed"):
            import torch

            seed = int(torch.randint(2**62, (), generator=seed, device=seed.device))
        return np.random.default_rng(seed)

    def _views(self, image: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        from selftaught.views.cpu import render

        if image.ndim not in (2, 3):
            raise UserError(f"views: an image is (height, width, channels), got an array of shape {image.shape}")
        params = self.sample(rng, *image.shape[:2])
        return [render(image, pipeline, one) for pipeline, one in zip(self.pipelines, params, strict=True)]

    def _pil(self, image: Any, rng: np.random.Generator) -> list[Any]:
        from PIL import Image

        pixels = np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
        views = self._views(pixels, rng)
        return [Image.fromarray(view[:, :, 0] if view.shape[2] == 1 else view) for view in views]

    def _tensor(self, image: torch.Tensor, rng: np.random.Generator) -> list[torch.Tensor]:
        import torch

        if image.ndim == 3:
            views = self._views(image.detach().cpu().permute(1, 2, 0).contiguous().numpy(), rng)
            return [torch.from_numpy(view).permute(2, 0, 1).contiguous().to(image.device) for view in views]
        if image.ndim != 4:
            raise UserError(f"views: a tensor is (C, H, W) or (N, C, H, W), got {tuple(image.shape)}")
        from selftaught.views.device import render_batch

        shape = (len(image), image.shape[2], image.shape[3])
        return [render_batch(image, pipeline, pipeline.sample_batch(rng, *shape)) for pipeline in self.pipelines]


def _decode(path: str | Path) -> np.ndarray:
    """An image file as (H, W, 3) uint8 RGB."""
    import cv2

    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror or error}); give the path of an image file") from error
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise UserError(f"{path}: not an image that OpenCV reads; give a jpg, png, webp, tiff or bmp file")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
