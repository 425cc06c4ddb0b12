r"""What the chosen expert tells about a label of the token.

`contingency`, `mutual_information` and `normalised_information` are functions of arrays that compile;
`adjusted_information` and `matching_accuracy` run on the host, read values and return a Python float. In each of them
a constant label carries no information: the answer is 0, except for `matching_accuracy`, which always is a share of
tokens. Information is in nats, of one batch of tokens, and biased upward when tokens are few; `adjusted_information`
corrects for chance. None is a mean over tokens; `contingency` is a sum. `mask` names the real tokens; the others change
nothing.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .. import _checks
from .._numerics import safe_divide, within_range, xlogx
from ._common import (
    Mask,
    amounts,
    below,
    flags,
    host_whole,
    joint_counts,
    nonnegative,
    same_tokens,
    to_float,
    whole,
)

Table = Float[Array, "labels experts"] | Int[Array, "labels experts"] | Int[np.ndarray, "labels experts"]
HostLabels = Int[Array, " tokens"] | Int[np.ndarray, " tokens"]


def contingency(
    labels: Int[Array, " tokens"],
    weights: Float[Array, "tokens experts"] | Bool[Array, "tokens experts"],
    num_labels: int,
    *,
    mask: Mask = None,
) -> Float[Array, "{num_labels} experts"]:
    r"""Table of label and expert, $C_{le} = \sum_{t:\, y_t = l} w_{te}$.

    **Arguments:** `labels`: in [0, `num_labels`); outside `jit` others are a `ValueError`, inside they count nowhere.
    `weights`: a selection (then C counts tokens) or non-negative weights. `num_labels`: static.
    **Returns:** a row for each label, 0 for a label that does not occur; the columns of dead experts are 0.
    """
    _checks.count("num_labels", num_labels)
    labels = whole("labels", labels, ("tokens",), mask)
    below("labels", labels, num_labels)
    weights = _checks.array("weights", weights)
    boolean = weights.dtype == jnp.bool_
    values = flags("weights", weights, mask=mask) if boolean else nonnegative("weights", weights, mask=mask)
    same_tokens("labels", labels, "weights", values)
    # As a product: a scattered sum is slower on processors and, on GPUs, of another rounding each time.
    own = labels[:, None] == jnp.arange(num_labels, dtype=labels.dtype)
    if boolean:
        return to_float(joint_counts(own, values))
    return jnp.matmul(own.T.astype(values.dtype), values, precision=jax.lax.Precision.HIGHEST)


def mutual_information(table: Table) -> Float[Array, ""]:
    r"""$I = \sum_{le} p_{le} \ln \frac{p_{le}}{p_l p_e}$ of a non-negative table, normalised to sum 1; in nats.

    Range $[0, \min(H(p_l), H(p_e))]$. 0 for an empty table (all 0), for one label or one expert in use. The gradient
    in an empty cell, where it is infinite, is that of the marginals alone.
    """
    joint, labels, experts = _normalised(amounts("table", table, ("labels", "experts")))
    # Decided by counting: the rounding of the normalisation must not be taken for information.
    several = _several(labels) & _several(experts)
    independent = labels[:, None] * experts
    # Each term is p ln(p/q) - p + q >= 0, where the additions cancel in the sum: second order in p - q, so that near
    # independence the error is the square of the rounding and not the rounding itself.
    terms = joint * _log_ratio(joint, independent) - (joint - independent)
    return jnp.where(several, jnp.maximum(terms.sum(), 0), 0)


def normalised_information(table: Table, routes: int | Float[Array, ""]) -> Float[Array, ""]:
    r"""Mutual information over the most that it can be, $I / \min(H(p_l), \ln(N/R))$.

    The bound: draw one of the R distinct experts of a token at random. Given the token, the expert has entropy $\ln R$,
    and the label is a function of the token, so $H(E|Y) \ge \ln R$ and $I = H(E) - H(E|Y) \le \ln N - \ln R$; and
    $I \le H(Y)$ always. Hence in $[0, 1]$ when every token selected R experts, counted alike. Where tokens differ in
    number, give the least that one used; for unequal weights, 1. 0 where the bound is 0 (constant label, R = N, empty
    table).

    **Arguments:** `table`: from `contingency`. `routes`: R, whole, from 1 to the number of experts; inside `jit` a
    number that is traced is taken as it is.
    """
    table = amounts("table", table, ("labels", "experts"))
    if _checks.known(routes):
        number = float(_checks.real("routes", routes))
        if not number.is_integer():
            raise ValueError(f"`routes` must be a whole number; got {number:g}.")
        _checks.count("routes", int(number), maximum=table.shape[1], of="the experts of `table`")
    _, labels, _ = _normalised(table)
    entropy = jnp.where(_several(labels), -xlogx(labels).sum(), 0)
    bound = jnp.minimum(entropy, jnp.log(table.shape[1] / jnp.asarray(routes, table.dtype)))
    return safe_divide(mutual_information(table), bound, otherwise=0.0)


def adjusted_information(labels: HostLabels, assignments: HostLabels, *, mask: Mask = None) -> float:
    r"""Mutual information of label and top expert corrected for chance, $(I - \mathbb{E} I) / (\bar H - \mathbb{E} I)$.

    The expectation is over permutations of the tokens, where each count is hypergeometric (Vinh, Epps and Bailey,
    JMLR 11, 2010); $\bar H$ is the mean of the two entropies. At most 1 (a one-to-one
    match), near 0 for unrelated assignments and then possibly negative. Where no permutation can change I the formula
    is 0 or 0/0, and the answer 0: exactly so for one token, a constant label, a single expert in use, and where all
    labels or all experts are distinct. (scikit-learn answers 1 when both sides are constant, or both all distinct.)
    Host only, in float64.
    """
    table = _counts(*_both(labels, assignments, mask))
    n = int(table.sum())
    if 1 in table.shape or n in table.shape:
        return 0.0
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    of_rows, of_columns, of_pairs = (-float(_xlogx(counts / n).sum()) for counts in (rows, columns, table))
    expected = _expected_information(rows, columns)
    return (of_rows + of_columns - of_pairs - expected) / ((of_rows + of_columns) / 2 - expected)


def matching_accuracy(labels: HostLabels, assignments: HostLabels, num_experts: int, *, mask: Mask = None) -> float:
    r"""Share of tokens whose expert is the one matched to their label, under the best one-to-one matching.

    Where labels outnumber experts (or the reverse) the surplus stays unmatched. Range $(0, 1]$; with a constant label
    it is the share of the busiest expert. Host only.

    **Arguments:** `assignments`: top expert of each token, in [0, `num_experts`).
    """
    # Imported here: scipy.optimize takes 0.5 s.
    from scipy.optimize import linear_sum_assignment

    _checks.count("num_experts", num_experts)
    labels, assignments = _both(labels, assignments, mask)
    below("assignments", assignments, num_experts)
    table = _counts(labels, assignments)  # an expert without tokens adds nothing to a matching
    matched = linear_sum_assignment(table, maximize=True)
    return float(table[matched].sum() / labels.size)


def _counts(labels: HostLabels, assignments: HostLabels) -> Int[np.ndarray, "kinds used"]:
    """How many tokens have each of the labels and each of the experts that occur."""
    sides = [np.unique(side, return_inverse=True) for side in (labels, assignments)]
    shape = tuple(values.size for values, _ in sides)
    flat = np.ravel_multi_index([places.ravel() for _, places in sides], shape)
    return np.bincount(flat, minlength=math.prod(shape)).reshape(shape)


def _xlogx(p: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    return p * np.log(np.where(p > 0, p, 1))


def _expected_information(rows: Int[np.ndarray, " labels"], columns: Int[np.ndarray, " experts"]) -> float:
    """Mean over permutations of the mutual information of a table with these sums, none of them 0."""
    from scipy.special import gammaln  # imported here, as importing it takes a tenth of a second

    n, log = int(rows.sum()), np.log
    log_factorial = gammaln(np.arange(n + 1) + 1.0)
    total = 0.0
    for row in rows:  # at most [counts, experts] numbers at a time
        count = np.arange(1, min(row, columns.max()) + 1)[:, None]
        possible = (count <= columns) & (n - row - columns + count >= 0)
        left = np.where(possible, columns - count, 0)  # of the expert's tokens, those with other labels
        other = np.where(possible, n - row - left, 0)
        ways = log_factorial[columns] - log_factorial[count] - log_factorial[left]
        ways = ways + log_factorial[n - columns] - log_factorial[row - count] - log_factorial[other]
        ways = ways - (log_factorial[n] - log_factorial[row] - log_factorial[n - row])
        gain = count / n * (log(n * count) - log(row * columns))
        total += float((gain * np.exp(np.where(possible, ways, -np.inf))).sum())
    return total


def _normalised(
    table: Float[Array, "labels experts"],
) -> tuple[Float[Array, "labels experts"], Float[Array, " labels"], Float[Array, " experts"]]:
    """Joint distribution and both marginals; all 0 for an empty table."""
    table = within_range(table, (0, 1))
    joint = safe_divide(table, table.sum(), otherwise=0.0)
    return joint, joint.sum(axis=1), joint.sum(axis=0)


def _log_ratio(p: Float[Array, "labels experts"], q: Float[Array, "labels experts"]) -> Float[Array, "labels experts"]:
    """ln(p/q), exact to its own size where p is near q; 0 where p is 0."""
    beyond = safe_divide(p - q, q, otherwise=0.0)
    # Far below q it is -1 after rounding. Each branch is kept off the other's arguments for the gradient's sake.
    near = jnp.log1p(jnp.maximum(beyond, -0.5))
    far = jnp.log(jnp.where(p > 0, p, 1)) - jnp.log(jnp.where(q > 0, q, 1))
    return jnp.where(p > 0, jnp.where(beyond > -0.5, near, far), 0)


def _several(shares: Float[Array, " outcomes"]) -> Bool[Array, ""]:
    return (shares > 0).sum() > 1


def _both(
    labels: HostLabels, assignments: HostLabels, mask: Mask
) -> tuple[Int[np.ndarray, " real"], Int[np.ndarray, " real"]]:
    labels = host_whole("labels", labels, mask)
    assignments = host_whole("assignments", assignments, mask)
    if labels.size != assignments.size:
        raise ValueError(f"`labels` has {labels.size} tokens, `assignments` has {assignments.size}.")
    return labels, assignments
