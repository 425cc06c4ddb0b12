"""Deliberate faults in gates, topologies, schedules and events."""

TESTS = [
    "tests/himoe_theory/test_gates.py",
    "tests/simulations/test_gates.py",
    "tests/simulations/test_topology.py",
    "tests/simulations/test_schedules.py",
]

_THEORY = "himoe_theory/gates/"
_LAYER = "simulations/layer.py"

FAULTS = [
    (_THEORY + "levels.py", "shifted - jnp.log(mass)[:, ids]", "shifted", "no softmax inside the group", "levels"),
    (
        _THEORY + "levels.py",
        "(a[:, :, None] + b[:, None, :])",
        "(a[:, None, :] + b[:, :, None])",
        "columns first",
        "pairs",
    ),
    (_THEORY + "mixtures.py", "(2 * jnp.exp(2 * log_std))", "(2 * jnp.exp(log_std))", "variance is std", "mixture"),
    (_THEORY + "recurrent.py", "reset * (h_new + cell.bias_state)", "reset * h_new", "no bias of the state", "cell"),
    (_THEORY + "recurrent.py", "(1 - update) * new + update", "update * new + (1 - update)", "update swapped", "cell"),
    (_THEORY + "smooth.py", "1.5 * inside - 2 * inside**3", "1.5 * inside - 1.5 * inside**3", "a jump", "plateaus"),
    (
        _THEORY + "codes.py",
        "jnp.square(stop(x) - chosen)",
        "jnp.square(x - chosen)",
        "codes pull tokens",
        "quantisation",
    ),
    (
        _THEORY + "jitter.py",
        "jax.random.uniform(key, x.shape",
        "jax.random.uniform(key, (x.shape[0], 1)",
        "one a token",
        "jitter",
    ),
    (
        "simulations/gates/wrappers.py",
        "own, shared, experts = jax.lax.stop_gradient(",
        "own, shared, experts = (",
        "frozen gates learn",
        "learns or frozen",
    ),
    (
        "simulations/gates/base.py",
        "if count <= held.size:",
        "if count < held.size:",
        "linear gates draw elsewhere",
        "around",
    ),
    (
        "simulations/mixture.py",
        "routing.partition.sum(routing.combine)",
        "routing.group_mass",
        "soft weights",
        "adjugates",
    ),
    (
        _LAYER,
        "seen._replace(x=seen.x + mixed.y, memory=memory)",
        "seen._replace(x=mixed.y, memory=memory)",
        "no inner residual",
        "rounds",
    ),
    (_LAYER, "topology)._replace(memory=memory), None", "topology), None", "no memory between layers", "memory"),
    ("simulations/topology.py", "times * one for one in v", "one for one in v", "as few experts a group", "finer"),
    ("simulations/schedules.py", "<= step).sum(", "< step).sum(", "a step late", "hand"),
    (
        "simulations/events.py",
        "done % self.steps == 0 and done > 0",
        "done % self.steps == 0",
        "also at the start",
        "events",
    ),
    ("simulations/losses.py", "/ weights.sum()", "/ weights.size", "closed labels count", "label"),
]
