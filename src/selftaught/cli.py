"""The command line: parses, calls, prints; decides nothing. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from selftaught import __version__, cli_evaluate
from selftaught.catalog.rules import Count, Range
from selftaught.cli_options import Parser, checked, parse_train, peek
from selftaught.errors import UserError

_EXAMPLES = """examples:
  selftaught demo                                     train, evaluate and report on the built-in photographs
  selftaught methods denoise                          what is there for a job
  selftaught train dcl --data photos/                 an encoder from a folder of images
  selftaught train c-bsn --data noisy/                a denoiser from noisy images alone
  selftaught evaluate runs/dcl-photos --data labelled/
  selftaught apply runs/dcl-photos more/ --out embeddings.parquet
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 2 bad input, 130 or 143 stopped by a signal and resumable."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    try:
        return _dispatch(arguments)
    except UserError as error:
        if debug:
            raise
        print(f"selftaught: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("selftaught: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug or type(error).__name__ != "Interrupted":
            raise
        signum = error.signum  # type: ignore[attr-defined]
        print(f"selftaught: stopped and saved; go on with: {_resume_line()}", file=sys.stderr)
        return 128 + int(signum)


def _resume_line() -> str:
    return f"selftaught train --resume {os.environ.get('SELFTAUGHT_RUN_FOLDER', 'RUN')}"


def _dispatch(arguments: list[str]) -> int:
    parser = _parser()
    if not arguments:
        parser.print_help()
        return 0
    if arguments[0] == "train":
        return _train(arguments[1:])
    if arguments[0] == "apply":
        # torch's OpenMP threads spin while they wait, and so take the cores from the loader's processes. The variable
        # is read once, when torch is loaded, and costs a training step a twelfth: so for this command alone.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    options = parser.parse_args(arguments)
    return int(options.call(options) or 0)


def _parser() -> Parser:
    parser = Parser(
        prog="selftaught",
        description="Learning without labels: train, evaluate, apply, export and report.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"selftaught {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)

    def command(name: str, call: Callable[[argparse.Namespace], Any], help: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help)
        sub.set_defaults(call=call)
        return sub

    sub = command("methods", _methods, "the catalogue: list, search, or one method's card")
    sub.add_argument("query", nargs="*", help="words to search for, or the slug of one method")
    for name in ("modality", "job", "family"):
        sub.add_argument(f"--{name}", help=f"only this {name}")
    command("train", _methods, "train a method: selftaught train METHOD --data SOURCE [options]")
    _add_run_commands(command)
    sub = command("data", _data, "built-in data sets, here or missing; check a source of your own")
    sub.add_argument("action", choices=["list", "fetch", "check"])
    sub.add_argument("source", nargs="?", help="a source (check) or the name of a built-in one (fetch)")
    sub.add_argument("--modality", help="kind of samples (image, series, clip, volume ...); default found out")
    sub = command("doctor", _doctor, "this machine: cores, precision, measured throughput, what limits it")
    sub.add_argument("--data", help="a source to measure reading of; default photos")
    sub = command("demo", _demo, "the main job on the built-in photographs: train, evaluate, report")
    sub.add_argument("--out", help="folder of the run")
    checked(sub, "--steps", Count, "shorter or longer than the default")
    _add_benchmark(command("benchmark", _benchmark, "a grid of runs, MedMNIST's protocol, or the papers' claims"))
    return parser


def _add_benchmark(sub: argparse.ArgumentParser) -> None:
    built_in = "medmnist | claims | projection-study"
    sub.add_argument("what", metavar=f"GRID.yaml | {built_in}", help="a grid's file, or one of those built in")
    sub.add_argument("--out", help="folder for results; a grid goes on there")
    checked(sub, "--workers", Count, "cells at a time on this machine (grids)")
    sub.add_argument("--cluster", help="slurm: every cell a job, through submitit (grids)")
    checked(sub, "--seeds", Count, "repetitions; default the claim's own (claims, medmnist)")
    sub.add_argument("--method", help="one method; default all that are built (claims)")
    sub.add_argument("--full", action="store_true", help="the longer form (claims)")
    sub.add_argument("--quick", action="store_true", help="the small form, offline, half an hour on 2 cores (medmnist)")
    sub.add_argument("--data", help="folder with MedMNIST's .npz files; default downloads them (medmnist)")
    checked(sub, "--size", Literal[28, 64, 128, 224], "side of the images (medmnist)")
    checked(sub, "--steps", Count, "steps in place of the recipes' (medmnist, projection-study)")
    sub.add_argument("--probe", help="linear, linear-sgd, knn or finetune (medmnist)")
    sub.add_argument("--write", metavar="FILE", help="write the grid as YAML to edit, and do no more (medmnist)")
    for name, kind in _LISTS.items():
        sub.add_argument(f"--{name}", type=_several(kind), metavar="A,B", help=f"{name}, in place of all (medmnist)")


_LISTS: dict[str, type] = {
    "methods": str, "sets": str, "fractions": float, "encoders": str, "initialisations": str, "scorers": str,
}  # fmt: skip
_CLAIMS_TAKE = ("seeds", "method", "full", "out")
_GRID_TAKES = ("out", "workers", "cluster")
_STUDY_TAKES = ("out", "steps")
_MEDMNIST_TAKES = (*_GRID_TAKES, "seeds", "quick", "data", "size", "steps", "probe", "write", *_LISTS)


def _several(kind: type) -> Callable[[str], list[Any]]:
    def parse(text: str) -> list[Any]:
        return [kind(part) for part in text.split(",") if part]

    return parse


def _add_run_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    sub = command("evaluate", cli_evaluate.evaluate, "evaluate a run, beside an untrained encoder and the raw input")
    cli_evaluate.add_options(sub)
    _add_partial(sub)
    sub = command("apply", _apply, "embeddings to a table, or restored images to a folder; resumable")
    sub.add_argument("run", help="folder of the run")
    sub.add_argument("input", help="source to apply it to")
    sub.add_argument("--out", required=True, help=".parquet or .npy file, or a folder for images")
    checked(sub, "--workers", Annotated[int, Range(-1)], "loader processes; -1 chooses", default=-1)
    checked(sub, "--tile", Count, "largest side restored in one piece (default 512)", default=512)
    sub.add_argument("--overwrite", action="store_true", help="replace what another run wrote to --out")
    sub.add_argument("--scale", help="depth in metres: median=4.2, height=1.65 (the camera's), baseline=0.1 (a step)")
    sub.add_argument("--points", action="store_true", help="depth: a point cloud .ply beside every frame's map")
    sub.add_argument("--intrinsics", help="depth: the camera of these videos, as at training")
    sub.add_argument("--adapt", action="store_true", help="let the method adapt to the samples first, where it can")
    _add_partial(sub)
    sub = command("export", _export, "the encoder for use without selftaught")
    sub.add_argument("run", help="folder of the run")
    sub.add_argument("--format", default="safetensors", help="safetensors, timm or onnx")
    sub.add_argument("--out", help="file or folder; default inside the run")
    _add_partial(sub)
    sub = command("report", _report, "the HTML page of a run, or several side by side")
    sub.add_argument("runs", nargs="+", metavar="run", help="folders of runs")
    sub.add_argument("--out", help="file to write; default RUN/report.html, or comparison.html")


def _add_partial(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--partial", action="store_true", help="take an interrupted run as its last checkpoint left it")


# ---- train -------------------------------------------------------------------------------------------------------
def _train(arguments: list[str]) -> int:
    slug = arguments[0] if arguments and not arguments[0].startswith("-") else None
    resume, config = peek(arguments, "--resume"), peek(arguments, "--config")
    if slug is None:
        slug = _method_of(resume, config)
    else:
        arguments = arguments[1:]
    if slug is None:
        if "--help" in arguments or "-h" in arguments:
            slug = "simclr"
        else:
            raise UserError("which method? selftaught train METHOD --data SOURCE (see selftaught methods)")
    given = parse_train(slug, arguments)
    quiet, report = given.pop("quiet", False), given.pop("report", True)
    data, resume, config = given.pop("data", None), given.pop("resume", None), given.pop("config", None)
    if resume and resume != "auto":
        os.environ["SELFTAUGHT_RUN_FOLDER"] = str(resume)
    import selftaught
    from selftaught.run.ranks import is_first

    run = selftaught.train(slug, data, config=config, resume=resume, quiet=quiet, **given)
    if is_first():
        if report:
            run.report(say=_say(quiet))
        print("\n".join(run.summary()))
    return 0


def _method_of(resume: str | None, config: str | None) -> str | None:
    if resume is None and config is None:
        return None
    from pathlib import Path

    from selftaught.run.layout import Layout, read_yaml

    if resume == "auto":
        return None
    content = Layout(resume).read_config() if resume is not None else read_yaml(Path(str(config)))
    if "method" not in content:
        raise UserError(f"{config}: names no method")
    return str(content["method"])


# ---- the other commands ------------------------------------------------------------------------------------------
def _say(quiet: bool = False) -> Callable[[str], None]:
    def say(line: str) -> None:
        if not quiet:
            print(line, file=sys.stderr, flush=True)

    return say


def _methods(options: argparse.Namespace) -> None:
    from selftaught import catalog

    words = options.query
    filters = {name: getattr(options, name) for name in ("modality", "job", "family")}
    if len(words) == 1 and not any(filters.values()) and words[0] in {c.slug for c in catalog.all_cards()}:
        print(catalog.card_text(words[0]))
        return
    found = catalog.search(" ".join(words), **filters)
    if not found:
        raise UserError(f"no method matches {' '.join(words)!r}; selftaught methods lists all")
    print(catalog.table_text(found))


def _apply(options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.progress import Progress

    import selftaught

    run = selftaught.load(options.run, partial=options.partial)
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("apply", total=None)
        written = run.apply(
            options.input,
            options.out,
            workers=options.workers,
            tile=options.tile,
            overwrite=options.overwrite,
            adapt=options.adapt,
            scale=options.scale,
            points=options.points,
            intrinsics=options.intrinsics,
            progress=lambda done: bar.update(task, completed=done),
        )
    print(f"{written} written to {options.out}" + (f" ({written.kept} were there already)" if written.kept else ""))
    for why, count in written.left_out.items():
        print(f"{count} left out: {why}")
    if written.skipped:
        print(f"{len(written.skipped)} could not be used, listed in {written.listed}")


def _export(options: argparse.Namespace) -> None:
    import selftaught

    print(selftaught.load(options.run, partial=options.partial).export(options.format, options.out))


def _report(options: argparse.Namespace) -> None:
    import selftaught

    if len(options.runs) == 1 and not options.out:
        print(selftaught.load(options.runs[0]).report(say=_say()))
        return
    print(selftaught.compare(options.runs, options.out or "comparison.html", say=_say()))


def _data(options: argparse.Namespace) -> int:
    from selftaught import data

    if options.action == "list":
        for row in data.list_embedded():
            state = "here" if row.present else f"missing: install {row.package}"
            print(f"{row.name:14s} {row.modality:7s} {row.what}  [{state}]")
        return 0
    if options.source is None:
        raise UserError(f"selftaught data {options.action} SOURCE: which source?")
    if options.action == "fetch":
        print(data.fetch(options.source))
        return 0
    report = data.check(options.source, modality=options.modality)
    print(report)
    return 1 if report.problems else 0


def _doctor(options: argparse.Namespace) -> None:
    from selftaught import doctor

    print(doctor.examine(options.data or "photos"))


def _demo(options: argparse.Namespace) -> None:
    from selftaught.benchmark import demo

    run = demo.run(out=options.out, steps=options.steps, say=_say())
    print("\n".join(run.summary()))


def _benchmark(options: argparse.Namespace) -> int:
    built_in = {"claims": _CLAIMS_TAKE, "medmnist": _MEDMNIST_TAKES, "projection-study": _STUDY_TAKES}
    takes = built_in.get(options.what, _GRID_TAKES)
    given = {name: value for name, value in vars(options).items() if value is not None and value is not False}
    given = {name: value for name, value in given.items() if name not in ("what", "call")}
    for name in given:
        if name not in takes:
            raise UserError(f"--{name} does not go with benchmark {options.what}; it takes --{', --'.join(takes)}")
    if options.what == "claims":
        from selftaught.benchmark import claims

        claims.run(given.pop("method", None), say=_say(), **given)
        return 0
    if options.what == "projection-study":
        from selftaught.benchmark import projection_study

        projection_study.run(say=_say(), **given)
        return 0
    try:
        finished = _run_grid(options.what, given)
    except KeyboardInterrupt:
        print("selftaught: stopped and saved; the same command goes on", file=sys.stderr)
        return 130
    if finished is not None:
        print("\n".join(finished.summary()))
    return 0


def _run_grid(what: str, given: dict[str, Any]) -> Any:
    if what == "medmnist":
        from selftaught.benchmark import medmnist

        if given.get("quick") and "size" in given:
            raise UserError("--size goes with MedMNIST's files; the quick benchmark's images have one size")
        return medmnist.run(say=_say(), **given)
    from selftaught.benchmark import grid

    return grid.run(what, say=_say(), **given)


if __name__ == "__main__":
    raise SystemExit(main())
