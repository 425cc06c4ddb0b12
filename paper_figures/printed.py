"""Numbers that papers print, as data with their place: drawn beside ours, never mixed with them."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Printed:
    """A mean and its ± as printed; in [chen-code] the ± is the standard deviation of ten runs on one data set."""

    mean: float
    spread: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.spread:.3f}"


CHEN_SOURCE = "chen"
CHEN: Mapping[str, Mapping[tuple[str, str], Printed]] = {
    "accuracy": {
        ("linear", "1"): Printed(0.9299, 0.0211),
        ("linear", "2"): Printed(0.8848, 0.0196),
        ("linear", "3"): Printed(0.9593, 0.0134),
        ("linear", "4"): Printed(0.9330, 0.0148),
        ("cubic", "1"): Printed(0.9946, 0.0055),
        ("cubic", "2"): Printed(0.9809, 0.0127),
        ("cubic", "3"): Printed(0.9999, 0.0002),
        ("cubic", "4"): Printed(0.9892, 0.0118),
    },
    "entropy": {
        ("linear", "1"): Printed(1.300, 0.044),
        ("linear", "2"): Printed(1.294, 0.036),
        ("linear", "3"): Printed(1.160, 0.100),
        ("linear", "4"): Printed(1.160, 0.155),
        ("cubic", "1"): Printed(0.098, 0.087),
        ("cubic", "2"): Printed(0.171, 0.103),
        ("cubic", "3"): Printed(0.008, 0.011),
        ("cubic", "4"): Printed(0.089, 0.120),
    },
}
"""Test accuracy and dispatch entropy (nats) of the mixture, by activation and setting."""

HIMOE_SOURCE = "himoe"
HIMOE_TABLE3: Mapping[str, Mapping[str, Printed]] = {
    "quality": {
        "moge": Printed(2.977, 0.02),
        "moge-intra": Printed(2.960, 0.02),
        "moge-inter": Printed(2.972, 0.02),
        "moge-bias": Printed(2.976, 0.02),
        "moge-intra-inter": Printed(2.950, 0.02),
        "hi-moe": Printed(2.947, 0.02),
    },
    "cv": {
        "moge": Printed(0.25, 0.016),
        "moge-intra": Printed(0.27, 0.016),
        "moge-inter": Printed(0.21, 0.016),
        "moge-bias": Printed(0.25, 0.016),
        "moge-intra-inter": Printed(0.23, 0.016),
        "hi-moe": Printed(0.23, 0.016),
    },
}
"""Table 3, nanoGPT-1B: quality (printed as a perplexity, of the size of a loss in nats a token) and CV of the loads, by
our name of the row. The ± is the standard deviation of three seeds, about the same in all rows."""
