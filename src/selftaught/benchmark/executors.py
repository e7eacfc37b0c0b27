"""Where cells are worked on: in this process, in processes that share out the cores, or on a cluster by submitit."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

from selftaught.errors import UserError, require

Job = tuple[Any, ...]
Work = Callable[..., str]
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_STOP_SECONDS = 120.0
_GRACE_SECONDS = 120.0


class Watcher(Protocol):
    """What is told about jobs, by their position."""

    def started(self, position: int) -> None:
        """A job has begun."""

    def ended(self, position: int, problem: str) -> None:
        """A job has ended; ``problem`` is "" or one line."""


class Serial:
    """One job after the other in this process; the machine's cores are shared inside each."""

    def run(self, work: Work, jobs: Sequence[Job], watcher: Watcher) -> None:
        """Do all jobs; what ``work`` raises ends it."""
        for position, job in enumerate(jobs):
            watcher.started(position)
            watcher.ended(position, work(*job))


class Processes:
    """Several jobs at a time, each worker process with a share of the cores to itself.

    The shares are disjoint: a worker is bound to its cores (where the system can do that) and its libraries get as
    many threads. A process that dies fails its job alone; another takes its place. Ctrl-C and SIGTERM stop the workers,
    which save their runs.

    Args:
        workers: how many.

    Raises:
        UserError: fewer than one.
    """

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise UserError(f"--workers {workers}: must be at least 1")
        self.workers = workers
        self._alive: dict[Any, _Worker] = {}

    def run(self, work: Work, jobs: Sequence[Job], watcher: Watcher) -> None:
        """Do all jobs.

        Raises:
            KeyboardInterrupt: a signal stopped it; the workers have ended.
        """
        shares = core_shares(min(self.workers, max(1, len(jobs))))
        waiting = list(enumerate(jobs))
        with _signals_raise():
            try:
                for number, share in enumerate(shares):
                    self._start(number, share, work)
                self._serve(waiting, work, watcher)
            except BaseException:
                self._stop()
                raise
        for worker in list(self._alive.values()):
            worker.send(None)
            worker.process.join()
        self._alive.clear()

    def _start(self, number: int, share: list[int], work: Work) -> None:
        worker = _Worker(number, share, work)
        self._alive[worker.pipe] = worker

    def _serve(self, waiting: list[tuple[int, Job]], work: Work, watcher: Watcher) -> None:
        while waiting or any(worker.position is not None for worker in self._alive.values()):
            for worker in self._alive.values():
                if worker.position is None and waiting:
                    worker.position, job = waiting.pop(0)
                    watcher.started(worker.position)
                    worker.send(job)
            for pipe in wait([w.pipe for w in self._alive.values() if w.position is not None], timeout=1.0):
                self._receive(self._alive[pipe], work, watcher)

    def _receive(self, worker: _Worker, work: Work, watcher: Watcher) -> None:
        assert worker.position is not None
        position = worker.position
        try:
            problem = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join()
            del self._alive[worker.pipe]
            self._start(worker.number, worker.share, work)
            problem = f"its process ended with code {worker.process.exitcode} (out of memory, or killed from outside)"
        worker.position = None
        watcher.ended(position, problem)

    def _stop(self) -> None:
        """SIGTERM to every worker, which saves its run; after two minutes SIGKILL."""
        for worker in self._alive.values():
            if worker.process.is_alive():
                worker.process.terminate()
        until = time.monotonic() + _STOP_SECONDS
        for worker in self._alive.values():
            worker.process.join(max(0.1, until - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._alive.clear()


class _Worker:
    """A process and this side of its pipe."""

    def __init__(self, number: int, share: list[int], work: Work) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.number, self.share = number, share
        self.position: int | None = None
        self.process = context.Process(target=_work_off, args=(other, share, work))
        with _environment(_variables(number, len(share))):
            self.process.start()
        other.close()

    def send(self, job: Job | None) -> None:
        """Hand over a job, or None to end; a dead process shows when its answer is waited for."""
        try:
            self.pipe.send(job)
        except OSError:
            return


def _work_off(pipe: Connection, share: list[int], work: Work) -> None:
    """What a worker does: bind itself to its cores, then job after job until None or the end of the other side."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the parent decides, with SIGTERM
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    settle(share)
    try:
        while True:
            job = pipe.recv()
            if job is None:
                return
            pipe.send(work(*job))
    except (EOFError, OSError, KeyboardInterrupt):
        return
    except Exception as error:
        if type(error).__name__ != "Interrupted":
            raise


def settle(share: list[int]) -> None:
    """Bind this process to its cores and give every library as many threads."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, share)
    import cv2
    import torch

    torch.set_num_threads(min(len(share), torch.get_num_threads()))
    cv2.setNumThreads(len(share))


def core_shares(workers: int) -> list[list[int]]:
    """The cores that this process may use, dealt into disjoint shares; more workers than cores share them in turn."""
    from selftaught.engine.precision import cores

    own = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(cores()))
    if workers >= len(own):
        return [[own[k % len(own)]] for k in range(workers)]
    size, extra = divmod(len(own), workers)
    starts = [k * size + min(k, extra) for k in range(workers + 1)]
    return [own[a:b] for a, b in itertools.pairwise(starts)]


def _variables(number: int, threads: int) -> dict[str, str]:
    """Environment of a worker: its threads (fewer where the user asked for fewer), and one GPU of several, in turn."""
    found = {}
    for name in _THREAD_VARIABLES:
        given = os.environ.get(name, "")
        found[name] = given if given.isdigit() and int(given) < threads else str(threads)
    import torch

    if torch.cuda.device_count() > 1:
        visible = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
        gpus = visible or [str(gpu) for gpu in range(torch.cuda.device_count())]
        found["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
    return found


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Environment variables for the processes started inside."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, old in before.items():
            if old is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = old


@contextmanager
def _signals_raise() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, where this is the main thread; the error says which signal it was."""

    def stop(signum: int, frame: object) -> None:
        raise KeyboardInterrupt(signum)

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Cluster:
    """A job array on SLURM through submitit, or submitit's local processes; a preempted job is queued again.

    Args:
        kind: "slurm", "local" (submitit's own processes) or "debug" (in this process).
        folder: where submitit keeps its scripts and logs; every node must see it.
        settings: ``minutes`` (limit of a cell), ``cpus``, ``gpus``, ``memory_gb``, ``partition``, ``account``,
            ``at_once`` (jobs of the array at a time), ``extra`` (further sbatch parameters by name).
        poll: seconds between looks at the jobs.

    Raises:
        UserError: submitit is not installed; an unknown setting.
    """

    KINDS = ("slurm", "local", "debug")
    SETTINGS = ("minutes", "cpus", "gpus", "memory_gb", "partition", "account", "at_once", "extra")

    def __init__(self, kind: str, folder: str | Path, settings: dict[str, Any], poll: float = 5.0) -> None:
        if kind not in self.KINDS:
            raise UserError(f"--cluster {kind}: it may be {', '.join(self.KINDS)}")
        for name in settings:
            if name not in self.SETTINGS:
                raise UserError(f"cluster has no setting {name!r}; it knows {', '.join(self.SETTINGS)}")
        submitit: Any = require("submitit", "cluster")
        self.poll = poll
        self.executor = submitit.AutoExecutor(folder=str(folder), cluster=kind)
        self.executor.update_parameters(**self.parameters(kind, settings))

    @staticmethod
    def parameters(kind: str, settings: dict[str, Any]) -> dict[str, Any]:
        """Submitit's names for the settings."""
        found: dict[str, Any] = {"name": "selftaught", "timeout_min": int(settings.get("minutes", 240)), "nodes": 1}
        names = {"cpus": "cpus_per_task", "gpus": "gpus_per_node", "memory_gb": "mem_gb"}
        found |= {names[key]: int(settings[key]) for key in names if key in settings}
        if kind == "slurm":
            slurm = {"partition": "slurm_partition", "account": "slurm_account", "at_once": "slurm_array_parallelism"}
            found |= {slurm[key]: settings[key] for key in slurm if key in settings}
            if settings.get("extra"):
                found["slurm_additional_parameters"] = dict(settings["extra"])
        return found

    def run(self, work: Work, jobs: Sequence[Job], watcher: Watcher) -> None:
        """Submit all jobs as one array and wait for them.

        Raises:
            KeyboardInterrupt: the jobs are cancelled; what they saved stays.
        """
        if not jobs:
            return
        task = _Task(work)
        with self.executor.batch():
            sent = [self.executor.submit(task, *job) for job in jobs]
        left, begun = dict(enumerate(sent)), set()
        try:
            while left:
                for position, job in list(left.items()):
                    if position not in begun and job.state in ("RUNNING", "COMPLETED", "FAILED"):
                        begun.add(position)
                        watcher.started(position)
                    if job.done():
                        del left[position]
                        watcher.ended(position, _outcome(job))
                if left:
                    time.sleep(self.poll)
        except BaseException:
            for job in left.values():
                job.cancel()
            raise


class _Task:
    """A job that submitit can queue again after a timeout or a preemption: the run in its folder is gone on with."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def __call__(self, *job: Any) -> str:
        try:
            return self.work(*job)
        except Exception as error:
            if type(error).__name__ != "Interrupted":
                raise
        time.sleep(_GRACE_SECONDS)  # SIGTERM came, the run is saved; submitit's own signal follows and queues it again
        return "stopped by the cluster; the same command goes on"

    def checkpoint(self, *job: Any) -> Any:
        """Called by submitit when SLURM asks the job to go."""
        submitit: Any = require("submitit", "cluster")
        return submitit.helpers.DelayedSubmission(self, *job)


def _outcome(job: Any) -> str:
    error = job.exception()
    if error is None:
        return str(job.result())
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"job {job.job_id}: {lines[-1].strip()[:300] if lines else type(error).__name__}"


def choose(workers: int, cluster: str | None, folder: Path, settings: dict[str, Any]) -> Any:
    """The executor for what the user asked.

    Raises:
        UserError: both asked for, or a number of workers below 1.
    """
    if cluster is not None:
        if workers != 1:
            raise UserError("--workers is for this machine, --cluster for a cluster: give one of them")
        return Cluster(cluster, folder, settings)
    return Serial() if workers == 1 else Processes(workers)
