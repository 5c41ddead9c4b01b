"""Registers behind block RAMs go into the block RAMs: their own take less than a tenth as long to read."""

from __future__ import annotations

from collections import Counter
from typing import Any

__all__ = ["absorb_registers"]

Cells = dict[str, dict[str, Any]]


def absorb_registers(cells: Cells) -> int:
    """Turn on the output register of every DP16KD port whose bits go to nothing but plain registers, in their place.

    Such registers take every rising edge of the port's clock, have no reset and start at 0; so do the block RAM's.

    Parameters
    ----------
    cells : cells of a netlist Yosys has written as JSON; changed

    Returns the number of ports that were changed.
    """
    uses = Counter(bit for cell in cells.values() for bits in cell["connections"].values() for bit in bits)
    registers = {cell["connections"]["DI"][0]: name for name, cell in cells.items() if _plain(cell)}
    changed = 0
    for cell in [cell for cell in cells.values() if cell["type"] == "DP16KD"]:
        for port in "AB":
            pins = [pin for pin, bits in cell["connections"].items()
                    if pin.startswith(f"DO{port}") and uses[bits[0]] > 1]
            outputs = [cell["connections"][pin][0] for pin in pins]
            if not pins or not _free(cell, port) or any(uses[bit] != 2 or bit not in registers for bit in outputs):
                continue
            if any(cells[registers[bit]]["connections"]["CLK"] != cell["connections"][f"CLK{port}"] for bit in outputs):
                continue
            cell["parameters"][f"REGMODE_{port}"] = "OUTREG"
            for pin, bit in zip(pins, outputs, strict=True):
                cell["connections"][pin] = cells.pop(registers[bit])["connections"]["Q"]
            changed += 1
    return changed


def _plain(cell: dict[str, Any]) -> bool:
    """A register that takes every rising edge and is never set or reset."""
    connections, parameters = cell["connections"], cell["parameters"]
    return (cell["type"] == "TRELLIS_FF" and parameters.get("CLKMUX", "CLK") == "CLK"
            and connections.get("CE", ["1"]) == ["1"] and connections.get("LSR", ["0"]) == ["0"]
            and parameters.get("REGSET", "RESET") == "RESET" and "DI" in connections)


def _free(cell: dict[str, Any], port: str) -> bool:
    """The output register of ``port`` is off, and would always be enabled and never be reset."""
    connections, parameters = cell["connections"], cell["parameters"]
    return (parameters.get(f"REGMODE_{port}", "NOREG") == "NOREG" and parameters.get(f"CLK{port}MUX") == f"CLK{port}"
            and connections.get(f"OCE{port}") == ["1"] and connections.get(f"RST{port}") == ["0"])
