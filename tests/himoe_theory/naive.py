"""The definitions spelt out with loops: token by token, expert by expert, in Python floats.

Nothing here shares a formula, a function or a vectorised step with the library. Logits are moderate, so that a plain
exponential will do.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from himoe_theory import Routing, Sigmoid

Matrix = list[list[float]]


@dataclass(frozen=True)
class Batch:
    """A routing as plain lists: what each token saw and chose."""

    logits: Matrix
    selection_logits: Matrix
    first: list[int]
    """The expert of each token's first route."""
    chosen: list[set[int]]
    """The experts each token kept, before drops."""
    group_of: tuple[int, ...]
    routes: int
    sigmoid: bool = False
    """Whether scores are sigmoids of the logits, not their softmax."""

    @classmethod
    def of(cls, routing: Routing) -> "Batch":
        experts, active = np.asarray(routing.experts), np.asarray(routing.active)
        return cls(
            np.asarray(routing.logits).tolist(),
            np.asarray(routing.selection_logits).tolist(),
            [int(row[0]) for row in experts],
            [{int(e) for e, stays in zip(*row, strict=True) if stays} for row in zip(experts, active, strict=True)],
            routing.partition.group_of,
            experts.shape[1],
            isinstance(routing.score, Sigmoid),
        )

    @property
    def logs(self) -> Matrix:
        """Of which the probabilities are the softmax."""
        return logarithms(self.logits) if self.sigmoid else self.logits

    @property
    def selection_logs(self) -> Matrix:
        return logarithms(self.selection_logits) if self.sigmoid else self.selection_logits

    @property
    def tokens(self) -> int:
        return len(self.logits)

    @property
    def experts(self) -> int:
        return len(self.group_of)

    @property
    def groups(self) -> int:
        return len(set(self.group_of))


def softmax(row: list[float], among: set[int] | None = None) -> list[float]:
    """Over the experts in `among`, 0 for the others."""
    raised = [math.exp(s) if among is None or e in among else 0.0 for e, s in enumerate(row)]
    total = sum(raised)
    return [r / total for r in raised]


def logarithms(rows: Matrix) -> Matrix:
    """Of every expert's sigmoid."""
    return [[-math.log(1 + math.exp(-s)) for s in row] for row in rows]


def sigmoid_shares(row: list[float]) -> list[float]:
    """Each expert's sigmoid over the sum of all."""
    scores = [1 / (1 + math.exp(-s)) for s in row]
    return [s / sum(scores) for s in scores]


def mean_over_tokens(rows: Matrix) -> list[float]:
    return [sum(row[e] for row in rows) / len(rows) for e in range(len(rows[0]))]


def counts(b: Batch) -> list[float]:
    return [float(sum(e in chosen for chosen in b.chosen)) for e in range(b.experts)]


def _weighted_by(b: Batch, share: list[float], probs: Matrix) -> float:
    mean = mean_over_tokens(probs)
    return b.experts * sum(share[e] * mean[e] for e in range(b.experts))


def load(b: Batch) -> float:
    n = counts(b)
    return _weighted_by(b, [each / sum(n) for each in n], [softmax(row) for row in b.logs])


def load_per_token(b: Batch) -> float:
    return _weighted_by(b, [each / b.tokens for each in counts(b)], [softmax(row) for row in b.logs])


def load_selected_weights(b: Batch) -> float:
    n = counts(b)
    weights = [softmax(row, chosen) for row, chosen in zip(b.logs, b.chosen, strict=True)]
    return _weighted_by(b, [each / sum(n) for each in n], weights)


def load_first_choice(b: Batch) -> float:
    share = [b.first.count(e) / b.tokens for e in range(b.experts)]
    return _weighted_by(b, share, [softmax(row) for row in b.logs])


def load_top_k(b: Batch) -> float:
    chosen = [sorted(range(b.experts), key=lambda e: (-row[e], e))[: b.routes] for row in b.logs]
    n = [sum(e in row for row in chosen) for e in range(b.experts)]
    return _weighted_by(b, [each / sum(n) for each in n], [softmax(row) for row in b.logs])


def soft_load(b: Batch) -> float:
    return b.experts * sum(p * p for p in mean_over_tokens([softmax(row) for row in b.logs]))


def load_entropy(b: Batch) -> float:
    return sum(p * math.log(p) for p in mean_over_tokens([softmax(row) for row in b.logs]))


def group_sums(b: Batch, row: list[float]) -> list[float]:
    return [sum(p for e, p in enumerate(row) if b.group_of[e] == g) for g in range(b.groups)]


def _kept(b: Batch) -> Matrix:
    """Corrected probabilities, 0 where not selected, not renormalised."""
    return [
        [p if e in chosen else 0.0 for e, p in enumerate(softmax(row))]
        for row, chosen in zip(b.selection_logs, b.chosen, strict=True)
    ]


def inter_group_selected(b: Batch) -> float:
    return sum(p * p for row in _kept(b) for p in row) / b.tokens


def inter_group_sparse(b: Batch) -> float:
    return sum(m * m for row in _kept(b) for m in group_sums(b, row)) / b.tokens


def inter_group_dense(b: Batch) -> float:
    return sum(m * m for row in b.logs for m in group_sums(b, softmax(row))) / b.tokens


def intra_group_global(b: Batch, logits: Matrix) -> float:
    return -sum(p * p for row in logits for p in softmax(row)) / b.tokens


