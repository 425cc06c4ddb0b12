"""Stored results of theory over simulation in which every measurement differs from theory by one chosen share."""

import numpy as np
import xarray as xr

from simulations.theory.compatibility import EXACT, MAPPED, TRACKED
from simulations.theory.groups import ARMS
from simulations.theory.growth import MODES


def results(share: float) -> dict[str, xr.Dataset]:
    """All results by name; measured = theory times 1 + `share`, or theory + `share` where theory is 0."""
    return _growth(share) | _reinforcement(share) | _batches(share) | _compatibility(share) | _boundary(share)


def _growth(share):
    rates = np.linspace(-1.0, 1.0, 32).reshape(2, 2, 2, 4)
    rates[0, :, :, [1, 3]] = np.nan  # one group
    axes, times = ("layer", "draw", "load_kind", "mode"), np.linspace(0, 3, 5)
    modes = xr.Dataset(
        {
            "predicted": (axes, rates),
            "corrected": (axes, rates),
            "measured": (axes, rates * (1 + share)),
            "size": ((*axes, "record"), np.exp(rates[..., None] * times)),
            "time": (("layer", "draw", "record"), np.tile(times, (2, 2, 1))),
            "exists": (("layer", "mode"), [[True, False] * 2, [True] * 4]),
        },
        {"layer": ["N = 2, S = 2", "N = 4, S = 2"], "load_kind": ["full", "frozen"], "mode": list(MODES)},
    )
    flow, times = np.array([0.2, 0.1]), np.linspace(0, 200, 41)
    norm = 1e-7 * np.exp(np.minimum(flow[:, None] * times, 16))
    specialisation = xr.Dataset(
        {
            "predicted": ("experts", flow),
            "corrected": ("experts", flow),
            "measured": ("experts", flow * (1 + share)),
            "norm": (("experts", "record", "part"), np.stack([norm, norm], axis=-1)),
            "time": (("experts", "record"), np.stack([times, times])),
        },
        {"experts": [2, 4], "part": ["router", "experts"]},
    )
    predicted = np.array([[160.0, 300.0], [42.0, 42.0]])
    curve = np.array([0.0, 1.0, 2.0, 4.0])
    onset = xr.Dataset(
        {
            "predicted": (("optimiser", "experts"), predicted),
            "measured": (("optimiser", "experts"), predicted * (1 + 3 * share)),
            "amplitude": (("experts", "step"), np.stack([curve, curve]) * (1 - share)),
            "curve": ("step", curve),
        },
        {"optimiser": ["plain", "Adam"], "experts": [2, 4], "step": [0, 1, 2, 3]},
    )
    return {"modes": modes, "specialisation": specialisation, "onset": onset}


def _reinforcement(share):
    def loop(experts, low):
        control, p = np.geomspace(0.8 * low, 1.2 * experts, 30), np.linspace(0.2, 0.99, 20)
        jumps = np.array([experts, low])
        return xr.Dataset(
            {
                "largest": (("direction", "control"), [control > experts, control > low]),
                "branch": ("p", low + 10 * (p - 0.7) ** 2),
                "jump": ("direction", jumps * (1 + share)),
                "predicted_jump": ("direction", jumps),
                "coexistence": ((), 1.1 * low),
            },
            {"direction": ["up", "down"], "control": control, "p": p},
        )

    threshold = np.array([0.2, 0.3, 0.4])
    staircase = xr.Dataset(
        {
            "live": (("alpha", "run"), np.array([[1, 1], [2, 1], [3, 4]])),
            "largest_live": ("alpha", np.array([1, 2, 3])),
            "threshold": ("n", threshold),
            "measured_threshold": ("n", threshold * (1 - share)),
        },
        {"alpha": [0.15, 0.25, 0.35], "n": [2, 3, 4]},
    )
    ratio, period = np.array([0.9, 1.0, 1.1]), np.array([110.0, 100.0, 90.0])
    oscillation = xr.Dataset(
        {
            "rate": ("share", 0.6 * ratio),
            "predicted": ("share", period),
            "damped": ("share", period),
            "measured": ("share", period * (1 + share)),
            "grows": ("share", [1.0, 0.0, -1.0]),
        },
        {"share": ratio},
    )
    loops = {"hysteresis-8": loop(8, 4.2), "hysteresis-64": loop(64, 6.9)}
    return loops | {"staircase": staircase, "oscillation": oscillation}


def _batches(share):
    load = xr.Dataset(
        {
            "predicted": ("tokens", [1.5, 1.1]),
            "measured": ("tokens", [1.5, 1.1 + 100 * share * 0.01]),
            "standard_error": ("tokens", [0.02, 0.01]),
            "limit": ((), 1.0),
        },
        {"tokens": [8, 64]},
    )
    ratio = np.array([0.1, 0.4, 0.1])
    window = xr.Dataset(
        {
            "predicted": ("spread", ratio),
            "measured": ("spread", ratio * (1 - share)),
            "edge": (("ratio", "side"), [[0.2, 5.0], [np.nan, np.nan]]),
            "predicted_edge": (("ratio", "side"), [[0.2, 5.0], [np.nan, np.nan]]),
        },
        {"spread": [0.1, 1.0, 10.0], "ratio": [0.2, 0.9], "side": ["lower", "upper"]},
    )

    def violation(experts):
        predicted = np.array([0.2, 0.5])
        return xr.Dataset(
            {
                "predicted": ("rate", predicted),
                "measured": ("rate", predicted * (1 + share)),
                "standard_error": ("rate", [0.01, 0.01]),
                "sampling": ((), 0.19),
            },
            {"rate": [0.001, 0.01]},
            {"experts": experts, "routes": 2, "tokens": 64},
        )

    axes, shape = ("arm", "seed", "step"), (3, 2, 4)
    groups = xr.Dataset(
        {
            "groups": (axes, np.full(shape, 1.5) + share * (np.arange(4) == 3)),
            "limit": ("arm", [1.5, np.nan, 1.5]),
            "purity": (axes, np.full(shape, 0.9)),
            "group_cv": (axes, np.zeros(shape)),
            "flip": ("arm", [0.5, 2.0, 0.5]),
        },
        {"arm": list(ARMS), "seed": [0, 1], "step": [10, 20, 30, 40]},
        {"groups": 4},
    )
    floors = {"violation-8": violation(8), "violation-32": violation(32)}
    others = {"effective-groups": groups, "sliding": _sliding(share)}
    return {"batch-load": load, "window": window} | others | floors


