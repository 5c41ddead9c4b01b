"""A scenario that fails on demand: the runner's own test."""

from __future__ import annotations

import os
from typing import Any

import cocotb


@cocotb.test()
async def fails_when_asked(dut: Any) -> None:
    """Fails when SHIFTGRAD_BENCH_FAIL is set."""
    assert not os.environ.get("SHIFTGRAD_BENCH_FAIL")
