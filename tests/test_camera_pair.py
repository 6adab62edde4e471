"""Pairing by time: against brute force over all frames, and live, with a clock that the test moves."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyldfusion.camera import POLICIES, Pairer
from pyldfusion.errors import InputError

from .camera_frames import frame


def run(ir, vis, policy, rates, order=None, **options):
    """All pairs of two recordings as (time of ir, time of vis, held); ``order`` says whose frame is added when."""
    pairer = Pairer(policy, rates=rates, **options)
    waiting = {"ir": list(ir), "vis": list(vis)}
    pairs = []
    for name in order or ["ir"] * len(ir) + ["vis"] * len(vis):
        pairer.add(name, frame(waiting[name].pop(0)))
        pairs += pairer.take()
    pairer.end("ir")
    pairer.end("vis")
    pairs += pairer.take()
    return [(pair.ir.time, pair.vis.time, pair.held) for pair in pairs], pairer


def regular(rate, seconds, phase=0.0, jitter=0.0, seed=0):
    times = np.arange(phase, seconds, 1 / rate)
    return list(times + np.random.default_rng(seed).uniform(-jitter, jitter, times.size))


def test_two_recordings_of_one_rate_pair_one_to_one():
    ir, vis = regular(25, 2), regular(25, 2)
    for policy in POLICIES:
        pairs, pairer = run(ir, vis, policy, (25, 25))
        assert pairs == [(t, t, False) for t in vis]
        assert pairer.counts()["skew_ms"] == {"p50": 0.0, "p99": 0.0}


@pytest.mark.parametrize("phase", [-0.02, 0.004, 0.012, 0.03])
def test_a_slow_and_a_fast_camera_against_brute_force(phase):
    ir, vis = regular(9, 3, 0.1 + phase, 0.005), regular(30, 3, 0, 0.004, seed=1)
    rates, limit = (9, 30), 0.5 / 30
    nearest = [(min(ir, key=lambda t: abs(t - v)), v) for v in vis]
    dropped, _ = run(ir, vis, "drop", rates)
    best = [(i, min(vis, key=lambda t: abs(t - i))) for i in ir]
    assert dropped == [(i, v, False) for i, v in best if abs(i - v) <= limit + 1e-6]
    reach = 1.5 / 9
    repeated, _ = run(ir, vis, "repeat", rates)
    assert [(i, v) for i, v, _ in repeated] == [(i, v) for i, v in nearest if abs(i - v) <= reach]
    held, _ = run(ir, vis, "hold", rates)
    past = {v: max((t for t in ir if v - reach <= t <= v), default=None) for v in vis}
    expected = [(i if abs(i - v) <= limit + 1e-6 else past[v], v) for i, v in nearest]
    assert [(i, v) for i, v, _ in held] == [(i, v) for i, v in expected if i is not None]
    fresh = [i for i, _, again in held if not again]
    assert len(set(fresh)) == len(fresh) >= 22  # each is new once
    assert all(again or abs(i - v) <= limit + 1e-6 for i, v, again in held)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(POLICIES), st.integers(0, 1000))
def test_the_order_of_arrival_does_not_matter_for_files(data, policy, seed):
    rng = np.random.default_rng(seed)
    ir = sorted(set(rng.uniform(0, 2, 12).round(3)))
    vis = sorted(set(rng.uniform(0, 2, 40).round(3)))
    order = data.draw(st.permutations(["ir"] * len(ir) + ["vis"] * len(vis)))
    assert run(ir, vis, policy, (6, 20), order)[0] == run(ir, vis, policy, (6, 20))[0]


def test_a_frame_that_is_taken_does_not_stand_for_those_to_come():
    """Two slow frames close together: the second waits for the fast frame after the one that the first has taken."""
    ir, vis = [0.10, 0.11], [0.0, 0.112, 0.13, 0.2]
    for order in (None, ["vis"] * 4 + ["ir"] * 2):
        pairs, _ = run(ir, vis, "drop", (6, 20), order)
        assert pairs == [(0.10, 0.112, False), (0.11, 0.13, False)]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(0, 5), max_size=30),
    st.lists(st.floats(0, 5), max_size=30),
    st.sampled_from(POLICIES),
    st.sampled_from([(9, 30), (30, 9), (25, 25), (None, None)]),
)
def test_whatever_the_times_every_frame_is_accounted_for(ir, vis, policy, rates):
    pairs, pairer = run(ir, vis, policy, rates)
    counts = pairer.counts()
    assert counts["ir"]["received"] == len(ir) and counts["vis"]["received"] == len(vis)
    assert [i for i, _, _ in pairs] == sorted(i for i, _, _ in pairs)
    assert [v for _, v, _ in pairs] == sorted(v for _, v, _ in pairs)
    assert all(abs(i - v) <= pairer.max_skew for i, v, held in pairs if not held)
    for name, used in (("ir", {i for i, _, _ in pairs}), ("vis", {v for _, v, _ in pairs})):
        side = counts[name]
        assert len(used) + side["dropped"] + side["waiting"] == side["received"]
    if policy == "drop":
        assert len({i for i, _, _ in pairs}) == len({v for _, v, _ in pairs}) == len(pairs)


def test_the_delay_of_the_infrared_is_taken_off():
    ir, vis = regular(9, 3, 0.04), regular(30, 3)  # exposed with every visible one, stamped 40 ms later
    pairs, pairer = run(ir, vis, "drop", (9, 30), ir_delay=0.04, max_skew=0.006)
    assert len(pairs) >= 8 and all(abs(i - 0.04 - v) <= 0.0056 for i, v, _ in pairs)
    assert all(abs(skew) <= 0.0056 for skew in pairer.skews)


def live(policy="hold", rates=(30, 30), **options):
    pairer = Pairer(policy, rates=rates, live=True, **options)
    pairer.start(0.0)
    return pairer


def test_live_cameras_do_not_wait_for_what_cannot_be_better():
    pairer = live()
    pairer.add("vis", frame(0.000))
    assert pairer.take(0.0) == []  # the infrared may come any moment
    pairer.add("ir", frame(0.010))
    (pair,) = pairer.take(0.010)
    assert pair.skew == pytest.approx(0.010) and not pair.held
    pairer.add("ir", frame(0.030))
    pairer.add("vis", frame(0.033))
    assert [pair.skew for pair in pairer.take(0.034)] == [pytest.approx(-0.003)]  # the next is 20 ms away at least


def test_live_held_frames_wait_for_nothing():
    """9 Hz under 30 Hz: between two infrared frames the visible ones go out as they come."""
    pairer = live("hold", (9, 30))
    pairer.add("ir", frame(0.0))
    out = []
    for k in range(2):
        pairer.add("vis", frame(k / 30))
        out += [(k, pair.held) for pair in pairer.take(k / 30)]
    assert out == [(0, False), (1, True)]
    pairer.add("vis", frame(0.1))
    assert pairer.take(0.1) == []  # the infrared of 0.111 is about to come
    pairer.add("ir", frame(0.111))
    assert [pair.skew for pair in pairer.take(0.112)] == [pytest.approx(0.011)]


def test_a_partner_that_never_comes_is_waited_for_one_frame():
    pairer = live("drop")
    pairer.add("vis", frame(0.1))
    assert pairer.take(0.12) == []
    assert pairer.take(0.14) == [] and pairer.counts()["vis"] == {"received": 1, "dropped": 1, "waiting": 0}


def test_a_silent_camera_is_lost_and_comes_back():
    pairer = live("hold", lost_after=0.5)
    clock = itertools.count()
    silent = []
    for k in range(90):
        now = next(clock) / 30
        if not 20 < k < 60:
            pairer.add("ir", frame(now))
        pairer.add("vis", frame(now))
        for pair in pairer.take(now):
            if pair.ir is None:
                silent.append(pair.vis.time)
                assert pair.skew is None
    assert min(silent) == pytest.approx(20 / 30 + 0.5, abs=0.1)
    assert max(silent) == pytest.approx(59 / 30, abs=0.05)
    assert pairer.counts()["alone"] == len(silent)


def test_both_cameras_can_be_the_one_that_is_lost():
    pairer = live("drop", lost_after=0.5)
    pairer.add("ir", frame(1.0))
    (pair,) = pairer.take(1.001)
    assert pair.vis is None and tuple(pair)[1] is None


def test_live_rates_are_measured():
    pairer = live("drop", (None, None))
    leaders = []
    for k in range(60):
        if k % 3 == 0:
            pairer.add("ir", frame(k / 30 + 0.001))
        pairer.add("vis", frame(k / 30))
        leaders += pairer.take(k / 30 + 0.002)
    assert pairer.max_skew == pytest.approx(1 / 60, rel=1e-3)
    assert len(leaders) >= 15


def test_live_frames_that_wait_are_bounded():
    pairer = live(lost_after=1e9)
    for k in range(1000):
        pairer.add("ir", frame(k / 30))
    assert pairer.counts()["ir"]["waiting"] <= 8
    assert pairer.counts()["ir"]["dropped"] >= 992


def test_times_that_stand_still_or_go_back_are_dropped():
    pairs, pairer = run([0.0, 0.04, 0.04, 0.02, 0.08], [0.0, 0.04, 0.08], "hold", (25, 25))
    assert [i for i, _, _ in pairs] == [0.0, 0.04, 0.08]
    assert pairer.counts()["ir"]["dropped"] == 2


def test_unknown_policy():
    with pytest.raises(InputError, match="did you mean 'repeat'"):
        Pairer("repaet")
