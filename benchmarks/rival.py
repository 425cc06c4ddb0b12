"""The rival: the reference work written plainly in eager PyTorch, one run at a time, one thread.

Clustered regression, linear experts, top-1 in every group of bias-corrected probabilities, the objectives of Hi-MoE,
Adam. Same model, same loss, same optimiser as the arm `hi-moe`; a step costs some ninety calls of PyTorch.
"""

import torch
from torch import Tensor

EPSILON = 1e-10


class Run:
    """One training run; `step` takes a batch, `draw` makes one."""

    def __init__(self, gate: Tensor, experts: Tensor, centres: Tensor, mean: Tensor, maps: Tensor, noise: float):
        self.gate, self.experts = (p.clone().requires_grad_() for p in (gate, experts))
        self.centres, self.mean, self.maps, self.noise = centres, mean, maps, noise
        self.optimizer = torch.optim.Adam([self.gate, self.experts], lr=3e-3)
        self.average = torch.zeros(gate.shape[0])

    def draw(self, tokens: int) -> tuple[Tensor, Tensor]:
        """Tokens and targets."""
        labels = torch.randint(0, len(self.centres), (tokens,))
        x = self.centres[labels] + self.mean + self.noise * torch.randn(tokens, self.centres.shape[1])
        return x, torch.einsum("td,tdo->to", x, self.maps[labels])

    def step(self, x: Tensor, y: Tensor, groups: int, load: float, intra: float, inter: float) -> None:
        """One step of Adam on the task and the three routing objectives (tau 0.01, beta 0.9)."""
        tokens, experts = x.shape[0], self.gate.shape[0]
        logits = x @ self.gate.T
        with torch.no_grad():
            self.average.mul_(0.9).add_(logits.mean(0), alpha=0.1)
        corrected = torch.softmax(logits - 0.01 * self.average, -1).view(tokens, groups, -1)
        chosen = torch.zeros_like(corrected).scatter(-1, corrected.argmax(-1, keepdim=True), 1.0)
        weights = (corrected * chosen).view(tokens, experts)
        weights = weights / (weights.sum(-1, keepdim=True) + EPSILON)
        prediction = torch.einsum("te,teo->to", weights, torch.einsum("td,edo->teo", x, self.experts))
        probs = torch.softmax(logits, -1)
        mass = probs.view(tokens, groups, -1).sum(-1)
        loss = 0.5 * (prediction - y).square().mean()
        loss = loss + load * experts * (chosen.view(tokens, experts).mean(0) * probs.mean(0)).sum()
        loss = loss - intra * probs.square().sum(-1).mean() + inter * mass.square().sum(-1).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
