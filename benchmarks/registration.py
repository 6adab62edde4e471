"""Registration: how often the search without a target finds a known homography, refuses, or is wrong; targets' errors.

``python -m benchmarks registration [--data DIR ...] [--clips DIR] [--sheets DIR] [--out FILE]``

Real pairs are spoilt by known homographies: the infrared picture is moved by up to 40 px at a width of 640, sized by
up to 5 %, turned by up to 3 degrees, with some perspective. The pairs of public data sets lie on each other to a few
pixels only, so two errors are told: ``known``, from the homography that was put in, and ``repeated``, from that
homography after the one that the same search finds for the untouched pair. Pairs of generated scenes lie exactly on
each other. ``--sheets`` draws the real pairs where the two differ by more than 5 px, for a person to judge. Strangers
are infrared and visible pictures of two scenes: accepting one is a mistake. Errors are mean distances over the
picture, in its own pixels.
"""

from __future__ import annotations

import argparse
import datetime
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pyldfusion.calibration.automatic import Alignment, search
from pyldfusion.calibration.fit import View, fit_views
from pyldfusion.calibration.geometry import Matrix, Size, corners, grid_error
from pyldfusion.calibration.structure import grey
from pyldfusion.calibration.targets import match, parse_target
from pyldfusion.errors import CalibrationError
from pyldfusion.media import VideoReader, read_image
from pyldfusion.media.roots import PairFiles, find_roots
from pyldfusion.registration import Registration
from pyldfusion.scene import Scene

from .drawn_targets import TRUTH, pair
from .registration_sheets import Sheets

Frames = list[tuple[np.ndarray, np.ndarray]]

RESULTS = Path(__file__).with_name("results") / "registration.json"
NEAR, FAR = 2.0, 5.0
#: Frames of a clip that are combined, and seconds between them.
COMBINED, APART = 8, 0.5


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks registration", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, action="append", default=[], metavar="DIR", help="pairs, as for quality")
    parser.add_argument("--clips", type=Path, metavar="DIR", help="a folder with videos of the same names in ir and vi")
    parser.add_argument("--each", type=int, default=1, metavar="N", help="every Nth pair only (default: all)")
    parser.add_argument("--trials", type=int, default=6, metavar="N", help="of each clip (default: 6)")
    parser.add_argument("--sheets", type=Path, metavar="DIR", help="pairs over 5 px, to be judged by eye, and key.json")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS, help=f"JSON (default: {RESULTS.name} in results)")
    args = parser.parse_args(argv)
    cv2.setNumThreads(1)
    report: dict[str, Any] = {
        "what": f"python -m benchmarks registration --seed {args.seed} --each {args.each} --trials {args.trials}",
        "measured": datetime.date.today().isoformat(),
        "pairs": {},
        "clips": {},
    }
    rows: dict[str, list[dict[str, float]]] = {}
    sheets = Sheets(args.sheets, args.seed) if args.sheets else None
    for root in find_roots(args.data) if args.data else []:
        rows[root.label] = list(_pairs(root.files[:: args.each], args.seed, sheets))
    rows["scenes"] = list(_scenes(args.seed))
    for name, found in rows.items():
        if found:
            report["pairs"][name] = summarise(found)
    if len(args.data) > 1:
        report["pairs"]["all real"] = summarise([row for name in rows if name != "scenes" for row in rows[name]])
    if args.clips:
        report["clips"] = _clips(args.clips, args.trials, args.seed)
    print(table({**report["pairs"], **report["clips"]}))
    report["targets"] = _targets(args.seed)
    print(json.dumps(report["targets"], indent=2))
    args.out.write_text(json.dumps({**report, "rows": rows}, indent=1) + "\n")
    return 0


def random_homography(rng: np.random.Generator, size: Size) -> Matrix:
    """From a spoilt picture's pixels to where they belong."""
    unit = max(size) / 640
    middle = np.eye(3)
    middle[:2, 2] = (size[0] - 1) / 2, (size[1] - 1) / 2
    angle, zoom = np.deg2rad(rng.uniform(-3, 3)), 1 + rng.uniform(-0.05, 0.05)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1 / zoom]])
    shift, tilt = np.eye(3), np.eye(3)
    shift[:2, 2] = rng.uniform(-40, 40, 2) * unit
    tilt[2, :2] = rng.uniform(-5e-5, 5e-5, 2) / unit
    matrix = shift @ middle @ turn @ tilt @ np.linalg.inv(middle)
    return matrix / matrix[2, 2]


