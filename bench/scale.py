"""Says how much of the benchmark is run: all of it, a first look, or next to nothing."""

from dataclasses import dataclass

LARGEST = 2**27
"""The most neuron-steps of a point of the sweep, which are 1 GiB of drive and spikes in float32."""


@dataclass(frozen=True)
class Scale:
    """What a run covers, and how long it measures."""

    seconds: dict[str, float]
    """How long the rounds of each contender take together, by device; a slow contender gets a few
    rounds all the same."""
    features: tuple[int, int, int]
    """The sizes ``[C, H, W]`` of the layer that all but the sweep run, at a batch of 8."""
    layers: dict[str, tuple[tuple[int, int], ...]]
    """The other T and N that the op runs at, by device."""
    timesteps: tuple[int, ...]
    """The numbers T of time steps of the sweep."""
    neurons: tuple[int, ...]
    """The numbers N of neurons of the sweep."""
    rivals: tuple[str, ...] | None
    """The names of the rivals, of those in ``peers.PEERS``; None for all."""
    spike_layers: tuple[tuple[int, int], ...]
    """Channels and sizes of maps of the layers of spikes."""
    densities: tuple[float, ...]
    """The shares of neurons that send at a time step, growing, at which these are run."""
    networks: dict[str, tuple[str, ...]]
    """The names of the networks, of those in ``models.MODELS``, by device."""
    suites: dict[str, tuple[str, ...]]
    """The suites, of those that ``suite.parts`` knows, in order, by device."""
    heaps: tuple[str, ...]
    """The heaps, warm or cold, that the rivals run on."""
    every_isa: bool
    """Whether older instruction sets are measured too."""
    compiled_networks: bool
    """Whether networks run under torch.compile too."""

    def points(self) -> list[tuple[int, int]]:
        """The pairs T and N of the sweep."""
        return [(t, n) for n in self.neurons for t in self.timesteps if t * n <= LARGEST]


_ALL = {
    "cpu": ("op", "sweep", "rivals", "network", "density", "layouts", "calls"),
    # Time on a GPU may be short, so what matters most comes first.
    "cuda": ("op", "chunks", "network", "density", "calls", "sweep", "layouts", "rivals"),
}

SCALES = {
    "full": Scale(
        seconds={"cpu": 1.0, "cuda": 0.2},
        features=(128, 32, 32),
        layers={
            "cpu": (),
            "cuda": ((32, 2**22), (32, 2**24), (256, 2**12), (256, 2**16)),
        },
        timesteps=(4, 32, 256, 1024),
        neurons=(2**12, 2**16, 2**20, 2**24),
        rivals=None,
        spike_layers=((64, 32), (128, 16), (256, 8), (512, 4)),
        densities=(0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5),
        networks={
            "cpu": ("SmallVGG, 28×28", "VGG-16, 32×32", "ResNet-18, 32×32", "ResNet-18, 64×64"),
            "cuda": (
                *("VGG-16, 32×32", "VGG-16, 224×224"),
                *("ResNet-18, 224×224", "ResNet-34, 224×224", "ResNet-50, 224×224"),
            ),
        },
        suites=_ALL,
        heaps=("warm", "cold"),
        every_isa=True,
        compiled_networks=True,
    ),
    "quick": Scale(
        seconds={"cpu": 0.15, "cuda": 0.15},
        features=(128, 32, 32),
        layers={"cpu": (), "cuda": ()},
        timesteps=(4, 256),
        neurons=(2**12, 2**16, 2**20),
        rivals=("published step code", "SpikingJelly FlexSN, compiled"),
        spike_layers=((128, 16), (512, 4)),
        densities=(0.02, 0.1, 0.5),
        networks={"cpu": ("SmallVGG, 28×28",), "cuda": ("ResNet-18, 224×224",)},
        suites=_ALL,
        heaps=("warm",),
        every_isa=False,
        compiled_networks=False,
    ),
    "tiny": Scale(
        seconds={"cpu": 0.0, "cuda": 0.0},
        features=(8, 8, 8),
        layers={"cpu": (), "cuda": ()},
        timesteps=(4,),
        neurons=(2**6,),
        rivals=("published step code",),
        spike_layers=((8, 4),),
        densities=(0.1, 0.5),
        networks={"cpu": (), "cuda": ()},
        suites=dict.fromkeys(("cpu", "cuda"), ("op", "rivals", "density")),
        heaps=("warm", "cold"),
        every_isa=False,
        compiled_networks=False,
    ),
}
"""The scales by name; ``tiny`` is for tests of the benchmark and measures nothing of interest."""
