"""What the machine spends its busy cycles on."""

from typing import TYPE_CHECKING

from amaranth.hdl import Cat, Module, Signal, Value, unsigned
from amaranth.lib import data

if TYPE_CHECKING:
    from hw.sequencer import Sequencer

__all__ = ["Activity", "account"]


class Activity(data.Struct):
    """What a busy cycle is spent on, for the counters: one phase, and one of the other four."""

    phase: data.StructLayout({"fwd": 1, "bwd": 1, "grad": 1, "vector": 1, "other": 1})
    setup: unsigned(1)
    range: unsigned(1)
    write: unsigned(1)  # a write pass: feeding, streaming, waiting for a drain, or its tail
    loss: unsigned(1)


def account(m: Module, seq: "Sequencer") -> None:
    """Drive ``seq.activity``."""
    activity, operation = seq.activity, seq.operation

    def ongoing(*names: str) -> Value:
        return Cat(seq.fsm.ongoing(name) for name in names).any()

    known = seq.busy & ~seq.prefetch
    phases = {name: known & operation[name] for name in ("fwd", "bwd", "grad", "vector")}
    product = ongoing("PASS", "FLUSH", "RANGE")
    ranging, writing = Signal(), Signal()
    m.d.comb += [
        ranging.eq((product & seq.range_pass) | (ongoing("EXPONENTS") & seq.measured)),
        writing.eq((product & ~seq.range_pass) | ongoing("STORE", "LOSS_STORE", "WRITE", "RETIRE")),
        *(activity.phase[name].eq(value) for name, value in phases.items()),
        activity.phase.other.eq(seq.busy & ~Cat(phases.values()).any()),
        activity.loss.eq(ongoing("LOSS")), activity.range.eq(ranging), activity.write.eq(writing),
        activity.setup.eq(seq.busy & ~(ongoing("LOSS") | ranging | writing)),
    ]
