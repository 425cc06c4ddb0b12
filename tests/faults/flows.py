"""Faults in fields, spectra, flows and what extends the closed forms of the dynamics."""

_AT = "tests/himoe_theory/dynamics/test_"
TESTS = tuple(f"{_AT}{name}.py" for name in ("linearise", "flows", "switching", "extensions"))
_IN = "himoe_theory/dynamics/"

FAULTS = [
    (
        _IN + "fields.py",
        '"p_squared": 2.0}',
        '"p_squared": 1.0}',
        "full load of a population as the frozen one",
        "repetitions or gaussian",
    ),
    (_IN + "fields.py", "share / share.sum()", "share", "counts of a population not normalised", "repetitions"),
    (
        _IN + "fields.py",
        "-logits.shape[0] * self.gradient",
        "-self.gradient",
        "free logits without the factor T",
        "growth_at_uniform",
    ),
    (
        _IN + "fields.py",
        "-self.router_rate * rows",
        "-self.expert_rate * rows",
        "the experts' rate for the router",
        "symmetric_state",
    ),
    (
        _IN + "fields.py",
        "prepare(state, logits, router.score, False)[1]",
        "prepare(state, logits, router.score, False)[1] / 2",
        "temperature",
        "temperature",
    ),
    (
        _IN + "linearise.py",
        "(-np.imag(rates), -np.real(rates))",
        "(-np.imag(rates), np.real(rates))",
        "slowest first",
        "growth_at_uniform",
    ),
    (
        _IN + "linearise.py",
        "np.linalg.eigh((matrix + matrix.T) / 2) if symmetric",
        "np.linalg.eigh(matrix) if True",
        "every field a gradient",
        "pair",
    ),
    (
        _IN + "modes.py",
        '("within", change - means)',
        '("within", change - shared)',
        "within groups includes between",
        "shares_by_hand",
    ),
    (
        _IN + "modes.py",
        "float(np.asarray(field.router_rate))",
        "float(np.asarray(field.expert_rate))",
        "metric of the flow",
        "whole_problem or symmetric_state",
    ),
    (
        _IN + "reinforced.py",
        "velocity -= self.beta * self.gradient",
        "velocity -= self.gradient",
        "chain rule",
        "with_and_without",
    ),
    (
        _IN + "reinforced.py",
        "self.gain * self.partition.sum(probs)",
        "self.partition.sum(probs)",
        "gain of groups",
        "two_levels",
    ),
    (_IN + "switching.py", "return down / (down - up)", "return up / (up - down)", "share of the wrong side", "slides"),
    (
        _IN + "switching.py",
        "ranked[:, -self.routes - 1]) / 2",
        "ranked[:, -self.routes]) / 2",
        "boundary on a logit",
        "narrow",
    ),
    (
        _IN + "specialising.py",
        "expert_rate / num_experts * h",
        "0 * h",
        "without the curvature of the residual",
        "whole_problem",
    ),
    (
        _IN + "specialising.py",
        "np.outer(mean, mean)\n    parts",
        "0 * np.outer(mean, mean)\n    parts",
        "contrasts about 0",
        "whole_problem",
    ),
    (
        _IN + "finite.py",
        "(p - q) - alpha * num_experts / tokens",
        "(p - q) - 2 * alpha * num_experts / tokens",
        "own count twice",
        "own_counts",
    ),
    (_IN + "finite.py", "return 2 * density * rate", "return density * rate", "floor halved", "floor"),
    (
        _IN + "levels.py",
        "return expert_control / group_size + group_control",
        "return expert_control + group_control",
        "groups of one",
        "two_levels",
    ),
]
