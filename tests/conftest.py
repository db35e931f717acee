"""Settings of the whole suite.

Hypothesis draws the same examples in every run (``derandomize``), so that a failure is a change
of the code. ``HYPOTHESIS_PROFILE=thorough`` draws many more, and other ones each time.
"""

import os

import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)  # the tensors here are small, and rounding depends on the number

settings.register_profile(
    "fast",
    deadline=None,
    max_examples=25,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile(
    "thorough",
    settings.get_profile("fast"),
    max_examples=400,
    derandomize=False,
    print_blob=True,
)
# The tensors are small: threads cost more than they bring, most of all beside other processes.
torch.set_num_threads(1)

settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)
