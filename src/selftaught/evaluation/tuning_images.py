"""Images as masked pre-training is fine-tuned on them: distorted, and mixed with one another under soft targets.

Mixup, CutMix, RandAugment and random erasing are timm's; here they get our tensors, and chance that a seed fixes.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.evaluation.tuning import Tuning

__all__ = []


def mixed(images: Tensor, target: Tensor, mixer: Any) -> tuple[Tensor, Tensor]:
    """Images mixed with one another, and what each then shows as a distribution over the classes.

    Args:
        images: (n, ...), left as they are.
        target: (n,) classes.
        mixer: timm's Mixup (`make_mixer`). It takes an even number; of an odd one the last image stays unmixed.

    Returns:
        (n, ...) and (n, K), rows that sum to 1.
    """
    from timm.data import mixup

    smooth: Any = mixup.mixup_target
    even = len(images) // 2 * 2
    shown, soft = mixer(images[:even].clone(), target[:even])
    rest = smooth(target[even:], mixer.num_classes, smoothing=mixer.label_smoothing)
    return torch.cat([shown, images[even:]]), torch.cat([soft, rest])


def make_mixer(tuning: Tuning, classes: int, dims: int) -> Callable[..., Any] | None:
    """timm's Mixup of a recipe; None where nothing is mixed.

    Raises:
        UserError: CutMix of what is no image.
    """
    if not tuning.mixes:
        return None
    if tuning.cutmix and dims != 4:
        raise UserError("cutmix: it cuts rectangles out of images, and these samples are none; set it to 0")
    from timm.data.mixup import Mixup

    made: Any = Mixup
    return made(
        mixup_alpha=tuning.mixup, cutmix_alpha=tuning.cutmix, label_smoothing=tuning.smoothing, num_classes=classes
    )


def random_images(
    tuning: Tuning, pixels: tuple[Any, Any] | None, shape: Sequence[int]
) -> Callable[[Tensor], Tensor] | None:
    """Batch -> batch: crop, flip, RandAugment and erasing of each image, by timm; None where the recipe has none.

    Args:
        tuning: the recipe.
        pixels: mean and deviation (C,) or numbers, by which pixels in [0, 1] were normalised.
        shape: of a sample, (C, H, W).

    Raises:
        UserError: samples that are no grey or RGB images, or ``pixels`` missing.
    """
    if not tuning.changes_pixels:
        return None
    off = "crop=0, randaug=0 and erasing=0 train without"
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise UserError(f"this recipe distorts grey or RGB images, a sample here is {tuple(shape)}; {off}")
    if pixels is None:
        raise UserError(f"this recipe distorts pixels: pass pixels=(mean, deviation) as they were normalised; {off}")
    from PIL import Image

    mean, std = (np.broadcast_to(np.asarray(torch.as_tensor(p).cpu(), np.float32), shape[0]) for p in pixels)
    change, grey = _changes(tuning, mean, std, (shape[1], shape[2])), shape[0] == 1

    def batch(x: Tensor) -> Tensor:
        unit = x.detach().cpu().numpy() * std[:, None, None] + mean[:, None, None]
        whole = (255 * unit).round().clip(0, 255).astype(np.uint8)
        whole = np.repeat(whole, 3, 1) if grey else whole
        made = torch.stack([change(Image.fromarray(np.ascontiguousarray(one.transpose(1, 2, 0)))) for one in whole])
        return (made[:, :1] if grey else made).to(x.device)

    return batch


def _changes(tuning: Tuning, mean: np.ndarray, std: np.ndarray, size: tuple[int, int]) -> Callable[..., Tensor]:
    """Picture -> normalised (3, H, W), in timm's order: crop, flip, RandAugment, erasing."""
    from PIL import Image
    from timm.data import auto_augment, random_erasing, transforms
    from torchvision.transforms import v2

    mean3, std3 = np.broadcast_to(mean, 3).tolist(), np.broadcast_to(std, 3).tolist()
    steps: list[Any] = []
    if tuning.crop:
        crop: Any = transforms.RandomResizedCropAndInterpolation
        steps += [crop(size, scale=(tuning.crop, 1.0), interpolation="bicubic"), v2.RandomHorizontalFlip()]
    if tuning.randaug:
        hints = {
            "translate_const": int(0.45 * min(size)), "img_mean": tuple(min(255, round(255 * m)) for m in mean3),
            "interpolation": Image.Resampling.BICUBIC,
            "magnitude_max": 9.99,  # 10 would posterise to 0 bits, which Pillow refuses
        }  # fmt: skip
        made: Any = auto_augment.rand_augment_transform
        steps.append(made(f"rand-m{tuning.randaug:g}-n2-mstd0.5-inc1", hints))
    steps += [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean3, std3)]
    if tuning.erasing:
        erase: Any = random_erasing.RandomErasing
        steps.append(erase(tuning.erasing, mode="pixel", max_count=1, device="cpu"))
    return v2.Compose(steps)


@contextlib.contextmanager
def other_chance(seed: int) -> Iterator[None]:
    """Python's and NumPy's global chance, which timm draws from, seeded for a while and then as it was."""
    state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)  # noqa: NPY002
