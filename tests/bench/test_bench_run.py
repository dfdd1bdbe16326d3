"""``snm bench``: its options, and a run from end to end that measures next to nothing."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from snm.bench import record, suite
from snm.bench.models import Model
from snm.bench.peers import PEERS
from snm.bench.scale import SCALES
from snm.bench.suite import parts
from snm.bench.timed import density, network
from snm.commands.cli import main
from snm.demo import load_images, load_network

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snm", "bench", *arguments]
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **SETTINGS},
        capture_output=True,
        text=True,
        check=False,
    )


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["bench", "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert {"--quick", "--out", "--device", "--limit"} <= {*out.replace(",", " ").split()}


def test_end_to_end(tmp_path: Path) -> None:
    process = run("--tiny", "--device", "cpu", "--out", "found", folder=tmp_path)
    assert process.returncode == 0, process.stdout + process.stderr
    text = (tmp_path / "found/record.json").read_text(encoding="utf-8")
    found = record.read(tmp_path / "found/record.json")
    assert {row["suite"] for row in found.rows} == {"op", "rivals", "density"}
    assert {row.get("heap") for row in found.of_suite("rivals")} == {"warm", "cold"}
    ways = [(row["density"], row["contender"]) for row in found.of_suite("density")]
    assert ways == [(d, f"snm, {way}") for d in (0.1, 0.5) for way in ("spike by spike", "densely")]
    ours = [row for row in found.rows if row["contender"] == "snm, amplitude"]
    assert len(ours) == 5
    assert all(row["seconds"] > 0 for row in found.rows)
    assert all(row["beside"]["copy_"]["ratio"] > 0 for row in ours)
    assert found.failed == []
    for secret in (str(tmp_path), str(ROOT), str(Path.home()), socket.gethostname()):
        assert secret not in text
    assert "| snm, amplitude |" in (tmp_path / "found/tables.md").read_text(encoding="utf-8")
    assert (tmp_path / "found/roofline.svg").stat().st_size > 1000
    assert "snm, amplitude" in process.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found"]
    assert json.loads(text)["environment"] == SETTINGS


def test_out_of_time(tmp_path: Path) -> None:
    process = run("--tiny", "--device", "cpu", "--out", "found", "--limit", "0", folder=tmp_path)
    assert process.returncode == 1
    assert "failed: neuron: no time left" in process.stdout
    assert record.read(tmp_path / "found/record.json").rows == []


def test_a_project_around_it_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bench"
    (folder / "timed").mkdir(parents=True)
    for name in ("conftest.py", "timed/neuron.py"):
        shutil.copy(ROOT / "bench" / name, folder / name)
    (tmp_path / "pytest.ini").write_text("[pytest]\nrequired_plugins = not-there\nstrict = true\n")
    (tmp_path / "conftest.py").write_text("raise RuntimeError\n")
    monkeypatch.setattr(suite, "FOLDER", folder)
    found = record.begin("tiny", "cpu")
    suite._run_part(suite.Part("op", "neuron.py"), found, float("inf"))
    assert found.failed == []
    assert found.of_suite("op", contender="snm, amplitude")


@pytest.mark.parametrize("code", ["exit 1", None], ids=["git fails", "no git"])
def test_without_git_the_commit_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str | None
) -> None:
    (tmp_path / ".git").mkdir()
    if code is not None:
        (tmp_path / "git").write_text(f"#!/bin/sh\n{code}\n")
        (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(record, "ROOT", tmp_path)
    assert record.begin("tiny", "cpu").commit == "commit unknown"


def test_full_run_covers_heaps_and_instruction_sets() -> None:
    found = [*parts("cpu", "full")]
    assert {part.heap for part in found if part.suite == "rivals"} == {"warm", "cold"}
    assert found[-1].suite == "calls"
    for part in found:
        assert ("MALLOC_MMAP_MAX_" in part.environment()) == (part.heap == "warm")


def test_networks_of_integers_are_compared_in_float32() -> None:
    for device in ("cpu", "cuda"):
        found = network.cases(device, SCALES["quick"])
        assert len(set(found)) == len(found)
        same = {case.contender for case in found if case.dtype == torch.float32}
        assert {network.INTEGERS, network.OURS, network.RELU} <= same
        others = {case.contender for case in found if case.dtype != torch.float32}
        assert network.INTEGERS not in others


@torch.no_grad()
def test_the_network_of_integers_is_what_is_timed() -> None:
    shown = load_images()
    model = Model(load_network(), shown.calibration_images[:50], shown.test_images[:2])
    net, integers = network.quantized(model)
    answer = network.build(network.INTEGERS, model, net)()
    assert integers.integers
    assert torch.equal(answer, integers(model.images, timesteps=network.TIMESTEPS))


@torch.no_grad()
def test_both_ways_of_a_layer_of_spikes_do_the_same() -> None:
    spikes, weight = density.drawn(8, 4, 0.5, "cpu")
    assert spikes.ne(0).float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert spikes.lt(0).float().mean().item() == pytest.approx(0.1, abs=0.02)
    ways = [density.build(way, spikes, weight)() for way in density.WAYS["cpu"]]
    assert torch.equal(ways[0].spikes, ways[1].spikes)
    assert ways[0].spikes.any()


def test_chosen_suites_run_in_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert [part.suite for part in parts("cuda", "full", ("calls", "op"))] == ["calls"] * 2 + ["op"]
    assert main(["bench", "--device", "cpu", "--suites", "op", "chunks"]) == 1
    assert "--suites must be of this run, got chunks" in capsys.readouterr().err


def test_missing_rivals_are_named() -> None:
    absent = PEERS["SpikingJelly FlexSN"]._replace(needs=("torch", "not_there"))
    assert absent.missing() == "not_there not installed: pip install 'snm-kernels[bench]'"
    assert absent._replace(needs=("torch",)).missing() == ""


def test_missing_packages_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("snm.commands.bench.PACKAGES", ("pytest", "not_there"))
    assert main(["bench", "--quick"]) == 1
    expected = "snm bench needs not_there: pip install 'snm-kernels[bench]'\n"
    assert capsys.readouterr().err == expected


def test_extra_and_requirements_have_the_same_rivals() -> None:
    extra = (ROOT / "pyproject.toml").read_text().partition("bench = [")[2].partition("]")[0]
    pinned = {name.strip(' \n"') for name in extra.split(",") if "==" in name}
    files = ("requirements.txt", "requirements-peers.txt")
    listed = {line for name in files for line in (ROOT / name).read_text().splitlines()}
    assert len(pinned) > 1
    assert pinned <= listed


def test_every_package_is_installed() -> None:
    """pyproject.toml lists packages by hand, for bench/ is snm.bench."""
    listed = (ROOT / "pyproject.toml").read_text().partition("packages = [")[2].partition("]")[0]
    roots = {"snm_kernels": "snm_kernels", "snm": "python/snm", "snm.bench": "bench"}
    found = {
        ".".join([package, *path.parent.relative_to(ROOT / folder).parts])
        for package, folder in roots.items()
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert {name.strip(' \n"') for name in listed.split(",")} - {""} == found | {"snm.demo.assets"}
