"""The profiles: `full` is what the figures are about; `smoke` draws them all from very small runs."""

import dataclasses
from collections.abc import Callable, Sequence

import simulations
from simulations import Arm, Clusters, Digits, Layer, Training, TwoLayer

from .plan import Audit, Experiment, Ledger, Simulation

OUTPUTS = 4
"""Targets of the clustered regression of the regime figures. Several, because the scalar outputs of two experts are
always collinear, and L_o then penalises their size and nothing else."""

MEANS = (4.0, 0.0)
ALPHAS = (0.0, 1e-4, 0.01, 0.1)
LEDGER_SMOKE = ("himoe/eq4-*", "himoe/lemma-b2")
CONCENTRATIONS = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


def experiments(profile: str) -> tuple[Experiment, ...]:
    """What the figures are drawn from. **Raises:** `ValueError` for an unknown profile."""
    if profile not in PROFILES:
        raise ValueError(f"`profile` must be one of {', '.join(PROFILES)}; got {profile!r}.")
    return PROFILES[profile]()


def with_alpha(arm: Arm, alpha: float) -> Arm:
    """The arm with another load coefficient, and a name that says so."""
    return dataclasses.replace(arm.with_terms(load_per_token=alpha), name=f"{arm.name} α={alpha:g}")


def _balance(mean: float, alphas: Sequence[float], training: Training, seeds: Sequence[int]) -> Simulation:
    known = simulations.arms()
    arms = tuple(with_alpha(known[name], alpha) for name in ("moge", "hi-moe") for alpha in alphas)
    return Simulation(f"balance-mean-{mean:g}", arms, Clusters(mean=mean), Layer(), training, tuple(seeds))


def _full() -> tuple[Experiment, ...]:
    arms, seeds, training = tuple(simulations.arms().values()), tuple(range(8)), Training(steps=1500, records=50)
    with_mean, without = (_balance(mean, ALPHAS, training, seeds) for mean in MEANS)
    return (
        # First and last: they are one program, and the second finds it compiled.
        with_mean,
        Simulation("regimes", arms, Clusters(mean=4.0, outputs=OUTPUTS), Layer(), training, seeds),
        # Experts too narrow to tell all classes apart: which images they get matters.
        Simulation("digits", arms, Digits(), Layer(TwoLayer(4)), Training(steps=600, batch=128, records=20), seeds[:4]),
        Audit("gradients", CONCENTRATIONS, samples=64, seed=0),
        Ledger("ledger"),
        without,
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
    return first, second, audit, Ledger("ledger", LEDGER_SMOKE, pieces=1, optimise=False), *rest


PROFILES: dict[str, Callable[[], tuple[Experiment, ...]]] = {"full": _full, "smoke": _smoke}
