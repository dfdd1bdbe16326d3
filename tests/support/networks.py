"""Small networks whose float32 sums are all exact, as weights and images have few binary digits."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IMAGE_2D = (2, 8, 8)


def exact(model: nn.Module, seed: int = 0) -> nn.Module:
    """Gives a model weights, and its batch norms statistics, with few binary digits."""
    generator = torch.Generator().manual_seed(seed)

    def pick(values: list[float], tensor: Tensor) -> None:
        index = torch.randint(len(values), tensor.shape, generator=generator)
        tensor.copy_(torch.tensor(values)[index])

    with torch.no_grad():
        for module in model.modules():
            norm = isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)
            for name, parameter in module.named_parameters(recurse=False):
                if norm and name == "weight":
                    pick([1.0, 1.0, 2.0], parameter)
                elif name == "bias":
                    pick([-0.5, 0.0, 0.5], parameter)
                else:
                    pick([-0.5, 0.0, 0.0, 0.5], parameter)
            if norm:
                pick([-0.5, 0.0, 0.5], module.running_mean)
                pick([1.0, 4.0], module.running_var)
                # torch 2.11 refuses 0; both the difference and the sum of it again are exact.
                module.eps = 2**-10
                module.running_var -= module.eps
    return model.eval()


def exact_images(count: int, shape: tuple[int, ...] = IMAGE_2D, seed: int = 0) -> Tensor:
    """Images of halves between -1 and 2."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-2, 5, (count, *shape), generator=generator) / 2


class Plain(nn.Sequential):
    """A network of convolutions, batch norms, average pooling, dropout and a linear head."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(2, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
            nn.AvgPool2d(2),
            nn.Conv2d(4, 6, 3, padding=1),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Linear(96, 8),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.Identity(),
            nn.Linear(8, 5),
        )


class Residual(nn.Module):
    """A network of basic blocks with a shared in-place ReLU and sums in place, one of them with a
    downsample."""

    class Block(nn.Module):
        def __init__(self, inside: int, out: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(inside, out, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(out)
            self.relu = nn.ReLU(inplace=True)
            self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(out)
            self.downsample = (
                None
                if stride == 1
                else nn.Sequential(nn.Conv2d(inside, out, 1, stride), nn.BatchNorm2d(out))
            )

        def forward(self, x: Tensor) -> Tensor:
            identity = x
            out = self.relu(self.bn1(self.conv1(x)))
            out = self.bn2(self.conv2(out))
            if self.downsample is not None:
                identity = self.downsample(x)
            out += identity
            return self.relu(out)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(inplace=True))
        self.layers = nn.Sequential(self.Block(3, 3, 1), self.Block(3, 4, 2))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.flatten(self.pool(self.layers(self.stem(x))), 1))


class PreActivation(nn.Module):
    """A network with sums of what is constant in time and what is not; batch norms that cannot be
    folded; ReLUs of values that a sum reads again, whole and as a view; and a sum behind the last
    neurons that reads one before them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 3, 3, padding=1)
        self.norm1, self.norm4 = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.conv1, self.conv2, self.conv3, self.conv4 = (
            nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)
        )
        self.head = nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.conv1(F.relu(self.norm1(x)))
        x = x + self.conv2(torch.relu(x))
        x = x + self.conv3(x.flatten(1).relu().view(x.shape))
        x = x + self.conv4(torch.relu(self.norm4(x)))
        return self.head(x.mean(dim=(-2, -1)))


