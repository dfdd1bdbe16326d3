"""The neuron's CUDA kernels, by what they are specialised on, and what their machine code does."""

from dataclasses import dataclass

from support.machine_code import Measured, measure

DTYPES = {"float32": "f", "float16": "6__half", "bfloat16": "13__nv_bfloat16", "int32": "i"}
"""The dtypes of a drive, with their mangled names."""
BYTES = {"float32": 4, "int32": 4, "float16": 2, "bfloat16": 2, "int8": 1, None: 0}
"""How many bytes an element of each dtype has; 0 for no spikes."""


@dataclass(frozen=True)
class Kernel:
    """An instantiation of csrc/cuda/snm_kernel.cuh."""

    drive: str
    spikes: str | None
    graded: bool = False
    wide: bool = True

    def __str__(self) -> str:
        words = [self.drive, str(self.spikes), "wide" if self.wide else "narrow"]
        return "-".join(words + ["graded"] * self.graded)

    @property
    def neurons(self) -> int:
        """How many neurons one thread has."""
        words = (8 if self.graded else 16) if self.wide else 4
        return words // BYTES[self.drive]

    @property
    def rows(self) -> int:
        """How many rows are in shared memory or on their way there."""
        return 8 if self.wide else 32

    @property
    def group(self) -> int:
        """How many rows are waited for at once."""
        return self.rows // (4 if self.wide else 8)

    @property
    def threads(self) -> int:
        """How many threads a block has."""
        return 128 if self.wide else 32

    @property
    def shared_bytes(self) -> int:
        """How many bytes of shared memory a block takes."""
        return self.rows * self.threads * self.neurons * BYTES[self.drive]

    def name(self, kernels: dict[str, str]) -> str:
        """The mangled name of the kernel."""
        drive = DTYPES[self.drive]
        spikes = {**DTYPES, "int8": "a", None: "NS_7NothingE"}[self.spikes]
        if spikes == drive and len(drive) > 1:
            spikes = "S1_"
        shape = "4Wide" if self.wide else "6Narrow"
        pattern = f"snm_kernelI{drive}{spikes}Lb{int(self.graded)}ENS_{shape}"
        (name,) = (name for name in kernels if pattern in name)
        return name

    def measure(self, kernels: dict[str, str]) -> Measured:
        """What the listing of this kernel says; ``kernels`` holds those of one target."""
        return measure(
            kernels[self.name(kernels)],
            neurons=self.neurons,
            steps=self.group,
            drive=BYTES[self.drive],
            spikes=BYTES[self.spikes],
            # Of a division, or the membrane's last operation.
            once="MUFU.RCP" if self.graded else "FFMA",
            ring=self.shared_bytes,
        )
