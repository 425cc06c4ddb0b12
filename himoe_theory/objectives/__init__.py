"""Routing objectives, each beside its closed-form gradient and its record. `OBJECTIVES` lists the records by name."""

from .catalogue import OBJECTIVES as OBJECTIVES
from .entropy import group_neg_entropy as group_neg_entropy
from .entropy import group_neg_entropy_grad as group_neg_entropy_grad
from .entropy import token_entropy as token_entropy
from .entropy import token_entropy_grad as token_entropy_grad
from .importance import cv_squared as cv_squared
from .importance import importance_cv_squared as importance_cv_squared
from .importance import importance_cv_squared_grad as importance_cv_squared_grad
from .importance import load_cv_squared as load_cv_squared
from .importance import load_cv_squared_grad as load_cv_squared_grad
from .inter_group import inter_group_dense as inter_group_dense
from .inter_group import inter_group_dense_grad as inter_group_dense_grad
from .inter_group import inter_group_selected as inter_group_selected
from .inter_group import inter_group_selected_grad as inter_group_selected_grad
from .inter_group import inter_group_sparse as inter_group_sparse
from .inter_group import inter_group_sparse_grad as inter_group_sparse_grad
from .intra_group import intra_group_conditional as intra_group_conditional
from .intra_group import intra_group_conditional_grad as intra_group_conditional_grad
from .intra_group import intra_group_global as intra_group_global
from .intra_group import intra_group_global_grad as intra_group_global_grad
from .load_hard import dispatch_share as dispatch_share
from .load_hard import load as load
from .load_hard import load_first_choice as load_first_choice
from .load_hard import load_first_choice_grad as load_first_choice_grad
from .load_hard import load_for_share as load_for_share
from .load_hard import load_for_share_grad as load_for_share_grad
from .load_hard import load_grad as load_grad
from .load_hard import load_per_token as load_per_token
from .load_hard import load_per_token_grad as load_per_token_grad
from .load_hard import load_selected_weights as load_selected_weights
from .load_hard import load_selected_weights_grad as load_selected_weights_grad
from .load_hard import load_top_k as load_top_k
from .load_hard import load_top_k_grad as load_top_k_grad
from .load_hard import load_top_k_per_token as load_top_k_per_token
from .load_hard import load_top_k_per_token_grad as load_top_k_per_token_grad
from .load_soft import load_entropy as load_entropy
from .load_soft import load_entropy_grad as load_entropy_grad
from .load_soft import load_frozen as load_frozen
from .load_soft import load_frozen_grad as load_frozen_grad
from .load_soft import p_squared as p_squared
from .load_soft import p_squared_grad as p_squared_grad
from .outputs import orthogonality_paper as orthogonality_paper
from .outputs import orthogonality_paper_grad as orthogonality_paper_grad
from .outputs import orthogonality_released as orthogonality_released
from .outputs import orthogonality_released_grad as orthogonality_released_grad
from .outputs import orthogonality_span as orthogonality_span
from .outputs import orthogonality_span_grad as orthogonality_span_grad
from .record import LoadConvention as LoadConvention
from .record import LoadForm as LoadForm
from .record import Need as Need
from .record import Objective as Objective
from .record import View as View
from .scopes import CODE_BASES as CODE_BASES
from .scopes import CodeBase as CodeBase
from .scopes import Scope as Scope
from .scopes import Sequences as Sequences
from .scopes import equal_sequences as equal_sequences
from .scopes import load_within as load_within
from .scopes import load_within_grad as load_within_grad
from .scopes import pooled as pooled
from .scopes import scoped_shares as scoped_shares
from .variance import variance_across_experts as variance_across_experts
from .variance import variance_across_experts_grad as variance_across_experts_grad
from .variance import variance_across_tokens as variance_across_tokens
from .variance import variance_across_tokens_grad as variance_across_tokens_grad
from .z import z_loss as z_loss
from .z import z_loss_grad as z_loss_grad

__all__ = [
    "CODE_BASES",
    "OBJECTIVES",
    "CodeBase",
    "LoadConvention",
    "LoadForm",
    "Need",
    "Objective",
    "Scope",
    "Sequences",
    "View",
    "cv_squared",
    "dispatch_share",
    "equal_sequences",
    "group_neg_entropy",
    "group_neg_entropy_grad",
    "importance_cv_squared",
    "importance_cv_squared_grad",
    "inter_group_dense",
    "inter_group_dense_grad",
    "inter_group_selected",
    "inter_group_selected_grad",
    "inter_group_sparse",
    "inter_group_sparse_grad",
    "intra_group_conditional",
    "intra_group_conditional_grad",
    "intra_group_global",
    "intra_group_global_grad",
    "load",
    "load_cv_squared",
    "load_cv_squared_grad",
    "load_entropy",
    "load_entropy_grad",
    "load_first_choice",
    "load_first_choice_grad",
    "load_for_share",
    "load_for_share_grad",
    "load_frozen",
    "load_frozen_grad",
    "load_grad",
    "load_per_token",
    "load_per_token_grad",
    "load_selected_weights",
    "load_selected_weights_grad",
    "load_top_k",
    "load_top_k_grad",
    "load_top_k_per_token",
    "load_top_k_per_token_grad",
    "load_within",
    "load_within_grad",
    "orthogonality_paper",
    "orthogonality_paper_grad",
    "orthogonality_released",
    "orthogonality_released_grad",
    "orthogonality_span",
    "orthogonality_span_grad",
    "p_squared",
    "p_squared_grad",
    "pooled",
    "scoped_shares",
    "token_entropy",
    "token_entropy_grad",
    "variance_across_experts",
    "variance_across_experts_grad",
    "variance_across_tokens",
    "variance_across_tokens_grad",
    "z_loss",
    "z_loss_grad",
]
