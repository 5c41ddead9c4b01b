"""The cocotb benches, and that a failing one is noticed."""

import pytest

from sim.benches import runner
from sim.benches.runner import BENCHES, BenchError, run

pytestmark = pytest.mark.xdist_group("benches")


@pytest.mark.parametrize("bench", BENCHES)
def test_bench(bench):
    assert run([bench]) % 4 == 0  # each scenario with and without idle cycles and back-pressure


def test_a_failing_scenario_is_an_exception(monkeypatch):
    monkeypatch.setenv("SHIFTGRAD_BENCH_FAIL", "1")
    with pytest.raises(BenchError, match=r"1 of 1 scenarios failed: fails_when_asked \(see .*\.log\)"):
        run(["selftest"])


def test_a_passing_scenario_is_counted():
    assert run(["selftest"]) == 1


def test_no_scenario_at_all_is_an_exception():
    with pytest.raises(BenchError, match="ended early|got none|0 of 0"):
        run(["selftest"], testcase="no-such-scenario")


def test_a_simulation_without_results_is_an_exception(tmp_path):
    with pytest.raises(BenchError, match="ended early"):
        runner._passed(tmp_path / "results.xml", tmp_path / "log")
