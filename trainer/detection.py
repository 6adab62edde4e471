"""Fused pictures in the layout that YOLO trainers read, to judge fusion by detection (Table 5 of the paper).

    python -m trainer.detection export --weights W --data M3FD --labels M3FD/Annotation --out yolo/ours
    python -m trainer.detection export --method results/SwinFusion --data M3FD --labels M3FD/Annotation --out yolo/swin

writes images/train, images/val, labels/train, labels/val and data.yaml. Which pair is for training depends on its name
and --seed alone, so all methods share one split. Labels are found by the stem of the pair: YOLO .txt, or Pascal VOC
.xml, which is converted. A pair without labels is left out and named, because trainers take it for an empty scene;
without --labels all pictures are written. How to train a detector on them: docs/evaluation.md.

Exit code: 0, or 2 for wrong use and files that cannot be read.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from pyldfusion.cli.parser import Parser
from pyldfusion.errors import InputError, PyldfusionError
from pyldfusion.media import atomic_path, write_image
from pyldfusion.media.roots import find_roots

from .evaluation.labels import read_boxes, read_text, voc_names
from .evaluation.scoring import Method, Pictures, network, read_sample

__all__ = ["Exported", "export", "main"]


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        train, val: numbers of pictures.
        unlabelled: names of the pairs that were left out.
        names: of the classes.
    """

    train: int
    val: int
    unlabelled: tuple[str, ...]
    names: tuple[str, ...]


def parser() -> Parser:
    p = Parser("python -m trainer.detection", __doc__)
    p.usage = "%(prog)s export (--weights FILE | --method DIR) --data DIR --out DIR [option ...]"
    add = p.add_argument
    add("verb", choices=("export",), metavar="export", help="write pictures and labels")
    method = p.add_mutually_exclusive_group(required=True).add_argument
    method("--weights", metavar="FILE", help=".safetensors or .onnx, full or lite")
    method("--method", metavar="DIR", help="pictures that another program has fused, named as the pairs are")
    add("--data", required=True, metavar="DIR", help="pairs: folders ir/ and vi/, Ir/ and Vis/, ..., or a CSV")
    add("--labels", type=Path, metavar="DIR", help="a .txt (YOLO) or .xml (Pascal VOC) for each pair")
    add("--out", type=Path, required=True, metavar="DIR", help="a new or empty folder")
    add(
        "--names",
        metavar="A,B,...|FILE",
        help="classes in the order of their numbers, with commas between, or a file with one on each line (default: "
        "classes.txt among the labels, else those in the XML files, sorted)",
    )
    add(
        "--val",
        default="0.2",
        metavar="SHARE|FILE",
        help="for validation: a share of the pairs, or a file with a stem on each line (default: %(default)s)",
    )
    add("--seed", type=int, default=0, metavar="N", help="of the split, where --val is a share (default: %(default)s)")
    add("--device", help="cpu, cuda or cuda:N, for the network (default: a usable GPU, else the CPU)")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    args = parser().parse(sys.argv[1:] if argv is None else argv)
    try:
        method = Pictures(args.method).method() if args.method else network(args.weights, args.device)
        done = export(method, args.data, args.out, args.labels, args.names, args.val, args.seed)
    except PyldfusionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if done.unlabelled:
        more = f" and {len(done.unlabelled) - 10} more" if len(done.unlabelled) > 10 else ""
        print(f"left out, without labels: {', '.join(done.unlabelled[:10])}{more}", file=sys.stderr)
    print(f"{args.out}: {done.train} pictures for training, {done.val} for validation")
    if args.labels:
        print(f"classes: {', '.join(done.names)}\nnow: yolo detect train data={(args.out / 'data.yaml').resolve()}")
    return 0


