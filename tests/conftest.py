"""What every test runs under: one BLAS thread a process, no display, helpers that say what failed; random numbers."""

import os

import pytest

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np  # noqa: E402

pytest.register_assert_rewrite("tests.command_line", "tests.vector_bench")


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers from the SEED of the test's file."""
    print("seed", request.module.SEED)
    return np.random.default_rng(request.module.SEED)
