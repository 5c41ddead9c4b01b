"""Registers behind block RAMs go into the block RAMs: their own take less than a tenth as long to read."""

from __future__ import annotations

from collections import Counter
from typing import Any

__all__ = ["absorb_registers"]

Cells = dict[str, dict[str, Any]]


def absorb_registers(cells: Cells) -> int:
    """Turn on the output register of every DP16KD port whose bits go to nothing but plain registers, in their place.

    Such registers take every rising edge of the port's clock, have no reset and start at 0; so do the block RAM's. A
    block RAM of 36 bits reads through both ports; their registers go together.

    Parameters
    ----------
    cells : cells of a netlist Yosys has written as JSON; changed

    Returns the number of ports that were changed.
    """
    uses = Counter(bit for cell in cells.values() for bits in cell["connections"].values() for bit in bits)
    registers = {cell["connections"]["DI"][0]: name for name, cell in cells.items() if _plain(cell)}
    changed = 0
    for cell in [cell for cell in cells.values() if cell["type"] == "DP16KD"]:
        for ports in ("AB",) if _wide(cell) else ("A", "B"):
            pins = [pin for pin, bits in cell["connections"].items()
                    if pin[:2] == "DO" and pin[2] in ports and uses[bits[0]] > 1]
            outputs = [cell["connections"][pin][0] for pin in pins]
            if not pins or not _free(cell, ports) or any(uses[bit] != 2 or bit not in registers for bit in outputs):
                continue
            clocks = [cell["connections"][f"CLK{port}"] for port in ports]
            clocks += [cells[registers[bit]]["connections"]["CLK"] for bit in outputs]
            if any(clock != clocks[0] for clock in clocks):
                continue
            for port in ports:
                cell["parameters"][f"REGMODE_{port}"] = "OUTREG"
                cell["connections"][f"OCE{port}"] = ["1"]
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


def _wide(cell: dict[str, Any]) -> bool:
    """It writes and reads 36 bits at once, through the outputs of both ports."""
    return all(int(cell["parameters"].get(f"DATA_WIDTH_{port}", "0"), 2) == 36 for port in "AB")


def _free(cell: dict[str, Any], ports: str) -> bool:
    """The output registers of ``ports`` are off, and would always be enabled and never be reset."""
    connections, parameters = cell["connections"], cell["parameters"]
    return (connections.get(f"OCE{ports[-1]}") == ["1"]
            and all(parameters.get(f"CLK{port}MUX") == f"CLK{port}" for port in ports)
            and all(parameters.get(f"REGMODE_{port}", "NOREG") == "NOREG" for port in ports)
            and all(connections.get(f"RST{port}") == ["0"] for port in ports))
