"""Gathers all that a report says, by simulating batch after batch."""

import math
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

import snm_kernels

from ...conversion.tracing.compare import result_of
from ...conversion.tracing.paths import free_path
from ...diagnosis import check_same
from ...diagnosis.result import Diagnosis
from ...network.checks import dtype_name
from ...network.observer import Observer
from ...network.program import RunningMax
from ...network.relu import relu_logits
from ...network.spiking import SpikingNetwork
from ...network.tally import Tally
from ...nn.integer import IntegerConv, IntegerNeuron
from ..energy import Operation, Work, energies
from ..output import Report
from ..result import IntegerLayerReport, Macs
from .membranes import LargestMembranes
from .peak import Peak
from .senders import NeuronTally, SenderTally
from .synapses import Target, Wiring, wiring

_CHECKED = 4
"""On how many images the model is compared with the network with ReLUs."""


class Gathering:
    """Gathers what is counted and timed in all batches that have been simulated so far.

    Args:
        net: the network to simulate.
        timesteps: T.
        model: the ReLU network to compare it with; None for no comparison.
        generator: draws the spikes of encoder="poisson".
    """

    def __init__(
        self,
        net: SpikingNetwork,
        timesteps: int,
        model: nn.Module | None,
        generator: torch.Generator | None,
    ) -> None:
        self.net = net
        self.timesteps = timesteps
        self.model = model
        self.generator = generator
        self.device = net.device
        self.images = 0
        self.senders = _senders(net, timesteps)
        self.membranes = LargestMembranes(self._wait)
        self.wiring: Wiring | None = None
        self.peak = Peak(self.device)
        self.seconds, self.relu_seconds = 0.0, 0.0
        self.right: list[Tensor] = []
        """For each batch how many answers are right after each step."""
        self.agreeing: list[Tensor] = []
        """For each batch how many answers are the model's after each step."""
        self.relu_right: list[Tensor] = []
        """For each batch how many of the model's own answers are right."""
        self.labelled = 0
        """How many images have a known class."""

    def add(self, images: Tensor, labels: Tensor | None) -> None:
        """Simulates a batch and adds what is counted.

        Args:
            images: as a call of the network takes them.
            labels: the class of each image, int64 ``[B]``; None if it is not known.
        """
        tally = Tally()
        observers: list[Observer] = [tally, self.membranes] if self.net.integers else [tally]
        with warnings.catch_warnings():
            # Of T a report warns once, not for each batch.
            warnings.simplefilter("ignore", UserWarning)
            simulation = self.net.simulation(
                images, timesteps=self.timesteps, generator=self.generator, observers=observers
            )
        first = simulation.source.images
        if self.wiring is None:
            self.wiring = wiring(self.net, tuple(first.shape[1:]))
            self._check_model(images)
        theirs = self._relu_network(images)
        self.images += len(first)
        with self.peak.measured(len(first)), self._clocked("seconds"):
            if labels is None and theirs is None:
                simulation.answer()
            else:
                self._compare(simulation.answers(), labels, theirs)
        if labels is not None and theirs is not None:
            self.relu_right.append((theirs == labels).sum())
        with self._clocked("seconds"):
            self._count(tally)

    def _compare(
        self, answers: Iterator[Tensor], labels: Tensor | None, theirs: Tensor | None
    ) -> None:
        """Counts the answers after each step that are right, and those that are the model's."""
        right, agreeing = [], []
        for answer in answers:
            if answer.dim() != 2 or answer.shape[1] < 2:
                raise ValueError(
                    "report: to have classes, the answer must be [B, classes] with at least two, "
                    f"got {list(answer.shape)}; give neither labels nor a model"
                )
            found = answer.argmax(1)
            if labels is not None:
                right.append((found == labels).sum())
            if theirs is not None:
                agreeing.append((found == theirs).sum())
        if labels is not None:
            self.labelled += len(labels)
            self.right.append(torch.stack(right))
        if theirs is not None:
            self.agreeing.append(torch.stack(agreeing))

    def _relu_network(self, images: Tensor) -> Tensor | None:
        """The classes that the model answers, int64 ``[B]``; None if there is no model."""
        if self.model is None:
            return None
        # The model may write into the images that it is given.
        given = images.clone()
        with self._clocked("relu_seconds"):
            logits: Tensor = self.model(given)
        return logits.argmax(1)

    def _check_model(self, images: Tensor) -> None:
        """Refuses a model that is not the one that the network was converted from."""
        # One of integers has other weights, rounded ones.
        exact = self.net.encoder == "direct" and not self.net.integers
        if self.model is not None and exact:
            few = images[:_CHECKED]
            check_same("report", self.net, relu_logits(self.net, few), result_of(self.model, few))

    @contextmanager
    def _clocked(self, name: str) -> Iterator[None]:
        """Adds the seconds that what runs within takes to the attribute of that name."""
        self._wait()
        start = time.perf_counter()
        yield
        self._wait()
        setattr(self, name, getattr(self, name) + time.perf_counter() - start)

    def _wait(self) -> None:
        """Waits until the device has done all that it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _count(self, tally: Tally) -> None:
        """Adds what every layer of neurons and every max pooling sent in a batch."""
        for name, sender in self.senders.items():
            if isinstance(sender, NeuronTally):
                sender.end(tally.states[sender.path], tally.negative[sender.path])
            else:
                sender.add(*tally.events(name))

    def result(self, diagnosis: Diagnosis | None) -> Report:
        """The report on all batches, with a diagnosis if there is one."""
        assert self.wiring is not None
        net, targets = self.net, self.wiring.targets
        operations = [self._operation(target) for target in targets]
        macs = Macs(
            first=self._macs("first"),
            steps=self._macs("steps"),
            readout=self._macs("readout"),
            relu=sum(target.relu for target in targets),
        )
        layers = {}
        for name, sender in self.senders.items():
            synapses = [s for target in targets for s in target.synapses if s.sender == name]
            layers[sender.path] = sender.result(
                sum(int(s.fan_out.sum()) for s in synapses),
                sum(sender.operations(s) for s in synapses),
            )
        work = Work(
            timesteps=self.timesteps,
            operations=tuple(operations),
            senders=tuple(
                (layer.neurons, (layer.positive + layer.negative) / self.images)
                for layer in layers.values()
            ),
        )
        rule = next(iter(net.layers.values())).rule
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        return Report(
            timesteps=self.timesteps,
            images=self.images,
            layers=layers,
            macs=macs,
            energy=energies(work, rule.largest_count(self.timesteps).bit_length()),
            seconds=self.seconds - self.membranes.seconds,
            relu_seconds=self.relu_seconds if self.model is not None else math.nan,
            peak_bytes=self.peak.bytes,
            device=name,
            threads=torch.get_num_threads(),
            dtype="integers" if net.integers else dtype_name(net.dtype),
            encoder=net.encoder,
            rule=rule,
            tuned_for=net.tuned_for,
            accuracy=_shares(self.right, self.labelled),
            agreement=_shares(self.agreeing, self.images),
            relu_accuracy=_share(self.relu_right, self.labelled),
            diagnosis=diagnosis,
            version=snm_kernels.__version__,
            integers=self._integers(),
            events=self._events(),
            membrane_bits={
                path: neuron.membrane_bits(self.timesteps)
                for path, neuron in net.layers.items()
                if isinstance(neuron, IntegerNeuron)
            },
            observed_membrane_bits=self.membranes.bits(),
        )

    def _integers(self) -> dict[str, IntegerLayerReport]:
        """How each layer of integers that spikes reach is computed."""
        assert self.wiring is not None
        modules = dict(self.net.model.named_modules())
        found = {}
        for target in self.wiring.targets:
            layer = modules.get(target.path)
            if not isinstance(layer, IntegerConv) or target.part != "steps":
                continue
            timed = layer.can_be_dense and layer.seconds
            found[target.path] = IntegerLayerReport(
                target.path,
                layer.path,
                self._share_of_dense(target),
                layer.sum_bits,
                timed["events"] / timed["dense"] if timed else math.nan,
            )
        return found

    def _events(self) -> dict[str, float]:
        """The share of a dense layer's work that each layer does that is computed by events."""
        assert self.wiring is not None
        paths = self.net.paths_by_events
        return {
            target.path: self._share_of_dense(target)
            for target in self.wiring.targets
            if target.path in paths and target.part == "steps"
        }

    def _share_of_dense(self, target: Target) -> float:
        """An operation's synaptic operations, as a share of a dense one's multiplications."""
        spikes = sum(self.senders[s.sender].operations(s) for s in target.synapses)
        dense = target.relu * self.images * self.timesteps
        return spikes / dense if dense else 0.0

    def _times(self, part: str) -> int:
        """How often a part of the network is computed for an image."""
        once = part == "readout" or (part == "first" and self.net.encoder == "direct")
        return 1 if once else self.timesteps

    def _macs(self, part: str) -> int:
        """The multiply-accumulates with analog values of a part of the network, per image."""
        assert self.wiring is not None
        return self._times(part) * sum(t.analog for t in self.wiring.targets if t.part == part)

    def _operation(self, target: Target) -> Operation:
        """What an operation reads and computes for one image."""
        arriving = sum(
            int(self.senders[s.sender].sent[s.fan_out > 0].sum()) for s in target.synapses
        )
        operations = sum(self.senders[s.sender].operations(s) for s in target.synapses)
        return Operation(
            weights=target.weights,
            inputs=target.inputs,
            outputs=target.outputs,
            spikes=arriving / self.images,
            synaptic_operations=operations / self.images,
            macs=target.analog * self._times(target.part),
            part=target.part,
            relu_macs=target.relu,
        )


def _senders(net: SpikingNetwork, timesteps: int) -> dict[str, SenderTally]:
    """The tallies of all layers of neurons and max poolings, by the name of their step."""
    used = {fire.path for fire in net.program.neurons}
    paths = {fire.name: fire.path for fire in net.program.neurons}
    senders: dict[str, SenderTally] = {}
    for step in net.program.temporal:
        if step.name in paths:
            path = paths[step.name]
            senders[step.name] = NeuronTally(path, timesteps, net.layers[path])
        elif isinstance(step, RunningMax):
            path = free_path(step.path or step.name, used)
            used.add(path)
            senders[step.name] = SenderTally(path, timesteps)
    return senders


def _shares(counts: list[Tensor], total: int) -> tuple[float, ...]:
    """Counts of answers after each step as shares of ``total``; empty if nothing was counted."""
    if not counts:
        return ()
    return tuple(count / total for count in torch.stack(counts).sum(0).tolist())


def _share(counts: list[Tensor], total: int) -> float:
    """Counts of answers as a share of ``total``; NaN if nothing was counted."""
    return int(torch.stack(counts).sum()) / total if counts else math.nan
