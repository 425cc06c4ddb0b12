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
    "soft-moe": Source("From Sparse to Soft Mixtures of Experts", "arXiv:2308.00951"),
    "v-moe": Source("Scaling Vision with Sparse Mixture of Experts", "arXiv:2106.05974"),
    "z-code": Source("Scalable and Efficient MoE Training for Multitask Multilingual Models", "arXiv:2109.10465"),
    "dynamic-top-p": Source("Harder Tasks Need More Experts: Dynamic Routing in MoE Models", "arXiv:2403.07652"),
    "dynmoe": Source(
        "Dynamic Mixture of Experts: An Auto-Tuning Approach for Efficient Transformer Models", "arXiv:2405.14297"
    ),
    "capacity-aware": Source(
        "Capacity-Aware Inference: Mitigating the Straggler Effect in Mixture of Experts", "arXiv:2503.05066"
    ),
    "mumoe": Source(
        "Multilinear Mixture of Experts: Scalable Expert Specialization through Factorization", "arXiv:2402.12550"
    ),
    "mixtral": Source("Mixtral of Experts", "arXiv:2401.04088"),
    "dsc": Source("DSC: the router loss E sum P^2 among others", "arXiv:2512.23448"),
    "libmoe": Source("LibMoE: A Library for Comprehensive Benchmarking of Mixture of Experts", "arXiv:2411.00918"),
    "megatron": Source("Megatron-Core, load-balancing loss with counts over T k", "Megatron-Core"),
    "deepseek-v2": Source(
        "DeepSeek-V2: A Strong, Economical, and Efficient Mixture-of-Experts Language Model", "arXiv:2405.04434"
    ),
    "transformers": Source("Transformers, load_balancing_loss_func of its mixtures of experts", "Transformers 5.24"),
    "olmo-core": Source("OLMo-core, load-balancing loss with counts over T k", "OLMo-core"),
    "tutel": Source("Tutel: Adaptive Mixture-of-Experts at Scale", "arXiv:2206.03382"),
    "maxtext": Source("MaxText, load-balancing loss with counts over T", "MaxText"),
    "expert-choice": Source("Mixture-of-Experts with Expert Choice Routing", "arXiv:2202.09368"),
    "variational-moe": Source(
        "Variational Inference, Entropy, and Orthogonality: A Unified Theory of Mixture-of-Experts", "arXiv:2601.03577"
    ),
    "usmoe": Source("Sparse Mixture of Experts as Unified Competitive Learning", "arXiv:2503.22996"),
    "chen": Source("Towards Understanding Mixture of Experts in Deep Learning", "arXiv:2208.02813"),
    "chen-code": Source("Code released by Chen et al.", "released with arXiv:2208.02813"),
    "kawata": Source(
        "Mixture of Experts Provably Detect and Learn the Latent Cluster Structure in Gradient-Based Learning",
        "arXiv:2506.01656",
    ),
    "hmoe": Source(
        "On Expert Estimation in Hierarchical Mixture of Experts: Beyond Softmax Gating Functions", "arXiv:2410.02935"
    ),
    "fusemoe": Source("FuseMoE: Mixture-of-Experts Transformers for Fleximodal Fusion", "arXiv:2402.03226"),
    "xmoe": Source("On the Representation Collapse of Sparse Mixture of Experts", "arXiv:2204.09179"),
    "smile": Source("SMILE: Scaling Mixture-of-Experts with Efficient Bi-level Routing", "arXiv:2212.05191"),
    "cartesian": Source(
        "CartesianMoE: Boosting Knowledge Sharing among Experts via Cartesian Product Routing", "arXiv:2410.16077"
    ),
    "ida-moe": Source("Input Domain Aware MoE", "arXiv:2510.16448"),
    "vqmoe": Source(
        "On the effectiveness of discrete representations in sparse mixture of experts", "arXiv:2411.19402"
    ),
    "hash-layers": Source("Hash Layers For Large Sparse Models", "arXiv:2106.04426"),
    "word-experts": Source("Memory Augmented Language Models through Mixture of Word Experts", "arXiv:2311.10768"),
    "rmoe": Source("Layerwise Recurrent Router for Mixture-of-Experts", "arXiv:2408.06793"),
    "aoe": Source("Autonomy-of-Experts Models", "arXiv:2501.13074"),
    "dselect-k": Source(
        "DSelect-k: Differentiable Selection in the Mixture of Experts with Applications to Multi-Task Learning",
        "arXiv:2106.03760",
    ),
    "ahrac": Source(
        "Routers Learn the Geometry of Their Experts: Geometric Coupling in Sparse Mixture-of-Experts",
        "arXiv:2605.12476",
    ),
    "su-liu": Source("Variational and coherence view of mixture-of-experts routing", "arXiv:2601.03577"),
    "kim": Source(
        "Geometric Regularization in Mixture-of-Experts: The Disconnect Between Weights and Activations",
        "arXiv:2601.00457",
    ),
    "simbal": Source("Load Balancing Mixture of Experts with Similarity Preserving Routers", "arXiv:2506.14038"),
    "ernie": Source("ERNIE 4.5 Technical Report, and its released router orthogonality loss", "ERNIE 4.5"),
    "hu": Source(
        "Synergistic Intra- and Cross-Layer Regularization Losses for MoE Expert Specialization", "arXiv:2602.14159"
    ),
    "mouzouni": Source(
        "Three Phases of Expert Routing: How Load Balance Evolves During Mixture-of-Experts Training",
        "arXiv:2604.04230",
    ),
    "han-zhong": Source("Primal-dual analysis of auxiliary-loss-free load balancing", "arXiv:2512.03915"),
    "phi-balancing": Source("phi-Balancing for Mixture-of-Experts Training", "arXiv:2605.15403"),
    "saad-solla": Source("On-line learning in soft committee machines", "Physical Review E 52(4), 1995"),
    "rastegar": Source("Soft-to-hard routing and boundary mass", "arXiv:2605.02124"),
    "jacobs": Source("Adaptive Mixtures of Local Experts", "Neural Computation 3(1), 1991"),
    "himoe-theory": Source("Derived in this package; see the docstring and the decisions in docs", "this package"),
}
