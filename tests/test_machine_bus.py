"""The golden machine's host port: windows, bus errors, and the device's registers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from golden.machine import BusError, GoldenMachine
from shiftgrad.device import Device, DeviceError, GoldenDevice
from shiftgrad.isa import COUNTERS, LFSR_BASE, Memory, Region, Status, encode
from tests.machine_bench import HALT, SMALL

SEED = 77


@pytest.mark.parametrize("size", [4, 8, 12, 16])
@pytest.mark.parametrize("memory", list(Memory))
def test_windows(size: int, memory: Memory, rng: np.random.Generator) -> None:
    config = replace(SMALL, size=size)
    machine, name = GoldenMachine(config), memory.name.lower()
    region, pitch, lane_bytes = Region[memory.name], config.pitch(name), config.lane_bytes(name)
    total = config.words(name) * pitch // 4
    image = rng.integers(0, 2**32, total, dtype=np.uint32)
    machine.write(region.address, image)
    raw = image.tobytes()
    for word in (0, 1, config.words(name) - 1):
        for lane in range(size):
            start = word * pitch + lane * lane_bytes
            expected = int.from_bytes(raw[start:start + lane_bytes], "little", signed=True)
            assert machine.memories[name][word, lane] == expected
    mask = (np.arange(4 * total) % pitch < size * lane_bytes).reshape(-1, 4)
    expected_words = np.where(mask, image.view(np.uint8).reshape(-1, 4), 0).astype(np.uint8).reshape(-1).view(np.uint32)
    assert np.array_equal(machine.read(region.address, total), expected_words)
    machine.write(region.address + 20, [0x04030201, 0x08070605])
    expected_words[5:7] = [0x04030201, 0x08070605]
    expected_words &= np.where(mask, 0xFF, 0).astype(np.uint8).reshape(-1).view(np.uint32)
    assert np.array_equal(machine.read(region.address, total), expected_words)
    assert np.array_equal(machine.read(region.address + 12, 7), expected_words[3:10])


def test_table_and_program_windows() -> None:
    machine = GoldenMachine(SMALL)
    machine.write(Region.TABLE.address + 32, np.full(16, 0xFFFFFFFF, np.uint32))
    stored = [0xFFFFF, 0xFFFFFFFF, 0xFFFF0007, 0xFFFFFF, 0xFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0]
    assert machine.read(Region.TABLE.address, 32).tolist() == [0] * 8 + stored * 2 + [0] * 8
    machine.write(Region.PROGRAM.address + 4, [1, 2])
    assert machine.program[:2].tolist() == [1 << 32, 2]
    assert machine.read(Region.PROGRAM.address, 4).tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize(("address", "count", "bad"), [
    (0x000002, 1, 0x000002), (0x0000FC, 1, 0x0000FC), (0x000030, 1, 0x000030), (0x00002C, 2, 0x000030),
    (LFSR_BASE + 12, 2, LFSR_BASE + 16), (0x000008, 1, 0x000008), (0x100000 + 32 * 8 - 4, 2, 0x100000 + 32 * 8),
    (0x200000 + 24 * 32, 1, 0x200000 + 24 * 32), (0x300000, 1, 0x300000), (0x400000 + 256 * 4, 1, 0x400000 + 256 * 4),
    (0x800000 + 64 * 8, 1, 0x800000 + 64 * 8), (0x900000, 1, 0x900000), (0xF00000, 1, 0xF00000),
    (0x1000000, 1, 0x1000000), (-4, 1, -4),
])
def test_bus_errors_name_the_address(address: int, count: int, bad: int) -> None:
    machine = GoldenMachine(SMALL)
    with pytest.raises(BusError, match="bus error at") as error:
        machine.read(address, count)
    assert error.value.address == bad
    if address != 0x000008:  # CTRL is write only
        before = machine.snapshot()
        with pytest.raises(BusError):
            machine.write(address, np.ones(count, np.uint32))
        assert machine.compare(before) == []


# --- the device -----------------------------------------------------------------------------------

def test_golden_device(rng: np.random.Generator) -> None:
    device = GoldenDevice(SMALL)
    assert isinstance(device, Device)
    assert (device.compared_instructions, device.mismatches) == (0, 0)
    assert device.read_register("MAGIC") == 0x53475231
    assert device.read_register("CONFIG") == 4 | 5 << 8 | 1 << 16
    assert GoldenDevice(replace(SMALL, tensors=32)).read_register("CONFIG") == 4 | 5 << 8 | 1 << 16
    assert device.status() == (False, Status.RESET)
    device.write(Region.PROGRAM.address + 8 * 7, np.array([encode(HALT)], np.uint64).view(np.uint32))
    assert device.run(7) == Status.HALTED
    assert (device.read_register("PC"), device.read_register("START_PC")) == (7, 7)
    assert device.run(0) == Status.ILLEGAL_OPCODE
    assert device.status() == (False, Status.ILLEGAL_OPCODE)
    device.machine.counters["FWD_MACS"] = 5
    device.write_register("CTRL", 3)
    assert device.counters()["FWD_MACS"] == 5, "only bit 2 clears them"
    assert device.status() == (False, Status.ILLEGAL_OPCODE)
    device.write_register("LR_SHIFT", 0xFFFF)
    assert device.read_register("LR_SHIFT") == 63
    device.seed([0, 5, 0xFFFFFFFF, 7])
    assert device.read(LFSR_BASE, 4).tolist() == [1, 5, 0xFFFFFFFF, 7]
    device.machine.counters["FWD_MACS"] = 5 << 32 | 6
    assert device.counters()["FWD_MACS"] == 5 << 32 | 6
    assert set(device.counters()) == {*COUNTERS, "RETIRED", "LOSS", "CORRECT", "SAMPLES", "SATURATED"}
    device.clear_counters()
    assert not any(device.counters().values())
    device.close()


def test_device_errors() -> None:
    device = GoldenDevice(SMALL)
    with pytest.raises(DeviceError, match="0x300000: no such region"):
        device.read(0x300000)
    with pytest.raises(DeviceError, match="register PC is ro"):
        device.write_register("PC", 1)
    with pytest.raises(DeviceError, match="register CTRL is wo"):
        device.read_register("CTRL")
    with pytest.raises(DeviceError, match="no register 'SPEED'; there are: MAGIC, "):
        device.read_register("SPEED")
    with pytest.raises(DeviceError, match=r"takes 0 to 2\^32 - 1, got -1"):
        device.write_register("LR_SHIFT", -1)
