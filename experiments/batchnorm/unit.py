"""Batch normalisation for training in FP32, forward and backward, one element a cycle."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from experiments.batchnorm.fp32 import Adder, Multiplier, delay, register
from experiments.batchnorm.program import BACKWARD, FORWARD, MAGIC, PARTIALS, Kind, Operation, Register, cycles

__all__ = ["BatchNorm"]

MINUS_ZERO = 0x80000000  # the number that changes no sum
SIGN = 1 << 31
# of a normalising pass, forward and backward: the terms of the pipeline, in its order
TERMS = ((Register.MEAN, Register.MEAN_S), (Register.DEVIATION, Register.MEAN_Q),
         (Register.GAMMA, Register.FACTOR), (Register.BETA, Register.BETA))


class BatchNorm(Component):
    """One channel: y = gamma * x_hat + beta, x_hat = (x - mean) / sqrt(variance + epsilon), and what goes back.

    A tensor is two passes, its elements in consecutive cycles, the same order in both. The first sums x and x * x
    (backward: dy and dy * x_hat), nine partial sums each; then ``busy`` while the scalars are worked out; the second
    gives y and x_hat, backward dx = gamma / sqrt(variance + epsilon) * (dy - mean(dy) - x_hat * mean(dy * x_hat)).
    Two adders and two multipliers do all of it. The variance is E[x^2] - E[x]^2, not below 0.

    Members
    -------
    backward : In(1)              static from the loading of registers until a tensor's last result is out
    normalise : In(1)             the second pass; static from its first element until its last result is out
    valid, last : In(1)           an element is here; it is the pass's last one
    x : In(32)                    x forward, dy backward
    z : In(32)                    x_hat, backward
    load, address, value : In     write a register (``Register``), there 2 cycles later: RECIPROCAL, EPSILON, HALF,
                                  THREE_HALVES, GAMMA and BETA before a tensor, DEVIATION too before its way back; not
                                  while ``busy`` or in a pass
    read : Out(32)                that register, when not ``busy``
    busy : Out(1)                 from the cycle after the first pass began until the scalars are there
    y, y_valid : Out              y or dx, FORWARD_LATENCY or BACKWARD_LATENCY cycles after its element
    x_hat, x_hat_valid : Out      forward, HAT_LATENCY cycles after its element
    """

    HAT_LATENCY = Adder.latency + Multiplier.latency + 2
    FORWARD_LATENCY = HAT_LATENCY + Multiplier.latency + Adder.latency + 2
    BACKWARD_LATENCY = 2 * (Adder.latency + 1) + Multiplier.latency + 1

    def __init__(self) -> None:
        super().__init__({
            "backward": In(1), "normalise": In(1), "valid": In(1), "last": In(1), "x": In(32), "z": In(32),
            "load": In(1), "address": In(5), "value": In(32), "read": Out(32), "busy": Out(1),
            "y": Out(32), "y_valid": Out(1), "x_hat": Out(32), "x_hat_valid": Out(1),
        })

    @staticmethod
    def scalar_cycles(*, backward: bool) -> int:
        """Cycles from a first pass's last element to the fall of ``busy``."""
        return 2 * PARTIALS + 3 + cycles(BACKWARD if backward else FORWARD)

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.registers = registers = Memory(shape=32, depth=32, init=[])
        self.write = registers.write_port()
        self.ports = registers.read_port(domain="comb"), registers.read_port(domain="comb")
        m.submodules.adder_a, m.submodules.adder_b = self.adders = Adder(), Adder()
        m.submodules.multiplier_a, m.submodules.multiplier_b = self.multipliers = Multiplier(), Multiplier()
        self.running, self.issue, self.word = Signal(), Signal(), Signal(23)
        self.summing, self.capturing, self.place = Signal(), Signal(), Signal(5)
        self.kind = self.word[:3]
        self._control(m)
        self._write(m)
        self._terms(m)
        self._pipeline(m)
        return m

    def _control(self, m: Module) -> None:
        """First pass, capture of its partial sums, program."""
        running, wait, at_end = self.running, Signal(4), Signal()
        rom = Array(Const(_word(o, last=o is p[-1]), 23) for p in (FORWARD, BACKWARD) for o in p)
        pc = Signal(range(len(rom) + 1))
        entry = Mux(self.backward, len(FORWARD), 0)
        closing = register(m, self.valid & self.last & ~self.normalise, "closing")
        m.d.comb += [
            self.busy.eq(self.summing | running), self.issue.eq(running & (wait == 0) & ~at_end),
            self.ports[0].addr.eq(Mux(running, self.word[8:13], self.address)), self.ports[1].addr.eq(self.word[13:18]),
            self.read.eq(self.ports[0].data),
        ]
        with m.If(self.valid & ~self.normalise):
            m.d.sync += self.summing.eq(1)
        with m.If(closing):
            m.d.sync += [self.capturing.eq(1), self.place.eq(0)]
        with m.If(self.capturing):
            m.d.sync += self.place.eq(self.place + 1)
            with m.If(self.place == 2 * PARTIALS - 1):
                m.d.sync += [self.capturing.eq(0), self.summing.eq(0), running.eq(1), pc.eq(pc + 1), wait.eq(0)]
        with m.If(self.issue):
            m.d.sync += [pc.eq(pc + 1), wait.eq(self.word[18:22]), at_end.eq(self.word[22])]
        with m.Elif(wait != 0):
            m.d.sync += wait.eq(wait - 1)
        with m.Elif(running):
            m.d.sync += [running.eq(0), at_end.eq(0)]
        with m.If(~self.busy):
            m.d.sync += pc.eq(entry)
        with m.If(~running | self.issue):
            m.d.sync += self.word.eq(rom[pc])

    def _write(self, m: Module) -> None:
        """What reaches the registers: loaded words, partial sums, results."""
        tags: list[Any] = [Cat(self.issue, self.word[:8])]
        for cycle in range(Adder.latency + 1):
            later = Signal(9, name=f"tag{cycle}")
            m.d.sync += later.eq(tags[-1])
            tags.append(later)
        enable, target, value = Signal(), Signal(5), Signal(32)
        m.d.sync += [self.write.en.eq(enable), self.write.addr.eq(target), self.write.data.eq(value)]
        m.d.comb += [enable.eq(self.load), target.eq(self.address), value.eq(self.value)]
        with m.If(self.capturing):
            m.d.comb += [enable.eq(1), target.eq(self.place),
                         value.eq(Mux(self.place >= Register.Q, self.adders[1].sum, self.adders[0].sum))]
        seed = (MAGIC - (self.multipliers[0].a >> 1))[:32]
        product, total = self.multipliers[0].product, self.adders[0].sum
        for latency, kinds, result in ((1, (Kind.SEED,), seed), (Multiplier.latency + 1, (Kind.MULTIPLY,), product),
                                       (Adder.latency + 1, (Kind.ADD, Kind.SUBTRACT, Kind.POSITIVE), total)):
            mine = tags[latency][1:4].matches(*kinds)
            with m.If(tags[latency][0] & mine):
                m.d.comb += [enable.eq(1), target.eq(tags[latency][4:9]), value.eq(result)]

    def _terms(self, m: Module) -> None:
        """Copies of the registers that the pipeline of a second pass needs all at once."""
        self.terms = []
        for number, (forward, backward) in enumerate(TERMS):
            term = Signal(32, name=f"term{number}")
            with m.If(self.write.en & (self.write.addr == Mux(self.backward, backward, forward))):
                m.d.sync += term.eq(self.write.data)
            self.terms.append(term)

    def _pipeline(self, m: Module) -> None:
        """Adders and multipliers, each with a register before its operands."""
        (add_a, add_b), (mul_a, mul_b), terms = self.adders, self.multipliers, self.terms
        a, b = self.ports[0].data, self.ports[1].data
        valid = [self.valid]
        for cycle in range(max(self.FORWARD_LATENCY, self.BACKWARD_LATENCY)):
            later = Signal(name=f"valid{cycle + 1}")
            m.d.sync += later.eq(valid[-1])
            valid.append(later)
        summing, forward = ~self.normalise, ~self.backward
        scalars = self.running

        positive = Mux((self.kind == Kind.POSITIVE) & a[31], 0, a)
        negated = b ^ Cat(Const(0, 31), self.kind == Kind.SUBTRACT)
        started = delay(m, self.summing, PARTIALS, "started")
        m.d.comb += [
            add_a.a.eq(register(m, Mux(scalars, positive, Mux(self.valid, self.x, MINUS_ZERO)), "add_a_a")),
            add_a.b.eq(Mux(self.summing & started, add_a.sum, register(
                m, Mux(scalars, negated, Mux(self.valid & self.normalise, terms[0] ^ SIGN, MINUS_ZERO)), "add_a_b"))),
            mul_a.a.eq(register(m, Mux(scalars, a, Mux(summing, self.x, Mux(self.backward, self.z, add_a.sum))),
                                "mul_a_a")),
            mul_a.b.eq(register(m, Mux(scalars, b, Mux(summing, Mux(self.backward, self.z, self.x), terms[1])),
                                "mul_a_b")),
            mul_b.a.eq(register(m, Mux(forward, mul_a.product, add_b.sum), "mul_b_a")),
            mul_b.b.eq(register(m, terms[2], "mul_b_b")),
        ]
        behind = delay(m, mul_a.product, Adder.latency - Multiplier.latency, "behind")
        square = Mux(valid[Multiplier.latency + 1], mul_a.product, MINUS_ZERO)
        circling = delay(m, started, Multiplier.latency + 1, "circling")
        m.d.comb += [
            add_b.a.eq(register(m, Mux(summing, square, Mux(forward, mul_b.product, add_a.sum)), "add_b_a")),
            add_b.b.eq(Mux(self.summing & circling, add_b.sum, register(
                m, Mux(summing, MINUS_ZERO, Mux(forward, terms[3], behind ^ SIGN)), "add_b_b"))),
            self.y.eq(Mux(forward, add_b.sum, mul_b.product)),
            self.y_valid.eq(self.normalise & Mux(forward, valid[self.FORWARD_LATENCY], valid[self.BACKWARD_LATENCY])),
            self.x_hat.eq(mul_a.product),
            self.x_hat_valid.eq(self.normalise & forward & valid[self.HAT_LATENCY]),
        ]


def _word(operation: Operation, *, last: bool) -> int:
    o, word, place = operation, 0, 0
    for value, width in ((o.kind, 3), (o.target, 5), (o.a, 5), (o.b, 5), (o.wait, 4), (last, 1)):
        assert value < 1 << width, f"{o}: {value} in {width} bits"
        word, place = word | int(value) << place, place + width
    return word