def _sliding(share):
    """Orders are wrong by twice the share, counts by 100 of it steps."""
    steps, slid = np.array([0.1, 0.01]), np.array([2.0, np.nan])
    predicted = np.array([[-0.5, 0.0, 0.0, 0.0], [-0.5, -0.2, 0.2, 0.5]])
    tied = np.where(predicted == 0, 1.0, np.nan)
    order, counted = np.array([1 - 2 * share, 1.0]), np.array([0.75, np.nan])
    return xr.Dataset(
        {
            "predicted": (("case", "time"), predicted),
            "measured": (("case", "step", "time"), predicted[:, None] + 0.1 * steps[:, None]),
            "theta": (("case", "time"), 0.75 * tied),
            "approach": (("case", "side", "time"), tied[:, None] * np.array([-0.1, 0.3])[:, None]),
            "distance": (("case", "step"), 0.3 * steps ** order[:, None]),
            "order": ("case", order),
            "predicted_order": ((), 1.0),
            "share": (("case", "step"), counted[:, None] - 100 * share * steps / slid[:, None]),
            "predicted_share": ("case", counted),
            "slid": ("case", slid),
        },
        {"case": ["slides", "crosses"], "step": steps, "time": np.arange(4.0), "side": ["above", "below"]},
        {"experts": 5},
    )


def _compatibility(share):
    names, concentrations = list(MAPPED), [0.1, 1.0, 10.0]
    cosine = np.full((2, 3, len(names), len(names)), 0.25)
    exact = np.array([value for *_, value in EXACT])
    cosines = xr.Dataset(
        {
            "cosine": (("metric", "concentration", "a", "b"), cosine),
            "exact": ("relation", exact),
            "exact_measured": (("relation", "concentration"), exact[:, None] - share * np.array([0, 0, 1])),
        },
        {"metric": ["Euclidean", "Fisher"], "concentration": concentrations, "a": names, "b": names},
    )
    tracked = ["task", *TRACKED]
    along = xr.Dataset(
        {
            "cosine": (("seed", "step", "a", "b"), np.full((2, 3, len(tracked), len(tracked)), -0.5)),
            "experts_cosine": (("seed", "step"), np.zeros((2, 3))),
        },
        {"seed": [0, 1], "step": [0, 5, 10], "a": tracked, "b": tracked},
    )
    return {"cosines": cosines, "along-training": along}


def _boundary(share):
    intra, sizes = np.array([0.5, 1.0]), np.array([2.0, 4.0])
    edge = np.stack([intra, 2 * intra])
    common = xr.Dataset(
        {
            "edge": (("load_kind", "intra"), edge * (1 + share)),
            "predicted_edge": (("load_kind", "intra"), edge),
        },
        {"load_kind": ["full", "frozen"], "intra": intra, "alpha_n": [0.1, 2.2]},
    )
    ratio = xr.Dataset(
        {
            "growth": (("size", "ratio"), np.tile([-0.5, 0.0, 0.5], (2, 1))),
            "edge": ("size", sizes * (1 + share)),
            "predicted_edge": ("size", sizes),
        },
        {"size": [2, 4], "ratio": [0.5, 1.0, 1.5]},
    )
    # Falls to half at 0.04 = 0.1 (0.7 - 0.5) / (0.7 - 0.2); theory is that less the share.
    cv = [[[0.1, 0.1], [0.1, 0.1]], [[0.7, 0.7], [0.2, 0.2]]]
    trained = xr.Dataset(
        {
            "cv": (("mean", "alpha", "seed"), cv),
            "edge": (("mean", "seed"), [[0.0, 0.0], [0.04, 0.04]]),
            "predicted_edge": ("mean", [0.0, 0.04 / (1 + share)]),
        },
        {"mean": [0.0, 4.0], "alpha": [0.0, 0.1], "seed": [0, 1]},
        {"largest": 1.0},
    )
    predicted = np.arange(8).reshape(2, 2, 2) % 4
    started = np.where((np.arange(8).reshape(2, 2, 2) == 2) & (share > 0.01), 1, predicted)
    axes = ("load_ratio", "intra", "strength")
    begun = xr.Dataset(
        {"predicted": (axes, predicted), "started": (axes, started), "ended": (axes, 0 * predicted)},
        {"load_ratio": [0.0, 2.0], "intra": [0.1, 1.0], "strength": [0.0, 1.0]},
        {"steps": 400},
    )
    load = np.array([[0.2, 1.5], [0.3, 3.0]])
    counts = xr.Dataset(
        {
            "predicted": (("case", "spread"), load),
            "measured": (("case", "spread"), load + share),
            "standard_error": (("case", "spread"), np.full((2, 2), 0.01)),
        },
        {"case": ["N = 8, K = 1", "N = 8, S = 2, K = 1"], "spread": [0.1, 2.0]},
    )
    return {"common-mode": common, "hard-counts": counts, "group-ratio": ratio, "trained": trained, "phases": begun}
