"""AXI4-Lite against a host-bus memory: order, back-pressure, errors, fairness; and the protocol's own rules."""

import random
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from amaranth.sim import Simulator

from hw.axi import OKAY, SLVERR, AxiLite

WORDS = 16  # addresses beyond answer an error
PAYLOADS = {"b": ("bresp",), "r": ("rresp", "rdata")}


@dataclass
class Harness:
    """An AxiLite, a memory behind its bus and checkers of what must always hold."""

    seed: int
    bus_wait: int = 0
    pause: float = 0.0
    memory: list[int] = field(default_factory=lambda: [0] * WORDS)
    accesses: list[tuple[bool, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        print(f"seed {self.seed}")
        self.rng = random.Random(self.seed)
        self.dut = AxiLite()
        self.simulator = Simulator(self.dut)
        self.simulator.add_clock(1e-6)
        self.simulator.add_process(self.target)
        self.simulator.add_process(self.check_bus)
        for channel in PAYLOADS:
            self.simulator.add_process(self.checker(channel))

    def run(self, *benches) -> None:
        for bench in benches:
            self.simulator.add_testbench(bench)
        self.simulator.run()

    async def target(self, ctx) -> None:
        """The memory behind the bus, with random wait states."""
        bus = self.dut.bus
        while True:
            _, _, valid, write, addr, data, strobe = await ctx.tick().sample(
                bus.valid, bus.write, bus.addr, bus.w_data, bus.strobe)
            if not valid:
                continue
            for _ in range(self.rng.randint(0, self.bus_wait)):
                _, _, held = await ctx.tick().sample(bus.valid)
                assert held
            self.accesses.append((bool(write), addr))
            error = addr % 4 != 0 or addr // 4 >= WORDS
            if write and not error:
                mask = sum(0xFF << 8 * i for i in range(4) if strobe >> i & 1)
                self.memory[addr // 4] = self.memory[addr // 4] & ~mask | data & mask
            ctx.set(bus.ready, 1)
            ctx.set(bus.error, error)
            ctx.set(bus.r_data, 0xDEADBEEF if error or write else self.memory[addr // 4])
            _, _, held = await ctx.tick().sample(bus.valid)
            assert held
            ctx.set(bus.ready, 0)

    async def check_bus(self, ctx) -> None:
        """Requests hold until ready."""
        bus, previous = self.dut.bus, None
        while True:
            _, _, valid, ready, write, addr, data, strobe = await ctx.tick().sample(
                bus.valid, bus.ready, bus.write, bus.addr, bus.w_data, bus.strobe)
            request = (write, addr, *((data, strobe) if write else ()))
            assert previous is None or (valid and request == previous), "a request changed before it was ready"
            previous = request if valid and not ready else None

    def checker(self, channel: str):
        """Responses hold until taken."""
        async def check(ctx) -> None:
            signals = [getattr(self.dut, f"s_axi_{channel}{name}") for name in ("valid", "ready")]
            payload = [getattr(self.dut, f"s_axi_{name}") for name in PAYLOADS[channel]]
            previous = None
            while True:
                _, _, valid, ready, *values = await ctx.tick().sample(*signals, *payload)
                assert previous is None or (valid and values == previous), f"{channel} changed before it was taken"
                previous = values if valid and not ready else None
        return check

    async def idle(self, ctx) -> None:
        while self.rng.random() < self.pause:
            await ctx.tick()

    async def send(self, ctx, channel: str, **values: int) -> None:
        """One transfer to the subordinate."""
        await self.idle(ctx)
        for name, value in values.items():
            ctx.set(getattr(self.dut, f"s_axi_{channel}{name}"), value)
        ctx.set(getattr(self.dut, f"s_axi_{channel}valid"), 1)
        await ctx.tick().until(getattr(self.dut, f"s_axi_{channel}ready"))
        ctx.set(getattr(self.dut, f"s_axi_{channel}valid"), 0)

    async def receive(self, ctx, channel: str) -> tuple[int, ...]:
        """One transfer from the subordinate."""
        await self.idle(ctx)
        payload = [getattr(self.dut, f"s_axi_{name}") for name in PAYLOADS[channel]]
        ctx.set(getattr(self.dut, f"s_axi_{channel}ready"), 1)
        values = await ctx.tick().sample(*payload).until(getattr(self.dut, f"s_axi_{channel}valid"))
        ctx.set(getattr(self.dut, f"s_axi_{channel}ready"), 0)
        return tuple(values)

    async def write(self, ctx, addr: int, data: int, strobe: int = 0xF) -> int:
        await self.send(ctx, "aw", addr=addr)
        await self.send(ctx, "w", data=data, strb=strobe)
        return (await self.receive(ctx, "b"))[0]

    async def read(self, ctx, addr: int) -> tuple[int, ...]:
        await self.send(ctx, "ar", addr=addr)
        return await self.receive(ctx, "r")


@pytest.mark.parametrize("data_first", [False, True])
@pytest.mark.parametrize("gap", [0, 1, 7])
def test_address_and_data_come_in_either_order(data_first, gap):
    harness = Harness(seed=1)

    async def bench(ctx):
        first, second = ("w", "aw") if data_first else ("aw", "w")
        values = {"aw": {"addr": 8}, "w": {"data": 0xCAFEF00D, "strb": 0xF}}
        await harness.send(ctx, first, **values[first])
        await ctx.tick().repeat(gap) if gap else None
        assert not harness.accesses
        await harness.send(ctx, second, **values[second])
        assert await harness.receive(ctx, "b") == (OKAY,)
        assert harness.accesses == [(True, 8)]
        assert harness.memory[2] == 0xCAFEF00D

    harness.run(bench)


def test_strobes_reach_the_bus():
    harness = Harness(seed=2)

    async def bench(ctx):
        for strobe in range(16):
            harness.memory[3] = 0x11223344
            assert await harness.write(ctx, 12, 0xAABBCCDD, strobe) == OKAY
            wanted = bytes(w if strobe >> i & 1 else o for i, (o, w) in
                           enumerate(zip(b"\x44\x33\x22\x11", b"\xdd\xcc\xbb\xaa", strict=True)))
            assert harness.memory[3] == int.from_bytes(wanted, "little")

    harness.run(bench)


@pytest.mark.parametrize("low", range(4))
def test_an_unaligned_address_means_its_word(low):
    harness = Harness(seed=7)

    async def bench(ctx):
        harness.memory[3] = 0x11223344
        assert await harness.write(ctx, 12 + low, 0xAABBCCDD, 1 << low) == OKAY
        mask = 0xFF << 8 * low
        wanted = 0xAABBCCDD & mask | 0x11223344 & ~mask
        assert harness.memory[3] == wanted
        assert await harness.read(ctx, 12 + low) == (OKAY, wanted)

    harness.run(bench)


def test_a_refused_access_answers_slverr_and_the_next_one_works():
    harness = Harness(seed=3, bus_wait=2)

    async def bench(ctx):
        assert await harness.write(ctx, 4 * WORDS, 1) == SLVERR
        assert await harness.read(ctx, 4 * WORDS) == (SLVERR, 0)
        assert await harness.read(ctx, 0xFFFFFC) == (SLVERR, 0)
        assert await harness.write(ctx, 4, 5) == OKAY
        assert await harness.read(ctx, 4) == (OKAY, 5)

    harness.run(bench)


def test_a_response_waits_for_the_master_without_losing_the_next_request():
    harness = Harness(seed=4)

    async def bench(ctx):
        harness.memory[:2] = [10, 20]
        await harness.send(ctx, "ar", addr=0)
        await ctx.tick().until(harness.dut.s_axi_rvalid)
        await harness.send(ctx, "ar", addr=4)
        await ctx.tick().repeat(20)
        assert len(harness.accesses) == 1
        assert await harness.receive(ctx, "r") == (OKAY, 10)
        assert await harness.receive(ctx, "r") == (OKAY, 20)

    harness.run(bench)


@pytest.mark.parametrize("pause", [0.0, 0.6])
def test_full_channels_lose_nothing_and_take_turns(pause):
    harness = Harness(seed=5, bus_wait=1, pause=pause)
    half, count = WORDS // 2, 40
    harness.memory = [0] * half + list(range(half))
    addresses = [4 * (i % half) for i in range(count)]

    async def aw(ctx):
        for addr in addresses:
            await harness.send(ctx, "aw", addr=addr)

    async def w(ctx):
        for i in range(count):
            await harness.send(ctx, "w", data=i, strb=0xF)

    async def ar(ctx):
        for addr in addresses:
            await harness.send(ctx, "ar", addr=addr + 4 * half)

    async def b(ctx):
        assert [await harness.receive(ctx, "b") for _ in range(count)] == [(OKAY,)] * count

    async def r(ctx):
        assert [await harness.receive(ctx, "r") for _ in range(count)] == [(OKAY, i % half) for i in range(count)]

    harness.run(aw, w, ar, b, r)
    assert [addr for write, addr in harness.accesses if write] == addresses
    assert [addr - 4 * half for write, addr in harness.accesses if not write] == addresses
    assert harness.memory[:half] == list(range(count - half, count))
    if not pause:
        kinds = [write for write, _ in harness.accesses][2:-2]
        assert all(x != y for x, y in pairwise(kinds)), f"one direction waited for two of the other: {kinds}"


@pytest.mark.parametrize("pause", [0.0, 0.5, 0.8])
@pytest.mark.parametrize("bus_wait", [0, 3])
def test_random_traffic(pause, bus_wait):
    harness = Harness(seed=6 + bus_wait + int(10 * pause), bus_wait=bus_wait, pause=pause)
    half = WORDS // 2 - 1
    count = 60

    async def owner(ctx):
        """Writes a word and reads it back, in the lower half."""
        rng = random.Random(harness.seed)
        shadow = [0] * WORDS
        for _ in range(count):
            word, data, strobe = rng.randrange(half), rng.getrandbits(32), rng.getrandbits(4)
            mask = sum(0xFF << 8 * i for i in range(4) if strobe >> i & 1)
            shadow[word] = shadow[word] & ~mask | data & mask
            assert await harness.write(ctx, 4 * word, data, strobe) == OKAY
        assert harness.memory[:half] == shadow[:half]

    async def reader(ctx):
        """Reads constants in the upper half, and errors, meanwhile."""
        rng = random.Random(harness.seed + 1)
        for _ in range(count):
            word = rng.randrange(half + 1, WORDS + 4)
            wanted = (OKAY, harness.memory[word]) if word < WORDS else (SLVERR, 0)
            assert await harness.read(ctx, 4 * word) == wanted

    harness.memory = [0] * half + [harness.rng.getrandbits(32) for _ in range(WORDS - half)]
    harness.run(owner, reader)
    assert len(harness.accesses) == 2 * count
