"""The machine's internal host bus: what AXI4-Lite, the UART link and the benches all drive."""

from amaranth.lib.wiring import In, Out, Signature

__all__ = ["HostBus"]


class HostBus(Signature):
    """One outstanding 32-bit access, seen from the initiator.

    Members
    -------
    valid : Out(1)    request; it and all other outputs hold until ``ready``
    write : Out(1)    1 writes, 0 reads
    addr : Out(24)    byte address, a multiple of 4 (others answer ``error``)
    w_data : Out(32)  data to write
    strobe : Out(4)   bytes of ``w_data`` to write
    ready : In(1)     the access completes in this cycle (at least one cycle after ``valid`` rises)
    r_data : In(32)   data read, valid with ``ready``
    error : In(1)     valid with ``ready``: nothing was read or written (no such address, or the machine is busy)
    """

    def __init__(self) -> None:
        super().__init__({
            "valid": Out(1),
            "write": Out(1),
            "addr": Out(24),
            "w_data": Out(32),
            "strobe": Out(4),
            "ready": In(1),
            "r_data": In(32),
            "error": In(1),
        })