class Branches(nn.Module):
    """A network with concatenations, shared layers, max pooling before the first neurons, and the
    size of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.mix = nn.Conv2d(6, 3, 1)
        self.norm = nn.BatchNorm2d(3)
        self.relu = nn.ReLU()
        self.head = nn.Linear(48, 5)

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        x = F.max_pool2d(x, 2)
        a = self.relu(self.conv(x))
        b = self.relu(self.conv(a))
        y = self.norm(self.mix(torch.cat([x, a, b], dim=1))).relu()
        y = F.dropout(y, training=self.training)
        y = y.contiguous().view(batch, -1, y.size(-1)).reshape(x.size(0), -1)
        return self.head(y)


class Arithmetic(nn.Module):
    """A network with affine operations of many kinds, on parameters and constants."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(2, 4, 2, stride=2)
        self.up_norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU()
        self.shift = nn.Parameter(torch.zeros(4, 1, 1))
        self.weight = nn.Parameter(torch.zeros(4, 4, 1, 1))
        self.gate = nn.Conv2d(2, 4, 1)
        self.unflatten = nn.Unflatten(1, (2, 4))
        self.fc = nn.Linear(16, 8)
        self.register_buffer("scale", torch.tensor([0.5, 1.0, 2.0, 0.5]).view(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(F.avg_pool2d(x, 8))
        y = self.relu(self.up_norm(self.up(x)))
        y = (1 - y * self.scale) * gate + self.shift
        left, right = y.chunk(2, dim=1)
        y = torch.cat((-right, left / 2), 1)
        y = F.conv2d(F.pad(y, (1, 0, 0, 1)), self.weight)[:, :, 1::4, :-1:4]
        y = self.relu(y).contiguous().permute(0, 2, 3, 1).transpose(1, -1)
        y = F.adaptive_avg_pool2d(y, (2, 2)).flatten(start_dim=-3)
        y = self.relu(self.fc(y))
        b, features = y.size()
        return self.unflatten(y).view([b, features // 4, 4]).unsqueeze(1).squeeze(1).sum(1)


class MutatedIdentity(nn.Module):
    """A network in which an in-place ReLU writes over the identity of the sum that follows."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 3, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.conv1, self.conv2 = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.head = nn.Linear(192, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.conv1(self.relu(x))
        y += x
        z = y
        y *= 0.5
        y = self.conv2(F.relu(y, inplace=True))
        return self.head((y.relu_() + z).flatten(1))


class SharedConvolution(nn.Module):
    """A network that calls a convolution twice, each time with a batch norm of its own, and reads
    the convolution's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(2, 2, 3, padding=1), nn.ReLU()
        self.norm1, self.norm2 = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
        self.head = nn.Linear(128, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm1(self.conv(x)))
        x = self.relu(self.norm2(self.conv(x)))
        x = self.relu(F.conv2d(x, self.conv.weight, padding=1))
        return self.head(x.flatten(1))


class EndsInReLU(nn.Sequential):
    """A network whose logits are themselves the mean output of neurons."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(128, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU())


class ReadTwice(nn.Module):
    """A network with neurons that both the next layer and the tail read."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 6), nn.Linear(6, 6)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        a = self.first(x).relu()
        b = self.second(a).relu()
        return self.head(torch.cat([a, b], dim=-1))


class OneDimension(nn.Sequential):
    """A network of one-dimensional convolutions."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv1d(2, 4, 3),
            nn.BatchNorm1d(4),
            nn.ReLU(),
            nn.AvgPool1d(2),
            nn.Conv1d(4, 4, 3),
            nn.ReLU(),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            nn.Linear(4, 5),
        )


class ThreeDimensions(nn.Sequential):
    """A network of three-dimensional convolutions."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv3d(1, 3, 3, padding=1),
            nn.BatchNorm3d(3),
            nn.ReLU(),
            nn.AvgPool3d(2),
            nn.Conv3d(3, 3, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool3d(1),
            nn.Flatten(),
            nn.Linear(3, 5),
        )


class ReadBehind(nn.Module):
    """What neurons send is read by the next neurons' drive, which the head reads too, and once
    more behind the last neurons: steps between neurons are steps of the head as well."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(12, 16)
        self.second = nn.Linear(16, 16)
        self.beside = nn.Linear(16, 16)
        self.third = nn.Linear(16, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        sent = F.relu(self.first(x))
        drive = self.second(sent)
        return self.head(drive + self.beside(sent) + self.third(F.relu(drive)))


class Shuffled(nn.Module):
    """A network with channels shuffled by hand, split and padded; with shuffled pixels; and with a
    shortcut of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)
        self.conv3 = nn.Conv2d(4, 8, 3, padding=1, stride=2, padding_mode="reflect")
        self.norm = nn.BatchNorm2d(2)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x))
        left, right = x.chunk(2, dim=1)
        x = torch.cat((left, self.norm(F.relu(self.conv2(right)))), dim=1)
        batch, channels, height, width = x.size()
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(x.shape)
        x = F.relu(self.conv3(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)))
        return self.head(F.pixel_shuffle(x, 2)[:, :, 1::2, 1::2].relu().flatten(1))


