"""The profiles: `full` is what the figures are about; `smoke` draws them from very small runs, in under a minute those
that show that every part works, the others when they are asked for."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import simulations
from simulations import Arm, Clusters, Digits, Layer, Training, TwoLayer, theory
from simulations.chen import Chen
from simulations.kawata import Kawata
from simulations.language.recipe import Recipe
from simulations.language.study import BY_SEQUENCE, SHAPE, Study, ablated, compared, loaded
from simulations.language.timing import RouterTime

from .plan import Audit, Experiment, Ledger, Replication, Simulation, Theory

OUTPUTS = 4
"""Targets of the clustered regression of the regime figures. Several, because the scalar outputs of two experts are
always collinear, and L_o then penalises their size and nothing else."""

MEANS = (4.0, 0.0)
ALPHAS = (0.0, 1e-4, 0.01, 0.1)
SMOKE_FIGURES = ("regimes", "balance", "activation", "gradients", "digits", "tightness")
LEDGER_SMOKE = ("himoe/eq4-*", "himoe/lemma-b2")
CONCENTRATIONS = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


def _some(*names: str) -> tuple[Arm, ...]:
    return tuple(arm for arm in compared() if arm.name in names)


THEORY = (
    Theory("hard-counts", theory.hard_counts),
    Theory("trained", theory.trained),
    Theory("modes", theory.modes),
    Theory("specialisation", theory.specialisation),
    Theory("onset", theory.measured_onset),
    Theory("hysteresis-8", theory.hysteresis, {"experts": 8}),
    Theory("hysteresis-64", theory.hysteresis, {"experts": 64}),
    Theory("staircase", theory.staircase),
    Theory("oscillation", theory.oscillation),
    Theory("batch-load", theory.batch_load),
    Theory("window", theory.window),
    Theory("violation-8", theory.violation, {"experts": 8, "routes": 2}),
    Theory("violation-32", theory.violation, {"experts": 32, "routes": 4}),
    Theory("effective-groups", theory.effective_groups),
    Theory("sliding", theory.sliding),
    Theory("cosines", theory.cosines),
    Theory("along-training", theory.along_training),
    Theory("common-mode", theory.common_mode),
    Theory("group-ratio", theory.group_ratio),
    Theory("phases", theory.phases),
)
ALPHAS_LANGUAGE = (0.0, 1e-4, 3e-3, 0.01, 0.1)
ALPHAS_BOUNDARY = (0.0, 1e-3, 2e-3, 3e-3, 4e-3, 6e-3, 0.01)
"""Most where theory puts the boundary."""
ALPHAS_SCOPE = (0.1, 0.4, 1.6)
"""With the published intra coefficient the critical batch of D2 (hard counts) is ¼, 1 and 4 sequences."""
SEEDS = tuple(range(5))
LANGUAGE = (
    Replication("language", Study(compared(), SEEDS), cost=90.0, shipped=True),
    Replication("language-guo", Study(ablated()), cost=90.0, shipped=True),
    Replication("language-load", Study(loaded(ALPHAS_LANGUAGE), SEEDS[:3]), cost=60.0, shipped=True),
    Replication("language-boundary", Study(loaded(ALPHAS_BOUNDARY, ("hi-moe",)), SEEDS), cost=90.0, shipped=True),
    *(
        Replication(
            f"language-scope-{scope}",
            Study(loaded(ALPHAS_SCOPE, ("hi-moe",)), SEEDS, BY_SEQUENCE, SHAPE | {"load_scope": scope}),
            shipped=True,
        )
        for scope in ("micro", "global")
    ),
    Replication("language-depth", Study(_some("gshard", "moge", "hi-moe"), shape=SHAPE | {"layers": 8}), shipped=True),
    Replication("language-time", RouterTime(_some("gshard", "st-moe", "loss-free", "moge", "hi-moe")), shipped=True),
)
"""Language models: together two to three hours of one core."""
THEORY_SMOKE: dict[str, dict[str, Any]] = {
    "modes": {"sizes": ((2, 2), (4, 2)), "draws": 2},
    "specialisation": {"sizes": (2, 4), "tokens": 48, "dim": 4, "share": 0.05},
    "onset": {"sizes": (2, 4), "tokens": 48, "dim": 4, "steps": 600},
    "hysteresis-8": {"ratio": 1.02, "patience": 800},
    "hysteresis-64": {"ratio": 1.02, "patience": 800},
    "staircase": {"points": 6, "runs": 3, "steps": 1000},
    "oscillation": {"points": 3, "periods": 4, "per_period": 500},
    "batch-load": {"sizes": (8, 64, 512), "draws": 100_000},
    "window": {"points": 9, "tokens": 20_001},
    "violation-8": {"rates": (0.001, 0.01, 0.04), "steps": 200, "tokens": 128},
    "violation-32": {"rates": (0.001, 0.01, 0.04), "steps": 100, "tokens": 128},
    "effective-groups": {"tokens": 32, "steps": 300, "records": 10, "rate": 8.0, "seeds": (0,)},
    "sliding": {"strides": (1, 3, 10), "records": 80},
    "cosines": {"concentrations": (0.1, 1.0, 10.0), "tokens": 64},
    "along-training": {"steps": 100, "records": 4, "seeds": (0,)},
    "common-mode": {"points": 4, "steps": 200},
    "hard-counts": {"cases": ((4, 4, 1), (4, 2, 1)), "points": 4, "tokens": 4096, "draws": 6},
    "group-ratio": {"sizes": (2, 4), "points": 4},
    "phases": {"strengths": (0.0, 1.0, 2.0), "intra": (0.01, 0.3, 3.0), "tokens": 32, "dim": 5, "steps": 400},
    "trained": {"means": (0.0, 4.0), "alphas": (0.0, 0.1), "steps": 60, "seeds": (0, 1)},
}
"""The settings in which the smoke profile differs."""


QUICK = Replication(
    "language-quick",
    Study(
        _some("moge", "hi-moe"),
        seeds=(0, 1),
        recipe=Recipe(steps=60, batch=8, learning_rate=3e-3, warmup=6, records=5, held_out=16),
        shape=SHAPE | {"layers": 2, "dim": 32, "context": 32, "width": 64},
    ),
    cost=15.0,
)
"""Small enough to be computed with the figures."""


def experiments(profile: str) -> tuple[Experiment, ...]:
    """What the figures are drawn from. **Raises:** `ValueError` for an unknown profile."""
    if profile not in PROFILES:
        raise ValueError(f"`profile` must be one of {', '.join(PROFILES)}; got {profile!r}.")
    return PROFILES[profile]()


def usual(profile: str) -> tuple[str, ...]:
    """The figures that are drawn if none is asked for, by name; empty for all."""
    return SMOKE_FIGURES if profile == "smoke" else ()


def with_alpha(arm: Arm, alpha: float) -> Arm:
    """The arm with another load coefficient, and a name that says so."""
    return dataclasses.replace(arm.with_terms(load_per_token=alpha), name=f"{arm.name} α={alpha:g}")


def _balance(mean: float, alphas: Sequence[float], training: Training, seeds: Sequence[int]) -> Simulation:
    known = simulations.arms()
    arms = tuple(with_alpha(known[name], alpha) for name in ("moge", "hi-moe") for alpha in alphas)
    return Simulation(f"balance-mean-{mean:g}", arms, Clusters(mean=mean), Layer(), training, tuple(seeds))


def _full() -> tuple[Experiment, ...]:
    arms, seeds, training = tuple(simulations.arms().values()), tuple(range(8)), Training(steps=1500, records=30)
    with_mean, without = (_balance(mean, ALPHAS, training, seeds) for mean in MEANS)
    return (
        # The first and the other mean are one program, and the second finds it compiled.
        with_mean,
        Simulation("regimes", arms, Clusters(mean=4.0, outputs=OUTPUTS), Layer(), training, seeds[:5]),
        # Experts too narrow to tell all classes apart: which images they get matters.
        Simulation("digits", arms, Digits(), Layer(TwoLayer(4)), Training(steps=600, batch=128, records=20), seeds[:4]),
        Audit("gradients", CONCENTRATIONS, samples=64, seed=0),
        Ledger("ledger"),
        Replication("chen", Chen(seeds=(0, 1, 2))),  # five take five minutes on one core
        Replication("kawata", Kawata()),
        *LANGUAGE,
        QUICK,
        without,
        *THEORY,  # short parts last: no process waits long for the other
    )


def _smoke() -> tuple[Experiment, ...]:
    known, seeds = simulations.arms(), (0, 1)
    # Nearly all of the time goes into compiling. Six arms of one structure, on the same data but for μ, compile once.
    rows = tuple(known[name] for name in known if name.startswith(("moge", "hi-moe")))
    training = Training(steps=150, batch=128, records=10, test_tokens=512)
    with_mean, without = (_balance(mean, ALPHAS[:1] + ALPHAS[2:], training, seeds) for mean in MEANS)
    simulated = (
        with_mean,
        Simulation("digits", rows[:2], Digits(), Layer(TwoLayer(4)), training, seeds),
        Simulation("regimes", rows, with_mean.data, Layer(), training, seeds),
        without,
    )
    first, second, *rest = (dataclasses.replace(each, optimise=False) for each in simulated)
    audit = Audit("gradients", CONCENTRATIONS[1::3], samples=4, seed=0)
    ledger = Ledger("ledger", LEDGER_SMOKE, pieces=1, optimise=False)
    small = Chen(models=("released",), settings=("1", "3"), seeds=seeds, samples=200, steps=20)
    brief = Kawata(seeds=seeds, experts=4, neurons=4, batch=128, explore=20, route=10, exploit=20, tokens=512)
    replications = (Replication("chen", small, 3.0, optimise=False), Replication("kawata", brief, 3.0, optimise=False))
    small_theory = (dataclasses.replace(each, settings=each.settings | THEORY_SMOKE[each.name]) for each in THEORY)
    return first, second, audit, ledger, *replications, *small_theory, *LANGUAGE, QUICK, *rest


PROFILES: dict[str, Callable[[], tuple[Experiment, ...]]] = {"full": _full, "smoke": _smoke}
