"""Data sets as they lie on disk, how images are made of them, and shards of them."""

import gzip
import hashlib
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from snm.bench.vision import torchvision_models
from snm.data.batches import Shards
from snm.data.datasets import open_dataset
from snm.data.idx import read_idx
from snm.data.preprocess import INTERPOLATIONS, Preprocessing
from snm.data.samples import ArrayDataset, CorruptImage
from snm.demo import load_images
from snm.optional import PackageError
from support.evaluation import GREY, idx, packaged, write_fashion_mnist

RANDOM = np.random.default_rng(0)
PLAIN = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def test_fashion_mnist_gives_the_packaged_images(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path, test=20, train=3)
    shards = Shards(open_dataset(f"fashion-mnist:{tmp_path}", "test"), GREY, range(20), 16)
    first, last = shards.read(range(2))
    expected = load_images()
    assert torch.equal(torch.cat([first.images, last.images]), expected.test_images[:20])
    assert torch.equal(torch.cat([first.labels, last.labels]), expected.test_labels[:20])
    assert len(open_dataset(f"mnist:{tmp_path}", "train")) == 3


@pytest.mark.parametrize("inside", ["", "raw", "MNIST/raw", "FashionMNIST/raw"])
@pytest.mark.parametrize("ending", ["-idx{}-ubyte.gz", ".idx{}-ubyte"])
def test_idx_files_lie_in_several_places(tmp_path: Path, inside: str, ending: str) -> None:
    arrays = {"images": RANDOM.integers(0, 256, (3, 5, 4)), "labels": np.array([2, 0, 1])}
    folder = tmp_path / inside
    folder.mkdir(parents=True, exist_ok=True)
    for kind, array in arrays.items():
        path = folder / f"t10k-{kind}{ending.format(array.ndim)}"
        content = idx(array)
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    found = open_dataset(f"mnist:{tmp_path}", "test")
    assert [sample.label for sample in map(found.__getitem__, range(3))] == [2, 0, 1]
    assert np.array_equal(found[1].image, arrays["images"][1])


WHOLE = idx(np.zeros((2, 3, 3)))
DAMAGE = {
    "of another type": (b"\0\0\x0d\3" + WHOLE[4:], "must start with 00000803, .*, got 00000d03"),
    "of one dimension": (idx(np.zeros(4)), "must start with 00000803, .*, got 00000801"),
    "cut short": (WHOLE[:-1], r"must hold 34 bytes for \[2, 3, 3\], got 33"),
    "too long": (WHOLE + b"x", r"must hold 34 bytes for \[2, 3, 3\], got 35"),
    "without sizes": (WHOLE[:10], "must hold at least 16 bytes, got 10"),
    "empty": (b"", "must start with 00000803, .*, got nothing"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_idx_files_are_named(tmp_path: Path, kind: str) -> None:
    content, message = DAMAGE[kind]
    path = tmp_path / "images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{path} {message}"):
        read_idx(path, 3)


@pytest.mark.parametrize(
    "content", [gzip.compress(WHOLE)[:-9], b"not gzip", b""], ids=["cut", "other", "empty"]
)
def test_damaged_gzip_files_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "images-idx3-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=str(path)):
        read_idx(path, 3)


def test_labels_must_be_as_many_as_images(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path, test=5, train=1)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(4)))
    with pytest.raises(ValueError, match=r"as many labels as images, got 4 labels and 5 images"):
        open_dataset(f"mnist:{tmp_path}", "test")


def records(count: int, labels: int, classes: int) -> tuple[bytes, np.ndarray, np.ndarray]:
    """The content of a binary batch, its images ``[N, 32, 32, 3]`` and classes."""
    pixels = RANDOM.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    marks = RANDOM.integers(0, classes, (count, labels), dtype=np.uint8)
    content = np.concatenate([marks, pixels.reshape(count, -1)], axis=1).tobytes()
    return content, pixels.transpose(0, 2, 3, 1), marks[:, -1]


@pytest.mark.parametrize("unpacked", [True, False])
def test_cifar10_binary(tmp_path: Path, unpacked: bool) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    parts = [records(count, 1, 10) for count in (2, 1, 3, 1, 2)]
    for number, (content, _, _) in enumerate(parts, 1):
        (folder / f"data_batch_{number}.bin").write_bytes(content)
    content, images, labels = records(4, 1, 10)
    (folder / "test_batch.bin").write_bytes(content)
    place = folder if unpacked else tmp_path
    test, train = (open_dataset(f"cifar10:{place}", split) for split in ("test", "train"))
    assert [len(test), len(train)] == [4, 9]
    assert [test[n].label for n in range(4)] == labels.tolist()
    assert np.array_equal(test[3].image, images[3])
    assert np.array_equal(train[5].image, parts[2][1][2])
    pixels = PLAIN(test[0].image)
    assert torch.equal(pixels, torch.from_numpy(images[0].copy()).permute(2, 0, 1) / 255)


