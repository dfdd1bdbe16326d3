"""The neuron in plain PyTorch: the truth that every backend equals bit for bit."""

import math

import torch
from torch import Tensor

from .rule import SNMRule


def snm_reference(
    x: Tensor,
    threshold: Tensor,
    v: Tensor | None,
    m: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    negative: Tensor | None,
    *,
    rule: SNMRule,
    spikes_dtype: torch.dtype | None,
) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """Runs the rule one time step at a time; the loop that reads like the definition.

    Args:
        x: drive ``[T, *shape]``; float32, float16, bfloat16 or int32.
        threshold: float32, broadcastable to ``shape``.
        v: starting membrane, float32 ``[*shape]``; None for the rule's own start.
        m: starting memory, int32 ``[*shape]``; None for 0.
        bias: float32, broadcastable to ``shape``; None for none.
        residual: ``[T, *shape]`` of x's dtype; None for none.
        negative: negative spikes sent before, int32 ``[*shape]``; None for 0.
        rule: the neuron's rule.
        spikes_dtype: torch.int8 sends s, a floating dtype sends θ·s, None sends nothing.

    Returns:
        What was sent at each step (``[*shape]`` each, none if ``spikes_dtype`` is None), then v,
        m and the number of negative spikes after the last step.
    """
    count_min, count_max = rule.count_bounds
    silent = threshold == math.inf
    theta = torch.where(silent, 0.0, threshold).expand(x.shape[1:])
    upper = torch.where(silent, math.nan, threshold)
    ratio = math.nan if rule.negative_threshold is None else rule.negative_threshold
    lower = -(ratio * upper)
    if v is None:
        v = rule.v_init * theta
    if m is None:
        m = torch.zeros_like(v, dtype=torch.int32)
    if negative is None:
        negative = torch.zeros_like(m)
    sent = []
    for t in range(x.shape[0]):
        c = x[t].to(torch.float32)
        if bias is not None:
            c = c + bias
        if residual is not None:
            c = c + residual[t].to(torch.float32)
        u = v + c
        fires = (u >= upper) & (m < count_max)
        corrects = ((u < lower) if rule.strict else (u <= lower)) & (m > count_min)
        s = fires.to(torch.int32) - corrects.to(torch.int32)
        amplitude = torch.where(fires, theta, torch.where(corrects, -theta, 0.0))
        if rule.max_spikes > 1:
            fit = torch.where(fires, torch.floor(u / theta), 0.0)
            limit = fit.clamp(max=rule.max_spikes).to(torch.int32)
            full = count_max - limit
            s = torch.where(fires, count_max - torch.maximum(m, full), s)
            amplitude = s.to(torch.float32) * theta
        v = u - amplitude
        m = m + s
        negative = negative + corrects.to(torch.int32)
        if spikes_dtype == torch.int8:
            sent.append(s.to(torch.int8))
        elif spikes_dtype is not None:
            sent.append(amplitude.to(spikes_dtype))
    return sent, v, m, negative
