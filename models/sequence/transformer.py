"""A causal Transformer in continuous time: attention by the time and the steps between events.

Pre-norm blocks (Vaswani et al. 2017; Xiong et al. 2020). A step looks at itself and at earlier steps of its journey.
Instead of position codes each head has two slopes, in the manner of ALiBi (Press et al. 2022), one for time and one for
order:

    score(i, j) = q_i · k_j / √d − a · log(1 + hours between j and i) − b · (steps between j and i),   a, b ≥ 0

A head may thus look at the last few steps, at the last few days, or at all of the journey alike.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STEEPEST = 1.0  # the first head's initial slope; each further head has half of the one before


class CausalTransformer(nn.Module):
    """(E, D) inputs → (E, H) states, time-major outside and padded inside."""

    def __init__(self, inputs: int, hidden: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.hidden = hidden
        self.inputs = nn.Linear(inputs, hidden)
        self.blocks = nn.ModuleList([Block(hidden, heads, dropout) for _ in range(layers)])
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x: Tensor, days: Tensor, padded: Tensor) -> Tensor:
        """States after each step.

        Args:
            x: (E, D) inputs of each step.
            days: (E,) time of each step in days, from any origin that the journey's steps share.
            padded: (B, T) places of each row's steps, -1 beyond its end.
        """
        present = padded >= 0  # (B, T)
        index = padded.clamp(min=0)
        h = self.inputs(x)[index]  # (B, T, H)
        apart = StepDistances.between(days[index])
        for block in self.blocks:
            h = block(h, apart)
        states = x.new_zeros(len(x), self.hidden)
        states[padded[present]] = self.norm(h[present]).to(states.dtype)
        return states


class StepDistances:
    """Distances between the steps of a row: (B, T, T) log-hours, (T, T) steps; (T, T) which steps are in the future."""

    def __init__(self, log_hours: Tensor, steps: Tensor) -> None:
        self.log_hours, self.steps, self.ahead = log_hours, steps, steps < 0

    @classmethod
    def between(cls, days: Tensor) -> StepDistances:
        """From (B, T) moments."""
        hours = (days[:, :, None] - days[:, None, :]).clamp(min=0) * 24  # (B, T, T)
        places = torch.arange(days.shape[1], device=days.device)
        return cls(torch.log1p(hours), (places[:, None] - places[None, :]).to(days.dtype))


class Block(nn.Module):
    """Attention and a two-layer perceptron, each on normed input and added to it."""

    def __init__(self, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_mixing = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.queries_keys_values = nn.Linear(hidden, 3 * hidden)
        self.out = nn.Linear(hidden, hidden)
        self.mix = nn.Sequential(nn.Linear(hidden, 2 * hidden), nn.SiLU(), nn.Linear(2 * hidden, hidden))
        self.dropout = nn.Dropout(dropout)
        slopes = STEEPEST * 0.5 ** torch.arange(heads, dtype=torch.float32)
        self.time_slope, self.order_slope = nn.Parameter(slopes.clone()), nn.Parameter(slopes.flip(0).clone())

    def forward(self, h: Tensor, apart: StepDistances) -> Tensor:
        """(B, T, H) → (B, T, H)."""
        h = h + self.dropout(self._attend(self.before_attention(h), apart))
        mixed: Tensor = h + self.dropout(self.mix(self.before_mixing(h)))
        return mixed

    def _attend(self, h: Tensor, apart: StepDistances) -> Tensor:
        rows, steps, hidden = h.shape
        parts = self.queries_keys_values(h).view(rows, steps, 3, self.heads, hidden // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, heads, T, d)
        time, order = F.softplus(self.time_slope), F.softplus(self.order_slope)
        bias = -time[:, None, None] * apart.log_hours[:, None] - order[:, None, None] * apart.steps  # (B, heads, T, T)
        bias = bias.masked_fill(apart.ahead, -math.inf)  # not by an infinite distance: its gradient would be NaN
        attention = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        attended: Tensor = self.out(attention.transpose(1, 2).reshape(rows, steps, hidden))
        return attended
