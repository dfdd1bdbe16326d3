"""Cases of every kind for tests that trace or compile the op, and how these call it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from snm_kernels import preset
from snm_kernels._checks import number_dtype
from support.cases import Case

SPREAD = [
    Case("plain"),
    Case("number", threshold="number", bias="number"),
    Case("half, int8", dtype=torch.float16, emit="spike", theta="fine"),
    Case("bfloat16 to float32", dtype=torch.bfloat16, out_dtype=torch.float32),
    Case("int32", dtype=torch.int32, rule=preset("snm-zero")),
    Case("nothing sent", emit="none", residual="contiguous"),
    Case("channels_last", layout="channels_last", threshold="channel", bias="neuron"),
    Case("reversed memory", layout="reversed memory", threshold="sample and row"),
    Case("constant", layout="constant", residual="constant", state="given"),
    Case("gaps", layout="every other", state="permuted", residual="channels_last"),
    Case("batch first", layout="batch first", dtype=torch.float16, state="given"),
    Case("padded time", layout="padded time", residual="padded time"),
    Case("one sample for all", layout="one sample for all"),
    Case("one step", 1, (2, 3)),
    Case("one neuron", 5, (1,), threshold="last"),
    Case("no dimensions", 5, (), threshold="scalar", state="given"),
    Case("no neurons", 5, (2, 0, 3), threshold="scalar"),
    Case("burst", rule=preset("burst"), emit="spike", theta="silent"),
    Case("st-bif", rule=preset("st-bif"), state="given", bias="channel"),
    Case("expanded parameters", threshold="channel, expanded", bias="channel, expanded"),
    Case("integers", dtype=torch.int32, theta="integers", emit="spike", bias="number"),
    Case(
        "integers, burst",
        rule=preset("burst"),
        dtype=torch.int32,
        theta="integers, silent",
        emit="none",
        residual="contiguous",
        state="given",
    ),
    Case("one pixel", 4, (2, 5, 1, 1), layout="channels_last"),
]


def operator_arguments(inputs: dict[str, Any]) -> tuple[Any, ...]:
    """A case's arguments as the operator `snm` takes them."""
    x, rule, state = inputs["x"], inputs["rule"], inputs.get("state") or (None, None)

    number = number_dtype(inputs["threshold"])

    def parameter(value: Any) -> Tensor | None:
        return None if value is None else torch.as_tensor(value, dtype=number)

    spikes = inputs.get("out_dtype") or (torch.float32 if x.dtype == torch.int32 else x.dtype)
    return (
        x,
        parameter(inputs["threshold"]),
        *state,
        parameter(inputs.get("bias")),
        inputs.get("residual"),
        float(rule.v_init),
        rule.negative_threshold,
        rule.strict,
        rule.max_spikes,
        *rule.count_bounds,
        {"amplitude": spikes, "spike": torch.int8, "none": None}[inputs["emit"]],
    )


def compiled(function: Callable[..., Any], backend: str, **options: Any) -> Callable[..., Any]:
    return torch.compile(function, fullgraph=True, backend=backend, **options)
