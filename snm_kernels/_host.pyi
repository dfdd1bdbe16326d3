from typing import Any

from numpy.typing import NDArray

def run(
    drive: NDArray[Any],
    threshold: NDArray[Any],
    threshold_inner: int,
    v_in: NDArray[Any] | None,
    m_in: NDArray[Any] | None,
    bias: NDArray[Any] | None,
    bias_inner: int,
    residual: NDArray[Any] | None,
    v_init: float,
    negative_threshold: float | None,
    strict: bool,
    max_spikes: int,
    count_min: int,
    count_max: int,
    spikes: NDArray[Any] | None,
    v_out: NDArray[Any],
    m_out: NDArray[Any],
    threads: int,
) -> None: ...
def build_info() -> dict[str, str]: ...
