"""Tensor table: where a tensor lives, its shape, exponent and exponent history."""

from amaranth.hdl import Cat, Const, Module, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.logic import register
from shiftgrad.isa import DESCRIPTOR, HISTORY, Field

__all__ = ["Descriptor", "Scale", "TensorTable"]

NARROW_BITS, NARROW_DEPTH = 12, 64  # no larger words may be made of lookup tables
SCALE = ("exponent", "count", *(f"history{i}" for i in range(HISTORY)))  # fields the machine writes


class Scale(data.Struct):
    """What the machine writes of an entry: exponent, own exponents of the last steps (newest first), their number."""

    exponent: signed(8)
    count: unsigned(4)
    history: data.ArrayLayout(signed(8), HISTORY)


class Descriptor(data.Struct):
    """One entry. ``base`` and ``stride`` in memory words; ``height`` to ``step_x`` as in ``isa.DESCRIPTOR``."""

    base: unsigned(20)
    planes: unsigned(16)
    cols: unsigned(16)
    memory: unsigned(3)
    stride: unsigned(16)
    height: unsigned(8)
    width: unsigned(8)
    pad_y: unsigned(3)
    pad_x: unsigned(3)
    step_y: unsigned(1)
    step_x: unsigned(1)
    scale: Scale


class TensorTable(wiring.Component):
    """``depth`` entries in block RAM, one 32-bit host word a memory; only the bits of defined fields exist.

    Members
    -------
    id : In              entry to read; ``entry`` and ``h_r_data`` show it two cycles later
    entry : Out
    h_word : In          host word of the entry for ``h_r_data`` and ``h_write``
    h_write, h_w_data : In   write host word ``h_word`` of entry ``id``
    h_r_data : Out
    write, scale : In    store exponent, count and history of entry ``id``

    ``id``, ``h_word`` and ``h_w_data`` must stay for the cycle after ``h_write``: the host is far away.
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
        words = [Signal(3, name=f"word_late{n}") for n in range(2)]
        m.d.sync += [words[0].eq(self.h_word), words[1].eq(words[0])]
        for index, fields in enumerate(DESCRIPTOR):
            if not fields:
                continue
            block = self.depth > NARROW_DEPTH or sum(field.width for field in fields) > NARROW_BITS
            memory = m.submodules[f"word{index}"] = Memory(
                shape=32, depth=self.depth, init=[], attrs={"ram_style": "block"} if block else {})
            rd, wr = memory.read_port(), memory.write_port()
            late = Signal(32, name=f"late{index}", reset_less=True)  # block RAMs have this register
            m.d.sync += late.eq(rd.data)
            from_host = [_stored(field, self.h_w_data) for field in fields]
            m.d.comb += [
                rd.addr.eq(self.id),
                wr.addr.eq(self.id),
                wr.en.eq(register(m, self.h_write & (self.h_word == index), f"host_write{index}", resets=True)),
                wr.data.eq(_spread(fields, from_host)),
                *(self._view(self.entry, field).eq(_stored(field, late)) for field in fields),
            ]
            if fields[0].name in SCALE:
                with m.If(self.write):
                    own = [self._view_scale(self.scale, field) for field in fields]
                    m.d.comb += [wr.en.eq(1), wr.data.eq(_spread(fields, own))]
            with m.If(words[1] == index):
                m.d.comb += self.h_r_data.eq(late)
        return m

    def _view(self, entry: data.View, field: Field) -> object:
        if field.name in SCALE:
            return self._view_scale(entry.scale, field)
        return getattr(entry, field.name)

    @staticmethod
    def _view_scale(scale: data.View, field: Field) -> object:
        if field.name.startswith("history"):
            return scale.history[int(field.name.removeprefix("history"))]
        return getattr(scale, field.name)


def _stored(field: Field, word: object) -> object:
    """The bits of ``field`` in a 32-bit word."""
    return word[field.low:field.low + field.width]  # type: ignore[index]


def _spread(fields: tuple[Field, ...], values: list[object]) -> object:
    """``values`` of ``fields``, which ascend, put where the host word has them, zeros in between."""
    parts, end = [], 0
    for field, value in zip(fields, values, strict=True):
        parts += [Const(0, field.low - end), value]
        end = field.low + field.width
    return Cat(parts)
