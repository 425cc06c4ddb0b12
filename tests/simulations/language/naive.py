"""The language model written again in NumPy, float64, token by token where the package is not: an oracle for values."""

import math

import numpy as np
from scipy.special import erf


def softmax(s):
    raised = np.exp(s - s.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def norm(m, p, x):
    if m.style == "nanogpt":
        y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + m.norm_epsilon)
    else:
        y = x / np.sqrt((x**2).mean(-1, keepdims=True) + m.norm_epsilon)
    return y * p["weight"] + p.get("bias", 0)


def linear(p, x):
    return x @ p["weight"] + p.get("bias", 0)


def activate(m, x):
    if m.style == "nanogpt":
        return 0.5 * x * (1 + erf(x / math.sqrt(2)))
    a, b = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    return a / (1 + np.exp(-a)) * b


def turn(m, x):
    """Rotary: component pairs (i, i + w/2) as complex numbers, multiplied by exp(i t / base^(2i/w))."""
    time, width = x.shape
    z = x[:, : width // 2] + 1j * x[:, width // 2 :]
    z = z * np.exp(1j * np.outer(np.arange(time), m.rotary_base ** (-2 * np.arange(width // 2) / width)))
    return np.concatenate([z.real, z.imag], axis=1)


def attention(m, p, x):
    q, k, v = np.split(linear(p["qkv"], x), 3, axis=-1)
    if m.style == "olmoe":
        q, k = norm(m, p["query_norm"], q), norm(m, p["key_norm"], k)
    out, width = np.zeros_like(x), m.dim // m.heads
    for head in range(m.heads):
        own = slice(head * width, (head + 1) * width)
        qh, kh = q[:, own], k[:, own]
        if m.style == "olmoe":
            qh, kh = turn(m, qh), turn(m, kh)
        for t in range(len(x)):
            out[t, own] = softmax(kh[: t + 1] @ qh[t] / math.sqrt(width)) @ v[: t + 1, own]
    return linear(p["out"], out)


def mixture(m, p, x):
    """Top-1 of every group (contiguous, equal), renormalised, times the scale; slots route by route, then by token."""
    partition, capacity = m.arm.router.partition, m.arm.router.capacity
    places = math.inf if capacity is None else capacity.slots(m.routes, len(x), m.experts)
    probs = softmax(x @ p["gate"].T)
    chosen = np.stack([probs[:, partition.members(g)].argmax(1) + partition.members(g)[0] for g in range(m.routes)], 1)
    weights = np.take_along_axis(probs, chosen, 1)
    weights = weights / (weights.sum(1, keepdims=True) + 1e-10) * p.get("scale", np.ones(m.experts))[chosen]
    used, y = np.zeros(m.experts, int), np.zeros_like(x)
    for route in range(m.routes):
        for t in range(len(x)):
            e = chosen[t, route]
            used[e] += 1
            if used[e] <= places:
                one = {part: {name: array[e] for name, array in p[part].items()} for part in ("in", "out")}
                y[t] += weights[t, route] * linear(one["out"], activate(m, linear(one["in"], x[t])))
    return y


def logits(m, parameters, tokens):
    x = parameters["embedding"]["token"][tokens]
    if m.style == "nanogpt":
        x = x + parameters["embedding"]["position"][: tokens.shape[1]]
    for i in range(m.layers):
        p = parameters["layers"][f"{i:02d}"]
        x = x + np.stack([attention(m, p["attention"], norm(m, p["attention"]["norm"], row)) for row in x])
        if i % m.stride == 0:
            flat = norm(m, p["moe"]["norm"], x).reshape(-1, m.dim)
            x = x + mixture(m, p["moe"], flat).reshape(x.shape)
        else:
            inner = norm(m, p["mlp"]["norm"], x)
            x = x + linear(p["mlp"]["out"], activate(m, linear(p["mlp"]["in"], inner)))
    x = norm(m, parameters["norm"], x)
    return x @ (parameters["head"] if m.style == "olmoe" else parameters["embedding"]["token"].T)
