"""Roots and maxima of a function of one number, on the host."""

import math
from collections.abc import Callable

_GOLDEN = (math.sqrt(5) - 1) / 2


def root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function that has opposite signs at the ends changes its sign, by bisection to rounding."""
    below = function(low) < 0
    if below == (function(high) < 0):
        raise ValueError(f"the function must change its sign; got {function(low):g} and {function(high):g}.")
    while True:
        middle = (low + high) / 2
        if not low < middle < high:
            return middle
        if (function(middle) < 0) == below:
            low = middle
        else:
            high = middle


def maximiser(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function that rises and then falls is greatest, by golden section; accurate to about 1e-8, as the flat
    top of any maximum allows."""
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = function(left), function(right)
    for _ in range(60):
        if at_left < at_right:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = function(right)
        else:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = function(left)
    return (low + high) / 2
