"""Sizes a graph is made for."""

from __future__ import annotations

import pytest

from export.shape import Shape
from pyldfusion.errors import InputError


def test_names_and_numbers():
    shape = Shape(batch=(1, 2, 8), height=480)
    assert shape.dims == ("N", 480, "W") and not shape.is_fixed and str(shape) == "1:2:8,480,W"
    assert Shape(1, 480, 640).is_fixed and str(Shape(1, 480, 640)) == "1,480,640"
    assert Shape.dynamic() == Shape() and str(Shape()) == "N,H,W"


def test_profile():
    least, usual, largest = Shape(batch=(1, 2, 8), height=480).profile
    assert (least[:2], usual[:2], largest[:2]) == ((1, 480), (2, 480), (8, 480))
    assert least[2] == 16 and least[2] < usual[2] < largest[2]


@pytest.mark.parametrize(
    "axes",
    [{"batch": 0}, {"height": 15}, {"width": (640, 480, 800)}, {"width": (16, 32)}, {"batch": True}, {"height": 48.0}],
)
def test_what_cannot_be(axes):
    (name,) = axes
    with pytest.raises(InputError, match=f"{name} is .*expected a whole number from"):
        Shape(**axes)
