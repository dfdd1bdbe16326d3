"""``snm run``: classifies pictures by a spiking network in a file."""

import argparse
from pathlib import Path

from .arguments import add_preprocessing, positive, preprocessing_of
from .output import done_or_complained


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds ``snm run`` to the command line."""
    parser = commands.add_parser("run", help="classify images by a saved spiking network")
    parser.set_defaults(run=run)
    parser.add_argument("network", type=Path, metavar="NET", help="what snm convert wrote")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    parser.add_argument("--timesteps", type=positive, required=True, metavar="T")
    parser.add_argument(
        "--confidence",
        type=float,
        metavar="P",
        help="stop at the first time step after which a class is that probable",
    )
    parser.add_argument(
        "--classes", type=Path, metavar="FILE", help="names of the classes, one a line"
    )
    add_preprocessing(parser)


def run(options: argparse.Namespace) -> int:
    """Runs ``snm run`` and returns its exit status."""
    return done_or_complained(_classify, options)


def _classify(options: argparse.Namespace) -> None:
    import torch

    from ..data.photos import decoded
    from ..files import load
    from ..models.kept import kept_preprocessing
    from ..table import table

    net = load(options.network)
    preprocess = preprocessing_of(options) or kept_preprocessing(net)
    if preprocess is None:
        raise ValueError(
            f"{options.network} does not say how it takes its images; give mean and std, and "
            "resize and crop where needed"
        )
    if net.readout != "mean":
        raise ValueError(
            f"network must have readout='mean' for probabilities, got readout={net.readout!r}"
        )
    names = None
    if options.classes is not None:
        names = options.classes.read_text(encoding="utf-8").splitlines()
    rows = [("image", "class", "probability", "steps")]
    for path in options.images:
        image = preprocess(decoded(path)).unsqueeze(0).to(net.dtype)
        steps = options.timesteps
        if options.confidence is None:
            logits = net(image, timesteps=steps)
        else:
            answer = net.until(image, options.confidence, max_steps=steps)
            logits, steps = answer.logits, int(answer.steps)
        probabilities = torch.softmax(logits[0].float(), 0)
        found = int(probabilities.argmax())
        if names is not None and len(names) != len(probabilities):
            raise ValueError(
                f"{options.classes} must name {len(probabilities)} classes, got {len(names)}"
            )
        name = str(found) if names is None else names[found]
        rows.append((str(path), name, f"{float(probabilities[found]):.4f}", str(steps)))
    print(table(rows))
