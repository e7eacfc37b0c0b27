"""Correcting dual rolling shutters: pairs in, global-shutter frames at any instants out, and how they are judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught import networks
from selftaught.data import Source, to_unit
from selftaught.data.rolling_shutter import B2T, T2B, DualReversed, is_dual, pair_frames, read_pair
from selftaught.engine.method import Method
from selftaught.errors import SampleError, UserError
from selftaught.networks.drsc import DRSC, MULTIPLE

_LARGE, _OVERLAP = 2048, 128


class DualShutterMethod(Method):
    """Base of methods whose ``network``, a `DRSC` of three frames, corrects pairs read in opposite directions."""

    modalities = ("clip",)
    default_data = "video"
    output = "clip"
    pixels = "float32"
    compares = False
    pair_fields = ("clip", "gs")
    given_fields = (T2B, B2T)
    judged_with = "--data 'pairs:?t2b=DOWNWARDS/&b2t=UPWARDS/&gs=CLEAN/'"
    applied_with: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "instants": {"help": "rolling shutters: frames for each pair, such as 9, or shares such as 0,0.5,1"},
    }
    network: DRSC

    # ---- samples ---------------------------------------------------------------------------------------------
    @classmethod
    def arranged(cls, sources: dict[str, Any], config: Any) -> dict[str, Any]:
        """Pairs, given ones frame by frame or made of plain videos."""
        return {role: cls.pairs(source, config) for role, source in sources.items()}

    @classmethod
    def pairs(cls, source: Source, config: Any) -> Source:
        """The pairs of a source; one that holds them already stays as it is."""
        if isinstance(source, DualReversed) or isinstance(getattr(source, "parent", None), DualReversed):
            return source
        return DualReversed(source, readout=config.readout, between=config.between, side=config.side)

    @property
    def options(self) -> Any:
        """The config, with the options that the subclasses share."""
        return self.config

    @property
    def frames_judged(self) -> int:
        """Clean frames of a pair."""
        return int(self.options.readout) + 1

    def to_judge(self, source: Source) -> Source:
        """Pairs of a source that is judged on."""
        return self.pairs(source, self.config)

    # ---- what one keeps --------------------------------------------------------------------------------------
    def predict(self, batch: dict[str, Any]) -> Tensor:
        """Frames (N, C, K, H, W) in [0, 1] of pairs (N, C, 2, H, W), whole frames."""
        return self.deliverable()(batch["clip"])

    def deliverable(self) -> nn.Module:
        """A pair in, evenly spaced global-shutter frames out."""
        return Corrector(self.network, self.options.instants, self.options.pad)

    def deliverable_spec(self) -> dict[str, Any]:
        """The network's sizes."""
        c: Any = self.config
        return {
            "name": "drsc", "channels": self.channels, "width": c.width, "flow_widths": c.flow_widths,
            "released": c.released, "frames": 2, "instants": c.instants,
        }  # fmt: skip

    # ---- applying and judging --------------------------------------------------------------------------------
    def instants_of(self, options: Mapping[str, Any]) -> list[float]:
        """The instants that ``apply --instants`` asks for: a number of frames from start to end, or shares.

        Raises:
            UserError: neither.
        """
        text = str(options.get("apply instants") or self.options.instants + 1)
        try:
            if "," not in text and "." not in text:
                return np.linspace(0, 1, int(text)).tolist() if int(text) > 1 else [{1: 0.5}[int(text)]]
            found = [float(part) for part in text.split(",") if part.strip()]
        except (ValueError, KeyError):
            found = []
        if not found or min(found) < 0 or max(found) > 1 or sorted(set(found)) != found:
            raise UserError(f"--instants {text}: a number of frames such as 9, or rising shares such as 0,0.5,1")
        return found

    def check_applied(self, source: Source, options: Mapping[str, Any]) -> None:
        """Refuse instants that there are none of, and samples without pairs."""
        self.instants_of(options)
        if not is_dual(source):
            raise UserError(
                f"{source.name}: selfdrsc corrects pairs read in opposite directions; give "
                "'pairs:FOLDER?t2b=DOWNWARDS&b2t=UPWARDS' (selftaught degrade rolling-shutter makes some of a video)"
            )

    def restored_frames(self, source: Source, i: int, tile: int, options: Mapping[str, Any]) -> Iterator[np.ndarray]:
        """Frames (H, W, C) in [0, 1] at every instant of every pair of a sample."""
        instants = self.instants_of(options)
        for t in range(pair_frames(source, i)):
            yield from self.corrected(to_unit(read_pair(source, i, t), self.value_range), instants, source.names[i])

    def times_out(self, source: Source, i: int, options: Mapping[str, Any]) -> np.ndarray | None:
        """When they are shown: spread evenly over the time of their pair."""
        times, count = source.times(i), len(self.instants_of(options))
        if times is None:
            return None
        step = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 1 / (source.rate or 25.0)
        ends = np.append(times[1:], times[-1] + step)
        shares = np.arange(count) / count
        return (times[:, None] + shares * (ends - times)[:, None]).ravel()

    def frames_out(self, source: Source, i: int, options: Mapping[str, Any]) -> list[str] | None:
        """Names of frames: that of the pair, and a number."""
        names = source.frame_names(i)
        if names is None:
            return None
        split = [name.rpartition(".") for name in names]
        count = len(self.instants_of(options))
        return [f"{stem}_{k}.{suffix}" for stem, _, suffix in split for k in range(count)]

    def corrected(self, pair: np.ndarray, instants: list[float], name: str = "pair") -> list[np.ndarray]:
        """Frames (H, W, C) in [0, 1] at instants, of a pair (2, H, W, C) in that range.

        Raises:
            SampleError: channels that the method does not take.
            UserError: NaN came out.
        """
        if pair.shape[3] != self.channels:
            raise SampleError(name, f"{pair.shape[3]} channels where the run has {self.channels}")
        x = torch.from_numpy(np.ascontiguousarray(pair.transpose(3, 0, 1, 2), np.float32))[None].to(self.device)
        corrector = Corrector(self.network, self.options.instants, self.options.pad)
        with torch.inference_mode():
            y = corrector(x, instants)[0].float().cpu().numpy().transpose(1, 2, 3, 0)
        if not np.isfinite(y).all():
            raise UserError(f"{self.slug}: NaN in the frames of {name}; the model diverged")
        return list(y)

    def check_judged(self, source: Source) -> None:
        """Refuse pairs without clean frames.

        Raises:
            UserError: there are none.
        """
        if "gs" not in source.fields:
            raise UserError("PSNR needs clean frames: data with a field gs, or a plain video, of which pairs are made")

    def judged_clip(self, source: Source, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The mean of both pictures, the corrected frames, and the clean ones, all in 8 bits; of pairs without clean
        ones none of these, and frames at the run's own instants.
        """
        source = self.to_judge(source)
        known = "gs" in source.fields
        sample = source.sample(i, ["clip", "gs"] if known else ["clip"])
        pair = to_unit(sample["clip"], self.value_range).astype(np.float32)
        clean = to_unit(sample["gs"], self.value_range).astype(np.float32) if known else np.zeros(0)
        instants = np.linspace(0, 1, len(clean)).tolist() if known else self.instants_of({})
        made = np.stack(self.corrected(pair, instants, source.names[i]))
        raw = np.broadcast_to(pair.mean(0), made.shape)
        rounded = [np.rint(np.clip(x, 0, 1) * 255).astype(np.float32) / 255 for x in (raw, made)]
        return rounded[0], rounded[1], clean

    def judged(self) -> dict[str, Any]:
        """Without a border, as the paper."""
        return {"shave": self.options.shave}


class Corrector(nn.Module):
    """A pair of whole pictures to global-shutter frames.

    Args:
        network: of three frames.
        instants: intervals of the read-out where no instants are named.
        pad: "replicate" or "circular", to multiples of 32 at the right and below.
    """

    reach = 0

    def __init__(self, network: DRSC, instants: int, pad: str) -> None:
        super().__init__()
        self.network, self.instants, self.pad = network, instants, pad

    def forward(self, pair: Tensor, instants: list[float] | None = None) -> Tensor:
        """Frames at instants.

        Args:
            pair: (N, C, 2, H, W) in [0, 1], read downwards and upwards.
            instants: in [0, 1], rising; None: evenly from start to end. Start and end come from the first and the last
                of the network's calls.

        Returns:
            (N, C, K, H, W) in [0, 1].
        """
        wanted = [k / self.instants for k in range(self.instants + 1)] if instants is None else instants
        height, width = pair.shape[3:]
        rows = networks.frame_rows(height, width, pair).expand(len(pair), -1, -1, -1)
        beyond = (0, -width % MULTIPLE, 0, -height % MULTIPLE)
        first, second, rows = (self._larger(x, beyond) for x in (pair[:, :, 0], pair[:, :, 1], rows))
        between = [at for at in wanted if 0 < at < 1] or [0.5]
        found: dict[float, Tensor] = {}
        for at in between:
            codes = networks.time_codes(rows, three_instants(rows.new_full((len(pair),), at)))
            made = self._call(first, second, codes)
            found.setdefault(0.0, made[:, 0])
            found[at], found[1.0] = made[:, 1], made[:, 2]
        return torch.stack([found[at] for at in wanted], 2)[..., :height, :width]

    def _larger(self, x: Tensor, beyond: tuple[int, int, int, int]) -> Tensor:
        return F.pad(x, beyond, mode=self.pad) if any(beyond) else x

    def _call(self, first: Tensor, second: Tensor, codes: Tensor) -> Tensor:
        if max(first.shape[2:]) <= _LARGE or torch.compiler.is_compiling():
            made: Tensor = self.network(first, second, codes).frames
            return made
        channels = first.shape[1]

        def part(x: Tensor) -> Tensor:
            cut = F.pad(x, (0, -x.shape[3] % MULTIPLE, 0, -x.shape[2] % MULTIPLE), mode="replicate")
            made: Tensor = self.network(*cut.split((channels, channels, codes.shape[1]), 1)).frames
            return made.flatten(1, 2)[..., : x.shape[2], : x.shape[3]]

        whole = networks.tiled(part, torch.cat((first, second, codes), 1), tile=_LARGE // 2, overlap=_OVERLAP)
        return whole.unflatten(1, (-1, channels))


def three_instants(at: Tensor) -> Tensor:
    """Start, instants (N,) and end: (N, 3)."""
    return torch.stack((torch.zeros_like(at), at, torch.ones_like(at)), 1)
