"""``python -m trainer``: train a generator from folders of pairs. Also under ``torchrun``."""

from __future__ import annotations

import argparse
import datetime
import os
import shlex
import subprocess
import sys
from pathlib import Path

import torch

from pyldfusion.artefact import open_artefact
from pyldfusion.cli.parser import Parser
from pyldfusion.errors import InputError, PyldfusionError

from .build import make_batches, make_objective, needs_clip, total_steps
from .config import PRESETS, Config, load_config
from .data.history import History
from .data.pairs import load_pairs
from .loop import train
from .run.checkpoint import load_state
from .run.distributed import join
from .run.precision import resolve
from .run.resume import check_same_run
from .run.validation import Validation
from .towers.prompts import report_content


def parser() -> Parser:
    known = ", ".join(sorted(path.stem for path in PRESETS.glob("*.toml")))
    p = Parser("python -m trainer", "Train the fusion network.")
    p.add_argument(
        "--data",
        required=True,
        action="append",
        metavar="DIR",
        help="folder with infrared and visible subfolders, or a CSV manifest; =2 behind it: twice an epoch; repeatable",
    )
    p.add_argument("--preset", default="paper", help=f"a .toml file or one of {known} (default: %(default)s)")
    p.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change one option")
    p.add_argument("--only", default="", metavar="PREFIX", help="use the pairs whose names begin with this")
    p.add_argument("--out", type=Path, help="folder of the run (default: runs/PRESET)")
    p.add_argument("--resume", action="store_true", help="go on with the run in --out")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--threads", type=int, help="CPU threads of a process")
    return p


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0 complete, 3 interrupted and resumable, 130 interrupted before or behind the steps
    (what was saved before is whole), 2 an error that the message explains."""
    argv = sys.argv[1:] if argv is None else argv
    args = parser().parse(argv)
    out = args.out or Path("runs") / Path(args.preset).stem
    try:
        if args.threads is not None:
            if args.threads < 1:
                raise InputError(f"--threads is {args.threads}; expected at least 1")
            torch.set_num_threads(args.threads)
        config = load_config(args.preset, args.set)
        check_out(out, args.resume)
        with join(args.device) as (ranks, device):
            config = resolve(config, device)
            if args.resume:  # before anything is loaded
                check_same_run(load_state(out / "state.pt"), config, out)
            pairs = load_pairs(args.data, config.data, args.only, least_side(config))
            if ranks.first:
                print(pairs.report(), flush=True)
            if needs_clip(config) and config.prompts.content:
                matched = report_content(config.prompts.content, (pair.name for pair in pairs.pairs))
                if ranks.first:
                    print(matched, flush=True)
            batches = make_batches(pairs, config, ranks)
            if ranks.first:
                print(f"{total_steps(config, batches)} steps, {batches.steps_per_epoch} an epoch", flush=True)
            looks = ranks.first and config.validation.data
            validation = Validation(config, device) if looks else None  # its pairs are read now, before the towers
            objective = make_objective(config, device)
            metadata = describe_run(config, args)
            begins_from = config.network.start and not args.resume
            history = History.of(pairs, open_artefact(config.network.start).metadata if begins_from else None)
            complete = train(config, batches, objective, out, metadata, history, validation, args.resume, device, ranks)
            if ranks.first and complete:
                print(f"weights: {out / 'weights.safetensors'}")
            elif ranks.first:
                again = shlex.join([*argv, *([] if args.resume else ["--resume"])])
                where = ", on every machine," if ranks.world > ranks.local else ""
                print(f"interrupted and saved; go on{where} with:", file=sys.stderr)
                print(f"  {ranks.launcher} -m trainer {again}", file=sys.stderr)
    except (PyldfusionError, OSError) as error:  # of the system: a log on a full disk
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # while pairs or towers are loaded, or a second Ctrl-C
        print("interrupted; nothing was saved since the last checkpoint, if there is one", file=sys.stderr)
        return 130
    return 0 if complete else 3


def check_out(out: Path, resume: bool) -> None:
    """See to the folder of the run before anything is loaded.

    Raises:
        InputError: it holds a run already, or there is none to resume, or it cannot be made.
    """
    there = (out / "state.pt").exists()
    if there and not resume:
        raise InputError(f"{out} already holds a run; go on with it by --resume, or take another --out")
    if resume and not there:
        raise InputError(f"nothing to resume: {out / 'state.pt'} does not exist; start the run without --resume")
    parent = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)):
        raise InputError(f"--out is {out}; no folder can be made there: {parent} is no folder to write to")


def least_side(config: Config) -> int:
    """Side of the crops that pictures must serve, in pixels; smaller ones are reflect-padded or skipped."""
    return config.samples.crop if config.run.objective == "language" else 32


def describe_run(config: Config, args: argparse.Namespace) -> dict[str, str]:
    """What the weights' file says of where they come from, besides their data."""
    clip = needs_clip(config) and config.clip.pretrained != "none"
    return {
        "recipe": Path(args.preset).stem,
        "seed": str(config.run.seed),
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "clip_trained": "yes" if clip else "no",
        "clip": f"{config.clip.model} {Path(config.clip.pretrained).name}" if clip else "",
    }


def commit() -> str:
    """The commit of the source tree this runs from, "" outside one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


if __name__ == "__main__":
    sys.exit(main())
