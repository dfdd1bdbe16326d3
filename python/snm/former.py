"""Keeps imports working from where documented things were before their files moved.

>>> from snm.report.page import read
>>> from snm.convert.calibrate import calibrate
"""

import sys

from . import conversion, diagnosis, reports, tuning
from .conversion import calibration, convertibility
from .data import cifar
from .network import capture, encode
from .reports import energy, page, result

MODULES = {
    "snm.capture": capture,
    "snm.convert": conversion,
    "snm.convert.calibrate": calibration,
    "snm.convert.convertible": convertibility,
    "snm.diagnose": diagnosis,
    "snm.encode": encode,
    "snm.evaluate.cifar": cifar,
    "snm.report": reports,
    "snm.report.energy": energy,
    "snm.report.page": page,
    "snm.report.result": result,
    "snm.tune": tuning,
}
"""The module that holds today what a former module held, by the former name."""


def keep_former_places() -> None:
    """Makes modules importable under their former names as well."""
    sys.modules.update(MODULES)
