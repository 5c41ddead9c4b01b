"""The generated Verilog: lint-clean apart from the named waivers, readable by Yosys, the same every time."""

import subprocess
import sys

import pytest

from hw.top import WAIVERS, generate
from shiftgrad.config import Config
from shiftgrad.generate import waivers
from sim.build import toolchain

SMALL = Config(name="small", size=4, act_words=64, err_words=64, wgt_words=64, mom_words=64, vec_words=16,
               program_words=16, tensors=16, classes=16)


@pytest.fixture(scope="module")
def design(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verilog")
    (folder / "shiftgrad.v").write_text(generate(SMALL))
    (folder / "shiftgrad.vlt").write_text(waivers())
    return folder


def lint(folder, *files, defines=()):
    command = ["verilator_bin", "--lint-only", "-Wall", "--top-module", "shiftgrad", *defines, *files]
    result = subprocess.run(command, cwd=folder, env=toolchain(), capture_output=True, text=True, check=False)
    return result.returncode, {line.split(":")[0].split("-")[1] for line in result.stderr.splitlines()
                               if line.startswith("%Warning-")}, result.stderr


@pytest.mark.parametrize("defines", [(), ("-DSHIFTGRAD_ASSERT",)])
def test_lint(design, defines):
    status, warnings, output = lint(design, "shiftgrad.vlt", "shiftgrad.v", defines=defines)
    assert status == 0 and not warnings, output[:2000]


def test_only_the_waived_warnings_are_there(design):
    _, warnings, _ = lint(design, "shiftgrad.v")
    assert warnings and warnings <= set(WAIVERS)


def test_yosys_reads_it(design):
    script = ("from pyosys import libyosys as y; d = y.Design(); "
              "[y.run_pass(p, d) for p in ('read_verilog shiftgrad.v', 'hierarchy -check -top shiftgrad', 'proc', "
              "'check -assert')]")
    result = subprocess.run([sys.executable, "-c", script], cwd=design, capture_output=True, text=True, check=False)
    assert result.returncode == 0 and "ERROR" not in result.stdout + result.stderr, result.stderr[-2000:]


def test_the_same_text_in_another_process(design):
    script = ("from hw.top import generate; from shiftgrad.config import Config; import sys; "
              f"sys.stdout.write(generate({SMALL!r}))")
    again = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert again == (design / "shiftgrad.v").read_text()


def test_ports_follow_the_bus_convention(design):
    head = (design / "shiftgrad.v").read_text().split("module shiftgrad(")[1].split(");")[0]
    names = {name.strip() for name in head.split(",")}
    assert {"clk", "rst", "s_axi_awaddr", "s_axi_wstrb", "s_axi_bresp", "s_axi_araddr", "s_axi_rdata"} <= names
    assert all(name in ("clk", "rst", "busy", "retired") or name.startswith("s_axi_") for name in names)


def test_assertions_only_when_asked_for(design):
    text = (design / "shiftgrad.v").read_text()
    parts = text.split("`ifdef SHIFTGRAD_ASSERT")
    assert len(parts) > 1 and "assert (" not in parts[0]
    assert all("assert (" in inside and "assert (" not in outside
               for inside, outside in (part.split("`endif") for part in parts[1:]))
