"""Fusion quality: means of the metrics over sets of pairs, for our weights and for plain methods beside them.

``python -m benchmarks quality --data DIR [--data DIR] [--weights NAME=FILE] [--results NAME=DIR] [--beside FILE]
[--json FILE] [--sheet FILE]``

It measures as ``python -m trainer.evaluate`` does, with three differences: classical methods are measured too,
everything is on luma, and beside the usual metrics stand ``noise``, how much stronger the finest detail is than in
the visible picture where that is flat (1 is the same), ``grid``, how many grey levels of a flat place repeat every 8
pixels, ``halo``, how much steeper than its sources it is beside edges (1 is the same), and ``white``, which part of
what is hottest is plain white. Contrast alone raises EN, SD, EI and VIFF; these tell whether noise, a decoder's grid,
halos or burnt-out people came with it.

Others' networks are no part of the project, but their numbers are kept: ``--beside FILE`` shows the rows of an earlier
``--json`` beside those measured now, if it was measured on these very pairs. ``results/quality-peers.json`` is one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pyldfusion.artefact import open_artefact
from pyldfusion.errors import InputError, PyldfusionError
from pyldfusion.media.roots import Root, find_roots
from trainer.evaluation.scoring import Method, Pictures, network, read_sample, score
from trainer.evaluation.tables import Row, markdown, summarise

__all__ = ["edge_halo", "flat_grid", "flat_noise", "hot_white", "laplacian_pyramid_fusion", "main", "mean_fusion"]

KEYS = ("EN", "CC", "SD", "EI", "VIFF", "Qabf", "MI", "SSIM", "noise", "grid", "halo", "white")


def mean_fusion(ir: np.ndarray, vis: np.ndarray) -> np.ndarray:
    """The mean of the two pictures, uint8 [H,W]."""
    return np.rint((ir.astype(np.float32) + vis) / 2).astype(np.uint8)


def laplacian_pyramid_fusion(ir: np.ndarray, vis: np.ndarray, levels: int = 5) -> np.ndarray:
    """The larger coefficient of each band, the mean of the bases (Burt & Adelson 1983, OpenCV's pyramids)."""

    def split(plane: np.ndarray) -> list[np.ndarray]:
        bands = []
        for _ in range(levels):
            if min(plane.shape) < 4:
                break
            small = cv2.pyrDown(plane)
            bands.append(plane - cv2.pyrUp(small, dstsize=plane.shape[::-1]))
            plane = small
        return [*bands, plane]

    *bands_ir, base_ir = split(ir.astype(np.float32))
    *bands_vis, base_vis = split(vis.astype(np.float32))
    fused = (base_ir + base_vis) / 2
    for a, b in zip(reversed(bands_ir), reversed(bands_vis), strict=True):
        fused = cv2.pyrUp(fused, dstsize=a.shape[::-1]) + np.where(np.abs(a) > np.abs(b), a, b)
    return np.rint(np.clip(fused, 0, 255)).astype(np.uint8)


def flat_noise(fused: np.ndarray, ir: np.ndarray, vis: np.ndarray) -> float:
    """Strength of the finest detail of ``fused`` over that of ``vis``, where both sources are flat.

    Flat is the tenth of the picture with the least local deviation (17 px) of the two sources together. Half a grey
    level is added to both, so that a flawless sky does not divide by zero.
    """

    def spread(x: np.ndarray, sigma: float) -> np.ndarray:
        mean = cv2.GaussianBlur(x, (0, 0), sigma)
        return np.sqrt(np.maximum(cv2.GaussianBlur(x * x, (0, 0), sigma) - mean * mean, 0))

    planes = [x.astype(np.float32) for x in (fused, ir, vis)]
    roughness = sum(spread(x, 4.0) / (x.std() + 1) for x in planes[1:])
    flat = roughness <= np.quantile(roughness, 0.1)
    fine = [x - cv2.GaussianBlur(x, (0, 0), 1.5) for x in planes]
    return float((fine[0][flat].std() + 0.5) / (fine[2][flat].std() + 0.5))


def flat_grid(fused: np.ndarray, ir: np.ndarray, vis: np.ndarray, period: int = 8, cells: int = 5) -> float:
    """What of ``fused`` repeats every ``period`` pixels where both sources are flat, in grey levels (root mean square).

    The pattern of a place is the mean of ``cells`` x ``cells`` neighbouring cells less its own mean; flat is the tenth
    of the places with the least variance of the two sources together. NaN where not one place fits into the picture.
    """
    height, width = (side // period for side in fused.shape)
    if min(height, width) < cells:
        return float("nan")

    def places(x: np.ndarray) -> np.ndarray:
        """[places, cells, cells, period, period]"""
        x = x[: height * period, : width * period].astype(np.float64)
        cut = x.reshape(height, period, width, period).swapaxes(1, 2)
        windows = np.lib.stride_tricks.sliding_window_view(cut, (cells, cells), axis=(0, 1))
        return windows.reshape(-1, period, period, cells, cells).transpose(0, 3, 4, 1, 2)

    roughness = sum(places(x).var(axis=(1, 2, 3, 4)) / (x.astype(np.float64).var() + 1) for x in (ir, vis))
    flat = places(fused)[roughness <= np.quantile(roughness, 0.1)]
    return float(flat.mean(axis=(1, 2)).std(axis=(1, 2)).mean())


def edge_halo(fused: np.ndarray, ir: np.ndarray, vis: np.ndarray) -> float:
    """How much steeper ``fused`` is than its sources beside strong edges, where both sources are flat.

    Slopes are Sobel's of pictures that are divided by their deviation and smoothed (2 px), so neither contrast nor
    noise counts: 1 is as flat as the steeper source. Strong is a slope of .08 a pixel, flat one below .012, beside is
    up to 12 pixels away. NaN where a picture has hardly any such place.
    """

    def slope(x: np.ndarray) -> np.ndarray:
        smooth = cv2.GaussianBlur(x.astype(np.float32) / (float(x.std()) + 1), (0, 0), 2.0)
        return np.hypot(cv2.Sobel(smooth, -1, 1, 0), cv2.Sobel(smooth, -1, 0, 1)) / 8

    sources = np.maximum(slope(ir), slope(vis))
    beside = cv2.dilate((sources > 0.08).astype(np.uint8), np.ones((25, 25), np.uint8)) > 0
    places = beside & (sources < 0.012)
    if places.sum() < 50:
        return float("nan")
    return float(slope(fused)[places].mean() / sources[places].mean())


def hot_white(fused: np.ndarray, ir: np.ndarray, vis: np.ndarray) -> float:
    """Which part of the hottest hundredth of ``ir`` is plain white in ``fused``, 253 or more: what is in it is lost."""
    return float((fused[ir >= np.quantile(ir, 0.99)] >= 253).mean())


def measure(fused: np.ndarray, ir: np.ndarray, vis: np.ndarray) -> dict[str, float]:
    return {
        "noise": flat_noise(fused, ir, vis),
        "grid": flat_grid(fused, ir, vis),
        "halo": edge_halo(fused, ir, vis),
        "white": hot_white(fused, ir, vis),
    }


def sheet(methods: dict[str, Method], roots: list[Root], count: int, path: Path) -> None:
    """A picture to look at: a row a pair, infrared, visible, then every method, 320 px wide."""
    rows = []
    for root in roots:
        for files in root.files[:: max(1, len(root.files) // count)][:count]:
            sample = read_sample(files, luma=True)
            shown = [sample.ir, sample.vis, *(method.fuse(sample) for method in methods.values())]
            rows.append(np.hstack([cv2.resize(x, (320, 240), interpolation=cv2.INTER_AREA) for x in shown]))
    if not cv2.imwrite(str(path), np.vstack(rows)):
        raise InputError(f"cannot write {path}")


def digest(root: Root, limit: int = 0) -> str:
    """SHA-256 of the pairs of a set that are measured: their names and files, whatever the set is called."""
    sha = hashlib.sha256()
    for files in root.files[: limit or None]:
        sha.update(files.name.partition("/")[2].encode())
        for path in (files.ir, files.vis):
            sha.update(hashlib.sha256(path.read_bytes()).digest())
    return sha.hexdigest()


def read_report(path: Path, data: dict[str, str]) -> dict[str, Any]:
    """What an earlier run wrote with ``--json``.

    Args:
        path: the file.
        data: set -> :func:`digest` of what is measured now.

    Raises:
        InputError: it is no such file, or it was measured on other pairs.
    """
    try:
        report = json.loads(path.read_text())
        theirs, sets = dict(report["data"]), dict(report["sets"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: no report of this benchmark that can be read; expected one of --json") from error
    if not data.keys() & sets.keys():
        raise InputError(f"{path} has no numbers of {', '.join(data)}; it has {', '.join(sets) or 'none'}")
    for label in data.keys() & sets.keys():
        if data[label] != theirs.get(label):
            raise InputError(
                f"{path}: its numbers of {label} are of other pairs than those given; expected the same files, all of "
                "them, and the --limit of then: means over different pairs cannot be compared"
            )
    return report


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser("benchmarks quality", description=__doc__.splitlines()[0])
    p.add_argument("--data", type=Path, action="append", required=True, metavar="DIR")
    p.add_argument("--weights", action="append", metavar="NAME=FILE", help="a model (default: the bundled ones)")
    p.add_argument("--results", action="append", default=[], metavar="NAME=DIR", help="pictures named as the pairs")
    p.add_argument("--beside", type=Path, metavar="FILE", help="an earlier --json: show and keep its rows as well")
    p.add_argument("--engine", help="of the models, maybe with a precision, openvino:bf16 (default: the fastest, fp32)")
    p.add_argument("--limit", type=int, default=0, help="pairs of each set (default: all)")
    p.add_argument("--json", type=Path, help="write the numbers here as well")
    p.add_argument("--sheet", type=Path, help="write a sheet of pictures here")
    return p


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    for option, given in (("--weights", args.weights or []), ("--results", args.results)):
        for text in given:
            if not all(text.partition("=")):
                parser().error(f"{option} {text}: expected a name, = and a path")
    try:
        roots = find_roots(args.data)
        data = {root.label: digest(root, args.limit) for root in roots}
        before = read_report(args.beside, data) if args.beside else {}
        methods = {
            "mean": Method(lambda sample: mean_fusion(sample.ir, sample.vis)),
            "laplacian": Method(lambda sample: laplacian_pyramid_fusion(sample.ir, sample.vis)),
            "pyramid": network("pyramid"),
        }
        named = dict(pair.split("=", 1) for pair in args.weights or []) or {name: name for name in ("lite", "full")}
        models = {name: open_artefact(path) for name, path in named.items()}
        # not the fastest: bf16, which some CPUs have, costs a .04 of EN
        precision = None if ":" in (args.engine or "") else "fp32"
        methods |= {name: network(path, engine=args.engine, precision=precision) for name, path in named.items()}
        shown = dict(methods)
        methods |= {name: Pictures(folder).method() for name, folder in (pair.split("=", 1) for pair in args.results)}
        report = before | {
            "models": before.get("models", {}) | {name: model.sha256 for name, model in models.items()},
            "data": before.get("data", {}) | data,
            "sets": dict(before.get("sets", {})),
        }
        for root in roots:
            kept = report["sets"].get(root.label, {})
            table = summarise({root.label: score(root, methods, luma=True, limit=args.limit, also=measure)})
            rows = table[root.label]
            pairs = max(row.total for row in rows.values())
            blank = dict.fromkeys(KEYS, float("nan"))  # of an older report that lacks a metric
            rows |= {name: Row(pairs, pairs, blank | values) for name, values in kept.items() if name not in rows}
            report["sets"][root.label] = {name: row.values for name, row in rows.items()}
            print(markdown(table, KEYS, bold=False), flush=True)
        if args.json:
            args.json.write_text(json.dumps(report, indent=1))
        if args.sheet:
            sheet(shown, roots, 4, args.sheet)
    except PyldfusionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
