"""The tables of papers: EN CC SD EI VIFF of networks and of other people's fused pictures, on sets of pairs.

    python -m trainer.evaluate --weights runs/paper/weights.safetensors --data test/TNO --data test/RoadScene
    python -m trainer.evaluate --weights lite --weights full --method SwinFusion=results/SwinFusion --data test/M3FD

The mean over the pairs of each set, at native size unless --short-side says otherwise; colour goes to grey as MATLAB's
rgb2gray does. CC is Pearson's correlation; the LDFusion paper's column CC holds CC_uint8 (docs/metrics.md).

Exit code: 0, or 2 for wrong use and files that cannot be read.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from pyldfusion.artefact import NAMES
from pyldfusion.cli.parser import Parser
from pyldfusion.errors import InputError, PyldfusionError
from pyldfusion.media import atomic_path
from pyldfusion.media.roots import Root, find_roots

from .evaluation.scoring import Method, Pictures, network, score
from .evaluation.tables import FORMATS, summarise

__all__ = ["COLUMNS", "evaluate", "main", "open_methods"]

#: The paper's five, and the variant of CC that its tables hold.
COLUMNS = ("EN", "CC", "CC_uint8", "SD", "EI", "VIFF")


def parser() -> Parser:
    p = Parser("python -m trainer.evaluate", __doc__)
    add = p.add_argument
    add("--weights", action="append", default=[], metavar="[NAME=]FILE", help=".safetensors or .onnx, full or lite")
    add("--method", action="append", default=[], metavar="NAME=DIR", help="fused pictures, named as the pairs are")
    add("--data", action="append", required=True, metavar="DIR", help="a set of pairs: folders ir/ and vi/, or a CSV")
    add("--format", choices=FORMATS, help="of the table (default: what --out ends in, else markdown)")
    add("--out", type=Path, metavar="FILE", help="write the table here instead of printing it")
    add("--short-side", type=int, default=0, metavar="N", help="resize pictures to a short side of N pixels first")
    add("--common", action="store_true", help="only pairs that every method has")
    add("--limit", type=int, default=0, metavar="N", help="only the first N pairs of each set")
    add("--device", help="cpu, cuda or cuda:N, for the networks (default: a usable GPU, else the CPU)")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    args = parser().parse(sys.argv[1:] if argv is None else argv)
    try:
        for name, number in (("--short-side", args.short_side), ("--limit", args.limit)):
            if number < 0:
                raise InputError(f"{name} is {number}; expected a number of at least 0")
        style = args.format or next(
            (k for k, (s, _) in FORMATS.items() if args.out and args.out.suffix == s), "markdown"
        )
        methods = open_methods(args.weights, args.method, args.device)
        text = evaluate(args.data, methods, style, args.short_side, args.limit, args.common)
        if args.out is None:
            print(text, end="")
        else:
            with atomic_path(args.out) as part:
                part.write_text(text, "utf-8")
    except PyldfusionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def evaluate(
    data: Sequence[str | Path],
    methods: dict[str, Method],
    style: str = "markdown",
    short_side: int = 0,
    limit: int = 0,
    common: bool = False,
) -> str:
    """Measure, and write the table; what a method lacks is named on stderr.

    Args:
        data: sets of pairs, as :func:`pyldfusion.media.roots.find_roots` takes them.
        methods: by name, as :func:`open_methods` gives them.
        style: one of :data:`trainer.evaluation.tables.FORMATS`.
        short_side, limit, common: as in :func:`trainer.evaluation.scoring.score`.

    Raises:
        InputError: a set without pairs, a method without any of them, pictures that cannot be read or whose sizes
            differ.
    """
    roots = find_roots(data)
    _tell_missing(roots, methods, limit)
    total = sum(len(root.files[: limit or None]) for root in roots)
    with tqdm(total=total, desc="evaluate", unit="pair", disable=None) as bar:
        scores = {
            root.label: score(
                root, methods, short_side=short_side, limit=limit, common=common, advance=lambda: bar.update()
            )
            for root in roots
        }
    if not any(rows for each in scores.values() for rows in each.values()):
        raise InputError("no pair is in all of the methods' folders; leave out --common, or one of them")
    text = FORMATS[style][1](summarise(scores, "all sets"), COLUMNS)
    return text + ("\nCC_uint8 is what the LDFusion paper's tables hold under CC.\n" if style == "markdown" else "")


def open_methods(weights: Sequence[str], folders: Sequence[str], device: str | None = None) -> dict[str, Method]:
    """The methods that ``[NAME=]FILE`` and ``NAME=DIR`` ask for.

    Raises:
        InputError: nothing asked for, no name, a name given twice, no such folder.
        ArtefactError, DependencyError, DeviceError: as :class:`pyldfusion.Fuser`.
    """
    asked: dict[str, tuple[str, bool]] = {}
    for text, folder in (*((text, False) for text in weights), *((text, True) for text in folders)):
        if folder and "=" not in text:
            raise InputError(f"--method {text}: expected NAME=DIR, such as SwinFusion=results/SwinFusion")
        name, path = _named(text)
        if name in asked:
            raise InputError(f"two methods are called {name!r}; give them names, as --weights NAME=FILE")
        asked[name] = path, folder
    if not asked:
        raise InputError("nothing to evaluate; expected --weights FILE or --method NAME=DIR")
    return {
        name: Pictures(path).method() if folder else network(path, device) for name, (path, folder) in asked.items()
    }


def _named(text: str) -> tuple[str, str]:
    """``NAME=PATH`` or a path, whose name is that of the file, or of the run if all runs have such a file."""
    name, equals, path = text.partition("=")
    if equals and name and not Path(text).exists():
        return name, path
    if text in NAMES:
        return text, text
    file = Path(text)
    return (file.resolve().parent.name if file.stem == "weights" else file.stem), text


def _tell_missing(roots: Sequence[Root], methods: dict[str, Method], limit: int) -> None:
    for root in roots:
        for name, reason in root.skipped.items():
            print(f"{name} is left out: {reason}", file=sys.stderr)
    for name, method in methods.items():
        files = [file for root in roots for file in root.files[: limit or None]]
        missing = [file.name for file in files if not method.has(file)]
        if len(missing) == len(files):
            raise InputError(
                f"the folder of {name!r} has a picture of none of the {len(files)} pairs; expected names such as "
                f"{files[0].vis.stem}.png"
            )
        if missing:
            more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
            print(f"{name} has no picture of {', '.join(missing[:10])}{more}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