def spoilt(ir: np.ndarray, truth: Matrix) -> np.ndarray:
    """The picture of a camera whose homography is ``truth``; black where the picture we have ends."""
    return cv2.warpPerspective(ir, np.linalg.inv(truth), (ir.shape[1], ir.shape[0]), flags=cv2.INTER_CUBIC)


def try_one(
    frames: Frames,
    untouched: Alignment | None,
    rng: np.random.Generator,
    differs: Callable[[Matrix], None] = lambda found: None,
) -> dict[str, float]:
    """One search on spoilt frames; ``differs`` gets where it puts the untouched ones, if that is over 5 px off."""
    size = frames[0][1].shape[1], frames[0][1].shape[0]
    truth = random_homography(rng, size)
    moved = [(spoilt(ir, truth), vis) for ir, vis in frames]
    start = time.monotonic()
    found = search(moved)
    row = {
        "seconds": time.monotonic() - start,
        "refused": bool(found.doubt),
        "known": grid_error(found.homography, truth, size),
        "moved": float(
            np.linalg.norm(cv2.perspectiveTransform(corners(size)[:, None], truth)[:, 0] - corners(size), axis=1).max()
        ),
        "expected": found.expected_error,
        "support": found.support,
    }
    if untouched is not None and not untouched.doubt:
        row["repeated"] = grid_error(found.homography, untouched.homography @ truth, size)
    if row["known"] > FAR and not row["refused"]:
        put = found.homography @ np.linalg.inv(truth)
        row["more_information"] = _mutual_information(frames, put) > _mutual_information(frames, np.eye(3))
        differs(put)
    return row


