"""A unit of the RTL in Amaranth's simulator."""

from collections.abc import Awaitable, Callable
from typing import Any

from amaranth.sim import Simulator

__all__ = ["simulate"]


def simulate(dut: Any, bench: Callable[[Any], Awaitable[None]]) -> None:
    """Run ``bench`` on ``dut``, a component or module, to its end."""
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)  # type: ignore[arg-type]
    simulator.run()