class Sized(nn.Module):
    """A network that branches and loops on the sizes of its tensors, so torch.fx cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm1 = nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.down, self.norm2 = nn.Conv2d(3, 3, 2, stride=2), nn.BatchNorm2d(3)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.stem(x)))
        while x.shape[-1] > 2:
            x = F.relu(self.norm2(self.down(x)), inplace=True)
        return self.head(x.view(x.shape[0], -1))


class Transposed(nn.Module):
    """A network with a product of one operand, which is a view of what a sum reads again."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(12, 8), nn.Linear(8, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        z = self.second(F.relu(self.first(x))).view(-1, 4, 4)
        t = F.relu(torch.einsum("bij->bji", z))
        return self.head(F.relu(t + z).flatten(1))


class Pooled(nn.Module):
    """A network with max poolings of neurons, overlapping, padded and in ceil mode; of neurons side
    by side that others read too; of a drive; of a max pooling; of a sum; behind the last neurons;
    and adaptive ones."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.pool = nn.MaxPool2d(3, 2, 1, ceil_mode=True)
        self.left, self.right = nn.Conv2d(4, 2, 1), nn.Conv2d(4, 3, 3, padding=1)
        self.mix, self.drive = nn.Conv2d(5, 5, 1), nn.Conv2d(5, 4, 1)
        self.last = nn.Conv2d(4, 3, 1)
        self.end = nn.AdaptiveMaxPool2d(2)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.stem(x)))
        both = torch.cat([F.relu(self.left(x)), F.relu(self.right(x))], 1)
        x = F.max_pool2d(both, 3, 1, 1) + self.mix(both)
        x = F.max_pool2d(F.max_pool2d(x, 2, 1), (1, 2), 1, dilation=(1, 2))
        x = F.relu(F.adaptive_max_pool2d(self.drive(x), (3, None)))
        return self.head(self.end(F.relu(self.last(x))).flatten(1))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "plain": (Plain, IMAGE_2D),
    "residual": (Residual, IMAGE_2D),
    "pre-activation": (PreActivation, IMAGE_2D),
    "branches": (Branches, IMAGE_2D),
    "arithmetic": (Arithmetic, IMAGE_2D),
    "mutated identity": (MutatedIdentity, IMAGE_2D),
    "shared convolution": (SharedConvolution, IMAGE_2D),
    "pooled": (Pooled, IMAGE_2D),
    "ends in ReLU": (EndsInReLU, IMAGE_2D),
    "read twice": (ReadTwice, (12,)),
    "read behind": (ReadBehind, (12,)),
    "shuffled": (Shuffled, IMAGE_2D),
    "sized": (Sized, IMAGE_2D),
    "transposed": (Transposed, (12,)),
    "conv1d": (OneDimension, (2, 14)),
    "conv3d": (ThreeDimensions, (1, 4, 4, 4)),
}


def exact_network(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """The network of that name, calibration images for it, and other images."""
    build, shape = NETWORKS[name]
    return exact(build()), exact_images(6, shape, seed=1), exact_images(3, shape, seed=2)
