"""The op by itself: a layer of neurons over all time steps, in one launch.

    python examples/op_in_ten_lines.py

It takes the place of a loop over time steps such as :func:`step_by_step`, and sends the same.
"""

import torch
from torch import Tensor

import snm_kernels


def step_by_step(drive: Tensor, threshold: Tensor) -> Tensor:
    """What the paper's neuron sends, one time step after the other."""
    membrane, count = torch.zeros_like(drive[0]), torch.zeros_like(drive[0])
    spikes = []
    for current in drive:
        membrane = membrane + current
        up = membrane >= threshold
        down = (membrane <= -threshold) & (count > 0)
        spike = up.float() - down.float()
        membrane = membrane - spike * threshold
        count = count + spike
        spikes.append(spike * threshold)
    return torch.stack(spikes)


def main() -> None:
    """Run it, in one launch and in two, and compare."""
    drive = torch.randn(32, 8, 64, 16, 16)  # [T, batch, C, H, W], time first
    threshold = torch.full((64, 1, 1), 0.8)  # a scalar, per channel or per neuron

    spikes, state = snm_kernels.snm(drive, threshold)

    # A sequence that comes in parts: the state goes on from part to part.
    first, half_way = snm_kernels.snm(drive[:16], threshold)
    second, end = snm_kernels.snm(drive[16:], threshold, state=half_way)

    rates = snm_kernels.snm(drive, threshold, emit="none").state.m * threshold / len(drive)

    print(f"sends 1 at {(spikes > 0).float().mean():.1%}, -1 at {(spikes < 0).float().mean():.1%}")
    print("equal to the loop:", torch.equal(spikes, step_by_step(drive, threshold)))
    print("equal in two parts:", torch.equal(torch.cat([first, second]), spikes))
    print("equal state:", torch.equal(end.v, state.v) and torch.equal(end.m, state.m))
    print("rates are means:", torch.allclose(rates, spikes.mean(0), atol=1e-5))


if __name__ == "__main__":
    main()
