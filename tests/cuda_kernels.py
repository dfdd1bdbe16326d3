"""The neuron's CUDA kernels, by what they are specialised on, and what their machine code does."""

from dataclasses import dataclass

from machine_code import Measured, measure

DTYPES = {"float32": "f", "float16": "6__half", "bfloat16": "13__nv_bfloat16", "int32": "i"}
"""Of a drive, with their mangled names."""
BYTES = {"float32": 4, "int32": 4, "float16": 2, "bfloat16": 2, "int8": 1, None: 0}


@dataclass(frozen=True)
class Kernel:
    """An instantiation of csrc/cuda/snm_kernel.cuh."""

    drive: str
    spikes: str | None
    graded: bool = False
    wide: bool = True
    counted: bool = False

    def __str__(self) -> str:
        words = [self.drive, str(self.spikes), "wide" if self.wide else "narrow"]
        words += [name for name in ("graded", "counted") if getattr(self, name)]
        return "-".join(words)

    @property
    def neurons(self) -> int:
        """Of one thread."""
        return (8 if self.graded else 16) // BYTES[self.drive] if self.wide else 1

    @property
    def ahead(self) -> int:
        """Steps whose drive is asked for before one is computed."""
        return 4 if self.wide else 16

    @property
    def threads(self) -> int:
        """Of one block."""
        return 128 if self.wide else 32

    def name(self, kernels: dict[str, str]) -> str:
        """Its mangled name."""
        drive = DTYPES[self.drive]
        spikes = {**DTYPES, "int8": "a", None: "NS_7NothingE"}[self.spikes]
        if spikes == drive and len(drive) > 1:
            spikes = "S1_"
        shape = "4Wide" if self.wide else "6Narrow"
        flags = f"Lb{int(self.graded)}ELb{int(self.counted)}E"
        pattern = f"snm_kernelI{drive}{spikes}{flags}NS_{shape}"
        (name,) = (name for name in kernels if pattern in name)
        return name

    def measure(self, kernels: dict[str, str]) -> Measured:
        """What the listing of this kernel says; ``kernels`` holds those of one target."""
        return measure(
            kernels[self.name(kernels)],
            neurons=self.neurons,
            ahead=self.ahead,
            drive=BYTES[self.drive],
            spikes=BYTES[self.spikes],
        )
