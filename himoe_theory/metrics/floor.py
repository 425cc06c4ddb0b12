r"""Whether a load is uneven beyond what sampling does: the null of balanced routing, and a verdict on counts.

*The null*: T tokens, each with K distinct experts drawn without replacement from N with equal chances, independently of
the others. A count $n_e$ is then binomial, of mean $\bar n = TK/N$ and variance $T \frac KN (1 - \frac KN)$; as counts
sum to KT, two of them have the covariance $-1/(N-1)$ of it. Hence exactly $E\,\mathrm{CV}^2 = (N/K - 1)/T$, and for
many tokens $(N-1)\,\mathrm{CV}^2 / E\,\mathrm{CV}^2$ is $\chi^2_{N-1}$. With groups, of each of which as many experts
are selected, counts vary less: the floor is then an upper bound. Tokens of a text are not independent, and a load may
be uneven beyond this null for that reason alone. Host only.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from .. import _checks
from .balance import coefficient_of_variation, max_cv, max_violation


def cv_floor(
    num_experts: int, routes: int | float | Float[np.ndarray, "*runs"], tokens: int
) -> Float[np.ndarray, "*runs"]:
    r"""$\sqrt{E\,\mathrm{CV}^2} = \sqrt{(N/K - 1)/T}$ under the null: the root mean square, exact for any T, where
    `sampling_floor` has the mean.

    Of the mean K where tokens have unequal numbers of experts, and then an upper bound: exact is
    $E\,\mathrm{CV}^2 = (N/\bar K - \overline{K^2}/\bar K^2)/T$. 0 for K = N, infinite for K = 0.

    **Arguments:** `routes`: K in [0, N], whole or not. **Source:** [himoe-theory] D9.
    """
    _checks.count("num_experts", num_experts)
    _checks.count("tokens", tokens)
    given = _checks.real("routes", routes)
    if not ((given >= 0) & (given <= num_experts)).all():
        raise ValueError(f"`routes` must be from 0 to `num_experts` = {num_experts}; got {given.tolist()}.")
    with np.errstate(divide="ignore"):
        return np.asarray(np.sqrt((num_experts / given - 1) / tokens))


class SamplingFloor(NamedTuple):
    r"""What CV and MaxVio are under the null: in expectation, and the value exceeded with chance 1 - level.

    MaxVio's quantile is that of a binomial count by the union bound over experts: it is exceeded at most so often, for
    any number of tokens.
    """

    cv: float
    cv_quantile: float
    max_violation: float
    max_violation_quantile: float


def sampling_floor(num_experts: int, routes: int, tokens: int, *, level: float = 0.99) -> SamplingFloor:
    r"""$E\,\mathrm{CV} = \sqrt{\frac{N/K - 1}{T (N-1)}}\, \sqrt2\, \Gamma(\frac N2)/\Gamma(\frac{N-1}2)$,
    `max_violation_floor`, and quantiles.

    The first three in the limit of many tokens, good from mean counts of about 10. All 0 for K = N: every count is T.

    **Arguments:** `level`: of the quantiles, in (0, 1). **Source:** [himoe-theory] D9.
    """
    # Imported here: the dynamics, which stand on the metrics' neighbours, hold the expectation of a maximum.
    from scipy.special import gammaln
    from scipy.stats import binom, chi2

    from ..dynamics.sampling import max_violation_floor

    largest = max_violation_floor(num_experts, routes, tokens)
    _level(level)
    if routes == num_experts:
        return SamplingFloor(0.0, 0.0, 0.0, 0.0)
    spread, freedom = float(cv_floor(num_experts, routes, tokens)), num_experts - 1
    most = float(binom.isf((1 - level) / num_experts, tokens, routes / num_experts))
    mean = math.sqrt(2 / freedom) * math.exp(gammaln(num_experts / 2) - gammaln(freedom / 2))
    return SamplingFloor(
        cv=spread * mean,
        cv_quantile=spread * math.sqrt(float(chi2.ppf(level, freedom)) / freedom),
        max_violation=largest,
        max_violation_quantile=most * num_experts / (routes * tokens) - 1,
    )


class Verdict(NamedTuple):
    r"""What counts say against the null.

    **Fields:** `cv`, `max_violation`: measured. `floor`: under the null. `chance`: that CV is at least this large under
    the null. `collapse`: $\mathrm{CV}^2$ over its largest value, N/K - 1; 1 if all tokens agree. `level`: of the floor.
    """

    cv: float
    max_violation: float
    floor: SamplingFloor
    chance: float
    collapse: float
    level: float

    @property
    def name(self) -> str:
        """`sampling` where `chance` is at least 1 - level; else `uneven`, or `collapsed` where `collapse` is half or
        more."""
        if self.chance >= 1 - self.level:
            return "sampling"
        return "collapsed" if self.collapse >= 0.5 else "uneven"

    @property
    def words(self) -> str:
        """The verdict and what it rests on, in one line."""
        said = {
            "sampling": "nothing to explain",
            "uneven": "real, far from collapse",
            "collapsed": "real, and near collapse",
        }[self.name]
        return (
            f"{said}: CV {self.cv:.4f} (sampling {self.floor.cv:.4f}, below {self.floor.cv_quantile:.4f} at "
            f"{self.level:g}), MaxVio {self.max_violation:.4f} (sampling {self.floor.max_violation:.4f})"
        )


def verdict(
    counts: Int[Array, " experts"] | Int[np.ndarray, " experts"], routes: int, *, level: float = 0.99
) -> Verdict:
    r"""Whether the counts of one batch are balanced to sampling, uneven beyond it, or near collapse.

    **Arguments:** `counts`: whole, before drops; they sum to K times the tokens, and none exceeds the tokens.
    `routes`: K. `level`: in (0, 1); balanced routing is called uneven with chance 1 - `level`.
    **Raises:** `ValueError` if counts and routes do not fit each other. **Source:** [himoe-theory] D9.
    """
    from scipy.stats import chi2

    given = counts if isinstance(counts, np.ndarray) else np.asarray(_checks.array("counts", counts))
    if given.ndim != 1 or not np.issubdtype(given.dtype, np.integer):
        raise ValueError(f"`counts` must be whole numbers, one an expert; got {given.dtype} of shape {given.shape}.")
    experts, total = given.size, int(given.astype(object).sum())
    _checks.count("routes", routes, maximum=experts, of="the experts of `counts`")
    tokens = total // routes
    if total == 0 or total % routes or given.min() < 0 or given.max() > tokens:
        found = f"a sum of {total} and entries in {given.min()}..{given.max()}"
        raise ValueError(f"`counts` must sum to {routes} times the tokens, each at most the tokens; got {found}.")
    floor = sampling_floor(experts, routes, tokens, level=level)
    cv, most = float(coefficient_of_variation(given)), max_cv(experts, routes)
    ratio = (experts - 1) * cv**2 * tokens / (most**2) if most else 0.0
    return Verdict(
        cv=cv,
        max_violation=float(max_violation(given)),
        floor=floor,
        chance=float(chi2.sf(ratio, experts - 1)) if most else 1.0,
        collapse=cv**2 / most**2 if most else 0.0,
        level=level,
    )


def _level(level: float) -> None:
    _checks.coefficient("level", level, maximum=1.0)
    if not 0 < level < 1:
        raise ValueError(f"`level` must be strictly between 0 and 1; got {level:g}.")
