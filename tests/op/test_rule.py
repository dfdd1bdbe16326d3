"""The rule's fields, their checks, and the presets."""

import pickle
from dataclasses import FrozenInstanceError

import pytest

from snm_kernels import PRESETS, SNM, SNMRule, preset

FIELDS = {
    "snm": (0.0, 1.0, False, 1, 0, None),
    "snm-half": (0.5, 1.0, False, 1, 0, None),
    "snm-zero": (0.5, 0.0, True, 1, 0, None),
    "if": (0.0, None, False, 1, None, None),
    "if-half": (0.5, None, False, 1, None, None),
    "st-bif": (0.5, 0.0, True, 1, 0, 15),
    "burst": (0.0, None, False, 5, None, None),
}


@pytest.mark.parametrize("name", PRESETS)
def test_preset_is_what_the_design_says(name: str) -> None:
    assert preset(name) == SNMRule(*FIELDS[name])


def test_presets_take_options() -> None:
    assert preset("st-bif", levels=7).count_max == 7
    assert preset("burst", max_spikes=2).max_spikes == 2
    with pytest.raises(TypeError, match="levels"):
        preset("snm", levels=7)


def test_unknown_preset_lists_the_known() -> None:
    with pytest.raises(
        ValueError, match=r"^preset: unknown preset 'lif'; there are snm, snm-half,"
    ):
        preset("lif")


def test_rule_is_a_value() -> None:
    assert SNM == SNMRule.snm() == SNMRule()
    assert hash(SNMRule(v_init=0.5)) == hash(SNMRule.snm_half())
    assert pickle.loads(pickle.dumps(SNMRule.st_bif())) == SNMRule.st_bif()
    with pytest.raises(FrozenInstanceError):
        SNM.v_init = 1.0


def test_missing_bounds_are_those_of_int32() -> None:
    assert SNM.count_bounds == (0, 2**31 - 1)
    assert SNMRule(count_min=None, count_max=3).count_bounds == (-(2**31), 3)


NAN, INFINITY = float("nan"), float("inf")
INT32 = "must fit in int32, got 2147483648"


@pytest.mark.parametrize(
    ("field", "value", "error", "message"),
    [
        ("v_init", "a", TypeError, "must be a number, got 'a'"),
        ("v_init", None, TypeError, "must be a number, got None"),
        ("v_init", True, TypeError, "must be a number, got True"),
        ("v_init", NAN, ValueError, "must be finite in float32, got nan"),
        ("v_init", INFINITY, ValueError, "must be finite in float32, got inf"),
        ("negative_threshold", "a", TypeError, "must be a number, got 'a'"),
        ("negative_threshold", NAN, ValueError, "must be finite in float32, got nan"),
        ("negative_threshold", INFINITY, ValueError, "must be finite in float32, got inf"),
        ("negative_threshold", -0.5, ValueError, "must be >= 0 or None, got -0.5"),
        ("strict", 1, TypeError, "must be a bool, got 1"),
        ("max_spikes", 1.0, TypeError, "must be an int, got 1.0"),
        ("max_spikes", None, TypeError, "must be an int, got None"),
        ("max_spikes", True, TypeError, "must be an int, got True"),
        ("max_spikes", 0, ValueError, "must be 1 to 127, got 0"),
        ("max_spikes", 128, ValueError, "must be 1 to 127, got 128"),
        ("count_min", 0.0, TypeError, "must be an int, got 0.0"),
        ("count_max", 2**31, ValueError, INT32),
        ("count_min", -(2**31) - 1, ValueError, "must fit in int32, got -2147483649"),
    ],
)
def test_wrong_field_is_refused(
    field: str, value: object, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as raised:
        SNMRule(**{field: value})
    assert str(raised.value) == f"SNMRule: {field} {message}"


@pytest.mark.parametrize(("low", "high"), [(1, None), (1, 5), (None, -1), (-5, -2)])
def test_bounds_that_exclude_the_start_are_refused(low: int | None, high: int | None) -> None:
    with pytest.raises(ValueError, match=f"got count_min={low}, count_max={high}$") as raised:
        SNMRule(count_min=low, count_max=high)
    assert str(raised.value).startswith("SNMRule: count_min <= 0 <= count_max must hold, ")


@pytest.mark.parametrize("field", ["v_init", "negative_threshold"])
def test_field_beyond_float32_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"^SNMRule: {field} must be finite"):
        SNMRule(**{field: 1e39})
