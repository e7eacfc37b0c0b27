"""What both forms of iSogCLR share: the rates of their state."""

from __future__ import annotations

from selftaught.errors import UserError
from selftaught.objectives._common import check_numbers, check_positive

STARTS = ("mean", "zero")


def check_rates(
    gamma: float, beta_u: float, rho: float, eta: float, tau_min: float, tau_max: float, clip: float
) -> None:
    """Refuse rates of the state outside their ranges.

    Raises:
        UserError: it names the rate and its range.
    """
    check_numbers(gamma=gamma, beta_u=beta_u, rho=rho, eta=eta, tau_min=tau_min, tau_max=tau_max, clip=clip)
    check_positive(gamma=gamma, tau_min=tau_min, clip=clip)
    if not (gamma <= 1 and 0 <= beta_u <= 1):
        raise UserError(f"gamma must lie in (0, 1] and beta_u in [0, 1], got {gamma} and {beta_u}")
    if not (rho >= 0 and eta >= 0):
        raise UserError(f"rho and eta must be 0 or more, got {rho} and {eta}")
    if not tau_min <= tau_max:
        raise UserError(f"tau_min must not be above tau_max, got {tau_min} and {tau_max}")
