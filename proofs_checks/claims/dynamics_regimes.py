"""D12: regimes that only long training shows."""

from ..ledger import Claim, Verdict, unverifiable

REGIMES = Claim(
    id="regimes/common-mean-collapses",
    statement=r"\mu = 4,\ \alpha = 0: \text{ collapse}; \quad \mu = 0 \text{ or } \alpha = .1: \text{ none}",
    words="Trained on clusters with a common mean and without a load term, Hi-MoE collapses; without the mean, or with "
    "the load term, it does not.",
    source="[himoe-theory] D12",
    recorded=Verdict.UNVERIFIABLE,
    check=lambda effort: unverifiable(
        "A statement about 1,500 steps of Adam on clustered data, which no method of this ledger decides: it is "
        "measured, with 8 seeds and intervals, in figure 2 of the report (`make figures`)."
    ),
    assumptions=("8 clusters in 16 dimensions, 8 linear experts in 4 groups, hard loads, Adam",),
    remark="What the ledger does decide about it: in the linearised flow the tokens' common mean adds to the growth "
    "of the common modes only (growth/common-within, growth/common-between).",
)

CLAIMS = (REGIMES,)
