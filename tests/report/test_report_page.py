"""The page of a report: what it draws and says, that it is one file, and the command that writes
it."""

import copy
import dataclasses
import json
import math
import re
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

import snm
from snm.commands import cli
from snm.commands import report as command
from snm.reports import Report
from snm.reports.energy import Energy
from snm.reports.page import page, read
from snm.reports.result import RATE_BINS, LayerReport, Macs
from support.evaluation import SOURCE, write_fashion_mnist

pytestmark = pytest.mark.filterwarnings("ignore::snm.DeadNeuronWarning")

VOID = {"meta", "br", "wbr", "hr", "img", "input", "link"}
IMAGES, STEPS = 10, 16


def layer(number: int, path: str, kind: str = "neurons") -> LayerReport:
    """Of made-up numbers, all different from other layers'."""
    neurons = 40 + number
    shares = (0.01 * (number % 7), 0.001 * (number % 5), 0.1 + 0.001 * number)
    return LayerReport(
        path,
        kind,  # type: ignore[arg-type]
        neurons=neurons,
        neuron_steps=neurons * IMAGES * STEPS,
        positive=700 + 31 * number,
        negative=50 + 7 * number,
        connections=9 * neurons,
        synaptic_operations=12_000 + 977 * number,
        dead=shares[0] if kind == "neurons" else math.nan,
        saturated=shares[1] if kind == "neurons" else math.nan,
        residual=shares[2] if kind == "neurons" else math.nan,
        rates=tuple((number + bin) % 9 for bin in range(RATE_BINS + 1)),
    )


def made(*layers: LayerReport, **changes: object) -> Report:
    """A report of made-up numbers."""
    right = tuple(0.9 - 0.4 / step for step in range(1, STEPS + 1))
    report = Report(
        timesteps=STEPS,
        images=IMAGES,
        layers={one.path: one for one in layers},
        macs=Macs(first=1_000, steps=0, readout=200, relu=90_000),
        energy=(
            Energy("arithmetic", "A & B, arXiv:2210.13107", 3e-6, 9e-6, 2e-6, {"all": 3e-6}),
            Energy(
                "memory", "see https://example.org/a.", 1e-3, 2e-3, 4e-3, {"a": 4e-4, "b": 6e-4}
            ),
        ),
        seconds=0.5,
        relu_seconds=0.25,
        peak_bytes=123_456_789,
        device="cpu",
        threads=2,
        dtype="float32",
        encoder="direct",
        rule=snm.preset("snm-zero"),
        tuned_for=None,
        accuracy=right,
        agreement=tuple(share + 0.05 for share in right),
        relu_accuracy=0.91,
        diagnosis=None,
        version="1.2.3",
    )
    return dataclasses.replace(report, **changes)


def dense_names() -> list[str]:
    """As many layers as DenseNet-121 has, with its names."""
    return [
        f"features.denseblock{block}.denselayer{number}.relu{half}"
        for block, count in enumerate((6, 12, 24, 16), 1)
        for number in range(1, count + 1)
        for half in (1, 2)
    ]


