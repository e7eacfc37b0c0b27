"""Several views of one image, ready to call: ``x1, x2 = views.simclr(96)(image)`` are tensors for a network."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from selftaught.errors import UserError
from selftaught.views.pipeline import Params, Pipeline, read_each

if TYPE_CHECKING:
    import torch

__all__ = [
    "ViewSet",
]


class ViewSet(Sequence[Pipeline]):
    """A list of pipelines, one per view, and a call that makes them all from one image or one batch.

    Args:
        pipelines: at least one :class:`Pipeline`.
        seed: makes all later calls repeatable; None (default) takes a seed from the system.

    Raises:
        UserError: no pipeline given, or something else than pipelines.
    """

    def __init__(self, pipelines: Sequence[Pipeline], seed: int | None = None) -> None:
        self.pipelines = tuple(pipelines)
        if not self.pipelines or not all(isinstance(one, Pipeline) for one in self.pipelines):
            raise UserError("ViewSet: give at least one Pipeline, one per view")
        self._rng = np.random.default_rng(seed)
        self._worker: int | None = None

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
        if set(data) != {"views"}:
            raise UserError(f"ViewSet: a mapping with 'views' alone, got {', '.join(map(str, data)) or 'nothing'}")
        return cls(read_each("views", data["views"], Pipeline.from_dict), seed=seed)

    def sample(self, rng: np.random.Generator, height: int, width: int) -> list[Params]:
        """Draw the parameters of every view of one image of this height and width, in pixels."""
        return [pipeline.sample(rng, height, width) for pipeline in self.pipelines]

    def __call__(
        self,
        image: Any,
        *,
        seed: int | np.random.Generator | torch.Generator | None = None,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        output: str = "tensor",
    ) -> list[Any]:
        """Make every view of an image, ready for a network.

        Args:
            image: (H, W, C) or (H, W) array, (C, H, W) tensor, PIL image, or the path of an image file. An
                (N, C, H, W) tensor is taken as a batch, each sample with parameters of its own, on its device. Whole
                numbers; floats where they lie in [0, 1], or where the operations take any numbers (crops, flips).
            seed: an integer, a NumPy or a torch generator; None (default) continues the set's own stream, which is
                another one in each process of a torch loader.
            mean: subtracted from the values in [0, 1], one number or one per channel (default: nothing).
            std: divides what is left (default: nothing).
            output: "tensor" (default) or "array".

        Returns:
            One view per pipeline. "tensor": (C, h, w) or (N, C, h, w) float32; whole numbers become [0, 1] by their
            type's range; on the device of a tensor. "array": (h, w, C), or (h, w) of (H, W), in the dtype that was
            given (uint8 for a file).

        Raises:
            UserError: no image, an unreadable file, a dtype the operations can't take, an image smaller than a crop,
                mean or std for another number of channels.
        """
        if output not in ("tensor", "array"):
            raise UserError(f"views: output is 'tensor' or 'array', got {output!r}")
        if output == "array" and (mean is not None or std is not None):
            raise UserError("views: mean and std are for output='tensor'; arrays keep their values")
        rng = self._generator(seed)
        if hasattr(image, "detach"):
            views = self._of_tensor(image, rng)
            if output == "array":
                return [view.movedim(-3, -1).cpu().numpy() for view in views]
        else:
            pixels = _pixels(image)
            arrays = self._of_array(pixels, rng)
            if output == "array":
                return [view[:, :, 0] for view in arrays] if pixels.ndim == 2 else arrays
            views = [_as_tensor(view) for view in arrays]
        return [_normalised(view, mean, std) for view in views]

    def _generator(self, seed: Any) -> np.random.Generator:
        if seed is None:
            return self._own_stream()
        if hasattr(seed, "initial_seed"):
            import torch

            seed = int(torch.randint(2**62, (), generator=seed, device=seed.device))
        return np.random.default_rng(seed)

    def _own_stream(self) -> np.random.Generator:
        """The set's stream; a copy in a loader's process goes on with one of its own, anew each epoch."""
        loading = sys.modules.get("torch.utils.data")
        worker = loading.get_worker_info() if loading is not None else None
        if worker is not None and worker.seed != self._worker:
            self._worker = worker.seed
            self._rng = np.random.default_rng([int(self._rng.integers(2**62)), worker.seed])
        return self._rng

    def _of_array(self, image: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        from selftaught.views.cpu import render

        if image.ndim not in (2, 3):
            raise UserError(f"views: an image is (height, width, channels), got an array of shape {image.shape}")
        if image.dtype in (np.float32, np.float64) and self._whole_numbers:
            low, high = (image.min(), image.max()) if image.size else (0, 0)
            image = np.rint(_in_unit(image, low, high) * 255).astype(np.uint8)
        params = self.sample(rng, *image.shape[:2])
        return [render(image, pipeline, one) for pipeline, one in zip(self.pipelines, params, strict=True)]

    def _of_tensor(self, image: torch.Tensor, rng: np.random.Generator) -> list[torch.Tensor]:
        import torch

        if image.ndim == 3:
            views = self._of_array(image.detach().cpu().permute(1, 2, 0).contiguous().numpy(), rng)
            return [torch.from_numpy(view).permute(2, 0, 1).contiguous().to(image.device) for view in views]
        if image.ndim != 4:
            raise UserError(f"views: a tensor is (C, H, W) or (N, C, H, W), got {tuple(image.shape)}")
        from selftaught.views.device import render_batch

        if image.is_floating_point() and self._whole_numbers and image.numel():
            image = (_in_unit(image, float(image.min()), float(image.max())) * 255).round().to(torch.uint8)
        shape = (len(image), image.shape[2], image.shape[3])
        return [render_batch(image, pipeline, pipeline.sample_batch(rng, *shape)) for pipeline in self.pipelines]

    @property
    def _whole_numbers(self) -> bool:
        """Whether some operation takes uint8 alone."""
        return any(not (op.any_dtype or op.floats) for pipeline in self.pipelines for op in pipeline.ops)


def _in_unit(image: Any, low: float, high: float) -> Any:
    if not (low >= 0 and high <= 1):
        raise UserError(f"views: float images lie in [0, 1], got {low:.4g} to {high:.4g}; scale or clip them first")
    return image


def _pixels(image: Any) -> np.ndarray:
    """What isn't a tensor, as an array."""
    if isinstance(image, str | Path):
        return _decode(image)
    if isinstance(image, np.ndarray):
        return image
    if type(image).__module__.partition(".")[0] == "PIL" or hasattr(image, "getbands"):
        return np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    raise UserError(f"views: an image is an array, a tensor, a PIL image or a path, got {type(image).__name__}")


def _as_tensor(view: np.ndarray) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.ascontiguousarray(view.transpose(2, 0, 1)))


def _normalised(view: torch.Tensor, mean: Any, std: Any) -> torch.Tensor:
    """Whole numbers to float32 in [0, 1] by their type's range; then (view - mean) / std, per channel."""
    import torch

    if not view.is_floating_point():
        most = 1 if view.dtype == torch.bool else torch.iinfo(view.dtype).max
        view = view.to(torch.float32) / most
    view = view.to(torch.float32)
    for name, value in (("mean", mean), ("std", std)):
        if value is None:
            continue
        numbers = torch.as_tensor(value, dtype=torch.float32, device=view.device).reshape(-1, 1, 1)
        if len(numbers) not in (1, view.shape[-3]) or (name == "std" and not bool((numbers > 0).all())):
            channels = view.shape[-3]
            raise UserError(f"views: {name} is one number or {channels}, one per channel (std above 0), got {value!r}")
        view = view - numbers if name == "mean" else view / numbers
    return view


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
