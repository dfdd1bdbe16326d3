"""The spiking network that a conversion makes, and all the ways to simulate it."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..nn import SNMNeuron
from ..nn.integer import IntegerNeuron, Pixels
from .bounds import renew_bounds
from .capture import CapturedNetwork
from .checks import check_count, dtype_name
from .digest import SpikeDigest
from .encode import Constant, Encoder, Frames, Poisson, Source
from .events import EventRun, Plan, plan_of, readers_of
from .first_pass import FirstPass, starting_states
from .fused import hooked
from .inputs import Inputs, check_direct, check_generator, check_readout_after, checked_timesteps
from .integer import INTEGER_BYTES, IntegerRun, most_steps
from .memory import images_with_all_steps, steps_that_fit
from .observer import Observer
from .program import Call, Program, RunningMax
from .recording import QUANTITIES, Indices, Quantity, Recorder, Recording, recording_of
from .run import Readout, Run
from .simulation import Simulation
from .tree import Origin, tree
from .until import Answers, Stop, simulate_until, stopping

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
"""The dtypes that a network may be in."""


class SpikingNetwork(nn.Module):
    """A spiking network, as :func:`snm.convert` makes it.

    What is constant in time is computed once, and so is what comes behind the last neurons, on
    their mean output. In between all layers run over a chunk of time steps, and the neurons' state
    is carried from chunk to chunk. A call starts afresh; :meth:`step` goes on from the step before.
    Under ``torch.compile`` time is unrolled, in a graph for each T, and images are not checked for
    NaN and infinity.

    Args:
        model: the modules that the program calls, with :class:`snm.nn.SNMNeuron` in place of ReLUs.
        program: what to execute.
        image_shape: shape of one calibration image.
        fixed_size: whether the network takes images of that shape only.
        dtype: that of images and spikes.
        encoder: how images become frames.
        readout: what a call returns.
        tracer: what followed the model's forward, ``"torch.fx"`` or ``"torch.export"``.
        origin: the layers of the ReLU network, for :meth:`print_tree`.
        dead: for each layer, how many of its thresholds belong to neurons, channels or layers that
            never fired in calibration.
        chunk_steps: how many time steps are simulated at once, >= 1; None for as many as fit in
            64 MiB (1 GiB on a GPU) and in a quarter of the free memory. The result does not depend
            on it, except for rounding in the model's own layers.
        tuned_for: the number of time steps that :func:`snm.tune` made it for; None if it is not
            tuned. A call with another number warns.
        tuning: what :func:`snm.tune` reported, for people to read.
        events: the layers that are computed spike by spike, by the names of their steps, as
            :func:`snm.by_events` finds them: in float32 on the CPU, unless ``torch.compile``
            makes a graph. Elsewhere, and where they have hooks, they are computed as ever.

    Raises:
        ValueError: chunk_steps is less than 1; events has a step that is no layer of spikes.

    >>> from snm import convert
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    >>> net = convert(model, torch.rand(32, 4))
    >>> list(net.layers), net.anytime(torch.rand(2, 4), timesteps=5).shape
    (['1'], torch.Size([5, 2, 3]))
    """

    def __init__(
        self,
        model: nn.Module,
        program: Program,
        *,
        image_shape: tuple[int, ...],
        fixed_size: bool = False,
        dtype: torch.dtype = torch.float32,
        encoder: Encoder = "direct",
        readout: Readout = "mean",
        tracer: str = "torch.fx",
        origin: Origin = (),
        dead: Mapping[str, int] | None = None,
        chunk_steps: int | None = None,
        tuned_for: int | None = None,
        tuning: str = "",
        events: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if chunk_steps is not None:
            check_count("SpikingNetwork", "chunk_steps", chunk_steps)
        self.model = model
        self.program = program
        self.image_shape = tuple(image_shape)
        self.fixed_size = fixed_size
        self.dtype = dtype
        self.encoder: Encoder = encoder
        self.readout: Readout = readout
        self.tracer = tracer
        self.origin = tuple(origin)
        self.dead = dict(dead or {})
        self.chunk_steps = chunk_steps
        self.tuned_for = tuned_for
        self.tuning = tuning
        self.events = tuple(events)
        unknown = set(self.events) - readers_of(program, model).keys() if self.events else ()
        if unknown:
            raise ValueError(
                f"SpikingNetwork: events must be layers that read spikes, got {sorted(unknown)}"
            )
        self._plan: Plan | None = None
        self.preprocessing = ""
        """How ``snm convert`` was told to make images of pictures, as JSON, for ``snm run``. Files
        keep it; the network itself does not use it."""
        self._observers: list[Observer] = []
        self._live: Run | None = None
        self._live_shape = torch.Size()
        self._seen: Tensor | None = None
        self.register_load_state_dict_post_hook(_renew_bounds)
        self.eval()

    @property
    def layers(self) -> dict[str, SNMNeuron]:
        """The layers of neurons by module path in the ReLU network, in order of execution."""
        found = {}
        for fire in self.program.neurons:
            neuron = self.model.get_submodule(fire.path)
            assert isinstance(neuron, SNMNeuron)
            found[fire.path] = neuron
        return found

    @property
    def device(self) -> torch.device:
        """The device that the network is on, and that its images have to be on."""
        return next(iter(self.layers.values())).threshold.device

    @property
    def integers(self) -> bool:
        """Whether it computes in integers, as :func:`snm.quantize` makes it."""
        return any(isinstance(neuron, IntegerNeuron) for neuron in self.layers.values())

    @property
    def paths_by_events(self) -> list[str]:
        """The paths of the layers in ``events``, in order of execution."""
        calls = (step for step in self.program.temporal if isinstance(step, Call))
        return [str(call.target) for call in calls if call.name in self.events]

    @property
    def inputs(self) -> Inputs:
        """Describes the images that a call takes."""
        # What poisson draws depends on the sign and size of standardised pixels.
        pixels = self.encoder != "poisson" and any(
            isinstance(module, Pixels) and module.zero is not None
            for module in self.model.children()
        )
        fixed_by = "torch.export traced the model"
        if self.integers:
            fixed_by = "it was quantized"
        return Inputs(self.image_shape, self.fixed_size, self.dtype, self.device, pixels, fixed_by)

    def elements_per_step(self, images: Tensor) -> int:
        """The most elements that one time step of one of these images holds at the same time.

        >>> from snm import convert
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
        >>> convert(model, torch.rand(32, 4)).elements_per_step(torch.rand(2, 4))
        16
        """
        larger = math.prod(images.shape[1:]) / max(1, math.prod(self.image_shape))
        return math.ceil(self.program.elements_per_step * larger)

    def checked_timesteps(self, timesteps: int | None) -> int | None:
        """T as a plain integer; None for as many as there are frames.

        Raises:
            ValueError, TypeError: as for a call.

        Warns:
            UserWarning: the network was tuned for another number of time steps, or its neurons
                cannot send as many spikes.

        >>> from snm import convert
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
        >>> convert(model, torch.rand(32, 4)).checked_timesteps(8)
        8
        """
        layers = self.layers.values()
        most = min(neuron.rule.count_bounds[1] for neuron in layers)
        steps = checked_timesteps(
            timesteps, encoder=self.encoder, tuned_for=self.tuned_for, most=most
        )
        fits = most_steps(self.program, self.model) if self.integers else None
        if fits is not None and steps is not None and steps > fits:
            raise ValueError(
                f"SpikingNetwork: timesteps must be at most {fits}, within which no membrane "
                f"leaves int32 and logits are exact, got {steps}"
            )
        return steps

    @torch.no_grad()
    def forward(
        self,
        images: Tensor | Iterable[Tensor],
        *,
        timesteps: int | None = None,
        readout_after: int = 0,
        generator: torch.Generator | None = None,
        first_pass: FirstPass | None = None,
    ) -> Tensor:
        """The answer after T time steps.

        Args:
            images: ``[B, ...]``, of the model's dtype and on its device. With encoder="frames"
                frames ``[T, B, ...]``, or any iterable of frames ``[B, ...]``.
            timesteps: T, >= 1. With encoder="frames" None stands for all frames.
            readout_after: k, from 0 to T - 1: only steps after the first k are read out.
            generator: draws the spikes of encoder="poisson"; on the images' device.
            first_pass: with encoder="direct", time steps to simulate first, to find out where
                membranes should start; None to start them as the neurons' rules say.

        Returns:
            With readout="mean" the logits ``[B, classes]``, of the images' dtype: the mean over
            time of the output layer's current. With "count" how many spikes each output neuron
            has sent, int32.

        Raises:
            ValueError: the images hold NaN or infinity, have another number of dimensions than in
                calibration or, with norm="neuron", another size, or are on another device;
                timesteps is less than 1; readout_after is not less than T; there are fewer frames
                than timesteps; first_pass is given with another encoder than "direct".
            TypeError: the images are of another dtype; timesteps is not an integer; first_pass is
                not a :class:`snm.FirstPass`.
            RuntimeError: autocast is on.

        >>> from snm import convert
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
        >>> net = convert(model, torch.rand(32, 4))
        >>> net(torch.rand(2, 4), timesteps=32).shape
        torch.Size([2, 3])
        """
        steps = self.checked_timesteps(timesteps)
        check_readout_after(readout_after, steps)
        answers = [
            self._simulation(part, steps, generator, first_pass).answer(readout_after)
            for part in self._parts(images, steps)
        ]
        return answers[0] if len(answers) == 1 else torch.cat(answers)

    def simulation(
        self,
        images: Tensor | Iterable[Tensor],
        *,
        timesteps: int | None = None,
        generator: torch.Generator | None = None,
        first_pass: FirstPass | None = None,
        observers: Iterable[Observer] = (),
    ) -> Simulation:
        """A call that can be taken step by step, and be watched.

        Args:
            images, timesteps, generator, first_pass: as for a call.
            observers: are shown each layer of neurons after each chunk of time steps; a first pass
                is not shown.

        Returns:
            :class:`snm.Simulation`: its ``answer()`` is that of a call, its ``answers()`` are those
            of :meth:`anytime`, and ``chunks()`` goes through the chunks of time steps. Nothing is
            simulated until one of them is called.

        Raises:
            ValueError, TypeError: as for a call.

        >>> from snm import convert
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
        >>> net = convert(model, torch.rand(32, 4))
        >>> simulation = net.simulation(torch.rand(2, 4), timesteps=8)
        >>> [answer.shape for answer in simulation.answers()] == [(2, 3)] * 8
        True
        >>> [state.m.shape for state in simulation.run.states.values()]
        [torch.Size([2, 8])]
        """
        steps = self.checked_timesteps(timesteps)
        return self._simulation(images, steps, generator, first_pass, observers)

    @torch.no_grad()
    def anytime(
        self,
        images: Tensor | Iterable[Tensor],
        *,
        timesteps: int | None = None,
        generator: torch.Generator | None = None,
        first_pass: FirstPass | None = None,
    ) -> Tensor:
        """The answers after every number of time steps up to T, from a single pass.

        Args:
            images, timesteps, generator, first_pass: as for a call.

        Returns:
            ``[T, B, classes]``: entry t - 1 is the answer after t steps.

        Raises:
            ValueError, TypeError: as for a call.

        >>> from snm import convert
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
        >>> net = convert(model, torch.rand(256, 4))
        >>> images = torch.rand(2, 4)
        >>> by_step = net.anytime(images, timesteps=16)
        >>> torch.allclose(by_step[-1], net(images, timesteps=16), atol=1e-5)
        True
        """
        simulation = self.simulation(
            images, timesteps=timesteps, generator=generator, first_pass=first_pass
        )
        return torch.stack(list(simulation.answers()))

    @torch.no_grad()
    def digest(
        self,
        images: Tensor | Iterable[Tensor],
        *,
        timesteps: int | None = None,
        generator: torch.Generator | None = None,
        first_pass: FirstPass | None = None,
    ) -> str:
        """One hash of every spike of every layer, to see whether two runs are the same.

        Of a network of integers, as :func:`snm.quantize` makes it, it is the same on every device,
        whatever the number of threads and of time steps at once; of others sums in floating point
        may round otherwise elsewhere, and a spike may then be another.

        Args:
            images, timesteps, generator, first_pass: as for a call; a first pass is not hashed.

        Returns:
            SHA-256 in hexadecimal of the spikes, int8 ``[T, B, ...]`` in C order, of the layers of
            neurons in the order of the program. What max poolings send is not in it.

        Raises:
            ValueError, TypeError: as for a call.

        >>> from snm import convert
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
        >>> net, images = convert(model, torch.rand(32, 4)), torch.rand(2, 4)
        >>> digest = net.digest(images, timesteps=8)
        >>> net.chunk_steps = 3
        >>> net.digest(images, timesteps=8) == digest, net.digest(images, timesteps=9) == digest
        (True, False)
        """
        digest = SpikeDigest()
        self.simulation(
            images,
            timesteps=timesteps,
            generator=generator,
            first_pass=first_pass,
            observers=[digest],
        ).answer()
        return digest.hexdigest()

    @torch.no_grad()
    def until(
        self,
        images: Tensor,
        confidence: Stop | float,
        *,
        min_steps: int = 1,
        max_steps: int | None = None,
        first_pass: FirstPass | None = None,
    ) -> Answers:
        """Simulates each image only until its answer is stable enough.

        Images that are answered leave the batch, so that the others take less time.

        Args:
            images: as for a call; the network must have encoder="direct".
            confidence: when an answer is stable enough. Either what :func:`snm.calibrate_stop`
                found for a stated agreement; or, uncalibrated, how probable the softmax of the
                logits must make a class, above 0 and below 1. With 1,000 classes, or a network
                that is not trained for probabilities, quite another number may be right.
            min_steps: the fewest time steps that an image takes.
            max_steps: the most time steps that an image takes; None for the number of a
                :class:`snm.Stop`. With a probability it must be given.
            first_pass: as for a call; all images take it, and its steps are not among those
                returned.

        Returns:
            The class, the logits and the number of time steps of each image. Its logits are those
            that :meth:`anytime` gives after as many steps, except for rounding in the model's own
            layers, which may depend on how many images they see at once.

        Raises:
            ValueError: as for a call; the encoder is not "direct"; the answer is not
                ``[B, classes]`` with at least two classes; a probability is out of range or is
                given with readout="count"; max_steps is missing, less than min_steps, or more than
                the Stop was made for.
            TypeError: as for a call; confidence is neither a Stop nor a number.

        >>> from snm import Stop, convert
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
        >>> net = convert(model, torch.rand(32, 4))
        >>> predictions, logits, steps = net.until(torch.rand(2, 4), Stop((0.5, 0.25, 0.125)))
        >>> logits.shape, bool((steps <= 3).all())
        (torch.Size([2, 3]), True)
        >>> net.until(torch.rand(2, 4), 0.99, min_steps=2, max_steps=8).steps.min() >= 2
        tensor(True)
        """
        check_direct("SpikingNetwork", self.encoder)
        if self._observers:
            raise RuntimeError(
                "SpikingNetwork: until is not recorded, whose batch shrinks as images are "
                "answered; record a call or anytime, in which images take the same steps"
            )
        self.inputs.check(images)
        enough, steps = stopping(confidence, min_steps, max_steps, self.readout)
        self.checked_timesteps(steps[-1])
        self._check_first_pass(first_pass)
        run = self._start(images, first_pass)
        at_once = self._steps_at_once(images, steps[-1])
        return simulate_until(run, images, enough, steps, at_once)

    @torch.no_grad()
    def step(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Simulates one more time step, from the state that the last one left.

        A sensor can be fed frame by frame, as the memory that this takes does not grow. Counts of
        spikes are int32, and a max pooling of values that are not spikes adds up in float32, whose
        precision falls as the sum grows; a reset now and then keeps both exact. If a step raises,
        the state is forgotten.

        Args:
            images: ``[B, ...]``, the frame of this step; with encoder="direct" its current.
            generator: as for a call.

        Returns:
            What a call of as many steps as there were since :meth:`reset` returns.

        Raises:
            ValueError, TypeError: as for a call. Also if the batch has another size than at the
                step before, or if with encoder="direct" the images differ from those of the step
                before and what comes behind the last neurons reads them.

        >>> from snm import convert
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
        >>> net, images = convert(model, torch.rand(32, 4)), torch.rand(2, 4)
        >>> for _ in range(8):
        ...     logits = net.step(images)
        >>> torch.equal(logits, net(images, timesteps=8))
        True
        """
        self.inputs.check(images)
        check_generator(generator, self.encoder)
        if self._live is not None and images.shape != self._live_shape:
            raise ValueError(
                f"SpikingNetwork: images must be {list(self._live_shape)} as at the step before, "
                f"got {list(images.shape)}; call reset() before others"
            )
        run = self._live or self._start(images, observers=self._observers)
        # Should a step end half-way, there is nothing left to go on from.
        self._live = None
        if self.encoder == "direct":
            self._see(run, images)
            run.advance(1, None)
        elif self.encoder == "poisson":
            run.advance(*Poisson(images, generator).take(1))
        else:
            run.advance(1, images)
        answer = run.answer()
        self._live, self._live_shape = run, images.shape
        return answer

    def reset(self) -> None:
        """Forgets the state that :meth:`step` goes on from.

        >>> from snm import convert
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
        >>> net, images = convert(model, torch.rand(32, 4)), torch.rand(2, 4)
        >>> first, second = net.step(images), net.step(images)
        >>> net.reset()
        >>> torch.equal(net.step(images), first)
        True
        """
        self._live, self._seen = None, None

    @contextmanager
    def record(
        self,
        paths: str | Iterable[str] | None = None,
        *,
        what: Quantity | Iterable[Quantity] = QUANTITIES,
        neurons: Indices | Mapping[str, Indices] | None = None,
    ) -> Iterator[Recording]:
        """Records what neurons do at every time step that is simulated within the with statement.

        To record membranes, the recorded neurons are run once more, step by step, on what drives
        them; the simulation itself stays the same, bit for bit. For each neuron, image and time
        step a recording takes, on the network's device, 1/4 byte for spikes, memory or both (1 byte
        with a rule of several spikes a step), and 4 bytes for the membrane.

        A call or :meth:`anytime` replaces what was recorded before; its first pass is not recorded.
        :meth:`step` adds to what the steps before it left, from the first one within. Recordings
        within recordings do not affect each other. :meth:`until`, whose batch shrinks, and a new
        :meth:`capture` are refused, and calls of a captured network are not seen. Under
        ``torch.compile`` every recorded layer breaks the graph, so that fullgraph=True raises.

        Args:
            paths: the path of a layer of neurons in :attr:`layers`, or several; None for all.
            what: "spikes", "membrane" or "memory", or several of them.
            neurons: which neurons, as flat indices into those of one image, in the order in which
                they are to be recorded; or such indices by path; None for all.

        Returns:
            A context manager that gives a :class:`snm.Recording`, which stays readable afterwards.

        Raises:
            ValueError: there is no such layer or quantity; indices are negative, or, once the
                network is called, exceed the number of neurons.
            TypeError: indices are not integers.
            RuntimeError: raised within, by a call that cannot be recorded.

        >>> from snm import convert
        >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 2)).eval()
        >>> _ = nn.init.ones_(model[0].weight)
        >>> net = convert(model, torch.tensor([[1.0]]))
        >>> with net.record("1") as recording:
        ...     _ = net(torch.tensor([[0.75]]), timesteps=4)
        >>> layer = recording["1"]
        >>> layer.spikes.flatten().tolist(), layer.membrane.flatten().tolist()
        ([0, 1, 1, 1], [0.75, 0.5, 0.25, 0.0])
        """
        recording = recording_of(self.layers, paths, what, neurons)
        recorder = Recorder(recording)
        self._observers.append(recorder)
        try:
            yield recording
        finally:
            self._observers.remove(recorder)

    @torch.no_grad()
    def capture(self, example: Tensor, *, timesteps: int) -> CapturedNetwork:
        """Captures a call's whole simulation in one CUDA graph, which can then be replayed.

        The host is then spared the launches of every layer and chunk.

        Args:
            example: images ``[B, ...]`` on a CUDA device, of the shape and dtype that all images
                will have; they are simulated in its memory format.
            timesteps: T, >= 1.

        Returns:
            :class:`snm.CapturedNetwork`: called with images, it returns what this network
            returns, as a new tensor each time. It does not check images for NaN and infinity, and
            it does not see if this network is moved or its settings change after the capture.

        Raises:
            ValueError: the example is not on a CUDA device; the encoder is not "direct"; or as
                for a call.
            TypeError, RuntimeError: as for a call.

        >>> from snm import convert
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
        >>> net = convert(model, torch.rand(32, 4))
        >>> if torch.cuda.is_available():
        ...     images = torch.rand(2, 4, device="cuda")
        ...     captured = net.cuda().capture(images, timesteps=32)
        ...     assert torch.equal(captured(images), net(images, timesteps=32))
        """
        check_direct("SpikingNetwork: capture", self.encoder)
        if self._observers:
            raise RuntimeError(
                "SpikingNetwork: a capture is not recorded; capture before or after the recording"
            )
        self.inputs.check(example)
        if example.device.type != "cuda":
            raise ValueError(
                f"SpikingNetwork: example must be on a CUDA device, got {example.device}; move "
                "network and images there, or call the network itself"
            )
        steps = self.checked_timesteps(timesteps)
        assert steps is not None
        # How much memory is free is asked for here: a graph's chunks stay what they are.
        chunk = self._steps_at_once(example, steps)
        tensors = (*self.parameters(), *self.buffers())
        return CapturedNetwork(self._start, tensors, example, steps, chunk)

    def print_tree(self) -> None:
        """Prints the layers of the ReLU network and what became of each, side by side.

        >>> from snm import convert
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
        >>> convert(model, torch.ones(1, 4), norm="layer").print_tree()
           ReLU network                                 spiking network
        0  Linear(in_features=4, out_features=8, bi...  kept
        1  ReLU()                                       SNM, one threshold
        2  Linear(in_features=8, out_features=3, bi...  kept
        """
        pools = (s.path for s in self.program.temporal if isinstance(s, RunningMax))
        print(tree(self.origin, self.model, pools, self.paths_by_events))

    def train(self, mode: bool = True) -> "SpikingNetwork":
        """Refuses training mode, as a converted network is not trained."""
        if mode:
            raise RuntimeError("SpikingNetwork: has no training mode; train the model it is from")
        super().train(False)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "SpikingNetwork":
        dtype = fn(torch.empty(0, dtype=self.dtype)).dtype
        if dtype not in _DTYPES:
            raise TypeError(
                f"SpikingNetwork: must be one of {', '.join(map(dtype_name, _DTYPES))}, "
                f"got {dtype_name(dtype)}"
            )
        # All thresholds are tried before any tensor moves: a refusal leaves the network as it was.
        for neuron in self.layers.values():
            neuron.moved(fn)
        self.reset()
        self._plan = None
        super()._apply(fn, recurse)
        self.dtype = dtype
        return self

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle holds: everything but the observers of this network, and what is
        made anew when it is needed."""
        return {**self.__dict__, "_observers": [], "_plan": None}

    def extra_repr(self) -> str:
        total = len(self.program.neurons)
        return (
            f"{total} layer{'' if total == 1 else 's'} of neurons, encoder={self.encoder!r}, "
            f"readout={self.readout!r}, chunk_steps={self.chunk_steps}"
        )

    def _source(
        self,
        images: Tensor | Iterable[Tensor],
        generator: torch.Generator | None,
    ) -> Source:
        """The source of the frames of all time steps that the network's encoder asks for."""
        check_generator(generator, self.encoder)
        if self.encoder == "frames":
            if not isinstance(images, Iterable):
                raise TypeError(
                    "SpikingNetwork: images must be frames, a tensor or an iterable of them, "
                    f"got {type(images).__name__}"
                )
            return Frames(images, self.inputs.check)
        self.inputs.check(images)
        assert isinstance(images, Tensor)
        return Constant(images) if self.encoder == "direct" else Poisson(images, generator)

    def _simulation(
        self,
        images: Tensor | Iterable[Tensor],
        timesteps: int | None,
        generator: torch.Generator | None,
        first_pass: FirstPass | None,
        observers: Iterable[Observer] = (),
    ) -> Simulation:
        """A simulation of so many time steps, which have been checked."""
        source = self._source(images, generator)
        self._check_first_pass(first_pass)
        watching = [*self._observers, *observers]
        start = partial(self._start, first_pass=first_pass, observers=watching)
        return Simulation(source, start, timesteps, self._steps_at_once(source.images, timesteps))

    def _parts(
        self, images: Tensor | Iterable[Tensor], timesteps: int | None
    ) -> Sequence[Tensor | Iterable[Tensor]]:
        """Images in the parts that a call simulates one after the other.

        Only integers are the same whatever the batch, and of some encoders, and to who watches, a
        batch is one.
        """
        whole = self.encoder != "direct" or self.chunk_steps is not None or bool(self._observers)
        whole = whole or any(map(hooked, self.model.modules()))
        if whole or not self.integers or torch.compiler.is_compiling():
            return (images,)
        if timesteps is None or not isinstance(images, Tensor):
            return (images,)
        self.inputs.check(images)
        count = images.shape[0]
        size = self.elements_per_step(images) * INTEGER_BYTES * timesteps
        fit = images_with_all_steps(size, images.device)
        if count <= fit:
            return (images,)
        # All parts are about as large.
        parts: tuple[Tensor, ...] = images.split(math.ceil(count / math.ceil(count / fit)))
        return parts

    def _check_first_pass(self, first_pass: FirstPass | None) -> None:
        """Refuses anything but a first pass, and a first pass unless images are constant."""
        if first_pass is None:
            return
        if not isinstance(first_pass, FirstPass):
            raise TypeError(
                "SpikingNetwork: first_pass must be a FirstPass or None, got "
                f"{type(first_pass).__name__}"
            )
        check_direct("SpikingNetwork: first_pass", self.encoder)
        if self.integers:
            raise ValueError(
                "SpikingNetwork: first_pass takes a floating point network, got one of integers; "
                "use the network before snm.quantize, or first_pass=None"
            )

    def _start(
        self,
        images: Tensor,
        first_pass: FirstPass | None = None,
        observers: Sequence[Observer] = (),
    ) -> Run:
        """A run before its first step, of these images or of frames like this first one."""
        options: dict[str, Any] = {"readout": self.readout, "observers": observers}
        plan = self._events_plan()
        if plan is not None:
            run: Run = EventRun(plan, self.model, images, **options)
        elif self.integers:
            run = IntegerRun(self.program, self.model, images, **options)
        else:
            run = Run(self.program, self.model, images, **options)
        if first_pass is not None:
            run.states = starting_states(first_pass, self.program, self.model, images)
        return run

    def _events_plan(self) -> Plan | None:
        """How layers are computed spike by spike; None if none is."""
        here = self.device.type == "cpu" and self.dtype == torch.float32
        if not self.events or not here or torch.compiler.is_compiling():
            return None
        if self._plan is None or not self._plan.fits(self.program, self.model, self.events):
            self._plan = plan_of(self.program, self.model, self.events)
        return self._plan

    def _steps_at_once(self, images: Tensor, timesteps: int | None) -> int:
        """How many time steps of these images to simulate at once."""
        if self.chunk_steps is not None:
            return self.chunk_steps
        size = INTEGER_BYTES if self.integers else images.element_size()
        bytes_per_step = self.elements_per_step(images) * images.shape[0] * size
        if torch.compiler.is_compiling():
            # A graph is made for each size, as it decides how many time steps are unrolled.
            bytes_per_step = len(range(bytes_per_step))
        most: int = steps_that_fit(bytes_per_step, images.device)
        if timesteps is None:
            return most
        # All chunks are about as long, for a convolution is slow on a few images left over.
        return math.ceil(timesteps / math.ceil(timesteps / most))

    def _see(self, run: Run, images: Tensor) -> None:
        """Shows a run the images of its next step; refuses others if the tail reads them."""
        if self.program.tail_reads_images:
            if self._seen is not None and run.steps and not torch.equal(images, self._seen):
                raise ValueError(
                    "SpikingNetwork: what comes behind the last neurons reads the images, so they "
                    "must stay the same from step to step; convert with encoder='frames'"
                )
            self._seen = images.clone()
        if run.steps:
            run.see(images)


def _renew_bounds(net: nn.Module, _: Any) -> None:
    """Sets the bounds of integers for weights that were loaded; refuses weights that have none."""
    assert isinstance(net, SpikingNetwork)
    if net.integers:
        offences = renew_bounds(net.program, net.model)
        if offences:
            raise ValueError(f"SpikingNetwork: cannot load such weights: {offences[0]}")
