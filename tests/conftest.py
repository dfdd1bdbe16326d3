"""Settings of the whole suite."""

import pytest
import torch
from hypothesis import settings

# One thread a process: test processes run side by side, and tests that need more say so.
torch.set_num_threads(1)

settings.register_profile("suite", deadline=None, derandomize=True, database=None)
settings.load_profile("suite")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """What a test draws does not depend on the tests before it in the same process."""
    torch.manual_seed(0)
