"""Walks the pixels of a stack of images, in line order."""

from amaranth.hdl import Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.geometry import Steps
from shiftgrad.config import WORD_BITS

__all__ = ["PixelWalker", "Place"]


class Place(data.Struct):
    """A pixel: its word address and those of its line and image, its count in both, and where it lies."""

    pixel: unsigned(WORD_BITS)
    line: unsigned(WORD_BITS)
    image: unsigned(WORD_BITS)
    count_x: unsigned(8)
    count_y: unsigned(8)
    x: signed(10)
    y: signed(10)


class PixelWalker(wiring.Component):
    """The pixel after the present one, every cycle; can come back to a pixel kept before.

    Members
    -------
    steps : In(Steps)             word addresses; all inputs of this group are static while it walks
    flat : In(1)                  a single endless line
    last_x, last_y : In           pixels of a line and lines of an image, less 1
    x, y : In(signed 5)           where the first pixel lies
    step_x, step_y : In(1)        from one pixel to the next, less 1
    home : In(1)                  go to the first pixel
    step : In(1)                  go to the next pixel, or
    back : In(1)                  with ``step``: to the pixel kept
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
            "home": In(1),
            "step": In(1),
            "back": In(1),
            "keep": In(1),
            "place": Out(Place),
        })

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        steps, place = self.steps, self.place
        first, after, kept, target = (Place(Signal(Place, name=name)) for name in ("first", "after", "kept", "target"))
        line, image = Signal(WORD_BITS), Signal(WORD_BITS)
        m.d.comb += [
            first.pixel.eq(steps.start), first.line.eq(steps.start), first.image.eq(steps.start),
            first.x.eq(self.x), first.y.eq(self.y),
            line.eq(place.line + steps.line), image.eq(place.image + steps.image),
            after.eq(place), after.x.eq(self.x), after.count_x.eq(0),
        ]
        with m.If(self.flat | (place.count_x != self.last_x)):
            m.d.comb += [
                after.pixel.eq(place.pixel + steps.pixel), after.count_x.eq(place.count_x + 1),
                after.x.eq(place.x + self.step_x + 1),
            ]
        with m.Elif(place.count_y != self.last_y):
            m.d.comb += [
                after.pixel.eq(line), after.line.eq(line), after.count_y.eq(place.count_y + 1),
                after.y.eq(place.y + self.step_y + 1),
            ]
        with m.Else():
            m.d.comb += [
                after.pixel.eq(image), after.line.eq(image), after.image.eq(image), after.count_y.eq(0),
                after.y.eq(self.y),
            ]
        m.d.comb += target.eq(Mux(self.home, first, Mux(self.back, kept, after)))
        with m.If(self.home | self.step):
            m.d.sync += place.eq(target)
            with m.If(self.keep):
                m.d.sync += kept.eq(target)
        return m
