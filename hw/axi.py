"""AXI4-Lite in front of the host bus."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.bus import HostBus

__all__ = ["OKAY", "SLVERR", "AxiLite"]

OKAY, SLVERR = 0b00, 0b10


class AxiLite(wiring.Component):
    """AXI4-Lite subordinate that turns each transfer into one access of the host bus.

    Address and data of a write may come in either order. One access is under way at a time; when a write and a read
    wait, they take turns. Each channel takes one transfer in advance. An access the bus refuses answers SLVERR, and a
    refused read's data is 0. Protection bits are ignored, and so are the two low address bits: strobes say which bytes
    of the word are meant. No AXI output depends on an AXI input in the same cycle.

    Members
    -------
    s_axi_aw*, s_axi_w*, s_axi_b*, s_axi_ar*, s_axi_r* : the five channels; 24-bit byte address, 32-bit data
    bus : Out(HostBus)

    Latency: a bus access starts two cycles after its last AXI handshake; its response is valid the cycle after
    ``bus.ready``.
    """

    latency = 2

    def __init__(self) -> None:
        super().__init__({
            "s_axi_awaddr": In(24),
            "s_axi_awprot": In(3),
            "s_axi_awvalid": In(1),
            "s_axi_awready": Out(1),
            "s_axi_wdata": In(32),
            "s_axi_wstrb": In(4),
            "s_axi_wvalid": In(1),
            "s_axi_wready": Out(1),
            "s_axi_bresp": Out(2),
            "s_axi_bvalid": Out(1),
            "s_axi_bready": In(1),
            "s_axi_araddr": In(24),
            "s_axi_arprot": In(3),
            "s_axi_arvalid": In(1),
            "s_axi_arready": Out(1),
            "s_axi_rdata": Out(32),
            "s_axi_rresp": Out(2),
            "s_axi_rvalid": Out(1),
            "s_axi_rready": In(1),
            "bus": Out(HostBus()),
        })

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        bus = self.bus
        done_write, done_read = Signal(), Signal()

        aw_full, aw_addr = self._accept(m, "aw", self.s_axi_awaddr, done_write)
        w_full, w_word = self._accept(m, "w", Cat(self.s_axi_wdata, self.s_axi_wstrb), done_write)
        ar_full, ar_addr = self._accept(m, "ar", self.s_axi_araddr, done_read)

        response = Mux(bus.error, SLVERR, OKAY)
        self._respond(m, "b", done_write, {"resp": response})
        self._respond(m, "r", done_read, {"resp": response, "data": Mux(bus.error, 0, bus.r_data)})

        m.d.comb += [
            bus.addr.eq(Cat(Const(0, 2), Mux(bus.write, aw_addr, ar_addr)[2:])),
            Cat(bus.w_data, bus.strobe).eq(w_word),
            done_write.eq(bus.valid & bus.ready & bus.write),
            done_read.eq(bus.valid & bus.ready & ~bus.write),
        ]
        can_write = aw_full & w_full & ~self.s_axi_bvalid
        can_read = ar_full & ~self.s_axi_rvalid
        # buffers are empty after their access, so whoever waits is next: the directions take turns
        with m.If(~bus.valid):
            m.d.sync += [bus.valid.eq(can_write | can_read), bus.write.eq(can_write)]
        with m.Elif(bus.ready):
            m.d.sync += bus.valid.eq(0)
        return m

    def _accept(self, m: Module, channel: str, payload: object, done: Signal) -> tuple[Signal, Signal]:
        """Buffer of one transfer, emptied by ``done``."""
        valid, ready = getattr(self, f"s_axi_{channel}valid"), getattr(self, f"s_axi_{channel}ready")
        full = Signal(name=f"{channel}_full")
        kept = Signal(len(payload), name=f"{channel}_kept")  # type: ignore[arg-type]
        m.d.comb += ready.eq(~full)
        with m.If(valid & ready):
            m.d.sync += [full.eq(1), kept.eq(payload)]
        with m.Elif(done):
            m.d.sync += full.eq(0)
        return full, kept

    def _respond(self, m: Module, channel: str, done: Signal, values: dict[str, object]) -> None:
        """Offer a response from ``done`` until it is taken."""
        valid, ready = getattr(self, f"s_axi_{channel}valid"), getattr(self, f"s_axi_{channel}ready")
        with m.If(done):
            m.d.sync += valid.eq(1)
            m.d.sync += [getattr(self, f"s_axi_{channel}{name}").eq(value) for name, value in values.items()]
        with m.Elif(ready):
            m.d.sync += valid.eq(0)
