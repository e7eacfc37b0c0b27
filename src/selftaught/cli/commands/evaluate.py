"""The command ``evaluate``: its options, and its results as tables. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import argparse

from selftaught import catalog
from selftaught.catalog.rules import Count
from selftaught.cli._command import Command
from selftaught.cli.options import Sources, add_partial, checked, names, say

_SUITE = (
    "reference", "labels", "by", "attribute", "threshold", "neighbours", "size", "grid", "fraction", "channel", "shave",
    "lpips", "recipe", "tune", "templates", "head", "adapt",
)  # fmt: skip


def _options(sub: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    sub.add_argument("run", help="folder of the run")
    sub.add_argument(
        "--data",
        action=Sources,
        help="labelled source (or several), or a folder in the protocol's layout; default the run's own",
    )
    sub.add_argument(
        "--protocol",
        metavar="A,B",
        help=f"{', '.join(catalog.protocols())}; default those that the data admit",
    )
    sub.add_argument("--clean", help="folder of clean images of the same names (restoration)")
    checked(sub, "--seeds", Count, "draws of labelled subsets (default 5)", default=5)
    checked(sub, "--limit", Count, "images to restore at most (default 50)", default=50)
    group = sub.add_argument_group("options of single protocols")

    def add(name: str, text: str, **extra: object) -> None:
        group.add_argument(name, help=text, default=argparse.SUPPRESS, **extra)  # type: ignore[arg-type]

    add("--fraction", "share of each class's training labels (finetune), such as 0.01", type=float, metavar="X")
    add("--recipe", "how to fine-tune (finetune): adamw (default), vit, mae, mae-large, mae-huge, beit, beit-large, "
        "sit, barlow-twins, cvrl", metavar="NAME")  # fmt: skip
    add("--tune", "changes to the recipe (finetune), such as epochs=20,layer_decay=0.75,ema=0.99; also batch, lr, "
        "base_lr, weight_decay, warmup_epochs, drop_path, mixup, cutmix, smoothing, crop, randaug, erasing, head",
        metavar="A=X,B=Y")  # fmt: skip
    add("--reference", "folder to search (geolocalisation, fairness-retrieval), class folders to learn the classes "
        "from (restricted, fairness-labels, hit-rate; default the run's data), what the start learnt from "
         "(forgetting), further labelled sets A,B (refinement, cross-set), or a run to compare with (unlearning)"
    )  # fmt: skip
    add("--labels", "YAML or JSON: label set to classes (fairness-labels), or folder to classes (restricted)")
    add("--by", "columns of metadata.csv to part the images by", type=names, metavar="A,B")
    add("--attribute", "column that neighbours should share (fairness-retrieval; default gender)", metavar="COLUMN")
    add("--threshold", "least confidence of a label (fairness-labels; default 0.1)", type=float, metavar="X")
    add("--channel", "compare the luma (y) or all channels (rgb) (restoration; default the method's custom)",
        choices=["y", "rgb"])  # fmt: skip
    add("--shave", "pixels left out at every border (restoration; default the method's custom)", type=int, metavar="N")
    add("--lpips", "distance by VGG16's features too (restoration): on fetches its weights (528 MB), auto (default) "
        "takes them where they are", choices=["auto", "on", "off"])  # fmt: skip
    add("--neighbours", "k of the nearest neighbours (knn, layerwise, segmentation-knn: default 20; anomaly: 5; "
        "point-knn: 1)", type=int, metavar="K")  # fmt: skip
    add("--size", "shorter side at which images are embedded; default the run's own", type=int, metavar="N")
    add("--templates", "prompts of a class (zero-shot): seven, plain, name, clip, or a file of lines with {}; default "
        "seven", metavar="FILE")  # fmt: skip
    add("--head", "what is trained on the frozen encoder (segmentation; default linear)", choices=["linear", "upernet"])
    add("--grid", "cells of a map that are averaged apart (layerwise), such as 2x1; default 1x1", metavar="RxC")
    add("--adapt", "let the method adapt to the clips first, as in apply (restoration)", nargs="?", const=True,
        choices=["set", "video"])  # fmt: skip
    add_partial(sub)


def _call(options: argparse.Namespace) -> None:
    """Run the protocols, print their tables and write the report."""
    import selftaught

    run = selftaught.load(options.run, partial=options.partial)
    found = run.evaluate(
        options.data,
        protocols=names(options.protocol or "") or None,
        clean=options.clean,
        seeds=options.seeds,
        limit=options.limit,
        say=say(),
        **{name: value for name, value in vars(options).items() if name in _SUITE},
    )
    print(f"\n{found}")
    if run.partial:
        print("\nthe run is not finished: this is not stored, and no report is written")
        return
    place = run.evaluation(options.data)
    for name in found:
        if place.items(name).exists():
            print(f"{name}, each sample, the worst first: {place.items(name)}")
    run.report()
    print(f"report: {run.layout.report}")


COMMAND = Command(
    "evaluate", "evaluate a run, beside an untrained encoder and the raw input", _options, _call, order=20
)
