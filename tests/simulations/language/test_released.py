"""Settings of the released code: what they mean here, and which have no counterpart."""

import pytest

from himoe_theory import Capacity, KeepAbove, KeepFirst, LogitAverage, Partition, SelectionBias, Uncontrolled
from simulations.language.released import from_settings

SMALL = {"block_size": 8, "vocab_size": 8, "n_layer": 4, "n_head": 2, "n_embd": 8, "n_exp": 8}
LOSSES = {"use_aux_loss": True, "use_router_z_loss": True}
HIMOE = {**SMALL, **LOSSES, "moe_type": "moge", "top_k": 1, "use_himoe_regularization": True, "himoe_lambda1": 0.3}


@pytest.mark.parametrize(
    ("settings", "terms"),
    [
        ({"moe_type": "vanilla"}, {"z": 0.001, "load_selected_weights": 0.01}),
        ({"moe_type": "stmoe"}, {"z": 0.001, "load_first_choice": 0.01}),
        ({"moe_type": "lossfree"}, {}),
        ({"moe_type": "moge", "top_k": 1}, {"z": 0.001, "load_per_token": 0.01}),
        (HIMOE, {"z": 0.001, "load_per_token": 0.01, "intra_group_global": 0.3, "inter_group_dense": 1.0}),
        ({**HIMOE, "use_aux_loss": False}, {"z": 0.001}),
        (
            {**HIMOE, "use_router_z_loss": False, "himoe_entropy_mode": "shannon", "himoe_intra_source": "selection"},
            {"load_per_token": 0.01, "token_entropy": 0.3, "group_neg_entropy": 1.0},
        ),
        (
            {
                **HIMOE,
                "use_router_z_loss": False,
                "himoe_intra_source": "selection",
                "himoe_intra_mode": "group_conditional",
                "himoe_inter_mode": "sparse_group_mass",
            },
            {"load_per_token": 0.01, "intra_group_conditional_selection": 0.3, "inter_group_sparse": 1.0},
        ),
    ],
)
def test_objectives(settings, terms):
    assert from_settings({**SMALL, **LOSSES, **settings}).arm.terms == terms


def test_shapes_layers_and_routers():
    m = from_settings({**HIMOE, "use_himoe_penalty": True, "himoe_tau": 0.2, "train_capacity": 0.5, "eval_capacity": 3})
    assert m.moe_layers == (0, 2)
    assert (m.width, m.bias, m.router_scale) == (32, True, True)
    assert m.arm.router.partition == Partition.equal(8, 4)
    assert m.arm.router.controller == LogitAverage(0.2, 0.9, 1.0)
    assert m.router(True).capacity == Capacity(0.5)
    assert m.router(False).capacity == Capacity(3.0)
    assert isinstance(from_settings(HIMOE).arm.router.controller, Uncontrolled)
    assert not from_settings({**HIMOE, "use_router_scale": False}).router_scale
    free = from_settings({**SMALL, "moe_type": "lossfree", "bias_update_rate": 0.5})
    assert free.arm.router.controller == SelectionBias(0.5)
    assert not free.arm.router.capacity.even
    assert not free.router_scale
    st = from_settings({**SMALL, "moe_type": "stmoe", "second_policy_train": "threshold", "second_policy_eval": "none"})
    assert (st.router(True).policy, st.router(False).policy) == (KeepAbove(0.2), KeepFirst())
    assert from_settings({**SMALL, "n_exp": 1}).moe_layers == ()
    assert from_settings({**HIMOE, "himoe_warmup_iters": 9}).intra_warmup == 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dropout": 0.1}, "`dropout` is not supported and must be 0; got 0.1"),
        ({"use_noisy_top_k": True}, "`use_noisy_top_k` is not supported"),
        ({"use_momentum": True}, "`use_momentum` is not supported"),
        ({"ep_backend": "tutel"}, "`ep_backend` is not supported and must be 'none'; got 'tutel'"),
        ({"moe_type": "moge", "top_k": 1, "use_aux_loss": True, "aux_loss_type": "deepseek"}, "got 'deepseek'"),
        ({"moe_type": "soft"}, "`moe_type` must be one of vanilla, moge, lossfree, stmoe; got 'soft'"),
        ({"himoe_inter_mode": "none"}, "`himoe_inter_mode` must be one of .*; got 'none'"),
        ({"layers": 3}, "unknown: layers"),
        ({"moe_type": "moge", "n_groups": 3}, "`num_groups` must divide `num_experts`; got 8 experts, 3 groups"),
        ({"top_k": 9}, r"`k` must be at most 8 \(the number of experts\); got 9"),
        ({"n_head": 3}, "`heads` must divide `dim`; got 3 heads, dim 8"),
    ],
)
def test_what_is_not_supported_is_said_in_one_line(change, message):
    with pytest.raises(ValueError, match=message) as error:
        from_settings({**SMALL, **change})
    assert "\n" not in str(error.value)


def test_options_of_what_is_off_are_ignored():
    plain = {**SMALL, "n_exp": 1, "use_momentum": True, "use_noisy_top_k": True, "ep_backend": "tutel"}
    assert from_settings(plain).moe_layers == ()
    assert from_settings({**SMALL, "aux_loss_type": "deepseek"}).experts == 8
