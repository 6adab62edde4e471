"""Fusion quality: means of the metrics over folders of pairs, for our weights and for plain methods beside them.

``python -m benchmarks quality --data DIR [--data DIR] [--weights NAME=FILE] [--results NAME=DIR] [--sheet FILE]``

A data folder holds ir/ and vi/ with the same names, or several such folders. Everything is measured on luma. Beside the
usual metrics stands ``noise``: how much stronger the finest detail is than in the visible picture where that is flat
(1 is the same); contrast alone raises EN, SD, EI and VIFF, and this tells whether noise came with it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from pyldfusion import Fuser, metrics
from pyldfusion.artefact import open_artefact
from pyldfusion.errors import InputError, PyldfusionError

__all__ = ["flat_noise", "laplacian_pyramid_fusion", "main", "mean_fusion"]

Method = Callable[[np.ndarray, np.ndarray], np.ndarray]
KEYS = ("EN", "CC", "SD", "EI", "VIFF", "Qabf", "MI", "SSIM", "noise")


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


def neural(path: str, engine: str | None) -> Method:
    """Our network from a file or a bundled name."""
    fuser = Fuser(path, engine=engine)
    return lambda ir, vis: fuser.fuse(ir, vis)


def teacher() -> Method:
    """The picture that the bundled weights were taught to imitate."""
    import torch

    from trainer.teacher import teach

    def fuse(ir: np.ndarray, vis: np.ndarray) -> np.ndarray:
        planes = (torch.from_numpy(x.astype(np.float32) / 255)[None, None] for x in (ir, vis))
        return np.rint(teach(*planes)[0, 0].numpy() * 255).astype(np.uint8)

    return fuse


def sets(root: Path) -> list[Path]:
    """``root`` itself if it holds ir/ and vi/, else its folders that do."""
    folders = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    found = [path for path in folders if (path / "ir").is_dir() and (path / "vi").is_dir()]
    if not found:
        raise InputError(f"{root} holds no pairs: expected the folders ir/ and vi/, here or one level down")
    return found


def pairs(folder: Path, limit: int) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Names and luma of the first ``limit`` pairs (0: all), infrared resized onto the visible where sizes differ."""
    result = []
    for path in sorted((folder / "vi").iterdir())[: limit or None]:
        ir, vis = (cv2.imread(str(p), cv2.IMREAD_GRAYSCALE) for p in (folder / "ir" / path.name, path))
        if ir is None or vis is None:
            raise InputError(f"{path} or its infrared partner is missing or cannot be decoded")
        if ir.shape != vis.shape:
            ir = cv2.resize(ir, vis.shape[::-1])
        result.append((path.name, ir, vis))
    return result


def score(methods: dict[str, Method], folder: Path, limit: int) -> dict[str, dict[str, float]]:
    """Method -> metric -> mean over the pairs of ``folder``."""
    values: dict[str, list[list[float]]] = {name: [] for name in methods}
    for _, ir, vis in pairs(folder, limit):
        for name, fuse in methods.items():
            fused = fuse(ir, vis)
            row = {**metrics.evaluate(fused, ir, vis), "noise": flat_noise(fused, ir, vis)}
            values[name].append([row[key] for key in KEYS])
    return {
        name: dict(zip(KEYS, map(float, np.nanmean(np.array(rows), axis=0)), strict=True))
        for name, rows in values.items()
    }


def table(name: str, count: int, rows: dict[str, dict[str, float]]) -> str:
    """Markdown."""
    lines = [f"### {name} ({count} pairs)", "", "| method | " + " | ".join(KEYS) + " |", "|---|" + "---:|" * len(KEYS)]
    for method, row in rows.items():
        cells = (f"{row[key]:.1f}" if key in ("SD", "EI") else f"{row[key]:.3f}" for key in KEYS)
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def sheet(methods: dict[str, Method], folders: list[Path], count: int, path: Path) -> None:
    """A picture to look at: a row a pair, infrared, visible, then every method, 320 px wide."""
    rows = []
    for folder in folders:
        names = pairs(folder, 0)
        for _, ir, vis in names[:: max(1, len(names) // count)][:count]:
            shown = [ir, vis, *(fuse(ir, vis) for fuse in methods.values())]
            rows.append(np.hstack([cv2.resize(x, (320, 240), interpolation=cv2.INTER_AREA) for x in shown]))
    if not cv2.imwrite(str(path), np.vstack(rows)):
        raise InputError(f"cannot write {path}")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser("benchmarks quality", description=__doc__.splitlines()[0])
    p.add_argument("--data", type=Path, action="append", required=True, metavar="DIR")
    p.add_argument("--weights", action="append", metavar="NAME=FILE", help="a model (default: the bundled ones)")
    p.add_argument("--results", action="append", default=[], metavar="NAME=DIR", help="pictures named as the pairs")
    p.add_argument("--teacher", action="store_true", help="score the teacher's pictures too (needs torch)")
    p.add_argument("--engine", help="engine of the models")
    p.add_argument("--limit", type=int, default=0, help="pairs of each set (default: all)")
    p.add_argument("--json", type=Path, help="write the numbers here as well")
    p.add_argument("--sheet", type=Path, help="write a sheet of pictures here")
    return p


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        folders = [folder for root in args.data for folder in sets(root)]
        methods: dict[str, Method] = {"mean": mean_fusion, "pyramid": laplacian_pyramid_fusion}
        if args.teacher:
            methods["teacher"] = teacher()
        named = dict(pair.split("=", 1) for pair in args.weights or []) or {name: name for name in ("lite", "full")}
        models = {name: open_artefact(path) for name, path in named.items()}
        methods |= {name: neural(named[name], args.engine) for name in models}
        report = {"models": {name: model.sha256 for name, model in models.items()}, "sets": {}}
        for folder in folders:
            rows = score(methods, folder, args.limit)
            for entry in args.results:
                name, directory = entry.split("=", 1)
                rows[name] = score_results(Path(directory), folder, args.limit)
            report["sets"][folder.name] = rows
            print(table(folder.name, len(pairs(folder, args.limit)), rows), flush=True)
        if args.json:
            args.json.write_text(json.dumps(report, indent=1))
        if args.sheet:
            sheet(methods, folders, 4, args.sheet)
    except PyldfusionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def score_results(results: Path, folder: Path, limit: int) -> dict[str, float]:
    """Means for pictures that another program has made."""
    by_picture = {}
    for name, ir, vis in pairs(folder, limit):
        fused = cv2.imread(str(results / folder.name / name), cv2.IMREAD_GRAYSCALE)
        if fused is None:
            fused = cv2.imread(str(results / name), cv2.IMREAD_GRAYSCALE)
        if fused is None or fused.shape != vis.shape:
            raise InputError(f"{results} (or its {folder.name}/) has no {name} of {vis.shape[1]}x{vis.shape[0]} pixels")
        by_picture[name] = {**metrics.evaluate(fused, ir, vis), "noise": flat_noise(fused, ir, vis)}
    return {key: float(np.nanmean([row[key] for row in by_picture.values()])) for key in KEYS}


if __name__ == "__main__":
    sys.exit(main())
