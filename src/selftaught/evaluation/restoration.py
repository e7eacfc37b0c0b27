"""How close restored images are to the clean ones: PSNR, SSIM, MS-SSIM, and the energy of fine detail."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, Literal

import numpy as np
from torch import Tensor

from selftaught._words import plural
from selftaught.errors import UserError
from selftaught.evaluation._inputs import join_notes
from selftaught.evaluation._protocol import protocol
from selftaught.evaluation.result import Number, Result

__all__ = ["luma", "ms_ssim", "restoration"]

CEILING = 100.0
WINDOW = 11
SIGMA = 1.5
LPIPS_SIDE = 32

Images = np.ndarray | Tensor | Sequence[np.ndarray] | Sequence[Tensor]


@protocol("restoration", "PSNR, SSIM and MS-SSIM against clean images", inputs="images")
def restoration(
    predictions: Images,
    targets: Images,
    *,
    noisy: Images | None = None,
    data_range: float = 255,
    channels: Literal["auto", "first", "last"] = "auto",
    clip: bool = True,
    channel: Literal["rgb", "y"] = "rgb",
    shave: int = 0,
    names: Sequence[str] | None = None,
    lpips: Literal["auto", "on", "off"] = "off",
) -> Result:
    """PSNR, SSIM, MS-SSIM, mean error and sharpness of every image against its clean target, beside those of its input.

    Args:
        predictions: restored images: a list of differently sized ones or a stacked array; uint8, uint16 or float; grey
            ``(H, W)`` or any number of channels.
        targets: clean images of the same sizes.
        noisy: the inputs; adds ``psnr_input``, ... and the paired gains ``psnr_gain``, ...
        data_range: what white is worth: 255 for 8 bit, 65535 for 16 bit, 1 for float in [0, 1].
        channels: where the channels are; "auto" takes arrays as ``(H, W, C)`` and tensors as ``(C, H, W)``.
        clip: clip predictions and inputs to [0, data_range] before comparing, default on.
        channel: "rgb" (default) compares all channels; "y" the luma of RGB images (see `luma`), as papers on
            super-resolution do. Grey images are their own luma.
        shave: rows and columns that are left out at every border, default 0; usually the factor of super-resolution.
        names: what each image is called in ``worst_first``; their numbers from 0 if not given.
        lpips: the distance by VGG16's features as well (lower is better): "on"; "auto" where its weights are on this
            machine; "off" (default). Where it can't be had, "on" says so in the note. Always of all channels, without
            the border.

    Returns:
        ``Result`` "restoration": each number with an interval over images; figures ``per_image`` with the lists in the
        order of the images, and ``worst_first``, a row ``{"name", "psnr", "ssim", ...}`` per image, the lowest PSNR
        first. An image that is restored exactly counts as 100 dB; for an image smaller than SSIM's 11-pixel window the
        window shrinks. Both are said in the note. ``mae`` is the mean absolute error as a share of ``data_range``.

    Raises:
        UserError: counts or sizes that do not match, NaN, values that do not fit ``data_range``, pictures whose
            channels lie elsewhere than ``channels`` says, luma of images that are neither grey nor RGB, or nothing
            left within the border.
    """
    restored, clean = _images(predictions, "predictions", channels), _images(targets, "targets", channels)
    inputs = None if noisy is None else _images(noisy, "noisy", channels)
    check_names(names, clean, "target")
    _check_range(clean, data_range, clip)
    for name, images in (("predictions", restored), ("noisy", inputs)):
        _check_sizes(name, images, clean)
        _check_floats(name, images or (), data_range)
        for i, image in enumerate(images or ()):
            check_scale(f"{name}[{i}]", image, data_range)
    columns: dict[str, list[float]] = {}
    pictures = clean
    clean = [_looked_at(image, channel, shave, data_range) for image in clean]
    judge, why = _lpips(lpips, pictures)
    for name, images in (("", restored), ("_input", inputs)):
        if images is None:
            continue
        fitted = [np.clip(image.astype(np.float64), 0, data_range) if clip else image for image in images]
        if judge is not None:
            pairs = zip(fitted, pictures, strict=True)
            columns["lpips" + name] = [_apart(judge, a, b, data_range, shave) for a, b in pairs]
        fitted = [_looked_at(image, channel, shave, data_range) for image in fitted]
        columns["psnr" + name] = [psnr(a, b, data_range) for a, b in zip(fitted, clean, strict=True)]
        columns["ssim" + name] = [ssim(a, b, data_range) for a, b in zip(fitted, clean, strict=True)]
        columns["sharpness" + name] = [sharpness(a, b) for a, b in zip(fitted, clean, strict=True)]
        columns["ms_ssim" + name] = [ms_ssim(a, b, data_range) for a, b in zip(fitted, clean, strict=True)]
        columns["mae" + name] = [
            float(np.abs(a.astype(np.float64) - b).mean() / data_range) for a, b in zip(fitted, clean, strict=True)
        ]
    exact = sum(value == np.inf for key, values in columns.items() if key.startswith("psnr") for value in values)
    ceilings = {"psnr": CEILING, "lpips": np.inf}
    per_image = {key: np.minimum(values, ceilings.get(key.split("_")[0], 1.0)) for key, values in columns.items()}
    if inputs is not None:
        gains = ("psnr", "ssim", "sharpness", "ms_ssim")
        per_image |= {f"{m}_gain": per_image[m] - per_image[f"{m}_input"] for m in gains}
    small = sum(min(image.shape[:2]) < WINDOW for image in clean)
    note = join_notes(
        f"{exact} exact images counted as {CEILING:g} dB" if exact else "",
        f"{plural(small, 'image')} smaller than SSIM's window of {WINDOW}" if small else "",
        "on the Y channel" if channel == "y" else "",
        f"without {shave} pixels at the border" if shave else "",
        why,
    )
    numbers = {key: Number.bootstrap(values) for key, values in per_image.items()}
    called = list(names) if names is not None else [str(i) for i in range(len(clean))]
    order = np.argsort(per_image["psnr"], kind="stable")
    rows = [{"name": called[i]} | {key: float(values[i]) for key, values in per_image.items()} for i in order]
    return Result("restoration", numbers, {"per_image": per_image, "worst_first": rows}, note)


def _lpips(wanted: str, clean: list[np.ndarray]) -> tuple[Any, str]:
    """The network of LPIPS, or None and why there is none."""
    if wanted not in ("auto", "on", "off"):
        raise UserError(f"lpips {wanted}: it may be auto, on or off")
    if wanted == "off":
        return None, ""
    from selftaught import networks

    if wanted == "auto" and not networks.lpips_at_hand():
        return None, ""
    if any(image.shape[2] not in (1, 3) or min(image.shape[:2]) < LPIPS_SIDE for image in clean):
        return None, f"LPIPS left out: it sees 1 or 3 channels, and no image below {LPIPS_SIDE} pixels"
    try:
        return networks.load_lpips(), ""
    except UserError as error:
        return None, f"LPIPS left out: {error}"


def _apart(judge: Any, a: np.ndarray, b: np.ndarray, data_range: float, shave: int) -> float:
    """LPIPS of two images (H,W,C)."""
    import torch

    inner = slice(shave, -shave or None)
    x, y = (
        torch.from_numpy(np.ascontiguousarray(image[inner, inner].transpose(2, 0, 1), np.float32))[None] / data_range
        for image in (a, b)
    )
    with torch.inference_mode():
        return float(judge(x, y))


def luma(image: np.ndarray, data_range: float = 255) -> np.ndarray:
    """Y of ITU-R BT.601 in the range of video, as Matlab's rgb2ycbcr and hence papers on super-resolution have it.

    ``Y = 16 + 65.481 R + 128.553 G + 24.966 B`` for R, G, B in [0, 1] and white at 255, not rounded.

    Args:
        image: ``(H, W, 3)`` RGB, or ``(H, W, 1)`` grey, which is returned as it is.
        data_range: what white is worth.

    Returns:
        ``(H, W, 1)`` float64 in the image's own units.

    Raises:
        UserError: another number of channels.
    """
    image = image.astype(np.float64)
    if image.shape[2] == 1:
        return image
    if image.shape[2] != 3:
        raise UserError(f"channel y: images of {image.shape[2]} channels have no luma; use channel rgb")
    return (image @ np.array([65.481, 128.553, 24.966]) / 255 + 16 / 255 * data_range)[..., None]


def _looked_at(image: np.ndarray, channel: str, shave: int, data_range: float) -> np.ndarray:
    """What is compared of an image (H,W,C): its luma or all channels, without its border."""
    if channel not in ("rgb", "y"):
        raise UserError(f"channel {channel}: it may be rgb or y")
    if isinstance(shave, bool) or not isinstance(shave, Integral):
        raise UserError(f"shave {shave!r}: a whole number of pixels")
    if shave < 0 or 2 * shave >= min(image.shape[:2]):
        raise UserError(f"shave {shave}: leaves nothing of an image of {image.shape[1]} x {image.shape[0]} pixels")
    inner = image[shave : image.shape[0] - shave, shave : image.shape[1] - shave]
    return luma(inner, data_range) if channel == "y" else inner


def psnr(prediction: np.ndarray, target: np.ndarray, data_range: float = 255) -> float:
    """``10 log10(data_range^2 / mean squared error)`` in dB over all pixels and channels; infinite when equal.

    Args:
        prediction: any shape, any number type.
        target: same shape.
        data_range: what white is worth.

    Raises:
        UserError: shapes that differ, no pixels, NaN.
    """
    _check_pair(prediction, target)
    error = float(np.mean((prediction.astype(np.float64) - target.astype(np.float64)) ** 2))
    return float(10 * np.log10(data_range**2 / error)) if error > 0 else float("inf")


def ssim(prediction: np.ndarray, target: np.ndarray, data_range: float = 255) -> float:
    """Structural similarity (Wang et al. 2004): Gaussian window of sigma 1.5 and 11 pixels, mean over pixels and
    channels.

    Args:
        prediction: ``(H, W)`` or ``(H, W, C)``.
        target: same shape.
        data_range: what white is worth.

    Returns:
        At most 1. Borders that the window would reach beyond are left out; for images of less than 11 pixels these
        are narrower, as if the window were the largest odd one that fits.

    Raises:
        UserError: shapes that differ, no pixels, NaN.
    """
    _check_pair(prediction, target)
    from skimage.metrics import structural_similarity

    a, b = (np.atleast_3d(image).astype(np.float64) for image in (prediction, target))
    side = min(a.shape[:2])
    window = min(WINDOW, side - 1 + side % 2)
    wang: dict[str, Any] = {"gaussian_weights": True, "sigma": SIGMA, "use_sample_covariance": False}
    return float(structural_similarity(a, b, win_size=window, data_range=data_range, channel_axis=-1, **wang))


def ms_ssim(prediction: np.ndarray, target: np.ndarray, data_range: float = 255) -> float:
    """Multi-scale structural similarity (Wang et al. 2003), mean over the channels.

    The five standard scales; an image below 176 pixels has room for fewer, whose weights are brought to the sum 1, and
    one below 11 pixels is seen through a smaller window, at one scale.

    Args:
        prediction: ``(H, W)`` or ``(H, W, C)``.
        target: same shape.
        data_range: what white is worth.

    Raises:
        UserError: shapes that differ, no pixels, NaN.
    """
    _check_pair(prediction, target)
    import torch

    from selftaught import objectives

    x, y = (
        torch.from_numpy(np.ascontiguousarray(np.atleast_3d(image).transpose(2, 0, 1), np.float64))[None]
        for image in (prediction, target)
    )
    side = min(x.shape[2:])
    window = min(WINDOW, side - 1 + side % 2)
    with torch.no_grad():
        found = objectives.ms_ssim(x, y, data_range=data_range, win_size=window, sigma=SIGMA, scales="auto")
    return float(found)


def sharpness(prediction: np.ndarray, target: np.ndarray) -> float:
    """How near the energy of fine detail is to the target's: ``min(r, 1/r)``, r the ratio of the Laplacians' variances.

    A blurred image has too little of it, noise and ringing add too much; 1 where both are alike. It says nothing of
    where the detail is: a picture that invents the right amount of texture scores high and has a low PSNR.

    Args:
        prediction: ``(H, W)`` or ``(H, W, C)``, at least 3 x 3.
        target: same shape.

    Returns:
        In [0, 1], over all channels; 0 where only one of the images has detail.

    Raises:
        UserError: shapes that differ, no pixels, NaN.
    """
    _check_pair(prediction, target)
    energies = []
    for image in (prediction, target):
        x = np.atleast_3d(image).astype(np.float64)
        inner = x[1:-1, 1:-1]
        laplacian = x[2:, 1:-1] + x[:-2, 1:-1] + x[1:-1, 2:] + x[1:-1, :-2] - 4 * inner
        energies.append(float(laplacian.var(axis=(0, 1)).sum()) if inner.size else 0.0)
    high = max(energies)
    return min(energies) / high if high > 0 else 1.0


def _images(images: Images, name: str, channels: str) -> list[np.ndarray]:
    """A list of ``(H, W, C)`` arrays in their own number type."""
    if isinstance(images, np.ndarray | Tensor) and images.ndim == 3 and min(images.shape[0], images.shape[-1]) <= 4:
        raise UserError(f"{name}: shape {tuple(images.shape)} looks like a single image; pass a list, [image]")
    out = []
    for i, image in enumerate(images):
        first = channels == "first" or (channels == "auto" and isinstance(image, Tensor))
        array = image.detach().cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
        if array.ndim not in (2, 3) or 0 in array.shape:
            raise UserError(f"{name}[{i}]: shape {array.shape}; pass images (H, W) or (H, W, C)")
        if array.dtype.kind not in "biuf":
            raise UserError(f"{name}[{i}]: {array.dtype} values; pass integers or floats")
        if array.ndim == 3 and channels == "auto":
            _check_order(f"{name}[{i}]", array.shape, first)
        if array.ndim == 3 and first:
            array = np.moveaxis(array, 0, -1)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise UserError(f"{name}[{i}]: NaN or infinite pixels; the model diverged or the file is broken")
        out.append(np.atleast_3d(array))
    if not out:
        raise UserError(f"{name}: no image; pass at least one")
    return out


def _check_sizes(name: str, images: list[np.ndarray] | None, clean: list[np.ndarray]) -> None:
    if images is None:
        return
    if len(images) != len(clean):
        raise UserError(f"{name}: {len(images)} images for {len(clean)} targets; pass one for each")
    for i, (image, target) in enumerate(zip(images, clean, strict=True)):
        if image.shape != target.shape:
            raise UserError(f"{name}[{i}]: size {image.shape} where the target has {target.shape}")


def _check_order(name: str, shape: tuple[int, ...], first: bool) -> None:
    """Refuse a picture that has its channels at the other end than they are taken to be."""
    taken, other = (shape[0], shape[-1]) if first else (shape[-1], shape[0])
    if other <= 4 < taken:
        form, right = ("(C, H, W)", "last") if first else ("(H, W, C)", "first")
        raise UserError(f"{name}: shape {shape} is taken as {form}; pass channels={right!r} if it isn't")


def _check_range(clean: list[np.ndarray], data_range: float, clip: bool) -> None:
    if not 0 < data_range < np.inf:
        raise UserError(f"data_range: {data_range}; pass what white is worth, such as 255")
    high, low = max(float(image.max()) for image in clean), min(float(image.min()) for image in clean)
    if high > 1.5 * data_range:
        raise UserError(f"data_range: {data_range:g}, but targets reach {high:g}; pass 65535 for 16 bit, 255 for 8 bit")
    _check_floats("targets", clean, data_range)
    if clip and low < -0.45 * data_range:
        raise UserError(f"targets go down to {low:g}, and predictions are cut at 0; shift both, or pass clip=False")
    for image in clean:
        check_scale("targets", image, data_range)


def _check_floats(name: str, images: Sequence[np.ndarray], data_range: float) -> None:
    """Refuse floats of [0, 1] where white is worth more; one black picture among others is no such case."""
    high = max((float(image.max()) for image in images), default=0.0)
    if data_range > 1 and 0 < high <= 1 and all(image.dtype.kind == "f" for image in images):
        what = f"data_range: {data_range:g}, but float {name} lie within [0, 1]"
        raise UserError(f"{what}; pass data_range=1, or bring all to one scale")


def check_scale(name: str, image: np.ndarray, data_range: float) -> None:
    """Refuse a picture that obviously has its white elsewhere than ``data_range`` says.

    Raises:
        UserError: bytes where white is worth more than they reach, integers that go far beyond it, or floats that
            mostly do.
    """
    if image.dtype.kind in "ui" and data_range > np.iinfo(image.dtype).max:
        raise UserError(f"{name}: {image.dtype} values, where white is worth {data_range:g}; bring them to one scale")
    high = float(image.max())
    if high > 1.5 * data_range and (image.dtype.kind in "ui" or float(np.mean(image > 1.5 * data_range)) > 0.5):
        raise UserError(f"{name}: reaches {high:g}, where white is worth {data_range:g}; bring them to one scale")


def check_names(names: Sequence[str] | None, of: Sequence[Any], what: str) -> None:
    """Refuse names that aren't a list with one for each of something.

    Raises:
        UserError: another count, or one string.
    """
    if names is not None and (isinstance(names, str) or len(names) != len(of)):
        count = 1 if isinstance(names, str) else len(names)
        raise UserError(f"names: {count} for {plural(len(of), what)}; pass a list with one for each")


def check_unit(name: str, image: np.ndarray) -> None:
    """Refuse a picture that isn't finite floats with white at 1.

    Raises:
        UserError: another type, no pixels, NaN, or values that mostly lie far beyond 1.
    """
    if not isinstance(image, np.ndarray) or image.dtype.kind != "f":
        kind = image.dtype if isinstance(image, np.ndarray | Tensor) else type(image).__name__
        raise UserError(f"{name}: {kind}; pass an array of floats in [0, 1]")
    if not image.size or not np.isfinite(image).all():
        raise UserError(f"{name}: shape {image.shape}, NaN or infinite pixels; pass an array of floats in [0, 1]")
    check_scale(name, image, 1.0)


def _check_pair(prediction: np.ndarray, target: np.ndarray) -> None:
    """Refuse two arrays that can't be compared pixel by pixel."""
    if prediction.shape != target.shape or not target.size:
        shapes = f"{tuple(prediction.shape)} and {tuple(target.shape)}"
        raise UserError(f"the prediction and its target need one shape, with pixels; got {shapes}")
    if not (np.isfinite(prediction).all() and np.isfinite(target).all()):
        raise UserError("NaN or infinite pixels; the model diverged or the file is broken")
