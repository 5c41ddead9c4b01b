"""What is instantiated on an iCE40 equals its portable form, by Yosys's models of the cells."""

import pytest
from amaranth.hdl import Fragment, Module, Signal

from hw.boards import ice40_multiplier
from hw.multiplier import LATENCY, Multipliers
from hw.small.memory import WordMemory
from tests.ice40_cells import run_with_cells


def test_every_pair_of_int8_in_both_halves_of_a_mac16(tmp_path):
    dut = Multipliers(count=2)
    bench = f"""
    long checked = 0;
    for (int i = 0; i < 65536 + {LATENCY}; ++i) {{
        if (i >= {LATENCY}) {{
            const int n = i - {LATENCY};
            const int a = (signed char)(n & 255), b = (signed char)(n >> 8);
            const int c = (signed char)(n * 77 & 255), d = (signed char)(n * 77 >> 8);  // another order of all pairs
            const short low = dut.p & 0xffff, high = dut.p >> 16;
            if (low != a * b || high != c * d) {{
                std::printf("%d * %d = %d, %d * %d = %d", a, b, low, c, d, high);
                return 1;
            }}
            checked += 2;
        }}
        const int n = i & 65535, other = n * 77 & 65535;
        dut.a = (n & 255) | (other & 255) << 8;
        dut.b = (n >> 8) | (other >> 8) << 8;
        tick();
    }}
    std::printf("%ld", checked);
    return 0;
    """
    assert run_with_cells(dut, [dut.a.as_value(), dut.b.as_value(), dut.p.as_value()], bench, tmp_path) == "131072"


def test_words_in_two_single_port_rams(tmp_path):
    dut = WordMemory()
    bench = """
    std::mt19937 random(7);
    std::vector<unsigned> model(16384, 0);
    long reads = 0;
    for (int address = 0; address < 16384; ++address) {
        dut.address = address; dut.write = 1; dut.w_data = model[address] = random();
        tick();
    }
    for (int i = 0; i < 200000; ++i) {
        const unsigned address = random() % 16384, word = random();
        const bool write = random() & 1;
        dut.address = address; dut.write = write; dut.w_data = word;
        tick();
        if (write) model[address] = word;
        else if (++reads && dut.r_data != model[address]) { std::printf("word %u", address); return 1; }
    }
    std::printf("%ld", reads);
    return 0;
    """
    assert int(run_with_cells(dut, [dut.address, dut.write, dut.w_data, dut.r_data], bench, tmp_path)) > 90_000


def test_operands_wider_than_the_cell():
    m = Module()
    with pytest.raises(ValueError, match="operand a must have at most 8 bits here, got 9"):
        ice40_multiplier.multiply(m, [Signal(9)], [Signal(8)])
    Fragment.get(m, None)  # an unused module is a warning
