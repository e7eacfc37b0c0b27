"""``export``: what a run learnt, for use without selftaught."""

from __future__ import annotations

import argparse

from selftaught.cli._command import Command
from selftaught.cli.options import add_partial


def _options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("run", help="folder of the run")
    text = "safetensors, timm, onnx or peft (a LoRA alone); default by the ending of --out, else safetensors"
    sub.add_argument("--format", help=text)
    sub.add_argument("--out", help="file or folder; default inside the run")
    add_partial(sub)


def _call(options: argparse.Namespace) -> None:
    import selftaught

    print(selftaught.load(options.run, partial=options.partial).export(options.format, options.out))


COMMAND = Command("export", "the encoder for use without selftaught", _options, _call, order=40)
