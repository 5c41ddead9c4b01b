"""A pass: every tile of a product, one after the other, column tiles outer."""

from hw.small.assembler import Assembler, Op, Port, Read
from hw.small.lane import LANES

__all__ = ["pass_routines"]


def pass_routines(code: Assembler) -> None:
    """Routines ``pass`` and ``wait``."""
    _pass(code)
    _column(code)
    _tiles(code)
    _wait(code)


def _pass(code: Assembler) -> None:
    """What is the same for all tiles, then column tiles."""
    code.enter("pass")
    for port, name in ((Port.MODE, "mode"), (Port.CLEAR, "mode"), (Port.A_STEP, "a.stride"), (Port.A_WRAP, "a.wrap"),
                       (Port.B_STEP, "b.stride"), (Port.B_WRAP, "b.wrap"), (Port.TERMS, "terms")):
        code.out(port, name)
    code.load("dst.stride")
    code.out(Port.ROW_STEP)
    code.emit(Op.SHL, 0, 0)
    code.store("block")
    code.move("m.x", "dst.stride")
    code.load("dst.rows")
    code.emit(Op.ANI, LANES - 1)
    code.store("m.y")
    code.call("multiply")
    code.store("block.last")
    code.move("b.at", "b.base")
    code.move("d.column", "dst.base")
    code.load("c.base")
    code.add("offset")
    code.sub("dst.stride")
    code.store("c.column")
    code.move("v.at", "vector")
    code.move("columns", "dst.cols")
    code.label("pass.column")
    code.call("column")
    for name, step in (("b.at", "b.tile"), ("v.at", "vector.step"), ("d.column", 1), ("c.column", 1),
                       ("columns", -LANES)):
        code.load(name)
        code.add(step)
        code.store(name)
    code.add(-1)
    code.jump("pass.column", when=Op.JP)
    code.call("wait")
    code.leave("pass")


def _column(code: Assembler) -> None:
    """The row tiles of a column tile."""
    code.enter("column")
    all_columns = code.local()
    code.load("columns")
    code.store("tile")
    code.add(-LANES)
    code.jump(all_columns, when=Op.JN)
    code.move("tile", LANES)
    code.label(all_columns)
    code.load("v.at")
    code.emit(Op.SHL, 0, 0, 0)
    code.emit(Op.OR, "tile")
    code.emit(Op.SHL, 0, 0, 0)
    code.store("tile")
    code.move("a.at", "a.base")
    code.move("d.at", "d.column")
    code.move("c.at", "c.column")
    code.move("rows", "dst.rows")


def _tiles(code: Assembler) -> None:
    """Everything of a tile is ready before the one under way is done."""
    whole, go, start, busy = (code.local() for _ in range(4))
    code.label("tile.next")
    code.load("rows")
    code.add(-LANES)
    code.store("rows")
    code.jump(whole, when=Op.JP)
    code.add(LANES)
    _prepare(code, "block.last")
    code.jump(go)
    code.label(whole)
    code.load(LANES)
    _prepare(code, "block")
    code.label(go)
    code.read(Read.TILE)
    code.jump(busy, when=Op.JNZ)
    code.label(start)
    for port, name in ((Port.A_ADDR, "a.at"), (Port.B_ADDR, "b.at"), (Port.D_ADDR, "d.at"), (Port.C_ADDR, "c.at"),
                       (Port.TILE, "t.tile")):
        code.out(port, name)
    code.load("a.at")
    code.add("a.tile")
    code.store("a.at")
    code.load("rows")
    code.add(-1)
    code.jump("tile.next", when=Op.JP)
    code.leave("column")
    code.label(busy)
    code.read(Read.REQUEST)
    code.jump(go, when=Op.JZ)
    code.call("wait")
    code.jump(start)


def _prepare(code: Assembler, block: str) -> None:
    """A tile of A rows, ``block`` words."""
    code.add("tile")
    code.store("t.tile")
    for name in ("d.at", "c.at"):
        code.load(name)
        code.add(block)
        code.store(name)


def _wait(code: Assembler) -> None:
    """Until the tile under way is done; serves the bus; ends the program when that aborts it."""
    again, done = code.local(), code.local()
    code.enter("wait")
    code.label(again)
    code.read(Read.TILE)
    code.jump(done, when=Op.JZ)
    code.read(Read.REQUEST)
    code.jump(again, when=Op.JZ)
    code.call("serve")
    code.jump(again)
    code.label(done)
    code.load("abort")
    code.jump("stop.ABORTED", when=Op.JNZ)
    code.leave("wait")
