"""What documentation once named is imported from there as from where it is today."""

import importlib

import pytest

import snm

DOCUMENTED = {
    "snm.capture": ["CapturedNetwork"],
    "snm.convert": ["Statistics", "calibrate", "convert"],
    "snm.convert.calibrate": ["calibrate"],
    "snm.convert.convertible": ["Convertibility", "convertible"],
    "snm.diagnose": ["diagnose"],
    "snm.diagnosis": ["PARTS", "Diagnosis", "LayerDiagnosis", "Part"],
    "snm.encode": ["Poisson"],
    "snm.evaluate.cifar": ["cifar"],
    "snm.files": ["load", "save"],
    "snm.report": ["LayerReport", "Macs", "Report", "report"],
    "snm.report.energy": ["Energy"],
    "snm.report.page": ["page", "read"],
    "snm.report.result": ["LayerReport", "Macs"],
    "snm.tune": ["tune"],
}
"""Names by the module from which the first documentation had them imported."""


@pytest.mark.parametrize("module", DOCUMENTED)
def test_documented_names_are_where_they_were(module: str) -> None:
    assert set(DOCUMENTED[module]) <= set(dir(importlib.import_module(module)))


@pytest.mark.parametrize("name", ["convert", "diagnose", "report", "tune"])
def test_functions_stay_functions(name: str) -> None:
    function = getattr(snm, name)
    importlib.import_module(f"snm.{name}")
    assert getattr(snm, name) is function
    assert callable(function)
