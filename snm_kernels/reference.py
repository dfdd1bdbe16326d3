"""The neuron in plain PyTorch: the truth that every backend equals bit for bit."""

import math

import torch
from torch import Tensor

from ._types import SILENT
from .rule import INT32_MAX, INT32_MIN, SNMRule


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
        threshold: float32, broadcastable to ``shape``; or int32, where all else is int32 as well.
        v: starting membrane, of the threshold's dtype, ``[*shape]``; None for the rule's own start.
        m: starting memory, int32 ``[*shape]``; None for 0.
        bias: of the threshold's dtype, broadcastable to ``shape``; None for none.
        residual: ``[T, *shape]`` of x's dtype; None for none.
        negative: negative spikes sent before, int32 ``[*shape]``; None for 0.
        rule: the neuron's rule.
        spikes_dtype: torch.int8 sends s, a floating dtype sends θ·s, None sends nothing; not a
            floating one with an int32 threshold.

    Returns:
        What was sent at each step (``[*shape]`` each, none if ``spikes_dtype`` is None), then v,
        m and the number of negative spikes after the last step.
    """
    count_min, count_max = rule.count_bounds
    number = threshold.dtype
    integers = number == torch.int32
    theta, upper, lower, start = (_integer_thresholds if integers else _thresholds)(threshold, rule)
    theta = theta.expand(x.shape[1:])
    zero = torch.zeros_like(theta)
    if v is None:
        v = start.expand(x.shape[1:])
    if m is None:
        m = torch.zeros_like(v, dtype=torch.int32)
    if negative is None:
        negative = torch.zeros_like(m)
    sent = []
    for t in range(x.shape[0]):
        c = x[t].to(number)
        if bias is not None:
            c = c + bias
        if residual is not None:
            c = c + residual[t].to(number)
        u = v + c
        at = u.to(upper.dtype)
        fires = (at >= upper) & (m < count_max)
        corrects = ((at < lower) if rule.strict else (at <= lower)) & (m > count_min)
        s = fires.to(torch.int32) - corrects.to(torch.int32)
        amplitude = torch.where(fires, theta, torch.where(corrects, -theta, zero))
        if rule.max_spikes > 1:
            fit = torch.where(fires, u // theta if integers else torch.floor(u / theta), zero)
            limit = fit.clamp(max=rule.max_spikes).to(torch.int32)
            full = count_max - limit
            s = torch.where(fires, count_max - torch.maximum(m, full), s)
            amplitude = s.to(number) * theta
        v = u - amplitude
        m = m + s
        negative = negative + corrects.to(torch.int32)
        if spikes_dtype == torch.int8:
            sent.append(s.to(torch.int8))
        elif spikes_dtype is not None:
            sent.append(amplitude.to(spikes_dtype))
    return sent, v, m, negative


def _thresholds(threshold: Tensor, rule: SNMRule) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a spike carries, what fires and what corrects, and where the membrane starts."""
    silent = threshold == math.inf
    theta = torch.where(silent, 0.0, threshold)
    upper = torch.where(silent, math.nan, threshold)
    ratio = math.nan if rule.negative_threshold is None else rule.negative_threshold
    lower = -(ratio * upper)
    return theta, upper, lower, rule.v_init * theta


def _integer_thresholds(threshold: Tensor, rule: SNMRule) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same of an int32 threshold. Products are float64, in which they are exact."""
    silent = threshold == SILENT
    real = threshold.to(torch.float64)
    upper = torch.where(silent, math.nan, real)
    ratio = math.nan if rule.negative_threshold is None else rule.negative_threshold
    lower = -(torch.tensor(ratio, dtype=torch.float32).to(torch.float64) * upper)
    start = (torch.tensor(rule.v_init, dtype=torch.float32).to(torch.float64) * real).floor()
    start = torch.where(silent, 0.0, start.clamp(INT32_MIN, INT32_MAX))
    return threshold, upper, lower, start.to(torch.int32)
