"""Registers and memory windows: everything a host can reach."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.bus import HostBus
from hw.decoder import Instruction
from hw.logic import one_of, register
from hw.memory import READ_LATENCY, WRITE_DELAY, HostWord
from shiftgrad.config import MEMORIES, WORD_BITS, Config
from shiftgrad.isa import (
    COUNTERS,
    KNOWS_UNSIGNED,
    LFSR_BASE,
    LOADABLE,
    LOADS_WHILE_BUSY,
    MAGIC,
    REGISTERS,
    Region,
    Status,
)

__all__ = ["HostInterface"]


class HostInterface(wiring.Component):
    """Target of the host bus.

    Registers answer at any time, and so do writes to the memories of ``LOADABLE``. All else in program, table, memories
    and generators answers ``error`` while the machine is busy, as do addresses that do not exist or are no multiple of
    4, writes of a part (of a lane in a memory, of a word elsewhere), and the wrong direction for a register. Writes
    take four cycles, those to a memory five and while the machine writes there itself; reads of memories and generators
    T + READ_LATENCY + 8, others 20, from ``valid`` to ``ready``.

    Members
    -------
    bus : In(HostBus)
    busy, status, pc, retired, saturated, loss, correct, samples, counters, seed_state : In   register values
    start, abort, clear : Out(1)      pulses from CTRL, a cycle after the write
    start_pc, lr_shift : Out
    seed_load : Out(T)                lane n's generator takes the data of ``m_word[n]``
    p_addr, p_data : In/Out           program memory for the sequencer
    t_id, t_word, t_write, t_data, t_r_data   tensor table window
    m_read : Out                      window read of a memory, one bit each in the order of MEMORIES
    m_write : Out                     a window write waits, until ``m_granted``: it happens in the cycle after that
    m_granted : In(1)
    m_addr : Out(17)                  word of either
    m_word : Out                      write data at each lane
    m_data : In                       read data of each memory, lanes concatenated
    """

    def __init__(self, *, config: Config) -> None:
        self.config = config
        self.widths = {memory: config.size * 8 * config.lane_bytes(memory) for memory in MEMORIES}
        super().__init__({
            "bus": In(HostBus()),
            "busy": In(1),
            "status": In(Status),
            "pc": In(16),
            "retired": In(32),
            "saturated": In(32),
            "loss": In(32),
            "correct": In(16),
            "samples": In(16),
            "counters": In(data.ArrayLayout(unsigned(48), len(COUNTERS))),
            "seed_state": In(data.ArrayLayout(unsigned(32), config.size)),
            "start": Out(1),
            "abort": Out(1),
            "clear": Out(1),
            "start_pc": Out(16),
            "lr_shift": Out(6),
            "seed_load": Out(config.size),
            "p_addr": In(16),
            "p_data": Out(Instruction),
            "t_id": Out(8),
            "t_word": Out(3),
            "t_write": Out(1),
            "t_data": Out(32),
            "t_r_data": In(32),
            "m_read": Out(len(MEMORIES)),
            "m_write": Out(len(MEMORIES)),
            "m_granted": In(1),
            "m_addr": Out(WORD_BITS),
            "m_word": Out(data.ArrayLayout(HostWord, config.size)),
            "m_data": In(data.StructLayout({name: unsigned(width) for name, width in self.widths.items()})),
        })

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        config, bus = self.config, self.bus
        addr, w_data, strobe, write = (
            Signal(bits, name=name) for name, bits in (("addr", 24), ("w_data", 32), ("strobe", 4), ("write", 1)))
        legal, window, at_any_time = Signal(), Signal(), Signal()
        self.runs = register(m, self.busy | self.start, "runs")  # near the host; no later than ``busy`` when it begins
        register_data = Signal(32)
        select = Signal(4)
        wait, waited = Signal(range(64)), Signal()  # ``waited``: no cycles are left
        m.d.sync += [addr.eq(bus.addr), w_data.eq(bus.w_data), strobe.eq(bus.strobe), write.eq(bus.write),
                     waited.eq(wait == 1)]
        region = addr[20:]

        m.submodules.program = program = Memory(shape=64, depth=config.program_words, init=[])
        p_read, p_write = program.read_port(), program.write_port(granularity=32)
        p_data = Signal(64, reset_less=True)  # block RAMs have this register
        m.d.sync += p_data.eq(p_read.data)
        go = Signal()  # a legal access happens in this cycle
        self.load = Signal(config.size)  # it is a write of a generator
        m.d.comb += [
            p_read.addr.eq(Mux(self.busy, self.p_addr, addr[3:19])),
            self.p_data.eq(p_data),
            p_write.addr.eq(addr[3:19]),
            p_write.data.eq(w_data.replicate(2)),
            self.t_id.eq(addr[5:13]),
            self.t_word.eq(addr[2:5]),
            self.t_data.eq(w_data),
        ]
        # what leaves for far away does so a cycle late; the bus holds address and data as long
        window_word = Signal(WORD_BITS)
        on = {each: register(m, region == each, f"on_{each.name.lower()}") for each in Region}
        puts = [register(m, write & (region == Region.PROGRAM) & (addr[2] == half), f"puts{half}") for half in (0, 1)]
        m.d.comb += self.t_write.eq(go & write & on[Region.TABLE])
        m.d.sync += [
            self.m_addr.eq(window_word), p_write.en.eq(Cat(go & half for half in puts)),
            self.m_read.eq(Cat(go & ~write & on[Region[memory.upper()]] for memory in MEMORIES)),
        ]
        whole = strobe == 0xF  # program, table and registers take whole words only
        lanes_whole = ~write | ((strobe[0] == strobe[1]) & (strobe[2] == strobe[3]))

        # outside of the switch: a register that only changes in one region has the region in its path
        here, begins = region == Region.REGISTERS, Signal()
        put = register(m, go & write & on[Region.REGISTERS], "put_register", resets=True)
        register_legal = self._registers(m, addr, w_data, whole, put, write, begins, register_data)
        with m.Switch(region):
            with m.Case(Region.REGISTERS):
                m.d.comb += legal.eq(register_legal)
            with m.Case(Region.PROGRAM):
                m.d.comb += [
                    window.eq(1),
                    legal.eq((addr[3:20] < config.program_words) & (whole | ~write)),
                ]
            with m.Case(Region.TABLE):
                m.d.comb += [
                    window.eq(1),
                    legal.eq((addr[5:20] < config.tensors) & (whole | ~write)),
                ]
            for memory in MEMORIES:
                shift = (config.pitch(memory) - 1).bit_length()
                with m.Case(Region[memory.upper()]):
                    word = addr[shift:20]
                    m.d.comb += [
                        window.eq(1),
                        legal.eq((word < config.words(memory)) & (lanes_whole if memory == "vec" else 1)),
                        at_any_time.eq(write if memory in LOADABLE else 0),
                        window_word.eq(word),
                        select.eq(addr[2:shift]),
                    ]

        m.d.sync += [bus.ready.eq(0), bus.error.eq(0), bus.r_data.eq(0)]
        read_data = Signal(32)
        lanes = Signal()  # what is read is in the lanes; there before the access happens
        m.d.sync += lanes.eq((region >= Region.ACT) | ((region == Region.REGISTERS) & (addr[:20] >= LFSR_BASE)))
        self._read_mux(m, on, addr, lanes, self._lane_word(m, region, addr, select), p_data, register_data, read_data)
        allowed, to_memory, refused = Signal(), Signal(), Signal()
        m.d.sync += [
            allowed.eq(legal & (addr[:2] == 0)), to_memory.eq(write & (region >= Region.ACT)),
            refused.eq(self.runs & ((window & ~at_any_time) | (here & begins))),
        ]
        with m.FSM():
            with m.State("IDLE"):
                with m.If(bus.valid & ~bus.ready):
                    m.next = "DECODE"
            with m.State("DECODE"):
                m.next = "ACCESS"
            with m.State("ACCESS"):
                m.next = "IDLE"
                with m.If(~allowed | refused):
                    m.d.sync += [bus.ready.eq(1), bus.error.eq(1)]
                with m.Elif(to_memory):
                    m.d.sync += self.m_write.eq(Cat(on[Region[memory.upper()]] for memory in MEMORIES))
                    m.next = "OFFER"
                with m.Elif(write):
                    m.d.comb += go.eq(1)
                    m.d.sync += bus.ready.eq(1)
                with m.Else():
                    m.d.comb += go.eq(1)
                    m.d.sync += wait.eq(Mux(lanes, READ_LATENCY + config.size + 3, 15))
                    m.next = "READ"
            with m.State("OFFER"):
                with m.If(self.m_granted):
                    m.d.sync += [self.m_write.eq(0), bus.ready.eq(1)]
                    m.next = "IDLE"
            with m.State("READ"):
                m.d.sync += wait.eq(wait - 1)
                with m.If(waited):
                    m.d.sync += [bus.ready.eq(1), bus.r_data.eq(read_data)]
                    m.next = "IDLE"

        word = HostWord(Signal(HostWord, name="host_word"))
        m.d.comb += [word.data.eq(w_data), word.strobe.eq(strobe), word.select.eq(select)]
        self._words(m, word)
        return m

    def _words(self, m: Module, word: data.View) -> None:
        """What is written, past the lanes: memories take it from there, and so do generators."""
        loads: Value = self.load
        for stage in range(WRITE_DELAY + self.config.size - 1):
            rippled = Signal(HostWord, name=f"host_word{stage}")
            m.d.sync += rippled.eq(word)
            word, loads = rippled, register(m, loads, f"load{stage}", resets=True)
            if (lane := stage + 1 - WRITE_DELAY) >= 0:
                m.d.comb += [self.m_word[lane].eq(word), self.seed_load[lane].eq(loads[lane])]

    def _registers(self, m: Module, addr: Signal, data_in: Signal, whole: Signal, put: Signal, write: Signal,
                   begins: Signal, read: Signal) -> Signal:
        """``put``: a legal write of one happened a cycle ago. Returns whether the access is legal.

        But for one that starts the machine, which ``begins`` says: while it runs that is none.
        """
        legal = Signal(name="register_legal")
        size = self.config.size
        config_word = size | ((self.config.tensors - 1).bit_length() << 8) | LOADS_WHILE_BUSY
        config_word |= KNOWS_UNSIGNED * self.config.unsigned
        values = {
            "MAGIC": MAGIC, "CONFIG": config_word, "STATUS": Cat(self.busy, Const(0, 7), self.status),
            "PC": self.pc, "START_PC": self.start_pc, "LR_SHIFT": self.lr_shift, "RETIRED": self.retired,
            "LOSS": self.loss, "CORRECT": self.correct, "SAMPLES": self.samples, "SATURATED": self.saturated,
        }
        for i, name in enumerate(COUNTERS):
            values[f"{name}_LO"], values[f"{name}_HI"] = self.counters[i][:32], self.counters[i][32:]
        self._register(m, addr, values, read)
        m.d.sync += [self.start.eq(0), self.abort.eq(0), self.clear.eq(0)]
        page = addr[9:20] == 0
        for lane in range(size):  # the address has been there for two cycles
            here = register(m, addr[:9] == LFSR_BASE + 4 * lane, f"generator{lane}")
            m.d.comb += self.load[lane].eq(put & here)
        ctrl, start_pc, lr_shift = (
            put & register(m, addr[:9] == entry.address, f"on_{name}")
            for name in ("CTRL", "START_PC", "LR_SHIFT") for entry in REGISTERS if entry.name == name)
        with m.If(ctrl):
            m.d.sync += [self.start.eq(data_in[0] & ~data_in[1]), self.abort.eq(data_in[1]), self.clear.eq(data_in[2])]
        with m.If(start_pc):
            m.d.sync += self.start_pc.eq(data_in)
        with m.If(lr_shift):
            m.d.sync += self.lr_shift.eq(data_in)
        with m.Switch(addr[:9]):
            for entry in REGISTERS:
                lane = (entry.address - LFSR_BASE) // 4
                if lane >= size:
                    continue
                with m.Case(entry.address):
                    m.d.comb += legal.eq(page & Mux(write, whole & ("w" in entry.access), "r" in entry.access))
                    if lane >= 0:
                        m.d.comb += legal.eq(page & ~self.runs & (whole | ~write))
                    if entry.name == "CTRL":
                        m.d.comb += begins.eq(data_in[0] & ~data_in[1])
        return legal

    def _register(self, m: Module, addr: Signal, values: dict[str, object], read: Signal) -> None:
        """The register's value, 10 cycles after its address: one of four neighbours, of four such groups, and so on."""
        level = {entry.address // 4: values[entry.name] for entry in REGISTERS if entry.name in values}
        index = register(m, addr[2:9], "index")
        while len(index):
            groups: dict[int, dict[int, object]] = {}
            for number, value in level.items():
                groups.setdefault(number // 4, {})[number % 4] = value
            level = {}
            for group, members in groups.items():  # counters are far apart
                if group % 2:
                    index = register(m, index, f"index{len(index)}_{group}", init=group)  # like no other register
                level[group] = self._one_of(m, index[:2], members, f"{len(index)}_{group}")
            index = index[2:]
        m.d.comb += read.eq(level[0])

    def _one_of(self, m: Module, index: Value, values: dict[int, object], name: str) -> Signal:
        chosen = Signal(32, name=f"group{name}")
        with m.Switch(index):
            for number, value in values.items():
                with m.Case(number):
                    m.d.sync += chosen.eq(value)
            with m.Default():
                m.d.sync += chosen.eq(0)
        return chosen

    def _lane_word(self, m: Module, region: Value, addr: Signal, select: Signal) -> Value:
        """The word read from memories or generators: it ripples past the lanes, and each puts its part in.

        So does what is read; that is there long before the data.
        """
        word, asked = Const(0, 32), Cat(region, addr[2:8], select)
        for lane in range(self.config.size):
            asked = register(m, asked, f"asked{lane}")
            region, number, select = asked[:4], asked[4:10], asked[10:]
            seed = register(m, (region == Region.REGISTERS) & (number == lane), f"asked_seed{lane}")
            part = self.seed_state[lane] & seed.replicate(32)
            for memory in MEMORIES:
                bits = 8 * self.config.lane_bytes(memory)
                place, index = lane % (32 // bits), lane // (32 // bits)
                wanted = register(m, (region == Region[memory.upper()]) & (select == index), f"asked_{memory}{lane}")
                value = getattr(self.m_data, memory).word_select(lane, bits) & wanted.replicate(bits)
                part = part | (value << bits * place)
            word = register(m, word | register(m, part[:32], f"lane_part{lane}"), f"lane_word{lane}")
        return word

    def _read_mux(self, m: Module, on: dict[Region, Signal], addr: Signal, lanes: Signal, lane_word: Value,
                  program: object, register_data: Signal, read: Signal) -> None:
        """One of four, long after the address."""
        on_program, on_table = on[Region.PROGRAM], on[Region.TABLE]
        on_register = register(m, ~lanes & ~on_program & ~on_table, "on_register")
        half, entry = Signal(32), Signal(32)
        m.d.sync += [
            half.eq(Mux(addr[2], program[32:], program[:32])),  # type: ignore[index]
            entry.eq(self.t_r_data),
            read.eq(one_of([(lanes, lane_word), (on_program, half), (on_table, entry),
                            (on_register, register(m, register_data, "register_value"))])),
        ]
