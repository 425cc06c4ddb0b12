"""Lemmas 1 and 2 of Guo et al.: which balanced routing matrices exist, decided exactly for all small sizes."""

import itertools
import math
from collections.abc import Iterator

import sympy as sp
from sympy import Expr

from ..ledger import Claim, Correction, Effort, Finding, Verdict
from ..symbolic import for_sizes
from ..witnesses import exhaustive

# Lemma 1: row-stochastic T × n matrices with k positive entries in each row and equal column sums

Case = tuple[int, int, int]
CASES = [(rows, n, k) for rows in range(1, 5) for n in range(1, 6) for k in range(1, n + 1)]
CASES += [(4, 6, 2), (4, 7, 2)]


def _supports(case: Case) -> Iterator[tuple[int, ...]]:
    """Which columns each row uses, as bits; rows in any one order, every column used."""
    tokens, n, k = case
    chosen = [sum(1 << column for column in columns) for columns in itertools.combinations(range(n), k)]
    for rows in itertools.combinations_with_replacement(chosen, tokens):
        if _union(rows) == (1 << n) - 1:
            yield rows


def _union(rows: tuple[int, ...]) -> int:
    together = 0
    for row in rows:
        together |= row
    return together


def _balances(case: Case, rows: tuple[int, ...]) -> bool:
    """Whether positive entries on this support exist with row sums 1 and column sums T/n.

    They do if and only if no set of rows exceeds what its columns take, and a set that fills them shares none with the
    other rows (Gale and Hoffman's theorem for positive flows).
    """
    tokens, n, _ = case
    for members in range(1, 2**tokens - 1):
        inside = tuple(row for r, row in enumerate(rows) if members >> r & 1)
        outside = tuple(row for r, row in enumerate(rows) if not members >> r & 1)
        taken = tokens * _union(inside).bit_count()
        if len(inside) * n > taken or (len(inside) * n == taken and _union(inside) & _union(outside)):
            return False
    return True


def _components(rows: tuple[int, ...]) -> int:
    parts: list[int] = []
    for row in rows:
        joined = [part for part in parts if part & row]
        parts = [part for part in parts if not part & row] + [_union((row, *joined))]
    return len(parts)


def _unequal(case: Case, rows: tuple[int, ...]) -> bool:
    """Whether a balanced matrix on this support can have unequal entries in a row.

    If all entries 1/k balance, then by moving weight around a cycle of the support, and only so.
    """
    tokens, n, k = case
    uniform = all(sum(row >> column & 1 for row in rows) * n == tokens * k for column in range(n))
    return not uniform or tokens * k > tokens + n - _components(rows)


def _exists(case: Case) -> bool:
    return any(_balances(case, rows) for rows in _supports(case))


def _varies(case: Case) -> bool:
    return any(_balances(case, rows) and _unequal(case, rows) for rows in _supports(case))


def _said(case: Case) -> str:
    return "{} tokens, {} experts, {} selected".format(*case)


def _lemma_1(effort: Effort) -> Iterator[Finding]:
    yield exhaustive(
        "two experts, both selected, one token (equal column sums force the row (1/2, 1/2)) or two",
        [(1, 2, 2), (2, 2, 2)],
        _varies,
        false={"never": lambda case: not _varies(case)},
        said=_said,
    )


def _condition(case: Case) -> bool:
    tokens, n, k = case
    return n <= (k - 1) * tokens + math.gcd(tokens, n)


def _lemma_1_exactly(effort: Effort) -> Iterator[Finding]:
    scope = "T up to 4, n up to 5, all k, and T = 4, n = 6 and 7, k = 2; every support"
    yield exhaustive(
        f"equal column sums: {scope}",
        CASES,
        lambda case: _exists(case) == _condition(case),
        false={
            "enough places, n ≤ kT": lambda case: _exists(case) == (case[1] <= case[2] * case[0]),
            "without the divisor, n ≤ (k-1)T + 1": lambda c: _exists(c) == (c[1] <= (c[2] - 1) * c[0] + 1),
        },
        said=_said,
    )
    yield exhaustive(
        f"and unequal weights: {scope}",
        CASES,
        lambda case: _varies(case) == (_condition(case) and 2 <= case[2] and case[1] < case[2] * case[0]),
        false={"whenever columns balance": lambda case: _varies(case) == _condition(case)},
        said=_said,
    )

    def shifts() -> Iterator[tuple[Expr, Expr]]:
        for n, k in ((2, 2), (3, 2), (4, 3), (5, 2)):
            free = list(sp.symbols(f"a1:{k}"))
            row = [*free, 1 - sp.Add(*free), *[sp.S.Zero] * (n - k)]
            yield from ((sp.Add(*(row[(column - t) % n] for t in range(n))), sp.S.One) for column in range(n))

    yield for_sizes("cyclic shifts of a row: n = T = 2 to 5", shifts())


LEMMA_1 = Claim(
    id="guo/lemma-1",
    statement=r"\forall T, n, k \le n\ \exists s \in \mathbb{R}^{T \times n}: \text{rows sum to 1 with } k "
    r"\text{ positive entries}, \ \textstyle\sum_i s_{ij} = T/n, \ \mathrm{Var} > 0",
    words="A routing matrix with k selected experts a row can balance its columns while a row's weights are unequal.",
    source="[guo] Lemma 1",
    recorded=Verdict.CORRECTED,
    check=_lemma_1,
    correction=Correction(
        r"\text{columns balance} \iff n \le (k-1) T + \gcd(T, n); \quad \text{with unequal weights} \iff "
        r"\text{also } k \ge 2,\ n < kT",
        "Columns as vertices, rows as edges: parts that balance on their own come in multiples of T/g tokens and n/g "
        "experts, g the greatest common divisor, and a connected part of a tokens reaches at most (k-1)a + 1 experts. "
        "Where T is a multiple of n, cyclic shifts of any one row balance the columns.",
        _lemma_1_exactly,
    ),
    remark="One token balances only with all experts at 1/n, and for k = 1 the positive entries are all 1. The lemma "
    "asserts existence; it does not say that training finds such a matrix.",
)


# Lemma 2


def _lemma_2(effort: Effort) -> Iterator[Finding]:
    def parts(case: tuple[int, int]) -> bool:
        size, count = case
        cut = [set(range(size))] if count == 1 else [set(range(size)[a::count]) for a in range(count)]
        whole = set().union(*cut) == set(range(size)) and sum(map(len, cut)) == size
        return whole and len({len(part) for part in cut}) == 1

    cases = [(size, count) for size in range(1, 25) for count in range(1, size + 1) if size % count == 0]
    false = {"one element more": lambda case: parts((case[0] + 1, case[1]))}
    yield exhaustive("sets of up to 24 elements and every divisor", cases, parts, false=false)


LEMMA_2 = Claim(
    id="guo/lemma-2",
    statement=r"|A| = |B| = km \;\Rightarrow\; A, B \text{ each split into } k \text{ disjoint parts of } m",
    words="Two sets of equal size can be partitioned into disjoint parts of equal size.",
    source="[guo] Lemma 2",
    recorded=Verdict.PROVED_FOR_SIZES,
    check=_lemma_2,
    remark="Trivial for sets of any size, and no support for what it is used for: it says nothing about which tokens "
    "an expert can serve well.",
)


CLAIMS = (LEMMA_1, LEMMA_2)
