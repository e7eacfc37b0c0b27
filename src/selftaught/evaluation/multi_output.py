"""How good several answers of one network are: each head, the best single one, the best of all, and the worst."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from selftaught._words import plural
from selftaught.errors import UserError
from selftaught.evaluation._protocol import protocol
from selftaught.evaluation.restoration import CEILING, check_names, check_unit, psnr, ssim
from selftaught.evaluation.result import Number, Result

__all__ = ["multi_output"]


@protocol("heads", "PSNR of each head of a network with several outputs", inputs="images")
def multi_output(
    predictions: Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    *,
    single: int | None = None,
    names: Sequence[str] | None = None,
) -> Result:
    """PSNR over the heads of a network with several outputs, every image rounded to 8 bits first.

    Args:
        predictions: per image (heads, H, W, C) float in [0, 1].
        targets: per image (H, W, C) float in [0, 1].
        single: the head that was chosen on other images than these (a validation split); None leaves its number out.
        names: what each image is called.

    Returns:
        ``Result`` "heads": ``best_single`` (of the chosen head: the deployable number), ``best_overall`` (the best head
        of each image: an oracle, it needs the sharp image), ``worst`` (the worst of each), ``mean_head``, ``psnr_0``,
        ... of each head, ``win_rate_0``, ...: on which share of the images it was the best, and ``ssim_single``. All
        are figures per image, averaged. Figures: ``psnr`` (images, heads) with ``names``.

    Raises:
        UserError: counts or sizes that don't match, a head that isn't there, NaN, bytes or floats of another range.
    """
    if len(predictions) != len(targets) or not len(targets):
        raise UserError(f"{len(predictions)} predictions for {len(targets)} targets; pass one for each, at least one")
    heads = len(predictions[0])
    check_names(names, targets, "target")
    if single is not None and single not in range(heads):
        raise UserError(f"single={single}: there are heads 0 to {heads - 1}")
    table = np.zeros((len(targets), heads))
    structure = np.zeros(len(targets))
    for i, (made, target) in enumerate(zip(predictions, targets, strict=True)):
        if made.shape != (heads, *target.shape):
            raise UserError(f"predictions[{i}]: shape {made.shape} where {(heads, *target.shape)} is needed")
        check_unit(f"predictions[{i}]", made)
        check_unit(f"targets[{i}]", target)
        rounded, wanted = _eight_bit(made), _eight_bit(target)
        table[i] = [min(psnr(one, wanted), CEILING) for one in rounded]
        structure[i] = ssim(rounded[single or 0], wanted)
    wins = np.eye(heads)[table.argmax(1)]
    columns = {} if single is None else {"best_single": table[:, single], "ssim_single": structure}
    columns |= {"best_overall": table.max(1), "worst": table.min(1), "mean_head": table.mean(1)}
    columns |= {f"psnr_{h}": table[:, h] for h in range(heads)}
    columns |= {f"win_rate_{h}": wins[:, h] for h in range(heads)}
    numbers = {name: Number.bootstrap(values) for name, values in columns.items()}
    dead = int((wins.sum(0) == 0).sum())
    note = "best_overall is an oracle: it takes the head that the sharp image shows to be the best"
    note += f"; {dead} of {heads} heads were the best on none of {plural(len(targets), 'image')}" if dead else ""
    called = list(names) if names is not None else [str(i) for i in range(len(targets))]
    return Result("heads", numbers, {"psnr": table, "names": called}, note)


def _eight_bit(image: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(image, 0, 1) * 255)
