"""Serial receiver and transmitter, bit by bit."""

import random

import pytest
from amaranth.hdl import Module
from amaranth.lib.wiring import Component, In, Out
from amaranth.sim import Simulator

from hw.uart import UartRx, UartTx, uart_divisor

CORNERS = [0x00, 0xFF, 0x55, 0xAA, 0x01, 0x80]


def levels(byte: int, stop: int = 1) -> list[int]:
    return [0, *(byte >> i & 1 for i in range(8)), stop]


def receive(line: list[int], divisor: int) -> tuple[list[int], int]:
    """Bytes and framing errors the receiver sees on ``line``, one level a cycle."""
    dut = UartRx(clock_hz=divisor * 1000, baud=1000)
    got: list[int] = []
    errors = 0

    async def bench(ctx):
        nonlocal errors
        for level in line:
            ctx.set(dut.rx, level)
            await ctx.tick()
            if ctx.get(dut.valid):
                got.append(ctx.get(dut.data))
            errors += ctx.get(dut.error)

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    return got, errors


def stretch(bits: list[int], divisor: float) -> list[int]:
    """Each bit ``divisor`` cycles long, fractions carried over."""
    return [bits[int(cycle / divisor)] for cycle in range(int(len(bits) * divisor))]


def random_bytes(count: int) -> list[int]:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    return CORNERS + random.Random(seed).choices(range(256), k=count)


@pytest.mark.parametrize(
    ("divisor", "drift"), [(8, 0.98), (8, 1.02), *((d, s) for d in (13, 50) for s in (0.97, 1.0, 1.03))]
)
def test_receives_from_a_drifting_sender(divisor: int, drift: float) -> None:
    sent = random_bytes(6)
    bits = [1, 1] + [bit for byte in sent for bit in levels(byte)] + [1, 1]
    assert receive(stretch(bits, divisor * drift), divisor) == (sent, 0)


def test_framing_error_drops_the_byte_and_waits_for_idle() -> None:
    bits = [1, *levels(0x12), *levels(0x34, stop=0), 0, 0, 0, 1, 1, *levels(0x56), 1]
    assert receive(stretch(bits, 16), 16) == ([0x12, 0x56], 1)


def test_break_is_one_error() -> None:
    assert receive(stretch([1] + 40 * [0] + [1, *levels(0xA5), 1], 16), 16) == ([0xA5], 1)


def test_short_glitches_are_ignored() -> None:
    line = stretch([1, 1, *levels(0x0F), 1, *levels(0xC3), 1, 1], 48)
    middles = [48 * i + 24 for i in range(2, 12)]
    for cycle in middles:
        line[cycle] ^= 1
    line[48 // 2] = 0
    assert receive(line, 48) == ([0x0F, 0xC3], 0)


class Loop(Component):
    """Transmitter wired to receiver."""

    def __init__(self, divisor: int) -> None:
        self.sender = UartTx(clock_hz=divisor * 1000, baud=1000)
        self.receiver = UartRx(clock_hz=divisor * 1000, baud=1000)
        super().__init__({"tx": Out(1), "unused": In(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules += [self.sender, self.receiver]
        m.d.comb += [self.receiver.rx.eq(self.sender.tx), self.tx.eq(self.sender.tx)]
        return m


@pytest.mark.parametrize("divisor", [8, 25])
def test_transmits_back_to_back(divisor: int) -> None:
    dut, sent, got = Loop(divisor), random_bytes(10), []
    starts: list[int] = []

    async def feed(ctx):
        cycle = 0
        for byte in sent:
            ctx.set(dut.sender.i.payload, byte)
            ctx.set(dut.sender.i.valid, 1)
            while not ctx.get(dut.sender.i.ready):
                await ctx.tick()
                cycle += 1
            starts.append(cycle)
            await ctx.tick()
            cycle += 1
        ctx.set(dut.sender.i.valid, 0)
        await ctx.tick().repeat(12 * divisor)

    async def watch(ctx):
        rx = dut.receiver
        async for _, _, valid, data, error in ctx.tick().sample(rx.valid, rx.data, rx.error):
            assert not error
            if valid:
                got.append(data)

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(feed)
    sim.add_testbench(watch, background=True)
    sim.run()
    assert got == sent
    gaps = {b - a for a, b in zip(starts, starts[1:], strict=False)}
    assert gaps <= {10 * divisor, 10 * divisor + 1}


def test_divisor() -> None:
    assert uart_divisor(50_000_000, 1_000_000) == 50
    with pytest.raises(ValueError, match="at least 8 clock cycles a bit, got 12000000 Hz for 3000000 baud"):
        uart_divisor(12_000_000, 3_000_000)
    with pytest.raises(ValueError, match="within 1.5 %"):
        uart_divisor(10_500_000, 1_000_000)
    with pytest.raises(ValueError, match="at least 8"):
        uart_divisor(10_500_000, 0)
