"""Citations as data: every key in square brackets in a docstring resolves here."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a formula comes from."""

    title: str
    identifier: str
    """arXiv number, or what else identifies it."""


SOURCES: Mapping[str, Source] = {
    "himoe": Source("Hierarchical Mixture-of-Experts with Two-Stage Optimization", "arXiv:2605.08292"),
    "himoe-code": Source("Code released by the authors of Hi-MoE", "released with arXiv:2605.08292"),
    "guo": Source("Advancing Expert Specialization for Better MoE", "arXiv:2505.22323"),
    "guo-code": Source("Code released by Guo et al.", "released with arXiv:2505.22323"),
    "moge": Source("Pangu Pro MoE: Mixture of Grouped Experts for Efficient Sparsity", "arXiv:2505.21411"),
    "shazeer": Source(
        "Outrageously Large Neural Networks: The Sparsely-Gated Mixture-of-Experts Layer", "arXiv:1701.06538"
    ),
    "gshard": Source("GShard: Scaling Giant Models with Conditional Computation", "arXiv:2006.16668"),
    "switch": Source("Switch Transformers: Scaling to Trillion Parameter Models", "arXiv:2101.03961"),
    "st-moe": Source("ST-MoE: Designing Stable and Transferable Sparse Expert Models", "arXiv:2202.08906"),
    "loss-free": Source("Auxiliary-Loss-Free Load Balancing Strategy for Mixture-of-Experts", "arXiv:2408.15664"),
    "deepseek-v3": Source("DeepSeek-V3 Technical Report", "arXiv:2412.19437"),
    "dsc": Source("DSC: the router loss E sum P^2 among others", "arXiv:2512.23448"),
    "libmoe": Source("LibMoE: A Library for Comprehensive Benchmarking of Mixture of Experts", "arXiv:2411.00918"),
    "megatron": Source("Megatron-Core, load-balancing loss with counts over T k", "Megatron-Core"),
    "maxtext": Source("MaxText, load-balancing loss with counts over T", "MaxText"),
    "jacobs": Source("Adaptive Mixtures of Local Experts", "Neural Computation 3(1), 1991"),
    "himoe-theory": Source("Derived in this package; see the docstring and the decisions in docs", "this package"),
}