def summarise(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Shares of all pairs, and the seconds a pair."""
    own = [row for row in rows if "known" in row]
    strangers = [row for row in rows if "known" not in row]

    def share(key: str, low: float, high: float, of: list[dict[str, float]]) -> float:
        return round(sum(not row["refused"] and low <= row[key] < high for row in of) / max(len(of), 1), 4)

    twice = [row for row in own if "repeated" in row]
    wrong = [row for row in own if not row["refused"] and row["known"] > FAR]
    return {
        "tried": len(own),
        "refused": round(sum(row["refused"] for row in own) / len(own), 4),
        "within_2": share("known", 0, NEAR, own),
        "within_5": share("known", 0, FAR, own),
        "wrong": share("known", FAR, np.inf, own),
        "wrong_count": len(wrong),
        "wrong_but_more_mutual_information": sum(bool(row.get("more_information")) for row in wrong),
        "repeatable": len(twice),
        "repeated_within_2": share("repeated", 0, NEAR, twice),
        "repeated_within_5": share("repeated", 0, FAR, twice),
        "repeated_wrong": share("repeated", FAR, np.inf, twice),
        "strangers": len(strangers),
        "strangers_accepted": sum(not row["refused"] for row in strangers),
        "seconds": round(float(np.median([row["seconds"] for row in own])), 2),
    }


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| | tried | refused | 2 px | 5 px | wrong | repeated: 2 px | 5 px | wrong | strangers taken | s |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in results.items():
        shares = [f"{100 * row[key]:.0f} %" for key in ("refused", "within_2", "within_5", "wrong")]
        shares += [
            f"{100 * row[f'repeated_{key}']:.0f} %" if row["repeatable"] else ""
            for key in ("within_2", "within_5", "wrong")
        ]
        accepted = f"{row['strangers_accepted']} of {row['strangers']}" if row["strangers"] else ""
        lines.append(f"| {name} | {row['tried']} | {' | '.join(shares)} | {accepted} | {row['seconds']:.1f} |")
    return "\n".join(lines)


def _pairs(files: Sequence[PairFiles], seed: int, sheets: Sheets | None) -> Iterator[dict[str, float]]:
    for index, one in enumerate(files):
        ir, vis = read_image(one.ir), read_image(one.vis)
        ir = np.asarray(cv2.resize(grey(ir).astype(np.uint8), (vis.shape[1], vis.shape[0])))

        def differs(found: Matrix, name: str = one.name, ir: np.ndarray = ir, vis: np.ndarray = vis) -> None:
            if sheets:
                sheets.add(name, ir, vis, found)

        yield try_one([(ir, vis)], search([(ir, vis)]), np.random.default_rng([seed, index]), differs)
        stranger = files[(index + len(files) // 2) % len(files)]
        if stranger.ir != one.ir and index % 2 == 0:
            other = cv2.resize(grey(read_image(stranger.ir)), (vis.shape[1], vis.shape[0])).astype(np.uint8)
            yield {"refused": bool(search([(other, vis)]).doubt)}


def _scenes(seed: int) -> Iterator[dict[str, float]]:
    for index, kind in enumerate(("night", "dusk", "day", "fog", "smoke") * 2):
        frames = [tuple(Scene(seed + index, (640, 480), kind).render(1.0))]
        yield try_one(frames, None, np.random.default_rng([seed, 7, index]))


def _clips(folder: Path, trials: int, seed: int) -> dict[str, Any]:
    """The same spoilt frames one by one and together."""
    rows: dict[str, list[dict[str, float]]] = {"clips, 1 frame": [], f"clips, {COMBINED} frames": []}
    for number, ir in enumerate(sorted((folder / "ir").iterdir())):
        videos = VideoReader(ir), VideoReader(folder / "vi" / ir.name)
        step = max(1, round(APART * (videos[1].rate or 25)))
        frames = [frame for index, frame in enumerate(zip(*videos, strict=False)) if index % step == 0]
        frames = [(grey(a).astype(np.uint8), b) for a, b in frames]
        untouched = search(frames[:COMBINED])
        for trial in range(trials):
            first = trial * max(0, len(frames) - COMBINED) // max(1, trials - 1)
            for name, count in zip(rows, (1, COMBINED), strict=True):
                rng = np.random.default_rng([seed, number, trial])
                rows[name].append(try_one(frames[first : first + count], untouched, rng))
    return {name: summarise(found) for name, found in rows.items()}


def _targets(seed: int) -> dict[str, Any]:
    """Errors in pixels of targets drawn into scenes, by kind, number of views, blur and noise."""
    size = 640, 480
    scene = Scene(seed, size, "day")
    results = {}
    for kind, words, grid in (
        ("circles", ["circles", "7x5"], (7, 5)),
        ("checkerboard", ["checkerboard", "8x6"], (8, 6)),
        ("apriltag", ["apriltag"], (3, 2)),
    ):
        for blur, noise in ((0.8, 2.0), (1.5, 5.0)):
            views = []
            for number in range(8):
                frames = pair(kind, grid, number, blur=blur, noise=noise, scene=scene, heated=number % 2 == 0)
                try:
                    views.append(View(str(number), *match(parse_target(words), *frames)))
                except CalibrationError:
                    continue
            one = [_fit_error([view], size) for view in views]
            four = [_fit_error(views[k : k + 4], size) for k in range(0, len(views) - 3, 4)]
            results[f"{kind}, blur {blur}, noise {noise}"] = {
                "found": f"{len(views)} of 8",
                "one_view_worst": round(max(one), 3),
                "four_views_worst": round(max(four), 3) if four else None,
            }
    return results


def _fit_error(views: list[View], size: Size) -> float:
    return grid_error(fit_views(views, size).homography, TRUTH, size)


def _mutual_information(frames: Iterable[tuple[np.ndarray, np.ndarray]], matrix: Matrix) -> float:
    """Of infrared and luma where both are, in nats: a measure that the search does not use."""
    total = 0.0
    for ir, vis in frames:
        placed, cover = Registration(matrix).place(grey(ir), (vis.shape[1], vis.shape[0]))
        inside = np.ones(placed.shape, bool) if cover is None else cover >= 1
        joint = np.histogram2d(placed[inside], grey(vis)[inside], 32)[0]
        joint /= joint.sum()
        apart = np.outer(joint.sum(1), joint.sum(0))
        some = joint > 0
        total += float((joint[some] * np.log(joint[some] / apart[some])).sum())
    return total