class Elements(HTMLParser):
    """The elements of a page, each with its attributes, and the words outside of scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.words += data


def charts(html: str) -> list[ElementTree.Element]:
    """The charts of a page, as XML parses them."""
    found = re.findall(r"<svg class=\"chart\".*?(?=</div>)", html, re.DOTALL)
    return [ElementTree.fromstring(text) for text in found]


def figure(html: str, kind: str) -> str:
    """One figure of a page."""
    (found,) = re.findall(rf"<figure class=\"{kind}\">.*?</figure>", html, re.DOTALL)
    return str(found)


def wide(chart: ElementTree.Element, kind: str) -> float:
    """How wide the bars of a kind are, in percent."""
    bars = [bar for bar in chart.iter("rect") if bar.get("class") == kind]
    return sum(float(bar.attrib["width"].removesuffix("%")) for bar in bars)


@pytest.mark.parametrize("names", [["1"], ["1", "3", "relu"], dense_names()], ids=len)
def test_page_is_well_formed_and_names_every_layer(names: list[str]) -> None:
    html = page(made(*(layer(number, name) for number, name in enumerate(names))), title="mine")
    elements = Elements(html)
    assert len(charts(html)) == html.count('class="chart"') > 3 * len(names)
    heads = [name for name, attributes in elements.found if attributes.get("scope") == "row"]
    assert len(heads) == len(names) + 2 + 5
    for name in names:
        # In the figure and in the table.
        assert elements.words.count(name) >= 2
    assert [tag for tag, _ in elements.found].count("h1") == 1
    ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([\w-]+)\)", html)) <= set(ids)


def test_page_loads_nothing() -> None:
    html = page(made(layer(1, "relu")))
    links = []
    for tag, attributes in Elements(html).found:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base", "image", "use"}
        assert not {"src", "srcset", "xlink:href", "action", "poster"} & set(attributes)
        if "href" in attributes:
            assert tag == "a"
            links.append(attributes["href"])
    assert links == ["https://arxiv.org/abs/2210.13107", "https://example.org/a"]
    assert "@import" not in html
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))
    script = (files("snm.reports.page") / "page.js").read_text()
    assert not re.search(r"fetch|XMLHttpRequest|import|https?:", script)


def test_numbers_are_the_reports() -> None:
    layers = [layer(number, f"relu{number}") for number in range(4)]
    report = made(*layers)
    html = page(report)
    keys = {
        float(attributes["data-key"])
        for _, attributes in Elements(html).found
        if "data-key" in attributes
    }
    for one in layers:
        assert {one.neurons, one.connections, one.dead, one.saturated, one.residual} <= keys
        assert {one.positive_rate, one.negative_rate, one.synaptic_operations / IMAGES} <= keys
        assert one.synaptic_operations / report.synaptic_operations in keys
        assert {one.positive / IMAGES, one.negative / IMAGES} <= keys
    for energy in report.energy:
        assert {energy.snn, energy.ann, energy.quantised, energy.ratio} <= keys
    words = Elements(html).words.replace("\u202f", " ")
    for said in (
        *("87.50 %", "ReLU network 91.00 %, −3.50 points", "92.50 %"),
        *("0.250–1.50 ×", "at 5 bits", "50.0 ms", "2.00 × the ReLU network’s 25.0 ms"),
        *("118 MiB", "snm-zero", "90.0 k multiply-accumulates", report.verdict),
    ):
        assert said in words
    assert read(html) == report


def test_bars_are_as_long_as_numbers() -> None:
    layers = [layer(number, f"relu{number}") for number in range(4)]
    drawn = charts(figure(page(made(*layers)), "layers"))
    # A row has three charts, and below all rows there are the axes.
    sent, spent, rates = (drawn[column : 3 * len(layers) : 3] for column in range(3))
    for number, one in enumerate(layers):
        first = layers[0]
        assert wide(sent[number], "positive") / wide(sent[0], "positive") == pytest.approx(
            one.positive_rate / first.positive_rate, rel=1e-3
        )
        assert wide(sent[number], "negative") / wide(sent[number], "positive") == pytest.approx(
            one.negative / one.positive, rel=5e-3
        )
        assert wide(spent[number], "plain") / wide(spent[0], "plain") == pytest.approx(
            one.synaptic_operations / first.synaptic_operations, rel=1e-3
        )
        bars = len([count for count in one.rates if count])
        assert len(list(rates[number].iter("rect"))) == bars
    assert len(drawn) == 3 * len(layers) + 3


def test_lines_go_through_accuracies() -> None:
    report = made(layer(1, "relu"))
    (chart,) = charts(figure(page(report), "over-time"))
    lines = {line.get("class"): line.attrib["points"].split() for line in chart.iter("polyline")}
    for kind, shares in (("accuracy-line", report.accuracy), ("agreement-line", report.agreement)):
        places = [tuple(map(float, point.split(","))) for point in lines[kind]]
        assert len(places) == STEPS
        # Across, doublings are equally far apart; down, places are linear in what they stand for.
        assert [places[2**n - 1][0] for n in range(5)] == pytest.approx([0, 250, 500, 750, 1000])
        down = [place for _, place in places]
        slope = (down[-1] - down[0]) / (shares[-1] - shares[0])
        expected = [down[0] + slope * (share - shares[0]) for share in shares]
        assert down == pytest.approx(expected, abs=0.02)


def test_energies_are_drawn_to_scale_in_their_parts() -> None:
    report = made(layer(1, "relu"))
    drawn = charts(figure(page(report), "energy"))
    assert len(drawn) == 3 * len(report.energy)
    for number, energy in enumerate(report.energy):
        snn, ann, quantised = drawn[3 * number : 3 * number + 3]
        assert len(list(snn.iter("rect"))) == len(energy.parts)
        width = wide(ann, "relu") / energy.ann
        assert wide(snn, "snn") == pytest.approx(width * energy.snn, abs=0.02)
        assert wide(quantised, "quantised") == pytest.approx(width * energy.quantised, abs=0.02)


def test_what_is_not_known_is_no_number() -> None:
    report = made(
        layer(1, "relu"),
        layer(2, "pool", "max pooling"),
        accuracy=(),
        agreement=(),
        relu_accuracy=math.nan,
        relu_seconds=math.nan,
    )
    html = page(report)
    elements = Elements(html)
    shapes = " ".join(value for _, attributes in elements.found for value in attributes.values())
    assert not re.search(r"\b(nan|inf|NaN|None)\b", elements.words + shapes)
    assert elements.words.count("–") >= 3
    assert "Accuracy" not in elements.words
    assert "ReLU network not timed" in elements.words
    # What JSON has no word for is null in it.
    (text,) = re.findall(r'<script type="application/json" id="report">(.*?)</script>', html, re.S)
    assert json.loads(text)["relu_seconds"] is None
    assert math.isnan(read(html).relu_accuracy)


@pytest.mark.parametrize(
    "changes",
    [
        {"timesteps": 1, "accuracy": (0.5,), "agreement": (0.5,)},
        {"accuracy": (), "relu_accuracy": math.nan},
        {"accuracy": (0.0,) * STEPS, "agreement": (), "relu_accuracy": 0.0},
        {"layers": {}, "energy": ()},
        {"layers": {"1": dataclasses.replace(layer(1, "1"), positive=0, negative=0, rates=())}},
        {"layers": {"1": dataclasses.replace(layer(1, "1"), synaptic_operations=0)}},
        {"energy": (Energy("free", "nobody", 0.0, 0.0, 1.0, {"a": 0.0}),)},
    ],
    ids=["one step", "agreement alone", "all wrong", "nothing", "silent", "unread", "free"],
)
def test_page_of_little(changes: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    # A verdict takes conventions, and what it says of none is not the page's concern.
    monkeypatch.setattr(Report, "verdict", "A verdict.")
    html = page(made(layer(1, "relu"), **changes))
    Elements(html)
    for chart in charts(html):
        for element in chart.iter():
            assert not re.search(r"nan|inf", " ".join(element.attrib.values()))


HOSTILE = "</script><script>alert(1)</script><b a=\"'&.relu"


def test_names_are_escaped() -> None:
    report = made(
        layer(1, HOSTILE),
        version=HOSTILE,
        device=HOSTILE,
        energy=(Energy(HOSTILE, f"{HOSTILE} https://x.org/\"a'<b", 1.0, 1.0, 1.0, {HOSTILE: 1.0}),),
    )
    html = page(report, title=HOSTILE)
    elements = Elements(html)
    tags = [tag for tag, _ in elements.found]
    assert tags.count("script") == 2
    assert tags.count("b") == html.count("<figure")
    assert "alert(1)" not in html.replace("&lt;script&gt;alert(1)", "").replace(
        "\\u003cscript>alert(1)", ""
    )
    assert elements.words.count(HOSTILE) >= 5
    assert read(html) == report
    assert len(charts(html)) == html.count('class="chart"')


def test_only_pages_are_read() -> None:
    for text in ("", "<p>no", '<script id="report">{}</script>'):
        with pytest.raises(ValueError, match=r"^(read: html|Report: text) must be"):
            read(text)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(scheme: str) -> None:
    css = (files("snm.reports.page") / "page.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    light, dark = (dict(re.findall(r"--(\w+): (#\w+);", block)) for block in blocks[:2])
    assert set(dark) == set(light)
    colours = {"light": light, "dark": dark}[scheme]

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    paper = luminance(colours["paper"])
    # Source of the bounds: WCAG 2.2, 1.4.3 for text, 1.4.11 for graphics.
    for name, least in (("ink", 4.5), ("soft", 4.5), ("accent", 4.5)):
        low, high = sorted((paper, luminance(colours[name])))
        assert (high + 0.05) / (low + 0.05) >= least, name


@pytest.fixture(scope="module")
def small() -> tuple[snm.SpikingNetwork, nn.Module, torch.Tensor]:
    torch.manual_seed(3)
    model = nn.Sequential(
        *(nn.Linear(12, 40), nn.ReLU(), nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 5))
    ).eval()
    images = torch.rand(64, 12)
    return snm.convert(model, images, preset="snm-zero"), model, images


def test_errors_are_stacked(small: tuple[snm.SpikingNetwork, nn.Module, torch.Tensor]) -> None:
    net, model, images = small
    diagnosis = snm.diagnose(net, model, images, timesteps=STEPS)
    html = page(made(layer(1, "1"), layer(2, "3"), diagnosis=diagnosis))
    shares = {
        path: {name: part.absolute / one.activation for name, part in one.parts.items()}
        for path, one in diagnosis.layers.items()
    }
    drawn = charts(figure(html, "errors"))
    unit = max(
        wide(drawn[1], f"part {name}") / abs(share)
        for name, share in shares["3"].items()
        if abs(share) > 0.001
    )
    for chart, parts in zip(drawn, shares.values(), strict=False):
        for name, share in parts.items():
            assert wide(chart, f"part {name}") == pytest.approx(unit * abs(share), abs=0.1)
    advice = diagnosis.advice
    assert advice[1:].rstrip(".") in Elements(html).words
    assert read(html).diagnosis == diagnosis


def strokes(html: str, kind: str) -> int:
    return sum(
        path.attrib["d"].count("M")
        for chart in charts(html)
        for path in chart.iter("path")
        if path.get("class") == kind
    )


def test_recording_is_drawn(small: tuple[snm.SpikingNetwork, nn.Module, torch.Tensor]) -> None:
    net, _, images = small
    with net.record("3", neurons=[4, 7, 9, 20]) as recording:
        net(images[:2], timesteps=STEPS)
    html = page(made(layer(1, "3")), recording=recording, neuron=("3", 9))
    spikes = recording["3"].spikes[:, 0]
    raster = figure(html, "raster")
    assert strokes(raster, "up") == int((spikes > 0).sum()) > 0
    assert strokes(raster, "down") == int((spikes < 0).sum())
    assert re.findall(r'<div class="name">(\d+)</div>', raster) == ["4", "7", "9", "20"]
    drawn = figure(html, "membrane")
    assert "neuron 9 of 3" in drawn
    assert strokes(drawn, "up") == int((spikes[:, 2] > 0).sum())
    assert strokes(drawn, "down") == int((spikes[:, 2] < 0).sum())
    (chart,) = charts(drawn)
    (line,) = chart.iter("polyline")
    places = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
    layer_ = recording["3"]
    after = (layer_.membrane[:, 0, 2].double() / float(layer_.threshold[2])).tolist()
    # The start, and then the membrane before and after the spike of each step.
    assert len(places) == 1 + 2 * STEPS
    down = [place for _, place in places[2::2]]
    slope = (down[-1] - down[0]) / (after[-1] - after[0])
    assert down == pytest.approx([down[0] + slope * (v - after[0]) for v in after], abs=0.03)
    with pytest.raises(ValueError, match=r"^page: neuron must be one whose .*, got \('3', 5\)$"):
        page(made(layer(1, "3")), recording=recording, neuron=("3", 5))


def test_membranes_that_are_no_numbers_are_left_out(
    small: tuple[snm.SpikingNetwork, nn.Module, torch.Tensor],
) -> None:
    net, _, images = small
    net = copy.deepcopy(net)
    first = next(module for module in net.modules() if isinstance(module, nn.Linear))
    nn.init.constant_(first.weight, math.inf)
    with net.record("1", neurons=[0]) as recording:
        net(images[:1], timesteps=STEPS)
    assert not recording["1"].membrane.isfinite().any()
    (chart,) = charts(figure(page(made(layer(1, "1")), recording=recording), "membrane"))
    (line,) = chart.iter("polyline")
    assert len(line.attrib["points"].split()) == 1


def test_neurons_to_draw_are_chosen(
    small: tuple[snm.SpikingNetwork, nn.Module, torch.Tensor],
) -> None:
    net, _, images = small
    with net.record(what="spikes") as everything:
        net(images[:1], timesteps=STEPS)
    html = page(made(layer(1, "1")), recording=everything)
    assert '<figure class="membrane">' not in html
    assert len(re.findall(r'<div class="name">\d+</div>', figure(html, "raster"))) == 24
    with net.record(what="membrane") as membranes:
        net(images[:1], timesteps=STEPS)
    html = page(made(layer(1, "1")), recording=membranes)
    assert '<figure class="raster">' not in html
    with net.record() as recording:
        net(images[:1], timesteps=STEPS)
    negative = {
        (path, int(place)): int(count)
        for path, one in recording.items()
        for place, count in enumerate((one.spikes[:, 0] < 0).sum(0))
    }
    shown = figure(page(made(layer(1, "1")), recording=recording), "membrane")
    (found,) = re.findall(r"The membrane of neuron (\d+) of <?(?:wbr>)?(\d+)", shown)
    assert negative[found[1], int(found[0])] == max(negative.values()) > 0


def test_command_reports_on_the_packaged_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = [tmp_path / "report.html", tmp_path / "report.json"]
    few = ("--limit", "6", "--calibration-images", "20", "--timesteps", "3", "--device", "cpu")
    line = ["report", "demo", *few, "--diagnose", "--batch-size", "4"]
    line += [word for path in out for word in ("--out", str(path))]
    assert cli.main(line) == 0
    printed = capsys.readouterr().out
    html = out[0].read_text(encoding="utf-8")
    report = Report.from_json(out[1].read_text(encoding="utf-8"))
    assert read(html) == report
    assert (report.images, report.timesteps) == (6, 3)
    assert report.diagnosis is not None
    assert report.diagnosis.images == 6
    assert "<title>SmallVGG on Fashion-MNIST</title>" in html
    assert '<figure class="membrane">' in html
    for path in report.layers:
        assert path in printed
        assert path in Elements(html).words
    assert report.verdict.split(":")[0] in " ".join(printed.split())
    images = snm.demo.data.load_images()
    with torch.no_grad():
        found = snm.demo.data.load_network()(images.test_images[:6]).argmax(1)
    right = (found == images.test_labels[:6]).double().mean()
    assert report.relu_accuracy == pytest.approx(float(right))


def test_command_reports_on_a_saved_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_fashion_mnist(tmp_path / "pictures", test=9, train=12)
    saved = tmp_path / "net.safetensors"
    looks = ("--mean", "0.286", "--std", "0.353")
    converting = ["convert", SOURCE, *looks, "--calibration", f"mnist:{data}", "--device", "cpu"]
    assert cli.main([*converting, "--out", str(saved)]) == 0
    out = tmp_path / "report.html"
    assert cli.main(["report", str(saved), "--data", f"mnist:{data}", "--out", str(out)]) == 0
    html = out.read_text(encoding="utf-8")
    report = read(html)
    # It holds the ReLU network that it was made of.
    assert report.timesteps == 32
    assert len(report.agreement) == 32
    assert [one.kind for one in report.layers.values()].count("max pooling") == 1
    assert "<title>net.safetensors on mnist</title>" in html
    assert str(tmp_path) not in html
    assert f"Time steps: T = {report.timesteps}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ((SOURCE, "--mean", "0.5", "--std", "0.5"), "data must name images, KIND:FOLDER, got none"),
        (("demo", "--split", "val"), "split must be train or test, got 'val'"),
        (("demo", "--tune"), "tuning needs timesteps, got none"),
        (("lenet",), "data must name images"),
        (("lenet", "--data", "demo"), "a file of snm.save, or demo, got 'lenet'"),
        (("demo", "--preset", "lif", "--limit", "2"), "preset must be one of"),
    ],
)
def test_command_says_what_is_wrong(
    line: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["report", *line, "--device", "cpu"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("snm report: ")
    assert "evaluate: " not in error
    assert message in error


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("report.pdf", "must end in .html or .json, got report.pdf"),
        ("no/such/report.html", "must lie in a folder that there is, got no/such/report.html"),
    ],
)
def test_files_are_checked_first(
    name: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["report", "demo", "--out", name])
    assert message in capsys.readouterr().err


def test_command_without_rich(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "PACKAGES", ("no_such_package",))
    assert cli.main(["report", "demo"]) == 1
    assert "snm report needs no_such_package" in (said := capsys.readouterr().err)
    assert "pip install 'snm-kernels[evaluate]'" in said
