"""hw.onehot: states follow each other as those of an FSM of Amaranth would."""

import random

import pytest
from amaranth.hdl import Module, Signal
from amaranth.sim import Simulator

from hw.onehot import OneHot

SEED = 71


def test_as_amaranth_has_it():
    """The same transitions, one overriding another, as ``m.FSM``; exactly one state at a time."""
    print("seed", SEED)
    rng = random.Random(SEED)
    m, go, stop = Module(), Signal(2), Signal()
    with m.FSM() as reference:
        for name in "ABCD":
            with m.State(name):
                with m.Switch(go):
                    for n, other in enumerate("ABCD"):
                        with m.Case(n):
                            m.next = other
                with m.If(stop):
                    m.next = "A"
    states = OneHot(m, "ABCD")
    for name in "ABCD":
        with states.state(name):
            with m.Switch(go):
                for n, other in enumerate("ABCD"):
                    with m.Case(n):
                        states.next(other)
            with m.If(stop):
                states.next("A")
    states.finish()
    wanted, got = ([machine.ongoing(name) for name in "ABCD"] for machine in (reference, states))

    async def bench(ctx):
        for _ in range(200):
            now = [ctx.get(state) for state in got]
            assert now == [ctx.get(state) for state in wanted]
            assert sum(now) == 1
            ctx.set(go, rng.randrange(4))
            ctx.set(stop, rng.random() < 0.2)
            await ctx.tick()

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


def test_a_state_stays_until_it_is_told():
    """Without ``next`` a state lasts; outside of one there is nothing to follow."""
    m, leave = Module(), Signal()
    states = OneHot(m, ["STAY", "GONE"])
    with states.state("STAY"), m.If(leave):
        states.next("GONE")
    with states.state("GONE"):
        pass
    states.finish()
    with pytest.raises(RuntimeError, match="outside of a state"):
        states.next("STAY")

    async def bench(ctx):
        for cycle in range(8):
            assert [ctx.get(states.ongoing(name)) for name in ("STAY", "GONE")] == ([1, 0] if cycle < 4 else [0, 1])
            ctx.set(leave, cycle == 3)
            await ctx.tick()

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
