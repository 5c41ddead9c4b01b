"""shiftgrad.paths: arrivals from an SDF as nextpnr writes it."""

import pytest

from shiftgrad.paths import grouped, read_sdf, signal, slow_paths, table, trace, unit

SDF = r"""
  (CELL
    (INSTANCE )
        (INTERCONNECT machine.core.host.addr_TRELLIS_FF_Q\[0\]/Q machine.core.post.x_LUT4_Z/A (1000:1000:2000) (0:0:0))
        (INTERCONNECT machine.core.act.bank0.0.0/DOA0 machine.core.post.x_LUT4_Z/B (1:1:300) (0:0:0))
        (INTERCONNECT machine.core.post.x_LUT4_Z/F machine.core.post.y_TRELLIS_FF_Q/DI (1:1:100) (0:0:0))
        (INTERCONNECT pin/O machine.link.rx_TRELLIS_FF_Q/M (1:1:9000) (0:0:0))
  (CELL
    (CELLTYPE "TRELLIS_FF")
    (INSTANCE machine.core.host.addr_TRELLIS_FF_Q\[0\])
        (IOPATH CLK Q (430:477:525) (430:477:525))
      (SETUPHOLD (posedge DI) (posedge CLK) (0:0:0) (267:285:303))
  (CELL
    (INSTANCE machine.core.act.bank0.0.0)
        (IOPATH CLKA DOA0 (1:1:5700) (1:1:5700))
  (CELL
    (INSTANCE machine.core.post.x_LUT4_Z)
        (IOPATH A F (200:218:236) (200:218:236))
        (IOPATH B F (200:218:236) (200:218:236))
  (CELL
    (INSTANCE machine.core.post.y_TRELLIS_FF_Q)
      (SETUPHOLD (posedge DI) (posedge CLK) (0:0:50) (267:285:303))
      (SETUPHOLD (negedge DI) (posedge CLK) (0:0:50) (267:285:303))
  (CELL
    (INSTANCE machine.link.rx_TRELLIS_FF_Q)
      (SETUPHOLD (posedge M) (posedge CLK) (0:0:0) (267:285:303))
"""


def test_the_slowest_of_two_ways_and_no_asynchronous_one() -> None:
    delays = read_sdf(SDF.splitlines())
    (path,) = slow_paths(delays, 6.0)
    assert (path.start, path.end) == ("machine.core.act.bank0.0.0", "machine.core.post.y_TRELLIS_FF_Q")
    assert path.total == pytest.approx(5.7 + 0.3 + 0.236 + 0.1 + 0.05)
    assert path.wire == pytest.approx(0.4)
    assert [port for _, port in path.pins] == ["DOA0", "B", "F", "DI"]
    assert slow_paths(delays, 6.5) == []


def test_a_loop_of_logic_ends() -> None:
    loop = """
        (INTERCONNECT machine.core.post.x_LUT4_Z/F machine.core.post.z_LUT4_Z/A (1:1:100) (0:0:0))
        (INTERCONNECT machine.core.post.z_LUT4_Z/F machine.core.post.x_LUT4_Z/C (1:1:100) (0:0:0))
    (INSTANCE machine.core.post.x_LUT4_Z)
        (IOPATH C F (200:218:236) (200:218:236))
    (INSTANCE machine.core.post.z_LUT4_Z)
        (IOPATH A F (200:218:236) (200:218:236))
"""
    straight, looped = (slow_paths(read_sdf(text.splitlines()), 0.0) for text in (SDF, SDF + loop))
    assert looped == straight


def test_groups_and_text() -> None:
    delays = read_sdf(SDF.splitlines())
    (group,) = grouped(slow_paths(delays, 1.0), lambda path: (unit(path.start), unit(path.end)))
    assert (group.name, group.count) == (("act", "post"), 1)
    assert table([group]) == "     1   6.39 ns   1    6%  act -> post\n"
    assert trace(group.worst, delays).splitlines()[1].split() == ["0.30", "machine.core.act.bank0.0.0/DOA0"]


def test_names() -> None:
    assert unit("machine.core.post.lane3.scale.q_TRELLIS_FF_Q", 2) == "post.lane3"
    assert [unit(cell) for cell in ("machine.link.bus", "machine.core.ones_TRELLIS_FF_Q", "pll.pll")] == [
        "link", "core", "board"]
    assert signal("machine.core.post.lane3.scale.q_TRELLIS_FF_Q_1_DI_LUT4_Z") == "post.lane#.scale.q"