def test_cifar100_binary_has_fine_labels(tmp_path: Path) -> None:
    content, images, labels = records(5, 2, 100)
    (tmp_path / "test.bin").write_bytes(content)
    found = open_dataset(f"cifar100:{tmp_path}", "test")
    assert [found[n].label for n in range(5)] == labels.tolist()
    assert np.array_equal(found[2].image, images[2])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (records(2, 1, 10)[0][:-1], "a multiple of 3,073 bytes, an image each, got 6,145"),
        (b"", "a multiple of 3,073 bytes, an image each, got 0"),
        (b"\x0a" + bytes(3072), "must be below 10, got 10"),
    ],
)
def test_damaged_cifar_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "test_batch.bin"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path} must .*{message}|{path} {message}"):
        open_dataset(f"cifar10:{tmp_path}", "test")


@pytest.mark.parametrize(
    ("kind", "reader", "key"),
    [("cifar10", "CIFAR10", "labels"), ("cifar100", "CIFAR100", "fine_labels")],
)
def test_cifar_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, reader: str, key: str
) -> None:
    torchvision_models()
    from torchvision import datasets

    published = getattr(datasets, reader)
    folder = tmp_path / published.base_folder
    folder.mkdir()
    pixels = RANDOM.integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)
    batch = {"data": pixels.reshape(3, -1), key: [7, 0, 9]}

    def write(name: str, content: object) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes(), usedforsecurity=False).hexdigest()

    for names in ("train_list", "test_list"):
        written = [[name, write(name, batch)] for name, _ in getattr(published, names)]
        monkeypatch.setattr(published, names, written)
    meta = {**published.meta}
    meta["md5"] = write(meta["filename"], {meta["key"]: [str(n) for n in range(10)]})
    monkeypatch.setattr(published, "meta", meta)
    for place in (tmp_path, folder):
        found = open_dataset(f"{kind}:{place}", "test")
        assert [found[n].label for n in range(3)] == [7, 0, 9]
        assert np.array_equal(found[1].image, pixels[1].transpose(1, 2, 0))
    name = published.test_list[0][0]
    (folder / name).write_bytes(b"damaged")
    with pytest.raises(ValueError, match=f"{folder} must hold the published files: .*corrupted"):
        open_dataset(f"{kind}:{tmp_path}", "test")


def write_photos(folder: Path) -> None:
    """Two photos of either class, of several forms."""
    for name, label in (("a.png", "n01"), ("b.jpg", "n01"), ("c.png", "n02"), ("d.jpg", "n02")):
        place = folder / label
        place.mkdir(parents=True, exist_ok=True)
        mode = "L" if name == "c.png" else "RGB"
        shape = (20, 30) if mode == "L" else (20, 30, 3)
        Image.fromarray(RANDOM.integers(0, 256, shape, dtype=np.uint8), mode).save(place / name)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    torchvision_models()
    write_photos(tmp_path / "val")
    return tmp_path


def test_photos_by_class(photos: Path) -> None:
    for place, split in ((photos, "test"), (photos, "val"), (photos / "val", "test")):
        found = open_dataset(f"folder:{place}", split)
        assert [(Path(found[n].name).name, found[n].label) for n in range(4)] == [
            *(("a.png", 0), ("b.jpg", 0)),
            *(("c.png", 1), ("d.jpg", 1)),
        ]
        assert found.digest() == open_dataset(f"folder:{photos}", "test").digest()
    with pytest.raises(FileNotFoundError, match="must hold a folder train for split 'train'"):
        open_dataset(f"folder:{photos}", "train")


def corrupt(photos: Path, cut: str = "b.jpg", text: str = "c.png") -> None:
    """Damages two of the four photos: one is cut, one is no photo."""
    path = photos / "val" / "n01" / cut
    path.write_bytes(path.read_bytes()[:-200])
    (photos / "val" / "n02" / text).write_bytes(b"a note")


@pytest.mark.parametrize("workers", [0, 1])
def test_corrupt_photos_are_named_and_left_out_if_wanted(photos: Path, workers: int) -> None:
    corrupt(photos)
    dataset = open_dataset(f"folder:{photos}", "test")
    small = Preprocessing((0.0,) * 3, (1.0,) * 3, crop=16)
    strict = Shards(dataset, small, range(4), 3, workers=workers)
    with pytest.raises(CorruptImage, match=r"b\.jpg is corrupt: image file is truncated"):
        next(strict.read([0]))
    lenient = Shards(dataset, small, range(4), 3, skip_corrupt=True, workers=workers)
    first, last = lenient.read(range(2))
    assert [Path(name.split(" is ")[0]).name for name in first.corrupt] == ["b.jpg", "c.png"]
    assert first.images.shape == (1, 3, 16, 16)
    assert last.labels.tolist() == [1]
    assert last.corrupt == ()


def test_a_photo_that_cannot_be_read_is_not_called_corrupt(photos: Path) -> None:
    dataset = open_dataset(f"folder:{photos}", "test")
    (photos / "val" / "n01" / "a.png").unlink()
    with pytest.raises(FileNotFoundError):
        next(Shards(dataset, PLAIN, range(4), 2, skip_corrupt=True).read([0]))


