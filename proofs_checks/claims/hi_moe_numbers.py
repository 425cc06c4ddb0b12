"""Whether Hi-MoE's headline numbers follow from its own tables."""

from collections.abc import Iterator
from fractions import Fraction

import sympy as sp

from ..ledger import Claim, Correction, Effort, Finding, Verdict, unverifiable
from ..witnesses import reported

PERPLEXITY = {
    "wikitext": ("32.997", "31.381"),
    "c4": ("39.852", "37.345"),
    "books": ("39.704", "36.674"),
    "common-crawl": ("42.722", "39.872"),
    "pes2o": ("11.685", "11.301"),
    "reddit": ("47.023", "43.802"),
    "stack": ("3.811", "3.765"),
    "wiki": ("31.831", "30.008"),
    "ice": ("23.819", "23.888"),
    "s2orc": ("23.286", "21.803"),
    "pile": ("13.364", "12.978"),
}
"""As printed: OLMoE-7B, Hi-MoE-7B."""


def _pairs() -> list[tuple[Fraction, Fraction]]:
    return [(Fraction(before), Fraction(after)) for before, after in PERPLEXITY.values()]


def _of_means(effort: Effort) -> Iterator[Finding]:
    before, after = (sum(column) for column in zip(*_pairs(), strict=True))
    yield reported(
        "Reduction of the mean perplexity over 11 domains", 100 * (before - after) / before, "5.6", unit=" %"
    )


OF_MEANS = Claim(
    id="himoe/abstract-perplexity-of-means",
    statement=r"1 - \frac{\sum_d \mathrm{PPL}'_d}{\sum_d \mathrm{PPL}_d} = 5.6\,\%",
    words="The reduction of perplexity by 5.6 % is that of the mean over the 11 domains of Table 4.",
    source="[himoe] abstract, Table 4",
    recorded=Verdict.PROVED,
    check=_of_means,
    remark="Arithmetic on printed numbers; the numbers themselves were not reproduced.",
)


def _mean_of_changes(printed: str) -> Finding:
    changes = [(before - after) / before for before, after in _pairs()]
    return reported("Mean of the reductions of the 11 domains", 100 * sum(changes) / len(changes), printed, unit=" %")


MEAN_OF_CHANGES = Claim(
    id="himoe/abstract-perplexity-mean-of-changes",
    statement=r"\frac{1}{11} \sum_d \Big(1 - \frac{\mathrm{PPL}'_d}{\mathrm{PPL}_d}\Big) = 5.6\,\%",
    words="A domain's perplexity falls by 5.6 % on average.",
    source="[himoe] abstract, Table 4",
    recorded=Verdict.CORRECTED,
    check=lambda effort: (_mean_of_changes("5.6"),),
    correction=Correction(
        r"\frac{1}{11} \sum_d \Big(1 - \frac{\mathrm{PPL}'_d}{\mathrm{PPL}_d}\Big) = 4.7\,\%",
        "The mean of the domains' reductions is 4.7 %. The ratio of means weighs domains by their perplexity, and the "
        "hard ones gained most.",
        lambda effort: (_mean_of_changes("4.7"),),
    ),
)


def _balance(effort: Effort) -> Iterator[Finding]:
    before, after = Fraction("0.257"), Fraction("0.153")
    yield reported("Reduction of CV from 0.257 to 0.153", 100 * (before - after) / before, "40", unit=" %")


BALANCE = Claim(
    id="himoe/abstract-balance",
    statement=r"\frac{0.257 - 0.153}{0.257} = 40\,\%",
    words="Balance improves by 40 %.",
    source="[himoe] abstract, Table 7",
    recorded=Verdict.PROVED,
    check=_balance,
    remark="Of the CV, as printed.",
)


def _small_perplexity(effort: Effort) -> tuple[Finding, ...]:
    return unverifiable(
        "No run, token count or definition is published that would tell a perplexity of 2.9 from a cross-entropy of "
        "2.9 nats per token."
    )


SMALL_PERPLEXITY = Claim(
    id="himoe/tables2-3-perplexity",
    statement=r"\mathrm{PPL} = 2.947 \text{ to } 2.985",
    words="Tables 2 and 3 report perplexities of 2.9 on web text.",
    source="[himoe] Tables 2, 3",
    recorded=Verdict.UNVERIFIABLE,
    check=_small_perplexity,
    remark="On byte-pair tokens of web text 2.9 is the usual size of a loss in nats. Read so, perplexities are 19.0 to "
    "19.8, and Hi-MoE's advantage over MoGE is 3.0 % instead of 1.0 %.",
)


def _as_losses(effort: Effort) -> Iterator[Finding]:
    moge, himoe = sp.Rational("2.977"), sp.Rational("2.947")
    yield reported("Reduction of perplexity if the tables' numbers are losses", 100 * (1 - sp.exp(himoe - moge)), "3.0")
    yield reported("Perplexity of Hi-MoE if 2.947 is a loss", sp.exp(himoe), "19.0")
    yield reported("Reduction if they are perplexities", 100 * (1 - himoe / moge), "1.0")


AS_LOSSES = Claim(
    id="himoe/tables2-3-as-losses",
    statement=r"1 - e^{2.947 - 2.977} = 3.0\,\%, \quad 1 - 2.947 / 2.977 = 1.0\,\%",
    words="What the difference between Hi-MoE and MoGE means: 3.0 % of perplexity if the numbers are losses, 1.0 % if "
    "they are perplexities.",
    source="[himoe-theory], about [himoe] Table 2",
    recorded=Verdict.PROVED,
    check=_as_losses,
)


CLAIMS = (OF_MEANS, MEAN_OF_CHANGES, BALANCE, SMALL_PERPLEXITY, AS_LOSSES)
