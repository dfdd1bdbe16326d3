"""Checks the package installed in a folder: libraries, op, conversion, packaged files.

Run with that folder as the argument and first on PYTHONPATH; without an argument, the folder is
the environment's own.
"""

import importlib.util
import sys
import sysconfig
import tempfile
from pathlib import Path

import torch

import snm
import snm_kernels
from snm.commands.cli import main
from snm.demo import load_images, load_network


def check(folder: Path) -> None:
    for package in (snm, snm_kernels):
        assert package.__file__ is not None
        assert Path(package.__file__).is_relative_to(folder), package.__file__
    drive = torch.randn(16, 300)
    native = snm_kernels.snm(drive, 0.7)
    reference = snm_kernels.snm(drive, 0.7, backend="reference")
    assert native.spikes is not None
    assert reference.spikes is not None
    assert torch.equal(native.spikes, reference.spikes)
    array = snm_kernels.numpy.snm(drive.numpy(), 0.7)
    assert (array.spikes == native.spikes.numpy()).all()

    images = load_images()
    model = load_network()
    net = snm.convert(model, images.calibration_images[:100], preset="snm-zero")
    test, labels = images.test_images[:100], images.test_labels[:100]
    right = int((net(test, timesteps=16).argmax(1) == labels).sum())
    print(f"{right} of 100 test images right at T = 16")
    assert right >= 85
    with tempfile.TemporaryDirectory() as scratch:
        snm.save(net, Path(scratch) / "net.safetensors")
        loaded = snm.load(Path(scratch) / "net.safetensors")
        assert torch.equal(loaded(test, timesteps=16), net(test, timesteps=16))
        page = Path(scratch) / "report.html"
        snm.report(net, test[:10], timesteps=2).save(page)
        assert "</html>" in page.read_text(encoding="utf-8")
        # Without the bench extra the command says what it needs.
        complete = importlib.util.find_spec("pytest_benchmark") is not None
        status = main(["bench", "--tiny", "--device", "cpu", "--out", f"{scratch}/bench"])
        assert status == (0 if complete else 1)
    assert main(["doctor"]) == 0


if __name__ == "__main__":
    check(Path(sys.argv[1] if sys.argv[1:] else sysconfig.get_path("platlib")))
