"""Targets drawn into both views of a generated scene, as a tilted board that hides what is behind it."""

from __future__ import annotations

import cv2
import numpy as np

from pyldfusion.scene import Scene

#: A camera pair's true homography, infrared to visible pixels, of 640x480 pictures.
TRUTH = np.array([[1.03, 0.02, -14.0], [-0.018, 1.04, 9.0], [1e-5, -2e-5, 1.0]])


def board(kind: str, grid: tuple[int, int], cell: int = 24) -> np.ndarray:
    """A target seen straight on, uint8, dark on light."""
    columns, rows = grid
    if kind == "circles":
        picture = np.full(((rows + 1) * cell, (columns + 1) * cell), 235, np.uint8)
        for row in range(rows):
            for column in range(columns):
                centre = (column + 1) * cell * 16, (row + 1) * cell * 16
                cv2.circle(picture, centre, cell * 16 // 3, 25, -1, cv2.LINE_AA, 4)
        return picture
    if kind == "checkerboard":
        squares = (np.add.outer(np.arange(rows + 1), np.arange(columns + 1)) % 2 * 210 + 25).astype(np.uint8)
        return cv2.copyMakeBorder(np.kron(squares, np.ones((cell, cell), np.uint8)), *[cell] * 4, 0, value=235)
    dictionary = cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_APRILTAG_36H11)
    tags = [cv2.aruco.generateImageMarker(dictionary, k, 4 * cell) for k in range(columns * rows)]
    tags = [cv2.copyMakeBorder(tag, *[cell] * 4, 0, value=255) for tag in tags]
    return np.vstack([np.hstack(tags[k * columns : (k + 1) * columns]) for k in range(rows)])


def pair(
    kind: str,
    grid: tuple[int, int],
    seed: int,
    *,
    heated: bool = True,
    blur: float = 1.2,
    noise: float = 3.0,
    truth: np.ndarray = TRUTH,
    size: tuple[int, int] = (640, 480),
    scene: Scene | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Infrared (a view of its own) and visible picture of one board, somewhere in the view; ``heated``: inverted."""
    rng = np.random.default_rng([seed, 5])
    ir, vis = (scene or Scene(seed % 5, size, "day")).render(0.1 * seed)
    face = board(kind, grid)
    height, width = face.shape
    side = rng.uniform(0.45, 0.6) * size[0] / width
    middle = np.array([rng.uniform(0.38, 0.62) * size[0], rng.uniform(0.4, 0.6) * size[1]])
    flat = np.array([[-width, -height], [width, -height], [width, height], [-width, height]]) / 2
    turn = np.deg2rad(rng.uniform(-8, 8))
    turned = flat @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) * side + middle
    corners = (turned + rng.uniform(-14, 14, (4, 2))).astype(np.float32)
    onto = cv2.getPerspectiveTransform((flat + np.array([width, height]) / 2).astype(np.float32), corners)
    pictures = []
    for frame, matrix, invert in ((ir, np.linalg.inv(truth) @ onto, heated), (vis, onto, False)):
        base = frame if frame is not ir else cv2.warpPerspective(ir, np.linalg.inv(truth), size, borderMode=1)
        drawn = 255 - face if invert else face
        drawn = drawn if frame.ndim == 2 else cv2.cvtColor(drawn, cv2.COLOR_GRAY2BGR)
        fine = np.diag([3.0, 3, 1]) @ matrix  # drawn three times as large, for clean edges
        big = tuple(3 * n for n in size)
        inside = cv2.warpPerspective(np.ones(face.shape, np.float32), fine, big)
        over = cv2.warpPerspective(drawn.astype(np.float32), fine, big)
        shift = np.float32([[1, 0, 1], [0, 1, 1]])  # the centre of pixel 0 is the middle one of its three
        inside, over = (
            cv2.resize(cv2.warpAffine(x, shift, big), size, interpolation=cv2.INTER_AREA) for x in (inside, over)
        )
        inside = inside if frame.ndim == 2 else inside[..., None]
        mixed = cv2.GaussianBlur(base * (1 - inside) + over * inside, (0, 0), blur)
        mixed += rng.normal(0, noise, mixed.shape)
        pictures.append(np.clip(np.rint(mixed), 0, 255).astype(np.uint8))
    return pictures[0], pictures[1]
