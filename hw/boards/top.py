"""A machine behind a serial link, alone (for simulation) and on a board."""

from amaranth.hdl import ClockDomain, ClockSignal, Elaboratable, Instance, Module, Signal
from amaranth.lib import io
from amaranth.lib.wiring import Component, In, Out, connect

from hw.boards.board import Board
from hw.boards.ecp5_pll import PLL
from hw.link import LinkTarget
from shiftgrad.isa import Status

__all__ = ["BoardTop", "LinkedCore", "simulated_board"]


class LinkedCore(Component):
    """The machine and its serial link at the board's clock and bit rate; all of a board that can be simulated.

    Parameters
    ----------
    core : component with ``bus : In(HostBus)``, ``busy``, ``status`` and perhaps ``retired`` outputs
    clock_hz, baud : see :class:`hw.link.LinkTarget`

    Members
    -------
    rx, tx : In(1), Out(1)   serial lines, idle at 1
    busy : Out(1)            the machine runs
    error : Out(1)           it stopped with an error status
    retired : Out            the core's output of that name; 1 bit of 0 when it has none
    """

    def __init__(self, *, core: Component, clock_hz: int, baud: int) -> None:
        self.core, self.clock_hz, self.baud = core, clock_hz, baud
        width = len(core.retired) if "retired" in core.signature.members else 1
        super().__init__({"rx": In(1), "tx": Out(1, init=1), "busy": Out(1), "error": Out(1), "retired": Out(width)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.core = core = self.core
        m.submodules.link = link = LinkTarget(clock_hz=self.clock_hz, baud=self.baud)
        connect(m, link.bus, core.bus)
        m.d.comb += [
            link.rx.eq(self.rx), self.tx.eq(link.tx),
            self.busy.eq(core.busy), self.error.eq(core.status >= Status.ILLEGAL_OPCODE),
        ]
        if "retired" in core.signature.members:
            m.d.comb += self.retired.eq(core.retired)
        return m


def simulated_board(*, board: Board, core: Component) -> LinkedCore:
    """All of ``board`` but PLL and pins, at its clock and bit rate; its Verilog has clk, rst and the ports."""
    return LinkedCore(core=core, clock_hz=board.clock_hz, baud=board.baud)


class BoardTop(Elaboratable):
    """A board: oscillator, PLL, clock held until it locks, serial pins and LEDs around :class:`LinkedCore`.

    Parameters
    ----------
    board : pins and clocks
    core : see :class:`LinkedCore`
    """

    def __init__(self, *, board: Board, core: Component) -> None:
        self.board, self.core = board, core

    def elaborate(self, platform) -> Module:  # noqa: ANN001
        m = Module()
        board = self.board
        self.clocks(m, platform)
        m.submodules.machine = machine = simulated_board(board=board, core=self.core)

        uart = platform.request(board.uart, dir=_undirected(platform, board.uart))
        m.submodules.rx = rx = io.Buffer("i", uart.rx)
        m.submodules.tx = tx = io.Buffer("o", uart.tx)
        m.d.comb += [machine.rx.eq(rx.i), tx.o.eq(machine.tx)]
        for number, value in zip(board.leds, (machine.busy, machine.error), strict=True):
            m.submodules[f"led{number}"] = led = io.Buffer("o", platform.request("led", number, dir="-"))
            m.d.comb += led.o.eq(value)
        for resource, pin in board.drive_high:
            port = getattr(platform.request(resource, dir=_undirected(platform, resource)), pin)
            m.submodules[f"{resource}_{pin}"] = high = io.Buffer("o", port)
            m.d.comb += high.o.eq(1)
        return m

    def clocks(self, m: Module, platform) -> None:  # noqa: ANN001
        """The domain ``sync``, at the board's frequency."""
        board = self.board
        m.submodules.oscillator = oscillator = io.Buffer("i", platform.request(board.oscillator, dir="-"))
        m.submodules.pll = pll = PLL(input_hz=board.oscillator_hz, output_hz=board.clock_hz)
        # registers start from the bitstream; a reset net to all of them would cost more routing than everything else
        m.domains.sync = ClockDomain(reset_less=True)
        clock = Signal()
        m.submodules.clock_gate = Instance("DCCA", i_CLKI=pll.clock, i_CE=pll.locked, o_CLKO=clock)
        m.d.comb += [pll.clock_in.eq(oscillator.i), ClockSignal("sync").eq(clock)]


def _undirected(platform, resource: str) -> dict[str, str]:  # noqa: ANN001
    """Ask for a resource's bare ports."""
    return {sub.name: "-" for sub in platform.lookup(resource).ios if hasattr(sub, "ios")}
