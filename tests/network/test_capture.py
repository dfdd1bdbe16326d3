"""What a CUDA graph needs of a simulation, without a GPU: nothing waits, nothing leaves it."""

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import snm
from snm.network.capture import CapturedNetwork, simulate
from support.networks import exact_network

pytestmark = pytest.mark.filterwarnings("ignore::snm.DeadNeuronWarning")

NAMES = ("plain", "residual", "pre-activation", "branches", "pooled", "read twice", "ends in ReLU")


class OnTheDevice(TorchDispatchMode):
    """Refuses operations that take or give tensors of the host; a number may be one."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves((args, kwargs, result)):
            if isinstance(value, Tensor) and value.dim() > 0 and value.device.type != "cuda":
                raise AssertionError(f"{func} reads or makes a tensor on {value.device}")
        return result


def faked(tensor: Tensor) -> Tensor:
    """A fake tensor like this one, on a GPU that is not there."""
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cuda")


def on_a_fake_gpu(net: nn.Module) -> None:
    for module in net.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(faked(parameter), requires_grad=False)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = faked(buffer)


def copied(to: Tensor, values: Tensor) -> Tensor:
    """``Tensor.copy_``, which looks for the GPU before any mode sees it."""
    with torch._C._AutoDispatchBelowAutograd():
        return torch.ops.aten.copy_.default(to, values)


def run_on_a_fake_gpu(
    name: str, run: Callable[[snm.SpikingNetwork, Tensor], Tensor], *, channels_last: bool = False
) -> Tensor:
    model, calibration, images = exact_network(name)
    net = snm.convert(model, calibration, preset="snm-zero")
    if channels_last:
        net = net.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    with FakeTensorMode(), OnTheDevice(), patch.object(Tensor, "copy_", copied):
        on_a_fake_gpu(net)
        return run(net, faked(images))


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_waits_for_the_device(name: str, channels_last: bool) -> None:
    _, _, images = exact_network(name)
    if channels_last and images.dim() != 4:
        pytest.skip("channels_last is for images of two dimensions")
    logits = run_on_a_fake_gpu(
        name, lambda net, x: simulate(net._start, x, 8, chunk=3), channels_last=channels_last
    )
    assert logits.device.type == "cuda"
    assert logits.shape[0] == images.shape[0]


def waits(net: snm.SpikingNetwork, images: Tensor) -> Tensor:
    """The check of a call, which reads the images' values."""
    net.inputs.check(images)
    return images


def test_a_wait_is_noticed() -> None:
    with pytest.raises(DataDependentOutputException):
        run_on_a_fake_gpu("plain", waits)


@pytest.mark.parametrize(
    "leave", [Tensor.cpu, lambda x: x + torch.ones(x.shape[-1])], ids=["to it", "from it"]
)
def test_a_copy_to_or_from_the_host_is_noticed(leave: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(AssertionError, match="on cpu"):
        run_on_a_fake_gpu("plain", lambda net, x: leave(simulate(net._start, x, 8, chunk=3)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("chunk", [3, 8])
def test_simulates_what_a_call_does(name: str, chunk: int) -> None:
    model, calibration, images = exact_network(name)
    net = snm.convert(model, calibration, preset="snm-half")
    assert torch.equal(simulate(net._start, images, 8, chunk=chunk), net(images, timesteps=8))


def test_a_network_on_the_cpu_is_refused() -> None:
    model, calibration, images = exact_network("plain")
    net = snm.convert(model, calibration)
    with pytest.raises(ValueError, match=r"^SpikingNetwork: example must be on a CUDA device, got"):
        net.capture(images, timesteps=8)


@pytest.mark.parametrize("encoder", ["poisson", "frames"])
def test_images_that_change_over_time_are_refused(encoder: str) -> None:
    model, calibration, images = exact_network("plain")
    net = snm.convert(model, calibration, encoder=encoder)
    with pytest.raises(ValueError, match=f"encoder='direct'.*got encoder='{encoder}'"):
        net.capture(images, timesteps=8)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda x: x.tolist(), TypeError, "must be a tensor, got list"),
        (lambda x: x.half(), TypeError, "must be torch.float32, got torch.float16"),
        (lambda x: x[:1], ValueError, r"must be \[4, 2, 8, 8\], got \[1, 2, 8, 8\]"),
        (lambda x: x.to("meta"), ValueError, "must be on cpu, got meta"),
    ],
    ids=["list", "dtype", "shape", "device"],
)
def test_images_unlike_the_example_are_refused(
    change: Callable[[Tensor], Any], error: type[Exception], message: str
) -> None:
    captured = CapturedNetwork.__new__(CapturedNetwork)
    captured._images = torch.zeros(4, 2, 8, 8)
    captured._check(captured._images)
    with pytest.raises(error, match=f"^CapturedNetwork: images {message}"):
        captured._check(change(captured._images))


def test_images_may_lie_in_memory_as_they_like() -> None:
    captured = CapturedNetwork.__new__(CapturedNetwork)
    captured._images = torch.zeros(4, 2, 8, 8)
    captured._check(torch.zeros(4, 2, 8, 16)[..., ::2].to(memory_format=torch.channels_last))