def intra_group_conditional(b: Batch, logits: Matrix, epsilon: float = 0.0) -> float:
    total = 0.0
    for row in logits:
        probs = softmax(row)
        mass = group_sums(b, probs)
        purity = [
            sum((p / (mass[g] + epsilon)) ** 2 for e, p in enumerate(probs) if b.group_of[e] == g)
            for g in range(b.groups)
        ]
        total += sum(purity) / b.groups
    return -total / b.tokens


def token_entropy(b: Batch, epsilon: float = 0.0) -> float:
    return -sum(p * math.log(p + epsilon) for row in b.logs for p in softmax(row)) / b.tokens


def group_neg_entropy(b: Batch, epsilon: float = 0.0) -> float:
    return sum(m * math.log(m + epsilon) for row in b.logs for m in group_sums(b, softmax(row))) / b.tokens


def z(b: Batch) -> float:
    return sum(math.log(sum(math.exp(s) for s in row)) ** 2 for row in b.logits) / b.tokens


def variance_across_tokens(b: Batch) -> float:
    weights = [softmax(row, chosen) for row, chosen in zip(b.logs, b.chosen, strict=True)]
    mean = mean_over_tokens(weights)
    return -sum((w - mean[e]) ** 2 for row in weights for e, w in enumerate(row)) / b.experts


def variance_across_experts(b: Batch) -> float:
    total = 0.0
    for row in b.logs:
        probs = softmax(row)
        mean = sum(probs) / len(probs)
        total += sum((p - mean) ** 2 for p in probs) / (len(probs) - 1)
    return -total / b.tokens


def cv_squared(amounts: list[float]) -> float:
    """Variance over squared mean, each from its definition."""
    mean = sum(amounts) / len(amounts)
    return sum((a - mean) ** 2 for a in amounts) / len(amounts) / mean**2


def importance_cv_squared(b: Batch) -> float:
    weights = [softmax(row, chosen) for row, chosen in zip(b.logs, b.chosen, strict=True)]
    return cv_squared([sum(row[e] for row in weights) for e in range(b.experts)])


def smooth_load(logits: Matrix, noise: Matrix, k: int, noise_std: float) -> list[float]:
    """Expected number of tokens of each expert if its own noise were drawn again, all others staying."""
    total = [0.0] * len(logits[0])
    for row, noise_row in zip(logits, noise, strict=True):
        noisy = [s + x for s, x in zip(row, noise_row, strict=True)]
        for e, s in enumerate(row):
            rivals = sorted((n for other, n in enumerate(noisy) if other != e), reverse=True)
            total[e] += 0.5 * math.erfc((rivals[k - 1] - s) / noise_std / math.sqrt(2))
    return total


def load_cv_squared(b: Batch) -> float:
    noiseless = [[0.0] * b.experts for _ in b.logits]
    return cv_squared(smooth_load(b.logits, noiseless, min(b.routes, b.experts - 1), 1.0))


NAIVE: dict[str, Callable[[Batch], float]] = {
    "load": load,
    "load_per_token": load_per_token,
    "load_selected_weights": load_selected_weights,
    "load_first_choice": load_first_choice,
    "load_top_k": load_top_k,
    "load_top_k_per_token": lambda b: b.routes * load_top_k(b),
    "load_frozen": soft_load,
    "p_squared": soft_load,
    "load_entropy": load_entropy,
    "inter_group_selected": inter_group_selected,
    "inter_group_sparse": inter_group_sparse,
    "inter_group_dense": inter_group_dense,
    "intra_group_global": lambda b: intra_group_global(b, b.logs),
    "intra_group_global_selection": lambda b: intra_group_global(b, b.selection_logs),
    "intra_group_conditional": lambda b: intra_group_conditional(b, b.logs),
    "intra_group_conditional_selection": lambda b: intra_group_conditional(b, b.selection_logs),
    "token_entropy": token_entropy,
    "group_neg_entropy": group_neg_entropy,
    "z": z,
    "variance_across_tokens": variance_across_tokens,
    "variance_across_experts": variance_across_experts,
    "importance_cv_squared": importance_cv_squared,
    "load_cv_squared": load_cv_squared,
}


# Outputs of the selected experts: outputs[t][j] is a vector.


def orthogonality_paper(outputs: np.ndarray, epsilon: float) -> float:
    total = 0.0
    for token in outputs:
        for j, x in enumerate(token):
            for k, y in enumerate(token):
                if k != j:
                    projection = float(x @ y) / (float(y @ y) + epsilon) * y
                    total += float(projection @ projection)
    return total


def orthogonality_span(outputs: np.ndarray) -> float:
    """Least squares instead of an orthonormal basis."""
    total, terms = 0.0, 0
    for token in outputs:
        for j, x in enumerate(token):
            terms += 1
            others = np.delete(token, j, axis=0).T
            if others.size:
                fit = others @ np.linalg.lstsq(others, x)[0]
                total += float(fit @ fit)
    return total / terms


def orthogonality_released(outputs: np.ndarray, experts: np.ndarray) -> float:
    """Literally: each expert's outputs, concatenated expert by expert, then cut into rows of as many as a token has."""
    pieces = [
        outputs[t, j]
        for expert in range(experts.max() + 1)
        for t in range(outputs.shape[0])
        for j in range(outputs.shape[1])
        if experts[t, j] == expert
    ]
    return orthogonality_span(np.stack(pieces).reshape(outputs.shape))
