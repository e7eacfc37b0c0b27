"""INFWIDE: deblurring at night where the kernel is known (Zhang et al., TIP 2023, arXiv 2207.08201).

    d = denoise(y),   z_I = Wiener(d, k),   z_F = refine(Wiener(features(y), k)),   out_half, out = fuse(z_I, z_F)
    L = main(out_half, out; x) + 0.5 denoise(d; b) + 0.5 | k (*) out - b |

x is sharp, b = k (*) x blurred with wrap-around, y what a camera at high gain makes of b.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from selftaught import networks, objectives
from selftaught._paths import expanded
from selftaught.catalog.rules import Count, Natural, NonNegative, Positive, Share
from selftaught.data.kernels import kernel_file_beside, kernel_of_array, read_kernel
from selftaught.engine.method import LearningRateScaling, Method, MethodConfig, Optimizer, Schedule, Stage
from selftaught.errors import SampleError, UserError
from selftaught.networks.deconvolution import Deconvolver
from selftaught.views import (
    CameraNoise,
    Dihedral,
    GaussianNoise,
    Pipeline,
    RandomCrop,
    Recipe,
    Saturate,
    View,
    WalkBlur,
    render,
)

__all__ = ["InfWide"]

SHARP, CLEAN, BLURRED, KERNEL = "sharp", "clean", "blurred", "kernel"
_GAINS = (4, 8, 16)
"""Gains of the camera that the paper judges at."""


@dataclass
class Config(MethodConfig):
    """INFWIDE's options; the defaults are the paper's for 5000 pictures."""

    optimizer: Optimizer = "adam"
    lr: NonNegative = 2e-4
    lr_scaling: LearningRateScaling = "none"
    weight_decay: float = 0.0
    schedule: Schedule = "step"
    decay_every: float = 0.125
    decay_factor: float = 0.5
    network: Literal["infwide", "dwdn", "wiener", "richardson-lucy"] = "infwide"
    """infwide, or a baseline: DWDN (features alone), classical Wiener, Richardson-Lucy; the last two learn nothing."""
    branches: Literal["both", "image", "feature"] = "both"
    """INFWIDE's branches; one alone is the paper's ablation."""
    input_denoise: bool = True
    """Denoise before the image is deconvolved; off: d = y."""
    features: Count = 16
    """Features that are deconvolved."""
    width: Count = 32
    """Channels of the finest level of refinement and fusion; the denoiser's levels have 1, 2, 4 and 8 times as many."""
    start: Literal["random", "wiener"] = "random"
    """wiener: the layers first hand the image on, so that training begins with the Wiener filter; for short runs."""
    nsr_mode: Literal["official", "fixed"] = "official"
    """Ratio of noise to signal in the Wiener layers: estimated as in DWDN's code, or nsr."""
    nsr: NonNegative = 0.01
    """The fixed ratio."""
    pad: Literal["replicate", "circular"] = "replicate"
    """What lies outside of the image for the Wiener layers."""
    denoise_weight: NonNegative = 0.5
    """Weight of the loss of the denoised image."""
    reblur_weight: NonNegative = 0.5
    """Weight of the loss of the output blurred again."""
    ssim_weight: NonNegative = 0.2
    """Weight of 1 - SSIM in the main loss."""
    tv_weight: NonNegative = 0.2
    """Weight of the total variation."""
    patch: Count = 256
    """Side of the training patches."""
    kernel_size: Count = 37
    """Side of the random kernels, odd."""
    noise_model: Literal["camera", "gaussian"] = "camera"
    """What makes the noise: the camera model, or a normal distribution."""
    gain: NonNegative = 0.0
    """Total gain of the camera in training; 0: drawn from 4 to 16."""
    test_gain: Positive = 8.0
    """Gain of the camera where sharp pictures are degraded to judge the model; the paper reports 4, 8 and 16."""
    sigma: NonNegative = 0.05
    """Deviation of the Gaussian noise."""
    saturation: Positive = 1.2
    """Lights above 1 / saturation are clipped."""
    gradient_clamp: NonNegative = 0.5
    """Each entry of the gradient is clamped to this; 0: not."""
    amsgrad: bool = True
    """Adam's variant that never forgets the largest second moment."""
    freeze_denoiser: Natural = 0
    """Epochs after which the denoiser learns no more; 0: never."""
    validation: Share = 0.05
    """Share of the pictures that is held out: the weights of the lowest loss there are kept; 0 keeps the last."""
    patience: Natural = 100
    """Epochs without a lower loss on them after which training ends."""
    iterations: Count = 30
    """Of Richardson-Lucy."""
    mirrored: bool = False
    """Mirror a picture to twice its size before it is deblurred, against ringing at its borders (real photographs)."""
    kernel_file: str = ""
    """Kernel of all pictures that come with none: a grey picture, .npy, .txt or .csv."""

    @property
    def learns(self) -> bool:
        """Whether the network has weights: the classical ones have none, nor has Wiener's layer on the bare image."""
        bare = self.network == "infwide" and self.branches == "image" and not self.input_denoise
        return self.network in ("infwide", "dwdn") and not bare


