"""hw.feeder: rotation, gating, padding, the added scalar and the skew of lanes, against the definition."""

import random

import numpy as np
import pytest
from amaranth.sim import Simulator

from golden.numerics import with_scalar
from hw.feeder import Feeder
from hw.memory import READ_LATENCY

SEED = 55
CYCLES = 110


def stimulus(rng, size, unsigned):
    """Slots, padding and the memory lanes of every cycle."""
    slots = [{"valid": int(rng.random() < 0.8), "first": int(rng.random() < 0.2), "index": t % size,
              "rows": rng.randint(1, size), "cols": rng.randint(1, size)} for t in range(CYCLES)]
    pads = [int(rng.random() < 0.25) for _ in range(CYCLES)]
    corners, low, high = ([0, 1, 127, 128, 254, 255], 0, 255) if unsigned else ([-128, -127, 127], -128, 127)
    banks = [[rng.choice([*corners, rng.randint(low, high)]) for _ in range(size)] for _ in range(CYCLES)]
    return slots, pads, banks


def bank_value(setting, pads, banks, cycle, bank):
    """Bank ``bank`` in ``cycle``: padding stays zero, all else takes the scalar."""
    asked = cycle - READ_LATENCY - bank
    if asked >= 0 and pads[asked]:
        return 0
    value = np.array(banks[cycle][bank], np.uint8 if setting.get("unsigned") else np.int8)
    return int(with_scalar(value, setting["scalar"], 0)) if setting["add"] else int(value)


def lane_value(setting, rows, stimulus, t, lane):
    """Operand of lane ``lane`` for the slot of cycle ``t``."""
    slots, pads, banks = stimulus
    slot = slots[t]
    if lane >= slot["rows" if rows else "cols"] or (rows and not slot["valid"]):
        return 0
    if setting["ones"]:
        return 1
    bank = slot["index"] if setting["rotated"] else lane
    return bank_value(setting, pads, banks, t + READ_LATENCY + lane, bank)


def settings(rng, rows, bits):
    """Rotated or not, unsigned or not; operand a with scalars at and beyond their limits, or ones."""
    for rotated in (0, 1):
        for form in ({},) if bits == 8 else ({"unsigned": 1}, {"unsigned": 0}):
            bound = 255 if form.get("unsigned") else 127
            plain = {"rotated": rotated, "ones": 0, "add": 0, "scalar": rng.randint(-bound, bound), **form}
            yield plain
            if rows:
                scalars = {-bound, -127, -1, 0, 1, 127, bound}
                yield from (plain | {"add": 1, "scalar": scalar} for scalar in (*sorted(scalars), rng.randint(-90, 90)))
                yield plain | {"ones": 1, "add": rng.randint(0, 1)}


@pytest.mark.parametrize(("rows", "bits"), [(True, 8), (True, 9), (False, 8)], ids=["a", "a_uint8", "b"])
@pytest.mark.parametrize("size", [4, 12])
def test_lanes(size, rows, bits):
    """Lane m shows bank m, or the bank its slot's index names, of READ_LATENCY + m cycles after its slot."""
    print("seed", SEED)
    rng = random.Random(SEED)
    dut = Feeder(size=size, rows=rows, bits=bits)

    async def bench(ctx):
        for setting in settings(rng, rows, bits):
            for name, value in setting.items():
                ctx.set(getattr(dut, name), value)
            slots, pads, banks = given = stimulus(rng, size, setting.get("unsigned"))
            pads = pads if rows else [0] * CYCLES
            for cycle in range(CYCLES):
                ctx.set(dut.slot, slots[cycle])
                ctx.set(dut.pad, given[1][cycle])
                ctx.set(dut.banks, banks[cycle])
                await ctx.tick()
                lanes, first = ctx.get(dut.lanes), ctx.get(dut.first)
                for lane in range(size):
                    t = cycle + 1 - Feeder.latency - lane  # the slot this lane shows after the edge
                    if t < size:  # what came before is of the setting before
                        continue
                    wanted = lane_value(setting, rows, (slots, pads, banks), t, lane)
                    assert lanes[lane] == wanted, (setting, cycle, lane)
                    assert first >> lane & 1 == slots[t]["first"]

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
