"""A network with everything, and the spikes of a run, for the tests of NIR and ONNX."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import snm
from support.networks import exact


class Everything(nn.Module):
    """A network with max poolings of neurons, overlapping, padded and in ceil mode, and of a drive;
    a sum that neurons take and one that others read; a factor; grouped and oblong convolutions; and
    averages."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.pool = nn.MaxPool2d(3, 2, 1, ceil_mode=True)
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.conv2 = nn.Conv2d(4, 4, (1, 3), padding=(0, 1), bias=False)
        self.conv3, self.conv4 = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.hidden, self.head = nn.Linear(36, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.stem(x)))
        y = self.conv2(F.relu(self.conv1(x)))
        z = F.relu(y + x)
        z = F.relu(F.max_pool2d(self.conv3(z), 2, 1)) * 0.5
        z = self.conv4(z) + z
        z = F.avg_pool2d(F.relu(z) + z, 2, 1)
        return self.head(F.relu(self.hidden(torch.flatten(z, 1))))


def with_biases(net: snm.SpikingNetwork) -> snm.SpikingNetwork:
    """Gives every layer of neurons a bias per channel, with few binary digits."""
    for path, neuron in net.layers.items():
        fire = next(fire for fire in net.program.neurons if fire.path == path)
        dims = neuron.threshold.dim() if fire.per_neuron else 1
        channels = neuron.threshold.shape[0]
        bias = (torch.arange(channels) % 3 - 1) / 4
        neuron.bias = bias.view(channels, *[1] * (dims - 1))
    return net


def everything(rule: str | snm.SNMRule = "snm-zero") -> tuple[snm.SpikingNetwork, Tensor]:
    """The network with everything, converted, its sums exact; and images for it."""
    model = exact(Everything(), seed=3)
    g = torch.Generator().manual_seed(1)
    calibration, images = torch.randint(-2, 5, (2, 4, 2, 8, 8), generator=g) / 2
    return with_biases(snm.convert(model, calibration, preset=rule)), images


def trains(net: snm.SpikingNetwork, images: Tensor, timesteps: int) -> dict[str, Tensor]:
    """What each layer of neurons sends at every step, int8 ``[T, B, ...]``, found step by step."""
    counts: dict[str, list[Tensor]] = {path: [] for path in net.layers}
    net.reset()
    for _ in range(timesteps):
        net.step(images)
        assert net._live is not None
        for fire in net.program.neurons:
            counts[fire.path].append(net._live.states[fire.name].m)
    net.reset()
    return {
        path: torch.stack(m).diff(dim=0, prepend=torch.zeros_like(m[0])[None]).to(torch.int8)
        for path, m in counts.items()
    }
