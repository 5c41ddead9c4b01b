"""Walks the pixels of a stack of images, in line order."""

from amaranth.hdl import Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.geometry import Steps
from shiftgrad.config import WORD_BITS

__all__ = ["PixelWalker", "Place"]


class Place(data.Struct):
    """A pixel: its word address, and where it lies."""

    pixel: unsigned(WORD_BITS)
    x: signed(10)
    y: signed(10)


class _State(data.Struct):
    """A place, the first pixels of the next line and of the next image, and how many pixels and lines follow.

    ``x_end`` and ``y_end`` say that it is the last pixel of its line, and the last line of its image.
    """

    place: Place
    line: unsigned(WORD_BITS)
    image: unsigned(WORD_BITS)
    left_x: unsigned(8)
    left_y: unsigned(8)
    x_end: unsigned(1)
    y_end: unsigned(1)


class PixelWalker(wiring.Component):
    """The pixel after the present one, every cycle; can come back to a pixel kept before.

    Members
    -------
    steps : In(Steps)             word addresses; all inputs of this group are static from the cycle before ``home`` on
    flat : In(1)                  a single endless line
    last_x, last_y : In           pixels of a line and lines of an image, less 1
    x, y : In(signed 5)           where the first pixel lies
    step_x, step_y : In(1)        from one pixel to the next, less 1
    home : In(2)                  go to the first pixel: both bits, from registers apart, for half of the state each
    step : In(1)                  go to the next pixel, or
    back : In(1)                  with ``step``: to the pixel kept, not in the cycle after it was
    keep : In(1)                  with ``home`` or ``step``: keep the pixel gone to
    place : Out(Place)            present pixel
    """

    def __init__(self) -> None:
        super().__init__({
            "steps": In(Steps),
            "flat": In(1),
            "last_x": In(8),
            "last_y": In(8),
            "x": In(signed(5)),
            "y": In(signed(5)),
            "step_x": In(1),
            "step_y": In(1),
            "home": In(2, init=0b10),  # another start keeps the registers apart
            "step": In(1),
            "back": In(1),
            "keep": In(1),
            "place": Out(Place),
        })

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        here, first, after, kept, target = (
            _State(Signal(_State, name=name)) for name in ("here", "first", "after", "kept", "target"))
        self._first(m, first)
        self._after(m, here, after)
        m.d.comb += self.place.eq(here.place)
        keep = Signal()  # a cycle late: what is kept is where it is
        m.d.sync += keep.eq((self.home[0] | self.step) & self.keep)
        for name, _ in data.Layout.cast(_State):
            home = self.home[name != "place"]
            m.d.comb += target[name].eq(Mux(home, first[name], Mux(self.back, kept[name], after[name])))
            with m.If(home | self.step):
                m.d.sync += here[name].eq(target[name])
        with m.If(keep):
            m.d.sync += kept.eq(here)
        return m

    def _first(self, m: Module, first: data.View) -> None:
        """The first pixel, in registers."""
        steps = self.steps
        m.d.sync += [
            first.place.pixel.eq(steps.start), first.place.x.eq(self.x), first.place.y.eq(self.y),
            first.line.eq(steps.start + steps.line), first.image.eq(steps.start + steps.image),
            first.left_x.eq(self.last_x), first.left_y.eq(self.last_y),
            first.x_end.eq(~self.flat & (self.last_x == 0)), first.y_end.eq(self.last_y == 0),
        ]
        self.first = first

    def _after(self, m: Module, here: data.View, after: data.View) -> None:
        """The next pixel: every sum starts at a register, and is selected by registers."""
        steps, first, place = self.steps, self.first, here.place
        m.d.comb += after.eq(here)
        with m.If(~here.x_end):
            m.d.comb += [
                after.place.pixel.eq(place.pixel + steps.pixel), after.place.x.eq(place.x + self.step_x + 1),
                after.left_x.eq(here.left_x - 1), after.x_end.eq(~self.flat & (here.left_x == 1)),
            ]
        with m.Else():
            m.d.comb += [
                after.place.pixel.eq(here.line), after.place.x.eq(self.x), after.left_x.eq(self.last_x),
                after.x_end.eq(first.x_end), after.line.eq(here.line + steps.line),
                after.place.y.eq(place.y + self.step_y + 1), after.left_y.eq(here.left_y - 1),
                after.y_end.eq(here.left_y == 1),
            ]
            with m.If(here.y_end):
                m.d.comb += [
                    after.place.pixel.eq(here.image), after.line.eq(here.image + steps.line),
                    after.image.eq(here.image + steps.image), after.place.y.eq(self.y),
                    after.left_y.eq(self.last_y), after.y_end.eq(first.y_end),
                ]
