"""``snm evaluate``: the accuracy of a spiking network on a data set, after every time step."""

import argparse
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from ..optional import check_installed
from .arguments import (
    add_conversion,
    add_data,
    add_model,
    add_work,
    calibration_of,
    conversion_of,
    data_of,
    positive,
    processes_of,
    request_of,
)
from .output import REFUSALS, complain, layers_told

if TYPE_CHECKING:
    from ..evaluate.results import ShardResult

PACKAGES = ("rich",)
"""The packages that this command needs beside those of snm itself, as they are imported."""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds ``snm evaluate`` to the command line."""
    parser = commands.add_parser(
        "evaluate",
        help="accuracy and spikes of a model on a data set; under torchrun by many processes",
    )
    parser.set_defaults(run=run)
    add_model(parser)
    add_data(parser, required=True)
    parser.add_argument("--timesteps", type=positive, required=True, metavar="T")
    add_conversion(parser)
    add_work(parser)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("snm-evaluation"),
        metavar="FOLDER",
        help="for the results, seen by all processes (default: %(default)s)",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the shards that are in --out"
    )


def run(options: argparse.Namespace) -> int:
    """Runs ``snm evaluate`` and returns its exit status.

    Raises:
        PackageError: rich is not installed.
    """
    check_installed("snm evaluate", *PACKAGES, extra="evaluate")
    from torch.distributed.elastic.multiprocessing.errors import record

    from ..evaluate.processes import PeerError

    # So that torchrun knows which process failed first.
    main = record(_evaluate) if "TORCHELASTIC_ERROR_FILE" in os.environ else _evaluate
    rank, world = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    who = f"rank {rank} of {world}" if world != "1" else ""
    try:
        main(options)
    except (*REFUSALS, PeerError) as error:
        complain("evaluate", error, who)
        return 1
    except Exception as error:
        complain("evaluate", error, who)
        raise
    return 0


def _evaluate(options: argparse.Namespace) -> None:
    from ..data.preprocess import description_of
    from ..evaluate.run import Evaluation, evaluate
    from ..evaluate.text import tables_of
    from ..models import load_model

    loaded = load_model(request_of(options))
    data = data_of(options, loaded)
    calibration = calibration_of(options, loaded, options.data)
    evaluation = Evaluation(
        loaded,
        conversion_of(options, options.timesteps),
        data,
        calibration,
        options.timesteps,
        {
            "model": options.model,
            "data": options.data.partition(":")[0],
            "split": options.split,
            "preprocessing": description_of(loaded.preprocess),
            "calibration": (options.calibration or options.data).partition(":")[0],
            "calibration_split": options.calibration_split,
            "skip_corrupt": options.skip_corrupt,
        },
    )
    with processes_of(options) as processes:
        if processes.rank == 0:
            print(f"images: {description_of(loaded.preprocess)}", flush=True)
        with _Progress() if processes.rank == 0 else nullcontext() as progress:
            result = evaluate(
                evaluation,
                options.out,
                processes,
                resume=options.resume,
                report=progress,
                tuning=layers_told,
            )
        if processes.rank == 0:
            print(tables_of(result))
            print(f"\n{options.out / 'result.json'}")


class _Progress:
    """A bar on standard error: this process's shards, and its accuracy so far."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeRemainingColumn as Remaining

        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), Remaining())
        self.bar = Progress(*columns, console=Console(file=sys.stderr))
        self.task = self.bar.add_task("shards", total=None)
        self.images = self.right = 0

    def __enter__(self) -> "_Progress":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def __call__(self, result: "ShardResult", of: int) -> None:
        self.images += result.images
        self.right += result.right[-1]
        accuracy = 100 * self.right / max(1, self.images)
        text = f"shards, {accuracy:.2f} % right"
        self.bar.update(self.task, advance=1, total=of, description=text)
