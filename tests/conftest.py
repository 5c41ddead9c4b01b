"""What every test runs under: one BLAS thread a process, no display, helpers that say what failed."""

import os

import pytest

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("MPLBACKEND", "Agg")
pytest.register_assert_rewrite("tests.command_line")