def test_a_shard_may_be_corrupt_altogether(photos: Path) -> None:
    corrupt(photos)
    dataset = open_dataset(f"folder:{photos}", "test")
    (batch,) = Shards(dataset, PLAIN, [1, 2], 2, skip_corrupt=True).read([0])
    assert batch.images.shape == (0,)
    assert len(batch.corrupt) == 2


def test_photos_of_several_sizes_need_a_crop(photos: Path) -> None:
    Image.new("RGB", (8, 9)).save(photos / "val" / "n01" / "a.png")
    dataset = open_dataset(f"folder:{photos}", "test")
    with pytest.raises(ValueError, match=r"one size, got \[3, 9, 8\] and \[3, 20, 30\]; give"):
        next(Shards(dataset, PLAIN, range(4), 4).read([0]))


@pytest.mark.parametrize("interpolation", INTERPOLATIONS[:3])
@pytest.mark.parametrize("size", [(40, 61), (61, 40), (33, 33)])
def test_photos_are_made_as_torchvision_makes_them(
    size: tuple[int, int], interpolation: str
) -> None:
    torchvision_models()
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms._presets import ImageClassification

    photo = Image.fromarray(RANDOM.integers(0, 256, (*size, 3), dtype=np.uint8))
    own = Preprocessing((0.4, 0.5, 0.6), (0.2, 0.3, 0.4), 32, 27, interpolation)
    theirs = ImageClassification(
        crop_size=27,
        resize_size=32,
        mean=own.mean,
        std=own.std,
        interpolation=InterpolationMode(interpolation),
    )
    assert torch.equal(own(photo), theirs(photo))


def test_grey_and_coloured_pictures() -> None:
    grey = RANDOM.integers(0, 256, (6, 6), dtype=np.uint8)
    coloured = RANDOM.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    one = Preprocessing((0.5,), (0.5,))
    assert torch.equal(PLAIN(grey), (torch.from_numpy(grey) / 255).expand(3, 6, 6))
    assert one(Image.fromarray(coloured)).shape == (1, 6, 6)
    assert torch.equal(one(grey), one(Image.fromarray(grey)))
    with pytest.raises(ValueError, match="mean must have three values for coloured images"):
        one(coloured)
    bigger = Preprocessing((0.5,), (0.5,), resize=12)
    assert bigger(grey).shape == (1, 12, 12)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mean": (0.5, 0.5)}, "one or three values"),
        ({"std": (1.0, 1.0, 1.0)}, "one or three values"),
        ({"std": (0.0,)}, "std must be > 0"),
        ({"std": (float("nan"),)}, "std must be > 0"),
        ({"crop": 0}, "crop must be at least 1, got 0"),
        ({"resize": -1}, "resize must be at least 1, got -1"),
        ({"interpolation": "cubic"}, "interpolation must be one of .*, got 'cubic'"),
    ],
)
def test_bad_preprocessing_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Preprocessing(**{"mean": (0.5,), "std": (0.5,), **values})


def test_preprocessing_of_another_text_is_refused() -> None:
    for text in ("{}", "[]", '{"mean": [0.5]}', "no json"):
        with pytest.raises(ValueError, match=r"to_json|Expecting value"):
            Preprocessing.from_json(text)
    with pytest.raises(ValueError, match=r"at least 9 pixels high and wide .*, got 8 × 8"):
        Preprocessing((0.5,), (0.5,), crop=9)(np.zeros((8, 8), np.uint8))


@pytest.mark.parametrize("text", ["cifar10", "cifar10:", "emnist:data", ":data"])
def test_unknown_data_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="data must be KIND:FOLDER"):
        open_dataset(text, "test")


@pytest.mark.parametrize("kind", ["cifar10", "cifar100", "mnist"])
def test_missing_data_is_named(tmp_path: Path, kind: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"{tmp_path} must hold .*, got none of them"):
        open_dataset(f"{kind}:{tmp_path}", "test")
    with pytest.raises(ValueError, match="split must be train or test, got 'val'"):
        open_dataset(f"{kind}:{tmp_path}", "val")


def test_empty_data_is_refused(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path, test=0, train=1)
    with pytest.raises(ValueError, match="at least one image, got none"):
        open_dataset(f"mnist:{tmp_path}", "test")


def test_what_lacks_torchvision_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_photos(tmp_path)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(PackageError, match="a folder of photos needs torchvision, which does not"):
        open_dataset(f"folder:{tmp_path}", "test")
    write_fashion_mnist(tmp_path, test=1, train=1)
    assert len(open_dataset(f"mnist:{tmp_path}", "test")) == 1


def test_shards_do_not_depend_on_who_reads_them() -> None:
    arrays = packaged()
    images = ArrayDataset(arrays["test_images"][:11], arrays["test_labels"][:11], "few")
    shards = Shards(images, GREY, range(11), 4)
    whole: list[Tensor] = [batch.images for batch in shards.read(range(3))]
    assert [len(part) for part in whole] == [4, 4, 3]
    for world in (1, 2, 3, 4):
        for rank in range(world):
            own = range(3)[rank::world]
            for shard, batch in zip(own, shards.read(own), strict=True):
                assert batch.shard == shard
                assert torch.equal(batch.images, whole[shard])
