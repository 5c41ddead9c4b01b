"""Random legal instructions, operation by operation."""

from __future__ import annotations

from dataclasses import dataclass, field

from golden.convolution import Window
from shiftgrad.isa import VECTORS, Flag, Memory, Opcode, encode
from sim.program_tensors import Form, Full, Tensors, halved

__all__ = ["OPERATIONS", "Builder"]

ACT, ERR, WGT, MOM, VEC = Memory
OPERATIONS = (*[Opcode.FWD, Opcode.BWD, Opcode.GRAD] * 3, Opcode.GRAD, Opcode.LOSS, *VECTORS)  # some more often
Fields = dict[str, int]


@dataclass
class Builder(Tensors):
    """Appends instructions, each with tensors that fit.

    Attributes
    ----------
    program : instruction words so far
    operations : what to choose from
    images : share of FWD, BWD and GRAD that are convolutions; the others are dense products
    """

    program: list[int] = field(default_factory=list)
    operations: tuple[Opcode, ...] = OPERATIONS
    images: float = 0.5

    def instruction(self) -> None:
        """Append one legal instruction, unless its tensors find no room."""
        opcode = self.operations[int(self.rng.integers(len(self.operations)))]
        flags = self.flags(*(flag for flag in Flag if flag in self.config.legal_flags[opcode]))
        tensors, used = len(self.entries), dict(self.used)
        try:
            fields = getattr(self, f"_{opcode.name.lower()}")(flags)
        except Full:
            del self.entries[tensors:], self.known[tensors:]
            self.used = used
            return
        self.program.append(encode(opcode, flags=flags, **fields))

    def _rate(self) -> int:
        return int(self.rng.integers(-2, 12))

    def _scalar(self, memory: Memory = VEC) -> int:
        return self.matrix(memory, 1, 1)

    def _scalars(self, flags: int, **names: Flag) -> Fields:
        """The scalar operands ``flags`` bring in."""
        return {name: self._scalar() for name, flag in names.items() if flags & flag}

    # --- products ---------------------------------------------------------------------------------

    def _product(self) -> tuple[Form, Form, int, int, int]:
        """Forms of a product's input and output, their channels, and the weights between them."""
        if self.rng.random() >= self.images:
            form = Form(self.size())
            cin, cout = self.size(), self.size()
            return form, form, cin, cout, self.weights(cin, cout, Window())
        form, cin, cout = self.frame(), self.channels(), self.channels()
        window = self.window(form)
        room = self.config.wgt_words // 4 // (window.height * window.width * self.config.stride(cout))
        cin = max(1, min(cin, room))
        return form, Form(form.planes, *window.output(*form[1:])), cin, cout, self.weights(cin, cout, window)

    def _fwd(self, flags: int) -> Fields:
        form, out, cin, cout, weights = self._product()
        a = self.image(ACT, form, cin)
        fields = {"a": a, "dst": self.image(ACT, out, cout, avoid={a}), "b": weights}
        if flags & Flag.BIAS:
            fields["c"] = self.matrix(VEC, 1, cout if self.rng.random() < 0.7 else 1)
        return fields | self._scalars(flags, d=Flag.SCALAR)

    def _bwd(self, flags: int) -> Fields:
        form, out, cin, cout, weights = self._product()
        a = self.image(ERR, out, cout)
        fields = {"a": a, "dst": self.image(ERR, form, cin, avoid={a}), "b": weights}
        return fields | self._mask(flags, form, cin)

    def _mask(self, flags: int, form: Form, cols: int) -> Fields:
        return {"c": self.matrix(ACT, form.rows, cols)} if flags & Flag.MASK else {}

    def _grad(self, flags: int) -> Fields:
        if flags & Flag.ONES:
            form, cols = (self.frame(), self.channels()) if self.rng.random() < self.images else (None, self.size())
            rows = form.rows if form else self.size()
            return {"dst": self.matrix(VEC, 1, cols), "b": self.matrix(ERR, rows, cols),
                    "c": self.matrix(MOM, 1, cols), "imm": self._rate()}
        form, out, cin, cout, weights = self._product()
        rows = self.known[weights].form.rows
        return {"dst": weights, "a": self.image(ACT, form, cin), "b": self.image(ERR, out, cout),
                "c": self.matrix(MOM, rows, cout), "imm": self._rate()} | self._scalars(flags, d=Flag.SCALAR)

    def _loss(self, flags: int) -> Fields:
        rows, cols = self.size(), min(self.size(), self.config.classes)
        return {"a": self.matrix(ACT, rows, cols, signed=True), "dst": self.matrix(ERR, rows, cols),
                "b": self.matrix(VEC, 1, rows)}

    # --- vector unit ------------------------------------------------------------------------------

    def _residual(self) -> tuple[Form, Form, int, int]:
        """Forms of a shortcut's input and result, and their channels."""
        large, channels = self.frame(), sorted((self.channels(), self.channels()))
        if self.rng.random() < 0.3:
            channels[0] = channels[1]
        return large, halved(large) if self.rng.random() < 0.5 else large, channels[0], channels[1]

    def _add(self, flags: int) -> Fields:
        large, small, few, many = self._residual()
        fields = {"a": self.matrix(ACT, small.rows, many)}
        if flags & Flag.PAIR:
            fields["b"] = self.image(ACT, large, few)
        fields["dst"] = self.image(ACT, small, many, avoid=set(fields.values()))
        return fields | self._scalars(flags, c=Flag.BIAS, d=Flag.SCALAR)

    def _addb(self, flags: int) -> Fields:
        large, small, few, many = self._residual()
        fields = {"a": self.matrix(ERR, large.rows, few)}
        if flags & Flag.PAIR:
            fields["b"] = self.image(ERR, small, many)
        fields["dst"] = self.image(ERR, large, few, avoid=set(fields.values()))
        return fields | self._mask(flags, large, few) | self._scalars(flags, d=Flag.SCALAR)

    def _sum(self, flags: int) -> Fields:
        rows, cols = (self.frame().rows if self.rng.random() < 0.7 else self.size()), self.channels()
        fields = {"dst": self._scalar(), "b": self.matrix(ERR, rows, cols), "c": self._scalar(MOM), "imm": self._rate()}
        return fields | ({"a": self.matrix(ACT, rows, cols)} if flags & Flag.PAIR else {})

    def _avg(self, flags: int) -> Fields:
        large, cols = self.frame(), self.channels()
        a = self.image(ACT, large, cols)
        return {"a": a, "dst": self.image(ACT, Form(large.planes), cols, avoid={a})}

    def _avgb(self, flags: int) -> Fields:
        large, cols = self.frame(), self.channels()
        a = self.image(ERR, Form(large.planes), cols)
        return {"a": a, "dst": self.image(ERR, large, cols, avoid={a})} | self._mask(flags, large, cols)

    def _pooling(self) -> tuple[Form, Form, int]:
        """Forms of a maximum's input and result, and their channels."""
        small = halved(self.frame())
        return Form(small.planes, 2 * small.height, 2 * small.width), small, self.channels()

    def _max(self, flags: int) -> Fields:
        large, small, cols = self._pooling()
        return {"a": self.image(ACT, large, cols), "dst": self.image(ACT, small, cols)}

    def _maxb(self, flags: int) -> Fields:
        large, small, cols = self._pooling()
        return {"a": self.image(ERR, small, cols), "dst": self.image(ERR, large, cols),
                "b": self.image(ACT, large, cols)}
