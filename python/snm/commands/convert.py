"""``snm convert``: makes a spiking network of a model, and saves it."""

import argparse
from pathlib import Path

from .arguments import (
    add_bits,
    add_conversion,
    add_model,
    add_work,
    calibration_of,
    conversion_of,
    positive,
    processes_of,
    request_of,
)
from .output import done_or_complained, layers_told


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds ``snm convert`` to the command line."""
    parser = commands.add_parser("convert", help="convert a model and save the spiking network")
    parser.set_defaults(run=run)
    add_model(parser)
    parser.add_argument(
        "--timesteps", type=positive, metavar="T", help="that --tune fits the neurons to"
    )
    add_conversion(parser)
    add_bits(parser)
    add_work(parser)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="such as net.safetensors"
    )


def run(options: argparse.Namespace) -> int:
    """Runs ``snm convert`` and returns its exit status."""
    return done_or_complained(_convert, options)


def _convert(options: argparse.Namespace) -> None:
    from ..evaluate.conversion import integer_network, spiking_network
    from ..files import save
    from ..models import load_model
    from ..models.kept import keep_preprocessing, kept_preprocessing

    loaded = load_model(request_of(options))
    conversion = conversion_of(options, options.timesteps)
    with processes_of(options) as processes:
        calibration = calibration_of(options, loaded)
        net, neurons = spiking_network(
            loaded, conversion, calibration, processes, tuning=layers_told
        )
        keep_preprocessing(net, loaded.preprocess)
        if processes.rank != 0:
            return
        if options.bits is not None:
            assert calibration is not None
            net = integer_network(net, calibration, options.bits)
        save(net, options.out)
    silent = sum(int(layer.silent.sum()) for layer in net.layers.values())
    thresholds = sum(layer.threshold.numel() for layer in net.layers.values())
    print(f"{len(net.layers)} layers, {thresholds:,} thresholds, {silent:,} of them silent")
    if options.bits is not None:
        print(f"integers, with weights of {options.bits} bits")
    if neurons.tuning:
        print(neurons.tuning)
    if kept_preprocessing(net) is None:
        print("snm run will ask for --mean and --std: the model's own function makes its images")
    print(options.out)
