"""The scene generator: the same bytes for the same arguments, registered pairs, honest options, typed errors."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest

from pyldfusion.errors import InputError
from pyldfusion.scene import KELVIN_PER_COUNT, KINDS, Scene

SMALL = (160, 120)
QUIET = {"ir_noise": 0.0, "vis_noise": 0.0, "ir_blur": 0.0}


@pytest.fixture(scope="module")
def day() -> Scene:
    """A busy day without sensor noise."""
    return Scene(14, (320, 240), "day", bits=16, people=6, cars=5, **QUIET)


def grey(vis: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(vis, cv2.COLOR_BGR2GRAY).astype(np.float64)


def sharpness(image: np.ndarray) -> float:
    image = image.astype(np.float64)
    return float(np.abs(np.diff(image, axis=0)).mean() + np.abs(np.diff(image, axis=1)).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_same_arguments_same_bytes(kind: str) -> None:
    a, b = (Scene(3, SMALL, kind).render(1.25) for _ in range(2))
    assert np.array_equal(a.ir, b.ir)
    assert np.array_equal(a.vis, b.vis)


def test_rendering_does_not_change_the_scene() -> None:
    scene = Scene(5, SMALL)
    first = scene.render(0.4)
    scene.render(7.0)
    again = scene.render(0.4)
    assert np.array_equal(first.ir, again.ir) and np.array_equal(first.vis, again.vis)
    first.vis[:] = 0
    assert scene.render(0.4).vis.any()


def test_seeds_differ_in_more_than_noise() -> None:
    frames = [Scene(seed, (80, 60), **QUIET).render() for seed in range(5)]
    for k, a in enumerate(frames):
        for b in frames[:k]:
            assert np.abs(grey(a.vis) - grey(b.vis)).mean() > 4
            assert np.abs(a.ir.astype(float) - b.ir).mean() > 4


def test_kinds_are_as_bright_as_their_names() -> None:
    def level(kind: str) -> float:
        return float(np.mean([Scene(seed, (80, 60), kind).render().vis.mean() for seed in range(3)]))

    assert level("night") < 70
    assert level("day") > 90


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (16, 200), (333, 19), (101, 257)])
@pytest.mark.parametrize("bits", [8, 16])
def test_any_size(size: tuple[int, int], bits: int) -> None:
    kind = "smoke" if bits == 8 else "day"
    ir, vis = Scene(2, size, kind, bits=bits, people=4, cars=3).render(0.5)
    assert ir.shape == (size[1], size[0]) and ir.dtype == (np.uint8 if bits == 8 else np.uint16)
    assert vis.shape == (size[1], size[0], 3) and vis.dtype == np.uint8
    assert ir.flags.c_contiguous and vis.flags.c_contiguous
    assert ir.std() > 0 and vis.std() > 0


def test_the_scene_is_the_same_at_every_size() -> None:
    small, large = (Scene(6, size, "dusk", **QUIET).render(2.0) for size in ((160, 120), (480, 360)))
    shrunk = cv2.resize(large.vis, (160, 120), interpolation=cv2.INTER_AREA)
    assert np.corrcoef(grey(small.vis).ravel(), grey(shrunk).ravel())[0, 1] > 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_counts_are_plausible_kelvin(kind: str) -> None:
    kelvin = Scene(4, SMALL, kind, bits=16, people=5).render().ir * KELVIN_PER_COUNT
    assert kelvin.min() > 225 and kelvin.max() < 273 + 130
    assert 265 < np.median(kelvin) < 320


def test_eight_bits_are_the_sixteen_bits_in_other_clothes() -> None:
    wide, narrow = (Scene(8, SMALL, bits=bits, **QUIET).render().ir for bits in (16, 8))
    inside = (narrow > 0) & (narrow < 255)
    order = np.argsort(wide[inside], kind="stable")
    assert inside.mean() > 0.3
    assert np.all(np.diff(narrow[inside][order].astype(int)) >= -1)  # one count may straddle two levels


@pytest.mark.parametrize("seed", range(3))
def test_rain_is_for_the_visible_camera_and_falls(seed: int) -> None:
    """Two moments of a street where nothing else moves differ by the drops: bright ones, and much less in heat."""
    scene = Scene(seed, (160, 120), "rain", people=0, cars=0, **QUIET)
    dry = Scene(seed, (160, 120), "dusk", people=0, cars=0, plumes=0, **QUIET)

    def change(scene: Scene, after: float) -> tuple[float, float]:
        a, b = scene.render(1.0), scene.render(1.0 + after)
        seen, felt = np.abs(grey(a.vis) - grey(b.vis)), np.abs(a.ir.astype(float) - b.ir)
        return float(seen.mean()), float(felt.mean())

    seen, felt = change(scene, 0.04)
    assert seen > 1 and seen > 4 * felt
    assert change(scene, 0.0) == (0.0, 0.0)
    assert seen > 3 * change(dry, 0.04)[0]


@pytest.mark.parametrize("seed", range(4))
def test_a_room_is_closed_and_its_people_are_in_it(seed: int) -> None:
    ir, vis = Scene(seed, SMALL, "indoor", bits=16, **QUIET).render()
    celsius = ir * KELVIN_PER_COUNT - 273.15
    assert celsius.min() > 8 and np.median(celsius) > 15  # no sky anywhere
    assert vis.max() > 40
    scene = Scene(seed, SMALL, "indoor", people=12)
    room = scene._plan.room
    assert room is not None
    for walker in scene._people:
        for t in np.linspace(0, 60, 40):
            pose = walker.pose(float(t))
            assert abs(pose.x) < room.half and 0 < pose.z < room.depth
    with pytest.raises(InputError, match="cars is 1; expected a whole number from 0 to 0"):
        Scene(seed, SMALL, "indoor", cars=1)


def test_night_people_are_hot_and_hard_to_see() -> None:
    """The difference that a person makes is larger in the thermal than in the visible frame, in grey levels."""
    ratios = []
    for seed in range(4):
        with_people = Scene(seed, (160, 120), people=5, cars=0, plumes=0, **QUIET).render()
        without = Scene(seed, (160, 120), people=0, cars=0, plumes=0, **QUIET).render()
        thermal = with_people.ir.astype(float) - without.ir
        person = thermal > 25
        assert person.sum() > 10
        ratios.append(thermal[person].mean() / np.abs(grey(with_people.vis) - grey(without.vis))[person].mean())
    assert np.median(ratios) > 2


def test_registered_by_construction() -> None:
    """A person covers the same pixels in both frames, to within one."""
    checked = 0
    for seed in range(12):
        with_people, without = (
            Scene(seed, (200, 150), "day", bits=16, people=n, cars=0, plumes=0, **QUIET).render() for n in (1, 0)
        )
        hot = np.abs(with_people.ir.astype(int) - without.ir) > 12
        seen = np.abs(with_people.vis.astype(int) - without.vis).max(axis=2) > 12
        if hot.sum() < 150:  # out of view, or as warm as what is behind
            continue
        near_seen = cv2.dilate(seen.astype(np.uint8), np.ones((3, 3))) > 0
        rows = np.flatnonzero(hot.any(axis=1))
        head = slice(rows[0], rows[0] + 3 * len(rows) // 4)  # the shadow lies at the feet, in the visible only
        assert np.mean(near_seen[head][hot[head]]) > 0.97
        columns = [np.flatnonzero(m[rows[0] : rows[0] + len(rows) // 4].any(axis=0)) for m in (hot, seen)]
        assert abs(int(columns[0][0]) - int(columns[1][0])) <= 1
        checked += 1
        if checked == 3:
            break
    assert checked == 3


@pytest.mark.parametrize("name", ["ir", "vis"])
@pytest.mark.parametrize("offset", [(6.0, -3.0), (0.0, 2.0)])
def test_offset_moves_one_picture(name: str, offset: tuple[float, float], day: Scene) -> None:
    moved = Scene(14, (320, 240), "day", bits=16, people=6, cars=5, **QUIET, **{f"{name}_offset": offset}).render()
    still = day.render()
    for channel, a, b in (
        ("ir", still.ir.astype(float), moved.ir.astype(float)), ("vis", grey(still.vis), grey(moved.vis))
    ):  # fmt: skip
        if channel != name:
            assert np.array_equal(a, b)
            continue
        window = cv2.createHanningWindow((320, 240), cv2.CV_64F)
        (dx, dy), _ = cv2.phaseCorrelate(a, b, window)
        assert (dx, dy) == pytest.approx(offset, abs=0.15)


def test_blur_softens_only_its_own_picture(day: Scene) -> None:
    still = day.render()
    options = {**QUIET, "ir_blur": 2.0}
    soft = Scene(14, (320, 240), "day", bits=16, people=6, cars=5, **options).render()
    assert sharpness(soft.ir) < 0.7 * sharpness(still.ir)
    assert np.array_equal(soft.vis, still.vis)
    soft = Scene(14, (320, 240), "day", bits=16, people=6, cars=5, **QUIET, vis_blur=2.0).render()
    assert sharpness(soft.vis) < 0.7 * sharpness(still.vis)
    assert np.array_equal(soft.ir, still.ir)


def test_thermal_noise_is_as_strong_as_asked(day: Scene) -> None:
    netd = 0.4
    scene = Scene(14, (320, 240), "day", bits=16, people=6, cars=5, **{**QUIET, "ir_noise": netd})
    clean = day.render(1.0).ir.astype(float)
    a = (scene.render(1.0).ir - clean) * KELVIN_PER_COUNT
    b = (scene.render(2.0).ir - day.render(2.0).ir.astype(float)) * KELVIN_PER_COUNT
    assert (a - b).std() / 2**0.5 == pytest.approx(netd, rel=0.03)  # what changes
    fixed = np.cov(a.ravel(), b.ravel())[0, 1] ** 0.5  # what stays
    assert fixed == pytest.approx(0.8 * netd, rel=0.15)
    assert a.mean(axis=0).std() > 3 * netd / 240**0.5  # columns differ by more than pixel noise leaves


def test_visible_noise_is_as_strong_as_asked(day: Scene) -> None:
    scene = Scene(14, (320, 240), "day", bits=16, people=6, cars=5, **{**QUIET, "vis_noise": 3.0})
    clean = day.render().vis.astype(float)
    noise = scene.render().vis - clean
    middle = (clean > 110) & (clean < 200)
    assert noise[middle].std() == pytest.approx(3.0, rel=0.1)
    assert abs(noise[middle].mean()) < 0.1
    night = (Scene(1, SMALL, **{**QUIET, "vis_noise": v}).render().vis.astype(float) for v in (3.0, 0.0))
    noisy, clean = night
    dark = (clean > 12) & (clean < 25)
    assert noisy[dark].std() > 0 and (noisy - clean)[dark].std() > 1.25 * 3.0


def test_things_move_and_move_smoothly() -> None:
    scene = Scene(14, (320, 240), "day", people=6, cars=5, plumes=1, **QUIET)
    frames = [scene.render(2.0 + dt) for dt in (0.0, 0.01, 0.04, 1.0)]
    change = [np.abs(grey(f.vis) - grey(frames[0].vis)).mean() for f in frames[1:]]
    assert 0 < change[0] < change[1] < change[2]
    assert change[0] < 0.35 * change[2]
    thermal = [np.abs(f.ir.astype(float) - frames[0].ir).mean() for f in frames[1:]]
    assert 0 < thermal[0] < thermal[2]


def test_a_street_without_anyone_only_sways() -> None:
    scene = Scene(14, (320, 240), "day", people=0, cars=0, plumes=0, **QUIET)
    a, b = scene.render(0.0), scene.render(30.0)
    changed = np.abs(grey(a.vis) - grey(b.vis)) > 8
    assert changed.mean() < 0.25


def test_people_walk_at_walking_speed() -> None:
    from pyldfusion.scene.car import plan_cars
    from pyldfusion.scene.person import plan_people
    from pyldfusion.scene.plan import plan_street

    plan = plan_street(1, (640, 480), KINDS["night"])
    cars = plan_cars(np.random.default_rng(0), plan.road, 6, True, False)
    for walker in plan_people(np.random.default_rng(1), plan.road, 20, plan.camera, cars):
        for t in np.linspace(0, 90, 60):
            a, b = walker.pose(t), walker.pose(t + 0.02)
            assert np.hypot(a.x - b.x, a.z - b.z) == pytest.approx(0.02 * walker.speed, rel=0.02, abs=1e-9)
            turned = (b.heading - a.heading + np.pi) % (2 * np.pi) - np.pi
            assert abs(turned) < 0.15
            if walker.speed:  # and the way they look
                assert (b.x - a.x) * np.sin(a.heading) + (b.z - a.z) * np.cos(a.heading) > 0.95 * 0.02 * walker.speed
    for car in cars:
        a, b = car.stance(3.0), car.stance(3.1)
        assert abs(b.z - a.z) == pytest.approx(0.1 * abs(car.speed), abs=1e-6) or abs(b.z - a.z) > 200  # comes again


def test_smoke_hides_the_visible_and_not_the_thermal() -> None:
    clear, smoky = (Scene(15, (320, 240), "smoke", people=4, plumes=n, bits=16, **QUIET).render() for n in (0, 6))
    hidden = np.abs(grey(clear.vis) - grey(smoky.vis)) > 25
    assert hidden.mean() > 0.1
    edges = [np.abs(cv2.Laplacian(grey(f.vis), cv2.CV_64F))[hidden].mean() for f in (clear, smoky)]
    assert edges[1] < 0.6 * edges[0]
    edges = [np.abs(cv2.Laplacian(f.ir.astype(np.float64), cv2.CV_64F))[hidden].mean() for f in (clear, smoky)]
    assert edges[1] > 0.7 * edges[0]


def test_frames_are_renders_at_even_times() -> None:
    scene = Scene(7, SMALL)
    frames = list(scene.frames(fps=10, count=3, start=0.5))
    assert len(frames) == 3
    for k, frame in enumerate(frames):
        assert np.array_equal(frame.vis, scene.render(0.5 + k / 10).vis)
    endless = scene.frames(fps=30)
    assert next(endless).ir.shape == next(endless).ir.shape == (120, 160)
    assert list(scene.frames(count=0)) == []


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"seed": -1}, "seed"), ({"seed": 1.5}, "seed"), ({"seed": True}, "seed"), ({"seed": None}, "seed"),
        ({"size": (15, 64)}, "width"), ({"size": (64, 15)}, "height"), ({"size": 64}, "size"),
        ({"size": (64, 64, 3)}, "size"), ({"size": (64.5, 64)}, "width"), ({"size": "64x64"}, "size"),
        ({"size": (1 << 20, 64)}, "width"), ({"kind": "noon"}, "night"), ({"kind": None}, "night"),
        ({"bits": 12}, "bits"), ({"bits": "8"}, "bits"), ({"people": -1}, "people"), ({"cars": 2.5}, "cars"),
        ({"plumes": 10**6}, "plumes"), ({"ir_noise": -0.1}, "ir_noise"), ({"vis_noise": float("nan")}, "vis_noise"),
        ({"ir_blur": float("inf")}, "ir_blur"), ({"vis_blur": "soft"}, "vis_blur"), ({"ir_offset": 3}, "ir_offset"),
        ({"vis_offset": (1, float("nan"))}, "vis_offset"), ({"ir_offset": (1, 2, 3)}, "ir_offset"),
    ],
)  # fmt: skip
def test_bad_arguments(arguments: dict[str, object], word: str) -> None:
    with pytest.raises(InputError, match=word):
        Scene(**{"size": (16, 16), **arguments})  # type: ignore[arg-type]


def test_bad_times() -> None:
    scene = Scene(size=(16, 16))
    for t in (-1.0, float("nan"), float("inf"), "now", None):
        with pytest.raises(InputError, match="t is"):
            scene.render(t)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="fps"):
        scene.frames(fps=0)
    with pytest.raises(InputError, match="count"):
        scene.frames(count=-1)
    with pytest.raises(InputError, match="start"):
        scene.frames(start=-1)


def test_needs_numpy_and_opencv_only() -> None:
    code = (
        "import sys; from pyldfusion.scene import Scene; Scene(size=(32, 32)).render();"
        "bad = {'torch', 'scipy', 'onnxruntime', 'openvino', 'skimage'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
