"""Registers that go into block RAMs, and those that must not."""

import copy

import pytest

from hw.boards.output_registers import absorb_registers


def register(data: int, out: int, **connections: list) -> dict:
    return {"type": "TRELLIS_FF", "parameters": {"CLKMUX": "CLK", "CEMUX": "1 ", "LSRMUX": "LSR", "REGSET": "RESET"},
            "connections": {"CLK": [2], "DI": [data], "Q": [out], "LSR": ["0"], **connections}}


CELLS = {
    "ram": {"type": "DP16KD", "parameters": {"REGMODE_A": "NOREG", "REGMODE_B": "NOREG", "CLKAMUX": "CLKA",
                                             "CLKBMUX": "CLKB"},
            "connections": {"CLKA": [2], "CLKB": [2], "OCEA": ["1"], "OCEB": ["1"], "RSTA": ["0"], "RSTB": ["0"],
                            "DOA0": [10], "DOA1": [11], "DOB0": [20], "DOB1": [21], "DOB2": [22]}},
    "r0": register(20, 30), "r1": register(21, 31),
    "user": {"type": "LUT4", "parameters": {}, "connections": {"A": [30], "B": [31], "Z": [40]}},
}


def test_registers_of_a_port_go() -> None:
    cells = copy.deepcopy(CELLS)
    assert absorb_registers(cells) == 1
    assert set(cells) == {"ram", "user"}
    ram = cells["ram"]
    assert (ram["parameters"]["REGMODE_A"], ram["parameters"]["REGMODE_B"]) == ("NOREG", "OUTREG")
    assert [ram["connections"][f"DOB{i}"] for i in range(3)] == [[30], [31], [22]]
    assert absorb_registers(cells) == 0


@pytest.mark.parametrize("change", [
    {"r1": register(21, 31, CE=[50])},
    {"r1": register(21, 31, LSR=[50])},
    {"r1": register(21, 31, CLK=[3])},
    {"r1": register(21, 31) | {"parameters": {"CLKMUX": "INV"}}},
    {"r1": register(21, 31) | {"parameters": {"REGSET": "SET"}}},
    {"r1": {"type": "LUT4", "parameters": {}, "connections": {"A": [21], "Z": [31]}}},
    {"other": register(21, 32)},
    {"ram": CELLS["ram"] | {"connections": CELLS["ram"]["connections"] | {"OCEB": [50]}}},
    {"ram": CELLS["ram"] | {"connections": CELLS["ram"]["connections"] | {"RSTB": [50]}}},
    {"ram": CELLS["ram"] | {"parameters": CELLS["ram"]["parameters"] | {"REGMODE_B": "OUTREG"}}},
], ids=["enable", "reset", "clock", "edge", "start", "logic", "two readers", "port enable", "port reset", "in use"])
def test_others_stay(change: dict) -> None:
    cells = copy.deepcopy(CELLS | change)
    before = copy.deepcopy(cells)
    assert absorb_registers(cells) == 0
    assert cells == before


def wide(**changes: object) -> dict:
    """A block RAM of 36 bits: ``DOB`` and ``DOA`` both read by port B."""
    cells = copy.deepcopy(CELLS) | {"r2": register(22, 32), "r3": register(10, 33), "r4": register(11, 34)}
    cells["user"]["connections"] |= {"C": [32], "D": [33], "M": [34]}
    cells["ram"]["parameters"] |= {"DATA_WIDTH_A": f"{36:032b}", "DATA_WIDTH_B": f"{36:032b}"}
    cells["ram"]["connections"] |= {"OCEA": ["0"], **changes}
    return cells


def test_both_ports_of_a_wide_one_go_together() -> None:
    cells = wide()
    assert absorb_registers(cells) == 1
    assert set(cells) == {"ram", "user"}
    ram = cells["ram"]
    assert [ram["parameters"][f"REGMODE_{port}"] for port in "AB"] == ["OUTREG", "OUTREG"]
    assert [ram["connections"][f"OCE{port}"] for port in "AB"] == [["1"], ["1"]]
    assert [ram["connections"][pin] for pin in ("DOB0", "DOB1", "DOB2", "DOA0", "DOA1")] == [[n] for n in range(30, 35)]


@pytest.mark.parametrize("change", [{"OCEB": ["0"]}, {"RSTA": [50]}, {"CLKA": [3]}, {"DOA1": [31]}])
def test_or_stay_together(change: dict) -> None:
    cells = wide(**change)
    before = copy.deepcopy(cells)
    assert absorb_registers(cells) == 0 and cells == before
