"""An event camera's frames through a spiking network, one frame a time step.

    python examples/event_camera.py [--recordings N] [--frames T] [--epochs N]
    python examples/event_camera.py --data FOLDER [--sensor H W] ...

FOLDER is laid out as N-MNIST unpacks: Train/CLASS/*.bin and Test/CLASS/*.bin, 5 bytes an event
(Orchard, Jayawant, Cohen, Thakor, "Converting Static Image Datasets to Spiking Neuromorphic
Datasets Using Saccades", Frontiers in Neuroscience 2015). Files may also be .npz with arrays t, x,
y and p, or .npy with such fields or with those as columns.

Without --data, events are synthetic: an ideal sensor makes three saccades in front of packaged
Fashion-MNIST images, and a pixel sends an event whenever its log intensity has changed by a fixed
amount. No noise, no dead time: accuracies on them say nothing about a camera.

A small ReLU network is trained on the mean frame of each recording, which is the whole recording
seen at once. Converted with encoder="frames" it sees the frames one after the other, as they come;
how well it knows the class after a part of them is what the table shows. Its accuracy at the end is
held against that of the ReLU network on the mean of the same frames: no event is seen twice.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

import snm
from snm.demo import load_images
from snm.demo.data import MEAN, STD

CONTRAST = 0.25
"""Of the log intensity, between one event of a pixel and the next."""
MICROSECONDS = 300_000
"""That the three saccades take."""
CORNERS = torch.tensor([[0.0, 0.0], [2.0, 4.0], [4.0, 0.0], [0.0, 0.0]])
"""Where the sensor looks before and after each saccade, in pixels down and right."""


class Events(NamedTuple):
    """A recording, integers ``[N]`` each, in the order of time."""

    t: np.ndarray
    """Microseconds."""
    x: np.ndarray
    y: np.ndarray
    p: np.ndarray
    """1 where it became brighter, 0 where darker."""


def read_events(path: Path) -> Events:
    """A recording from an N-MNIST .bin, a .npz or a .npy.

    Raises:
        ValueError: the file is of another kind, or is cut short.
    """
    if path.suffix == ".bin":
        content = np.fromfile(path, dtype=np.uint8)
        if len(content) % 5:
            raise ValueError(f"{path} must have 5 bytes an event, got {len(content)}")
        x, y, high, middle, low = content.reshape(-1, 5).T.astype(np.int64)
        return Events((high & 127) << 16 | middle << 8 | low, x, y, high >> 7)
    if path.suffix not in (".npy", ".npz"):
        raise ValueError(f"{path} must be a .bin, .npy or .npz file")
    array = np.load(path)
    if path.suffix == ".npy" and array.dtype.names is None:
        columns = array.T
    else:
        columns = [array[name] for name in "txyp"]
    return Events(*(np.asarray(column).astype(np.int64) for column in columns))


def to_frames(events: Events, frames: int, sensor: tuple[int, int]) -> Tensor:
    """Counts events in frames that all last as long.

    Returns:
        float32 ``[T, 2, H, W]``, darker first, then brighter.

    Raises:
        ValueError: an event lies outside of the sensor.
    """
    height, width = sensor
    if events.x.max() >= width or events.y.max() >= height:
        raise ValueError(f"events must lie within --sensor {height} {width}")
    start, end = events.t.min(), events.t.max() + 1
    frame = (events.t - start) * frames // (end - start)
    pixel = ((frame * 2 + (events.p > 0)) * height + events.y) * width + events.x
    counts = np.bincount(pixel, minlength=frames * 2 * height * width)
    return torch.from_numpy(counts).view(frames, 2, height, width).float()


def recorded(folder: Path, recordings: int) -> tuple[list[Events], Tensor]:
    """So many recordings of a folder at most, as many of each class, and their labels."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    events, labels = [], []
    for label, path in enumerate(classes):
        for file in sorted(path.iterdir())[: recordings // len(classes)]:
            events.append(read_events(file))
            labels.append(label)
    return events, torch.tensor(labels)


def saccades(images: Tensor, steps: int = 60) -> list[Events]:
    """What an ideal sensor of 34x34 pixels sends that moves in front of images.

    Args:
        images: ``[N, 1, 28, 28]``, light from 0 to 1.
        steps: how finely the motion is cut.
    """
    at = torch.linspace(0, len(CORNERS) - 1, steps + 1)
    leg = at.long().clamp(max=len(CORNERS) - 2)
    path = torch.lerp(CORNERS[leg], CORNERS[leg + 1], (at - leg)[:, None])
    padded = nn.functional.pad(images, [6] * 4)
    seen, changes = None, []
    for down, right in path:
        move = torch.tensor([[1, 0, right / 20], [0, 1, down / 20]]).expand(len(images), 2, 3)
        grid = nn.functional.affine_grid(move, list(padded.shape), align_corners=False)
        view = nn.functional.grid_sample(padded, grid, align_corners=False)[:, 0, 3:-3, 3:-3]
        light = torch.log(0.1 + view)
        seen = light if seen is None else seen
        changed = ((light - seen) / CONTRAST).trunc()
        # What is left of the change counts towards the pixel's next event.
        seen = seen + CONTRAST * changed
        changes.append(changed)
    recordings = []
    for changed in torch.stack(changes, 1):
        step, y, x = changed.nonzero(as_tuple=True)
        size = changed[step, y, x]
        columns = (step * MICROSECONDS // steps, x, y, (size > 0).long())
        times = size.abs().long()
        recordings.append(Events(*(c.repeat_interleave(times).numpy() for c in columns)))
    return recordings


def train(model: nn.Module, images: Tensor, labels: Tensor, epochs: int) -> None:
    """Train a ReLU network."""
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(50):
            loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


@torch.no_grad()
def show(model: nn.Module, net: snm.SpikingNetwork, frames: Tensor, labels: Tensor) -> None:
    """Prints accuracies, and feeds the frames of one recording as a sensor would."""
    relu = (model(frames.mean(0)).argmax(1) == labels).float().mean()
    print(f"ReLU network, mean of {len(frames)} frames: {relu:.1%} of {len(labels)} recordings")
    by_step = net.anytime(frames)
    right = (by_step.argmax(2) == labels).float().mean(1)
    for steps in sorted({1, *(len(frames) * part // 8 for part in (1, 2, 4, 6, 8))} - {0}):
        print(f"spiking network after {steps:3} frames: {right[steps - 1]:.1%}")

    net.reset()
    for frame in frames[:, :1]:
        logits = net.step(frame)
    same = torch.allclose(logits, by_step[-1, :1], atol=1e-4)
    print(f"one recording, frame by frame: class {int(logits.argmax())}, as in the batch: {same}")


def main() -> None:
    """Read or make recordings, train, convert, show."""
    parser = argparse.ArgumentParser(description="Event frames through a spiking network.")
    parser.add_argument("--data", type=Path, help="folder with Train/CLASS/* and Test/CLASS/*")
    parser.add_argument("--sensor", type=int, nargs=2, default=(34, 34), metavar=("H", "W"))
    parser.add_argument(
        "--recordings", type=int, default=1_500, help="to train on, a third to test"
    )
    parser.add_argument("--frames", type=int, default=24, help="of a recording: time steps")
    parser.add_argument("--epochs", type=int, default=8)
    options = parser.parse_args()

    torch.manual_seed(0)
    held_back = options.recordings // 3
    if options.data is not None:
        events, labels = recorded(options.data / "Train", options.recordings)
        test_events, test_labels = recorded(options.data / "Test", held_back)
        events, labels = events + test_events, torch.cat([labels, test_labels])
        held_back = len(test_events)
    else:
        data = load_images()
        used = options.recordings + held_back
        events = saccades(data.test_images[:used] * STD + MEAN)
        labels = data.test_labels[:used]
        print(f"{len(events)} synthetic recordings from packaged images")
    frames = torch.stack([to_frames(e, options.frames, tuple(options.sensor)) for e in events], 1)
    print(f"{sum(len(e.t) for e in events) / len(events):.0f} events a recording")

    height, width = options.sensor
    model = nn.Sequential(
        *(nn.Conv2d(2, 16, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * (height // 4) * (width // 4), int(labels.max()) + 1)),
    )
    means = frames[:, :-held_back].mean(0)
    train(model, means, labels[:-held_back], options.epochs)
    net = snm.convert(model.eval(), means, preset="snm-zero", norm="channel", encoder="frames")
    show(model, net, frames[:, -held_back:], labels[-held_back:])


if __name__ == "__main__":
    main()
