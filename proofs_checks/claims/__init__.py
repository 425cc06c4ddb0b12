"""The claims, one module for each source or subject; `CLAIMS` is all of them, in the order of the report."""

from collections.abc import Sequence

from ..ledger import Claim
from . import hi_moe

CLAIMS: Sequence[Claim] = (*hi_moe.CLAIMS,)
