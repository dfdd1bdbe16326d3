"""A spiking network's program run once, with ReLUs in the place of its neurons."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .program import Call, Fire, Repeat, repeat_over_time, spikes_of

if TYPE_CHECKING:
    from .simulate import SpikingNetwork


def rectified(
    network: "SpikingNetwork", images: Tensor, caps: Mapping[str, float]
) -> tuple[dict[str, Tensor], Tensor]:
    """The activations ``[B, ...]`` by the path of the layer, and the output.

    They are those of the ReLU network, in the units that the spiking network's weights have.

    Args:
        network: with encoder="direct".
        images: ``[B, ...]``, as a call takes them.
        caps: by path what activations do not exceed, as in ReLU6; nothing for the others.

    >>> from snm import convert
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU()).eval()
    >>> images = torch.rand(32, 4)
    >>> activations, output = rectified(convert(model, images), images, {})
    >>> torch.equal(activations["1"], model(images)), torch.equal(output, model(images))
    (True, True)
    """
    program, model = network.program, network.model
    values: dict[str, Any] = {program.images: images, program.batch: images.shape[0]}
    activations = {}
    for step in (*program.static, *program.temporal, *program.tail):
        if isinstance(step, Call):
            values[step.name] = step.run(model, values)
        elif isinstance(step, Repeat):
            values[step.name] = repeat_over_time(values[step.value], 1)
        elif isinstance(step, Fire):
            drive: Tensor = values[step.drive]
            if step.residual is not None:
                drive = drive + values[step.residual]
            activation = drive.clamp(0, caps.get(step.path))
            activations[step.path] = activation
            values[step.name] = values[step.spikes] = activation
        else:
            parts = [values[spikes_of(name)] for name in step.fires] or [values[step.value]]
            # Of one time step a running maximum is a maximum.
            pooled, _ = step.pooling.run(torch.cat(parts, 1).unsqueeze(0), None, None, images.dtype)
            values[step.name] = pooled.flatten(0, 1)
    return activations, values[program.output]
