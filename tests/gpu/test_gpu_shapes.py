"""Layers large enough for the wide shape of the GPU kernels; the shared cases are narrow ones."""

from itertools import product

import pytest
import torch

from snm_kernels import backends, preset
from snm_kernels.triton import snm as neuron
from support.cases import DTYPES, RULES, Case, short
from support.parity import compare, compare_counted
from support.triton_subset import launch_case, launch_counted

if not torch.cuda.is_available():
    pytest.skip(backends()["cuda"].reason, allow_module_level=True)

SHAPE = (4, 130, 33, 35)
"""More neurons than two blocks of 128 wide threads of 8 neurons on each of 256 multiprocessors."""
ROUND = (4, 144, 32, 32)
"""As many; rows that start on words of 16 bytes."""
WIDE = [
    *(
        Case(
            f"wide-round-{short(dtype)}-{emit}",
            9,
            ROUND,
            preset("snm-zero"),
            dtype,
            emit,
            threshold="neuron" if emit == "amplitude" else "number",
        )
        for dtype, emit in product(DTYPES, ("amplitude", "spike", "none"))
    ),
    *(
        Case(f"wide-{short(dtype)}-{emit}", 7, SHAPE, preset("snm-zero"), dtype, emit)
        for dtype, emit in product(DTYPES, ("amplitude", "spike", "none"))
    ),
    *(Case(f"wide-{rule}", 6, SHAPE, RULES[rule], state="given") for rule in RULES),
    *(
        Case(
            f"wide-{layout}-{short(dtype)}",
            9,
            SHAPE,
            dtype=dtype,
            layout=layout,
            threshold="channel",
            bias="neuron",
            residual="contiguous",
        )
        for layout in ("contiguous", "channels_last", "constant", "unaligned", "padded time")
        for dtype in (torch.float32, torch.bfloat16)
    ),
    *(Case(f"wide-{steps} steps", steps, SHAPE, threshold="last") for steps in (1, 3, 4, 5, 8)),
]


@pytest.mark.parametrize("backend", ["cuda", "triton"])
@pytest.mark.parametrize("case", WIDE, ids=str)
@pytest.mark.launches(of=launch_case)
def test_wide_layers_equal_reference(case: Case, backend: str) -> None:
    assert compare(case, backend, "cuda") == case.neuron_steps


@pytest.mark.parametrize("backend", ["cuda", "triton"])
@pytest.mark.parametrize("case", WIDE[::2], ids=str)
@pytest.mark.launches(of=launch_counted)
def test_wide_layers_count_as_reference(case: Case, backend: str) -> None:
    assert compare_counted(case, backend, "cuda") == case.neuron_steps


def most_narrow_neurons(backend: str, dtype: torch.dtype) -> int:
    """The largest layer of the narrow shape, where amplitudes are sent."""
    count = neuron.multiprocessors(torch.device("cuda", 0))
    if backend == "triton":
        return (2 * count - 1) * neuron.WIDE.block(dtype.itemsize, dtype.itemsize)
    return (2 * count - 1) * 128 * 16 // dtype.itemsize


@pytest.mark.parametrize("backend", ["cuda", "triton"])
@pytest.mark.parametrize("more", [-1, 0, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=short)
def test_layers_about_the_change_of_shape_equal_reference(
    dtype: torch.dtype, more: int, backend: str
) -> None:
    neurons = most_narrow_neurons(backend, dtype) + more
    case = Case(f"{short(dtype)} {more}", 5, (neurons,), dtype=dtype, threshold="last")
    assert compare(case, backend, "cuda") == case.neuron_steps
