"""Which of a run's processes this is, before any process group is up: Lightning's, torchrun's or SLURM's numbering."""

from __future__ import annotations

import os
from collections.abc import Mapping


def process_rank(environ: Mapping[str, str] | None = None) -> int:
    """Number of this process among all of the run, over all machines; 0 for a single one.

    torchrun sets RANK; srun sets SLURM_PROCID for every task of a step; Lightning's own launcher sets LOCAL_RANK and
    NODE_RANK for the processes that it starts.
    """
    env = os.environ if environ is None else environ
    if "RANK" in env:
        return int(env["RANK"])
    if int(env.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in env:
        return int(env["SLURM_PROCID"])
    return int(env.get("LOCAL_RANK", "0")) + 1000 * int(env.get("NODE_RANK", "0"))


def process_count(environ: Mapping[str, str] | None = None) -> int:
    """How many processes torchrun or srun started; 1 for a single one, and in a batch script outside of srun."""
    env = os.environ if environ is None else environ
    if "TORCHELASTIC_RUN_ID" in env:
        return int(env.get("WORLD_SIZE", "1"))
    return int(env.get("SLURM_STEP_NUM_TASKS", "1"))


def local_rank(environ: Mapping[str, str] | None = None) -> int:
    """Number of this process among those of its machine: which of the machine's GPUs is its own."""
    env = os.environ if environ is None else environ
    return int(env.get("LOCAL_RANK", env.get("SLURM_LOCALID", "0")))


def is_first(environ: Mapping[str, str] | None = None) -> bool:
    """Whether this is the process that makes folders, writes files and prints."""
    return process_rank(environ) == 0


def launch_id(environ: Mapping[str, str] | None = None) -> str | None:
    """What all processes of one launch have in common, and no other launch; None for a single process."""
    env = os.environ if environ is None else environ
    if "TORCHELASTIC_RUN_ID" in env:
        parts = [env["TORCHELASTIC_RUN_ID"], env.get("MASTER_PORT", ""), env.get("TORCHELASTIC_RESTART_COUNT", "0")]
        if env.get("WORLD_SIZE") == env.get("LOCAL_WORLD_SIZE"):  # on one machine, torchrun is the parent of them all;
            parts.append(str(os.getppid()))  # its own id and port are the same every time, unless others are asked for
        return "-".join(["torchrun", *parts])
    if int(env.get("SLURM_NTASKS", "1")) > 1 and "SLURM_JOB_ID" in env:
        return f"slurm-{env['SLURM_JOB_ID']}-{env.get('SLURM_STEP_ID', '0')}-{env.get('SLURM_RESTART_COUNT', '0')}"
    return None
