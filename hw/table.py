"""Tensor table: where a tensor lives, its shape, exponent and exponent history."""

from amaranth.hdl import Cat, Module, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from shiftgrad.isa import DESCRIPTOR, HISTORY, Field

__all__ = ["Descriptor", "Scale", "TensorTable"]


class Scale(data.Struct):
    """What the machine writes of an entry: exponent, own exponents of the last steps (newest first), their number."""

    exponent: signed(8)
    count: unsigned(4)
    history: data.ArrayLayout(signed(8), HISTORY)


class Descriptor(data.Struct):
    """One entry. ``base`` and ``stride`` in memory words, ``rows`` and ``cols`` in elements."""

    base: unsigned(16)
    stride: unsigned(16)
    rows: unsigned(16)
    cols: unsigned(16)
    memory: unsigned(3)
    scale: Scale


class TensorTable(wiring.Component):
    """``depth`` entries in block RAM, one 32-bit host word a memory; only the bits of defined fields exist.

    Members
    -------
    id : In              entry to read; ``entry`` and ``h_r_data`` show it one cycle later
    entry : Out
    h_word : In          host word of the entry for ``h_r_data`` and ``h_write``
    h_write, h_w_data : In   write host word ``h_word`` of entry ``id``
    h_r_data : Out
    write, scale : In    store exponent, count and history of entry ``id``
    """

    def __init__(self, *, depth: int) -> None:
        self.depth = depth
        super().__init__({
            "id": In(8),
            "entry": Out(Descriptor),
            "h_word": In(3),
            "h_write": In(1),
            "h_w_data": In(32),
            "h_r_data": Out(32),
            "write": In(1),
            "scale": In(Scale),
        })

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        word_q = Signal(3)
        m.d.sync += word_q.eq(self.h_word)
        for index, fields in enumerate(DESCRIPTOR):
            if not fields:
                continue
            memory = m.submodules[f"word{index}"] = Memory(shape=32, depth=self.depth, init=[])
            rd, wr = memory.read_port(), memory.write_port()
            from_host = Cat(_stored(field, self.h_w_data) for field in fields)
            m.d.comb += [
                rd.addr.eq(self.id),
                wr.addr.eq(self.id),
                wr.en.eq(self.h_write & (self.h_word == index)),
                wr.data.eq(_spread(fields, from_host)),
                *(self._view(self.entry, field).eq(_stored(field, rd.data)) for field in fields),
            ]
            if index >= 4:
                with m.If(self.write):
                    own = Cat(self._view_scale(self.scale, field) for field in fields)
                    m.d.comb += [wr.en.eq(1), wr.data.eq(_spread(fields, own))]
            with m.If(word_q == index):
                m.d.comb += self.h_r_data.eq(rd.data)
        return m

    def _view(self, entry: data.View, field: Field) -> object:
        if field.name in ("base", "stride", "rows", "cols", "memory"):
            return getattr(entry, field.name)
        return self._view_scale(entry.scale, field)

    @staticmethod
    def _view_scale(scale: data.View, field: Field) -> object:
        if field.name.startswith("history"):
            return scale.history[int(field.name.removeprefix("history"))]
        return getattr(scale, field.name)


def _stored(field: Field, word: object) -> object:
    """The bits of ``field`` in a 32-bit word."""
    return word[field.low:field.low + field.width]  # type: ignore[index]


def _spread(fields: tuple[Field, ...], packed: object) -> object:
    """Fields packed back to back, put where the host word has them."""
    assert [f.low for f in fields] == [sum(g.width for g in fields[:i]) for i in range(len(fields))]
    return packed