PRESETS = {
    "nightshot": {"epochs": 400, "batch_size": 8},
    "div2k-500": {"decay_every": 0.05, "decay_factor": 0.8, "epochs": 400, "batch_size": 8},
    "gaussian": {"noise_model": "gaussian", "epochs": 400, "batch_size": 8},
    "laptop": {
        "features": 8, "width": 8, "start": "wiener", "patch": 64, "kernel_size": 15, "lr": 1e-3, "validation": 0.0,
        "patience": 0, "decay_every": 0.75, "steps": 500, "batch_size": 4,
    },
}  # fmt: skip


class InfWide(Method):
    """INFWIDE and its baselines on images of 1 or 3 channels, or any other number without a green one."""

    slug = "infwide"
    config_class = Config
    config: Config
    output = "image"
    pixels = "float32"
    default_data = "photos:whole"
    compares = False
    pair_fields: ClassVar[tuple[str, str]] = (BLURRED, SHARP)
    applied_with: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "kernel": {"help": "blur that is known: a file with the kernel of all pictures, text or a grey picture"},
    }
    kernel_from: Path | None = None

    fields: Mapping[str, Any] = {}

    def build(self) -> None:
        """The network around its Wiener layers."""
        c = self.config
        nsr: float | str = "official" if c.nsr_mode == "official" else c.nsr
        if c.network == "infwide":
            sizes: dict[str, Any] = {"features": c.features, "width": c.width, "branches": c.branches}
            denoiser = tuple(c.width << level for level in range(4))
            net: nn.Module = networks.INFWIDE(
                self.channels, **sizes, denoise=c.input_denoise, denoiser=denoiser, nsr=nsr, pad=c.pad
            )
        elif c.network == "dwdn":
            net = networks.DWDN(self.channels, features=c.features, width=c.width, nsr=nsr, pad=c.pad)
        else:
            net = networks.ClassicalDeconvolution(c.network, nsr=nsr, pad=c.pad, iterations=c.iterations)
        if c.start == "wiener" and not isinstance(net, networks.ClassicalDeconvolution):
            if self.channels > min(c.features, c.width):
                raise UserError(
                    f"--start wiener: {self.channels} channels need as many --features and --width; or --start random"
                )
            begun: Any = net
            begun.begin_with_wiener()
        fixed = read_kernel(c.kernel_file) if c.kernel_file else None
        self.net = Deconvolver(net, fixed, extend=c.mirrored)

    # ---- what is learnt from -----------------------------------------------------------------------------------
    def recipe(self) -> Recipe:
        """The quadruple: sharp, blurred without noise, its kernel, noisy; or triples that come with the data."""
        c = self.config
        if {BLURRED, SHARP, KERNEL} <= self.fields.keys():
            cut = Pipeline((RandomCrop(c.patch),))  # no flips: the kernel would have to turn, too
            views = (View(BLURRED, BLURRED, cut, space="pair"), View(SHARP, SHARP, cut, space="pair"))
            return Recipe((*views, View(KERNEL, KERNEL)))
        sharp = View(SHARP, "image", Pipeline((RandomCrop(c.patch), Dihedral())))
        return Recipe((sharp, View(CLEAN, SHARP, (self.blur(),)), View(BLURRED, CLEAN, self.camera(c.gain))))

    def order(self, source: Any, role: str) -> None:
        """Shuffled; which fields the data bring is noted for :meth:`recipe`."""
        self.fields = source.fields

    def blur(self) -> WalkBlur:
        """The random kernels."""
        return WalkBlur(self.config.kernel_size)

    def camera(self, gain: float) -> Pipeline:
        """Noise and saturation; a gain of 0 is drawn."""
        c = self.config
        if c.saturation < 1:
            raise UserError(f"--saturation {c.saturation:g}: 1 (nothing is clipped) or more")
        noisy = GaussianNoise(c.sigma) if c.noise_model == "gaussian" else CameraNoise(gain) if gain else CameraNoise()
        return Pipeline((noisy, Saturate(c.saturation)))

    def quadruple(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """y (N, C, H, W), k (N, 1, h, w) with the sum 1, x and b (N, C, H, W) of a batch."""
        if f"{CLEAN}.kernel" in batch:
            kernel = batch[f"{CLEAN}.kernel"][:, None]
            return batch[BLURRED], kernel, batch[SHARP], batch[CLEAN]
        kernel = networks.normalised_kernel(batch[KERNEL].mean(1, keepdim=True))
        clean = batch[CLEAN] if CLEAN in batch else networks.circular_blur(batch[SHARP], kernel)
        return batch[BLURRED], kernel, batch[SHARP], clean

    # ---- learning ----------------------------------------------------------------------------------------------
    def stage_plan(self, stage: str) -> Stage:
        """The best weights on held-out pictures, where some are held out."""
        c = self.config
        if not c.validation or not c.learns:
            return Stage()
        return Stage(keep="best", validation=min(c.validation, 0.9), patience=c.patience)

    def edit_gradients(self, optimizer: Any) -> None:
        """Clamp the gradient entry by entry; stop the denoiser; switch amsgrad on."""
        c = self.config
        denoiser = getattr(self.net.network, "denoiser", None)
        if c.freeze_denoiser and denoiser is not None and self.epochs_done >= c.freeze_denoiser:
            for parameter in denoiser.parameters():
                parameter.grad = None
        for group in optimizer.param_groups:
            if "amsgrad" in group:
                group["amsgrad"] = c.amsgrad
            if c.gradient_clamp:
                nn.utils.clip_grad_value_(group["params"], c.gradient_clamp)

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The main, denoising and re-blurring terms."""
        c = self.config
        y, kernel, x, b = self.quadruple(batch)
        made = self.net.network(y, kernel)
        alone = c.network != "infwide" or c.branches == "feature" or not c.input_denoise
        return objectives.infwide_terms(
            made.images, made.denoised, x, b, kernel, denoise=0.0 if alone else c.denoise_weight,
            reblur=c.reblur_weight, ssim_weight=c.ssim_weight, tv=c.tv_weight,
        )  # fmt: skip

    # ---- what one keeps ----------------------------------------------------------------------------------------
    def predict(self, batch: dict[str, Any]) -> Tensor:
        """Sharp images (N, C, H, W) in [0, 1]; kernels are (N, 1, h, w) under ``kernel``, or the run's own."""
        if f"{CLEAN}.kernel" in batch:
            return self.net(batch[BLURRED], batch[f"{CLEAN}.kernel"][:, None])
        image = batch[BLURRED] if BLURRED in batch else self.inputs(batch)
        kernel = batch.get(KERNEL)
        return self.net(image, None if kernel is None else kernel.mean(1, keepdim=True))

    def deliverable(self) -> nn.Module:
        """Blurred images in [0, 1] and kernels to sharp images."""
        return self.net

    def deliverable_spec(self) -> dict[str, Any]:
        """The network's sizes."""
        names = ("branches", "input_denoise", "features", "width", "nsr_mode", "nsr", "pad")
        found = {name: getattr(self.config, name) for name in names}
        return {"name": self.config.network, "channels": self.channels} | found

    @property
    def untraceable(self) -> str:
        """An ONNX file takes a picture alone, so that all must have one kernel."""
        if self.net.fixed is not None:
            return ""
        return (
            "the file takes pictures without their kernels, and this run has no kernel of all pictures; train with "
            "--kernel-file FILE where they share one, or take safetensors"
        )

    # ---- kernels and judging -----------------------------------------------------------------------------------
    @contextlib.contextmanager
    def applied_as(self, options: Mapping[str, Any], own: bool) -> Iterator[None]:
        """The kernel that ``apply --kernel`` names, of all pictures.

        Raises:
            UserError: it can't be read.
        """
        given = options.get("kernel")
        if given:
            read_kernel(given)
        try:
            self.kernel_from = expanded(given) if given else None
            yield
        finally:
            self.kernel_from = None

    def kernel_file(self, source: Any, i: int) -> Path | None:
        """Where a picture's kernel is read from: the file for all, or one beside it; None where no file has it."""
        if self.kernel_from is not None or KERNEL in source.fields or getattr(source, "root", None) is None:
            return self.kernel_from
        return kernel_file_beside(source.root, source.names[i])

    def files_beside(self, source: Any, i: int) -> list[Path]:
        """The file of the picture's kernel, where it comes from one."""
        found = self.kernel_file(source, i)
        return [] if found is None else [found]

    def companions(self, source: Any, i: int) -> dict[str, Tensor]:
        """The kernel of a picture: that of all, a field of the data, a file beside the picture, or the run's own.

        Raises:
            UserError: there is none.
        """
        name, file = source.names[i], self.kernel_file(source, i)
        if file is not None:
            found = read_kernel(file)
        elif KERNEL in source.fields:
            found = kernel_of_array(source.sample(i, want=[KERNEL])[KERNEL], f"the kernel of {name}")
        elif self.net.fixed is not None:
            return {}
        else:
            raise UserError(
                f"{name}: no kernel; put NAME.kernel.txt beside it or kernel.txt into its folder, or name pairs "
                "(pairs:DIR?blurred=...&kernel=...) or one for all (apply --kernel FILE, train --kernel-file FILE)"
            )
        return {"kernel": torch.from_numpy(found)[None, None]}

    @property
    def strengths(self) -> dict[str, dict[str, Any]]:
        """The gains that the paper reports, besides the one of the test."""
        if self.config.noise_model == "gaussian":
            return {}
        return {f"gain {gain}": {"gain": float(gain)} for gain in _GAINS if gain != self.config.test_gain}

    def degraded(
        self, clean: np.ndarray, *, gain: float | None = None
    ) -> tuple[np.ndarray, np.ndarray, dict[str, Tensor]]:
        """A sharp picture (H, W, C) in [0, 1] blurred and noisy, as its pixels decide by chance; itself; its kernel.

        ``gain`` takes the place of ``--test-gain``.
        """
        c = self.config
        if min(clean.shape[:2]) <= c.kernel_size:
            raise SampleError("image", f"{clean.shape[1]} x {clean.shape[0]} pixels: smaller than the kernel")
        rng = np.random.default_rng(int.from_bytes(hashlib.blake2b(clean.tobytes(), digest_size=6).digest(), "big"))
        kernel: np.ndarray
        blur, camera = Pipeline((self.blur(),)), self.camera(gain or c.test_gain)
        facts: dict[str, Any] = {}
        params = blur.sample(rng, *clean.shape[:2])
        clear = render(clean, blur, params, facts=facts)
        kernel = facts["kernel"]
        noisy = render(np.clip(clear, 0, 1), camera, camera.sample(rng, *clean.shape[:2]))
        return noisy, clean, {"kernel": torch.from_numpy(kernel)[None, None]}