def export(
    method: Method,
    data: str | Path,
    out: Path,
    labels: Path | None = None,
    names: str | None = None,
    val: str = "0.2",
    seed: int = 0,
) -> Exported:
    """Fuse every pair in colour and lay pictures and labels out.

    Args:
        method: gives the fused pictures.
        data: one set of pairs, as :func:`pyldfusion.media.roots.find_roots` takes it.
        out: a new or empty folder.
        labels: folder of label files; None: pictures alone.
        names, val, seed: as the options say.

    Raises:
        InputError: a set without pairs or labels, a label that does not fit, a folder that is in use.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"{out} is in use; expected a new or empty folder: a mixture of two exports misleads")
    roots = find_roots([data])
    for root in roots:
        for name, reason in root.skipped.items():
            print(f"{name} is left out: {reason}", file=sys.stderr)
    files = {file.name.partition("/")[2]: file for root in roots for file in root.files}
    if len(files) < sum(len(root.files) for root in roots):
        raise InputError(f"{data} has several sets with the same names; export one of them at a time")
    found = _label_files(labels) if labels else {}
    classes = _classes(names, labels, [found[stem] for stem in files if stem in found]) if labels else []
    unlabelled = tuple(file.name for stem, file in files.items() if labels and stem not in found)
    wanted = {stem: file for stem, file in files.items() if not labels or stem in found}
    if not wanted:
        raise InputError(
            f"{labels} has labels of none of the {len(files)} pairs; expected such as {next(iter(files))}.txt"
        )
    if missing := [file.name for file in wanted.values() if not method.has(file)]:
        raise InputError(f"{len(missing)} pairs have no fused picture, the first is {missing[0]}")
    held = _validation(val, seed, wanted)
    texts = {}
    for stem in tqdm(wanted if labels else (), desc="labels", unit="pair", disable=None):  # flaws before hours of work
        texts[stem] = read_boxes(found[stem], classes, read_sample(wanted[stem]).size)
    for stem, file in tqdm(wanted.items(), desc="fuse", unit="pair", disable=None):
        part = "val" if stem in held else "train"
        if labels:  # first: a picture without labels would be taken for an empty scene
            with atomic_path(out / "labels" / part / f"{stem}.txt") as path:
                path.write_text(texts[stem], "utf-8")
        write_image(out / "images" / part / f"{stem}.png", method.fuse(read_sample(file)))
    for part in ("train", "val"):
        (out / "images" / part).mkdir(parents=True, exist_ok=True)
    if labels:
        with atomic_path(out / "data.yaml") as path:
            # JSON's strings are YAML's too; without a path, pictures are sought beside this file
            lines = [f"  {number}: {json.dumps(name)}\n" for number, name in enumerate(classes)]
            path.write_text("train: images/train\nval: images/val\nnames:\n" + "".join(lines), "utf-8")
    return Exported(len(wanted) - len(held), len(held), unlabelled, tuple(classes))


def _label_files(folder: Path) -> dict[str, Path]:
    """Stem -> file; the text where there are both kinds."""
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; expected one of YOLO .txt or Pascal VOC .xml files")
    files = sorted(folder.iterdir(), key=lambda path: path.suffix.lower(), reverse=True)
    found = {path.stem: path for path in files if path.suffix.lower() in (".xml", ".txt")}
    return {stem: path for stem, path in found.items() if path.name != "classes.txt"}


def _classes(names: str | None, labels: Path, found: Sequence[Path]) -> list[str]:
    """The classes as they were given, or as the labels have them."""
    if names is None and (labels / "classes.txt").is_file():
        names = str(labels / "classes.txt")
    if names is not None and os.path.isfile(names):
        listed = read_text(Path(names)).splitlines()
    elif names is not None:
        listed = names.split(",")
    elif found and all(path.suffix.lower() == ".xml" for path in found):
        listed = voc_names(found)
    else:
        raise InputError("the labels have numbers for classes; expected --names People,Car,... or their classes.txt")
    classes = [name.strip() for name in listed if name.strip()]
    if not classes or len(set(classes)) < len(classes):
        raise InputError(f"classes are {', '.join(classes) or 'none'}; expected names that differ, at least one")
    return classes


def _validation(val: str, seed: int, stems: Collection[str]) -> set[str]:
    """The stems kept for validation."""
    if os.path.isfile(val):
        listed = {Path(line.strip()).stem for line in read_text(Path(val)).splitlines() if line.strip()}
        held = listed & set(stems)
        if not held:
            raise InputError(f"{val} lists none of the pairs; expected a stem such as {next(iter(stems))} on each line")
        return held
    try:
        share = float(val)
    except ValueError:
        share = -1
    if not 0 <= share <= 1:
        raise InputError(f"--val is {val!r}; expected a share such as 0.2, or a file with a stem on each line")

    def draw(stem: str) -> bytes:
        return hashlib.sha256(f"{seed} {stem}".encode()).digest()

    return set(sorted(stems, key=draw)[: round(share * len(stems))])


if __name__ == "__main__":
    sys.exit(main())
