"""Load losses equal those of released code, with their gradients, to 1e-9 relative in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from himoe_theory import Partition, Routing, Sigmoid, Softmax, from_routes
from himoe_theory import objectives as obj
from himoe_theory.objectives import CODE_BASES, Scope, Sequences, equal_sequences

from . import golden

CASES = golden.cases("zoo/zoo")
MEGATRON = [name for name in CASES if name.startswith(("mcore-aux_", "mcore-seq_", "mcore-global_", "mcore-all_"))]


def of(prefix):
    return pytest.mark.parametrize("case", [name for name in CASES if name.startswith(prefix)])


def close(actual, desired, rtol=1e-9):
    """Entry by entry; entries that cancel to nothing on the scale of the largest."""
    desired = np.asarray(desired)
    np.testing.assert_allclose(actual, desired, rtol=rtol, atol=1e-14 * np.abs(desired).max(initial=0.0))


def top_k(logits, k, *, mask=None, score=None) -> Routing:
    """What a plain router decides."""
    experts = np.argsort(-np.asarray(logits), axis=1)[:, :k].astype(np.int32)
    one = Partition((0,) * logits.shape[1])
    return from_routes(jnp.asarray(logits), jnp.asarray(experts), one, mask=mask, score=score)


@of("hf_load_balancing_loss")
def test_pooled_over_layers(case):
    settings, arrays = CASES[case]
    mask = jnp.asarray(arrays["attention_mask"].astype(bool).ravel()) if settings["attention_mask"] else None
    layers = [top_k(each, settings["top_k"], mask=mask) for each in arrays["logits"]]
    theirs = CODE_BASES["transformers"]
    routing = obj.pooled(layers)
    close(theirs.value(routing), arrays["loss"])
    close(theirs.gradient(routing).reshape(arrays["logits"].shape), arrays["loss__dlogits"])
    if len(layers) > 1:  # it is not the mean of the layers' losses
        apart = np.mean([float(theirs.value(layer)) for layer in layers])
        assert abs(apart - arrays["loss"]) > 1e-3


def _megatron(case, step):
    """Loss name -> (value, gradient in the logits), unweighted, of one call; counts of the calls before are added."""
    settings, arrays = CASES[case]
    time, batch, experts = arrays["logits"].shape[1:]
    score = {"softmax": Softmax(), "sigmoid": Sigmoid()}[settings["score_function"]]
    padding = arrays.get("padding_mask")
    mask = None if padding is None else jnp.asarray(~padding.ravel())
    calls = [
        top_k(logits.reshape(-1, experts), settings["top_k"], mask=mask, score=score) for logits in arrays["logits"]
    ]
    ids = jnp.asarray(np.arange(time * batch, dtype=np.int32) % batch)
    counts = np.stack([np.asarray(call.counts) for call in calls])
    given = {
        "aux_loss": {},
        "seq_aux_loss": {"sequences": Sequences(ids, batch, mean_length=True)},
        "global_aux_loss": {"totals": jnp.asarray(counts[: step + 1].sum(axis=0))},
    }
    names = settings["load_balancing_type"]
    names = [names] if isinstance(names, str) else names
    found = {}
    for name in names:
        theirs = CODE_BASES[f"megatron_{name}"]
        found[name] = theirs.value(calls[step], **given[name]), theirs.gradient(calls[step], **given[name])
    if settings["z_loss_coeff"]:
        logits = calls[step].logits
        found["z_loss"] = obj.z_loss(logits, mask=mask), obj.z_loss_grad(logits, mask=mask)
    return found


@pytest.mark.parametrize(("case", "step"), [(name, i) for name in MEGATRON for i in range(CASES[name][0]["steps"])])
def test_megatron(case, step):
    settings, arrays = CASES[case]
    found = _megatron(case, step)
    coefficients = dict(zip(found, np.atleast_1d(settings["aux_loss_coeff"]), strict=False))
    coefficients |= {"z_loss": settings["z_loss_coeff"]} if "z_loss" in found else {}
    for name, (value, _) in found.items():
        close(value, arrays[f"{name}_over_coeff"][step])
    total = sum(coefficients[name] * gradient for name, (_, gradient) in found.items())
    close(total.reshape(arrays["logits"].shape[1:]), arrays["losses_total__dlogits"][step])


@of("mcore-loss_functions")
def test_megatron_functions_of_given_counts(case):
    settings, arrays = CASES[case]
    mask, logits = jnp.asarray(~arrays["padding_mask"]), jnp.asarray(arrays["logits"])
    share = jnp.asarray(arrays["tokens_per_expert"] / (settings["top_k"] * int(arrays["total_num_tokens"])))
    for name, value, gradient, coefficient in (
        ("switch_loss", obj.load_for_share, obj.load_for_share_grad, settings["aux_loss_coeff"]),
        ("z_loss", obj.z_loss, obj.z_loss_grad, settings["z_loss_coeff"]),
    ):
        given = (logits, share) if name == "switch_loss" else (logits,)
        close(coefficient * value(*given, mask=mask), arrays[name])
        close(coefficient * gradient(*given, mask=mask), arrays[f"{name}__dlogits"])
    close(settings["z_loss_coeff"] * obj.z_loss(logits), arrays["z_loss_unmasked"])


@of("sigma_top1")
def test_sequences_of_one_length(case):
    settings, arrays = CASES[case]
    routing = top_k(arrays["logits"], settings["top_k"])
    ids = jnp.asarray(np.arange(len(arrays["logits"]), dtype=np.int32) % settings["batch"])
    sequences = Sequences(ids, settings["batch"])
    for name, scope, given in (
        ("sequence_loss", Scope.SEQUENCE, {"sequences": sequences}),
        ("global_loss", Scope.GLOBAL, {"totals": routing.counts}),
    ):
        close(settings["coeff"] * obj.load_within("load", routing, scope, **given), arrays[name])
        gradient = settings["coeff"] * obj.load_within_grad("load", routing, scope, **given)
        close(gradient, arrays[f"{name}__dlogits"])


@of("coe-")
def test_chain_of_experts_has_the_loss_of_deepseek(case):
    settings, arrays = CASES[case]
    logits = arrays["x"].reshape(-1, settings["d"]) @ arrays["gate0"].T
    experts = jnp.asarray(arrays["expert_indices0"], jnp.int32)
    routing = from_routes(jnp.asarray(logits), experts, Partition((0,) * settings["n_experts"]))
    theirs = CODE_BASES["deepseek_v2" if settings["seq_aux"] else "switch"]
    given = {"sequences": equal_sequences(len(logits), settings["batch"])} if settings["seq_aux"] else {}
    close(settings["aux_alpha"] * theirs.value(routing, **given), arrays["aux_loss0"])


@of("vmoe-token_choice")
def test_first_choices_of_each_group_of_tokens(case):
    """Their mean of first choices is rounded to float32, which leaves 1e-7."""
    settings, arrays = CASES[case]
    w = jnp.asarray(arrays["w"])

    def losses(x):
        noise = arrays.get("noise", 0.0) * settings["noise_std"] / settings["n_experts"]
        groups = x @ w + jnp.asarray(noise)
        routings = [top_k(jax.lax.stop_gradient(each), settings["top_k"]) for each in groups]
        theirs = CODE_BASES["v_moe"]
        gradients = jnp.stack([theirs.gradient(each) for each in routings])
        return jnp.stack([theirs.value(each) for each in routings]), gradients @ w.T

    values, gradients = losses(jnp.asarray(arrays["x"]))
    if "gshard_loss" in arrays:
        close(values, arrays["gshard_loss"], rtol=1e-7)
        np.testing.assert_allclose(gradients, arrays["gshard_loss__dx"], rtol=1e-6, atol=1e-8)
