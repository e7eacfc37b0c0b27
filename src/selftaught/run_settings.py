"""What belongs to a run and not to its method: data, length, machine, bookkeeping. Free of heavy imports."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from selftaught.catalog.rules import Count, Natural, NonNegative, Positive, Range, Seed, Share, Workers, check_options


@dataclass
class Settings:
    """Settings of one run, the same for every method; a method's own options are in its ``Config``."""

    data: str = ""
    """Source of the samples: a folder, glob, file, built-in data set, hf:, torchvision: or wds: name; given several
    times, all of them."""
    streams: dict[str, str] = field(default_factory=dict)
    """Sources of the further streams that a method reads, by role (each has an option of its own)."""
    split: Literal["auto", "train", "pretrain", "test", "all"] = "auto"
    """Part of the source to train on; auto: train where it has labels, groups or given parts, else all; pretrain: train
    and what has no label beside it, which auto takes where there is some."""
    by: str = "auto"
    """How train and test are told apart: auto, given, ratio:0.2, group or list:FILE."""
    out: str | None = None
    """Folder of the run; default runs/METHOD-DATA, numbered when it exists."""
    preset: str | None = None
    """Named recipe of the method; default laptop on a CPU, else the paper's defaults."""
    noise: str = ""
    """Noise to add to clean images first: gaussian:SIGMA or correlated:SIGMA[:KERNEL], SIGMA in grey levels of 255."""
    then: list[str] | None = None
    """Further sources to learn from, one task after another (give it several times)."""
    class_tasks: Natural = 0
    """Divide the data's classes into so many tasks, learnt one after another; 0 and 1 don't."""
    continual: Literal["none", "er", "gdumb", "joint"] = "none"
    """With several tasks: er replays a memory of past ones, gdumb learns from the memory alone and anew, joint all at
    once."""
    memory: Share = 0.1
    """Share of every past task that is remembered (er, gdumb)."""
    keep_optimizer: bool = True
    """A further task goes on with the optimiser's moments; off begins them anew."""
    anneal: str | None = None
    """Run whose constant phase (--schedule infinite or wsd) this run branches off from, for a model to use now."""
    extend: str | None = None
    """Finished run to train further, in a folder of its own, to --steps or --epochs in all."""
    anneal_from: Natural = 0
    """Step at which --anneal branches off; it finds that out."""
    curate: str = ""
    """Learn from a part that is chosen anew by the encoder's own features as it learns: 0.2 for a fifth, or options of
    dynamic-curation's choice such as rho=0.2,select_after=2,select_every=5."""
    init: str | None = None
    """Weights to start from: a run's folder, a file (.safetensors, .pth), timm:NAME, hf:REPO or
    open_clip:NAME/WEIGHTS."""
    epochs: Positive | None = None
    """Passes over the data; the preset's when neither epochs nor steps are given."""
    steps: Count | None = None
    """Optimiser steps; overrides epochs."""
    batch_size: Count = 256
    """Samples per step and process."""
    validation: str = ""
    """Samples to watch once an epoch: a share of the training samples held out (0.1), or a source. Their loss is logged
    as val_loss."""
    keep_weights: Literal["auto", "last", "best"] = "auto"
    """Weights that the run ends with: the last, or the best, those of the lowest validation loss (training loss where
    nothing is held out); auto: best with validation, unless ema averages them."""
    patience: Natural = 0
    """With the best weights kept: epochs without a lower loss after which training ends; 0 never."""
    accumulate: Count = 1
    """Batches per optimiser step."""
    clip: NonNegative = 0.0
    """Largest gradient norm; 0 does not clip."""
    ema: Annotated[float, Range(0, below=1)] = 0.0
    """Decay of the averaged weights that the exported model takes; 0 averages nothing."""
    seed: Seed = 0
    """Fixes weights, order and views."""
    workers: Workers = -1
    """Loader processes; -1 chooses by the machine."""
    precision: Literal["auto", "32", "bf16", "16"] = "auto"
    """auto: bf16 autocast where the processor or GPU has it."""
    compile: bool = False
    """Compile the networks (torch.compile); needs a C++ compiler, or Triton on a GPU, and a minute or two first."""
    recompute: bool = False
    """Compute the activations of blocks again in the backward pass (activation checkpointing): less memory, a third
    more time."""
    device: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    """Where to train."""
    devices: Count = 1
    """Devices (on a CPU: processes) per node."""
    nodes: Count = 1
    """Machines; torchrun and SLURM environments are recognised."""
    strategy: str = "auto"
    """Lightning's, such as ddp or fsdp; or fsdp2, which spreads a transformer's blocks over processes."""
    view_device: Literal["auto", "cpu", "model"] = "auto"
    """Where views are made: in the loader's processes (cpu) or batched on the model's device."""
    max_skip: Share = 0.05
    """Largest share of unusable samples before the run stops."""
    checkpoint_minutes: NonNegative = 5.0
    """Minutes between checkpoints."""
    checkpoint_steps: Natural = 0
    """Steps between checkpoints; 0 leaves it to checkpoint_minutes."""
    knn_every: Share = 0.1
    """Share of the run between the scores of ``monitor`` (when labels exist); 0 turns them off."""
    monitor: Literal["knn", "linear", "both"] = "knn"
    """What is scored while it learns: k-NN, a linear probe on frozen features, or both."""
    loggers: list[str] | None = None
    """Besides metrics.csv: tensorboard (default), wandb, mlflow; none for nothing more."""
    log_every: Count = 10
    """Steps between lines of metrics.csv."""
    cache: bool = False
    """Pack the decoded images or clips once into a memory-mapped file and train from that."""
    cache_side: Natural = 0
    """Shorter side in pixels that ``cache`` packs at; 0: twice the views' (256 and more) for images, 8/7 of it for
    clips."""

    def __post_init__(self) -> None:
        check_options(self)
