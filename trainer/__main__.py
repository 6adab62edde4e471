"""``python -m trainer``: train a generator from a folder of pairs."""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import subprocess
import sys
from pathlib import Path

import torch

from pyldfusion.errors import PyldfusionError

from .config import PRESETS, load_config
from .data import Batches, load_pairs
from .loop import train
from .provenance import describe_data
from .supervised import Supervised


def parser() -> argparse.ArgumentParser:
    known = ", ".join(sorted(path.stem for path in PRESETS.glob("*.toml")))
    p = argparse.ArgumentParser("trainer", description="Train the fusion network.")
    p.add_argument("--preset", required=True, help=f"one of {known}, or a .toml file")
    p.add_argument("--data", required=True, action="append", metavar="DIR", help="folder with ir/ and vi/; repeatable")
    p.add_argument("--only", default="", metavar="PREFIX", help="use the pairs whose names begin with this")
    p.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change one option")
    p.add_argument("--out", type=Path, help="folder of the run (default: runs/PRESET)")
    p.add_argument("--resume", action="store_true", help="go on with the run in --out")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--threads", type=int, help="CPU threads")
    return p


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0 complete, 3 interrupted and resumable, 2 wrong use."""
    argv = sys.argv[1:] if argv is None else argv
    args = parser().parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        config = load_config(args.preset, args.set)
        out = args.out or Path("runs") / Path(args.preset).stem
        pairs = load_pairs(args.data, args.only)
        print(pairs.report(), flush=True)
        metadata = {
            "recipe": Path(args.preset).stem,
            "seed": str(config.run.seed),
            "date": datetime.date.today().isoformat(),
            "commit": commit(),
            "clip_trained": "no",
            **describe_data(args.data, pairs),
        }
        out.mkdir(parents=True, exist_ok=True)
        (out / "config.json").write_text(json.dumps(config.as_dict(), indent=1))
        batches = Batches(pairs, config.data, config.augment, config.run.seed, config.run.steps)
        complete = train(config, batches, Supervised(config), out, metadata, args.resume, args.device)
    except PyldfusionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not complete:
        again = [*argv, *([] if args.resume else ["--resume"])]
        print(f"interrupted and saved; go on with:\n  python -m trainer {shlex.join(again)}", file=sys.stderr)
        return 3
    print(f"weights: {out / 'weights.safetensors'}")
    return 0


def commit() -> str:
    """The commit of the source tree this runs from, "" outside one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


if __name__ == "__main__":
    sys.exit(main())
