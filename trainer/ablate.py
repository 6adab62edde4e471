"""Every ablation of the paper, one run after the other, then one table of all.

    python -m trainer.ablate --data DIR --test test/TNO --test test/RoadScene -- --set clip.pretrained=ViT-B-32.pt
    python -m trainer.ablate --list

Runs lie in --out, one folder each. Complete ones are skipped and interrupted ones go on, so the same command can be
given again at any time. What stands behind -- goes to every run of `python -m trainer`.

Exit code: 0, 3 when a run was interrupted (all is saved), 2 for wrong use.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pyldfusion.cli.parser import Parser
from pyldfusion.errors import InputError, PyldfusionError

from . import evaluate

__all__ = ["ABLATIONS", "Ablation", "main"]


@dataclass(frozen=True)
class Ablation:
    """One difference from the paper's recipe.

    Attributes:
        preset: name of the preset.
        shows: what is learnt from it.
        where: in the paper.
        numbers: what the paper reports there, "" where it shows pictures only.
        options: ``section.key=value`` on top of the preset.
    """

    preset: str
    shows: str
    where: str
    numbers: str = ""
    options: tuple[str, ...] = ()


#: Name -> ablation. The paper's numbers are EN CC SD EI VIFF, its CC being our CC_uint8.
ABLATIONS = {
    "paper": Ablation(
        "paper",
        "the whole method, to compare with",
        "Tables 1, 2 and 3",
        "all: 7.420 .758 49.450 69.706 .728; TNO: 7.417 .741 54.744 59.643 .871; "
        "RoadScene: 7.529 .792 52.511 76.861 .622; mAP@0.5 .794, mAP@0.5:0.95 .529",
    ),
    "without-language": Ablation(
        "paper-without-language",
        "what the language-driven loss adds to the fidelity loss",
        "Table 1, W/O LDL",
        "all: 6.652 .739 31.465 42.899 .291",
    ),
    "without-direction": Ablation(
        "paper-without-direction", "what the direction loss adds to Phi and fidelity", "not in the paper"
    ),
    "without-phi": Ablation(
        "paper-without-phi",
        "what keeps the result from leaning towards one source",
        "Table 1, W/O Phi; Fig. 9, lambda 0",
        "all: 7.172 .754 42.579 59.466 .588",
    ),
    "without-clear": Ablation(
        "paper-without-clear",
        'what "a clear image" does: haze, low light',
        "Table 1, W/O CI",
        "all: 7.322 .752 45.906 67.424 .582",
    ),
    "without-background": Ablation(
        "paper-without-background",
        'what "detailed background" does: buildings, trees',
        "Table 1, W/O DB",
        "all: 7.185 .550 41.209 60.878 .550",
    ),
    "without-objects": Ablation(
        "paper-without-objects",
        'what "salient objects" does, judged by detection',
        "Table 2, W/O SO; Fig. 8",
        "mAP@0.5 .778, mAP@0.5:0.95 .520",
    ),
    "swapped-prompts": Ablation(
        "paper-swapped-prompts",
        "that the sources' prompts must fit the sources",
        "Table 3",
        "TNO: 6.976 .734 38.484 42.214 .521; RoadScene: 7.140 .786 40.553 52.087 .438",
    ),
    "lambda-2": Ablation("paper", "too much of Phi degrades the result", "Fig. 9", options=("loss.regulariser=2.0",)),
    "alpha-0.5": Ablation("paper", "too little fidelity: black halos", "Fig. 10", options=("loss.fidelity=0.5",)),
    "alpha-2": Ablation("paper", "too much fidelity: details lost", "Fig. 10", options=("loss.fidelity=2.0",)),
}


def parser() -> Parser:
    p = Parser("python -m trainer.ablate", __doc__)
    add = p.add_argument
    add("--data", action="append", default=[], metavar="DIR", help="pairs to train on, as python -m trainer takes them")
    add("--only", action="append", metavar="NAME", choices=ABLATIONS, help="run this one; repeatable (default: all)")
    add("--out", type=Path, default=Path("runs/ablation"), metavar="DIR", help="default: %(default)s")
    add("--test", action="append", default=[], metavar="DIR", help="a set of pairs for the table; repeatable")
    add("--device", help="of the networks in the table (the trainer's own goes behind --)")
    add("--list", action="store_true", help="say what each ablation shows and what the paper reports, and end")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    ours, extra = (argv[: argv.index("--")], argv[argv.index("--") + 1 :]) if "--" in argv else (argv, [])
    args = parser().parse(ours)
    if args.list:
        print(listing())
        return 0
    names = list(dict.fromkeys(args.only or ABLATIONS))
    try:
        if not args.data:
            raise InputError("no data to train on; expected --data DIR")
        if clash := {"--data", "--out", "--preset", "--resume"} & {option.partition("=")[0] for option in extra}:
            raise InputError(f"{', '.join(sorted(clash))} behind --: expected options that are the same for every run")
        for name in names:
            code = run(name, args.data, args.out / name, extra)
            if code == 3:
                print(f"go on with:\n  python -m trainer.ablate {shlex.join(argv)}", file=sys.stderr)
            if code:
                return code
        if args.test:
            methods = evaluate.open_methods(
                [f"{name}={args.out / name / 'weights.safetensors'}" for name in names], [], args.device
            )
            print(evaluate.evaluate(args.test, methods), end="")
    except PyldfusionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run(name: str, data: Sequence[str], out: Path, extra: Sequence[str] = ()) -> int:
    """Train one ablation, or go on with it, unless it is complete; the exit code of the trainer.

    Raises:
        InputError: ``out/summary.json`` is not what a run leaves.
    """
    from .__main__ import main as train

    if is_complete(out):
        print(f"{name}: complete, in {out}", flush=True)
        return 0
    resume = ["--resume"] if (out / "state.pt").is_file() else []
    print(f"{name}: {'goes on' if resume else 'begins'}, in {out}", flush=True)
    ablation = ABLATIONS[name]
    options = [part for option in ablation.options for part in ("--set", option)]
    roots = [part for root in data for part in ("--data", root)]
    return train(["--preset", ablation.preset, *roots, "--out", str(out), *extra, *options, *resume])


def is_complete(out: Path) -> bool:
    """Whether the run in a folder says that it is.

    Raises:
        InputError: its ``summary.json`` cannot be read.
    """
    path = out / "summary.json"
    try:
        return bool(json.loads(path.read_text("utf-8"))["complete"])
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not the summary of a run ({error}); remove the folder, or choose another --out"
        ) from error


def listing() -> str:
    """A few lines for each ablation."""
    lines = []
    for name, ablation in ABLATIONS.items():
        change = " ".join(f"--set {option}" for option in ablation.options)
        lines += [f"{name}  (--preset {ablation.preset}{' ' + change if change else ''})", f"    {ablation.shows}"]
        lines.append(f"    {ablation.where}{': ' + ablation.numbers if ablation.numbers else ''}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
