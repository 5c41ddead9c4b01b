"""Stopping the machine in mid-instruction, by the host or by reset, and what must hold afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from golden.generator import xorshift_step
from golden.machine import GoldenMachine
from shiftgrad.config import MEMORIES
from shiftgrad.device import ABORT, ADDRESSES, START
from shiftgrad.isa import Opcode, Status, decode
from sim.compare import Difference, MismatchError
from sim.device import VerilatorDevice
from sim.loading import Pieces
from sim.machine import RESULTS
from sim.programs import Case, load

__all__ = ["interrupt"]

STOP_LIMIT = 1000  # cycles an abort may take
DENSE_STOP_LIMIT = 20_000  # the same of the small machine, which looks now and then


def interrupt(device: VerilatorDevice, case: Case, cycles: int, *, reset: bool, pieces: Pieces | None = None) -> bool:
    """Start a case, stop it after ``cycles`` and check what it left; False when it had ended already.

    With ``pieces`` a host writes some of them meanwhile; all of them that were taken must be there.

    Everything up to the instruction stopped is as the golden machine has it. Every lane and table entry is as before or
    as after that instruction, and no generator has gone further than after it, or is as after power-on when ``reset``;
    so are the registers LOSS, CORRECT, SAMPLES and SATURATED. Both machines then have the same state. One exception: an
    aborted LOSS leaves zeros in a word it was writing, and its results over some of the samples.

    Raises
    ------
    MismatchError : something else was found
    """
    simulation, golden = device.simulation, device.golden
    assert golden, "wanted a device that compares"
    load(device, case)
    device.write(ADDRESSES["START_PC"], [0])
    simulation.write(ADDRESSES["CTRL"], [START])
    _pass(device, cycles, pieces)
    stopped = simulation.busy
    retired = simulation.retired
    if reset:
        simulation.reset()
        found = [] if (now := device.status()) == (False, Status.RESET) else [
            Difference(where="register STATUS", simulated=int(now[1]), golden=int(Status.RESET))]
    else:
        if stopped:
            simulation.write(ADDRESSES["CTRL"], [ABORT])
            simulation.tick(DENSE_STOP_LIMIT if device.config.dense else STOP_LIMIT)
        retired = simulation.retired
        found = [] if not simulation.busy else [Difference(where="busy after an abort", simulated=1, golden=0)]
        stopped = device.status()[1] == Status.ABORTED
        pc = device.read_register("PC")
        if stopped and pc != retired:
            found.append(Difference(where="register PC", simulated=pc, golden=retired))
    golden.pc, golden.retired = 0, 0
    while golden.retired < retired and golden.step() is None:
        pass
    before, results = golden.snapshot(), _results(golden)
    zeroed = _zeroed(golden)
    golden.step()
    found += _leftovers(device, golden, before, zeroed, reset=reset)
    found += _leftover_results(device, results, _results(golden), partial=zeroed.stop > 0 and stopped, reset=reset)
    if found:
        raise MismatchError(f"{'reset' if reset else 'abort'} after {cycles} cycles, in instruction {retired}", found)
    if reset:
        device.reset()
    else:
        device.adopt()
    return stopped


def _pass(device: VerilatorDevice, cycles: int, pieces: Pieces | None) -> None:
    """Let at least ``cycles`` pass, and write meanwhile."""
    simulation, end = device.simulation, device.simulation.cycles + cycles
    while pieces and simulation.cycles < end and simulation.busy:
        piece = pieces.draw()
        taken = simulation.load(piece.address, piece.words, np.minimum(piece.rest, end - simulation.cycles))
        assert device.golden
        device.golden.write(piece.address, piece.words[:taken])
    simulation.tick(max(0, end - simulation.cycles))


def _results(golden: GoldenMachine) -> dict[str, int]:
    return {name: getattr(golden, name) for name in RESULTS}


def _leftover_results(device: VerilatorDevice, before: dict[str, int], after: dict[str, int], *, partial: bool,
                      reset: bool) -> Iterator[Difference]:
    """Result registers that are neither as ``before`` nor ``after``; ``partial``, those of LOSS may be in between."""
    for name, view in device.state.results.items():
        now, allowed = int(view[0]), {0} if reset else {before[name], after[name]}
        if now not in allowed and not (partial and name != "saturated" and now <= after[name]):
            yield Difference(where=f"register {name.upper()}", simulated=now, golden=before[name])


def _zeroed(golden: GoldenMachine) -> slice:
    """Words of the error memory that the instruction at ``pc`` may leave zero when it is aborted."""
    field = decode(int(golden.program[golden.pc])) if golden.pc < len(golden.program) else {"opcode": 0, "dst": 0}
    if field["opcode"] != Opcode.LOSS or field["dst"] >= len(golden.table):
        return slice(0)
    tensor = golden.tensor(field["dst"])
    return slice(tensor.base, tensor.end)


def _leftovers(device: VerilatorDevice, golden: GoldenMachine, before: dict[str, np.ndarray], zeroed: slice, *,
               reset: bool) -> Iterator[Difference]:
    """Whatever is neither as ``before`` nor as ``golden`` has it now; zeros are right in the ``zeroed`` errors."""
    state = device.state
    for name in MEMORIES:
        now = state.memory(name)
        differs = (now != before[name]) & (now != golden.memories[name])
        if name == "err" and not reset:
            differs[zeroed] &= now[zeroed] != 0
        wrong = np.argwhere(differs)
        if len(wrong):
            word, lane = wrong[0]
            yield Difference(where=f"{name} word {word} lane {lane}", simulated=int(now[word, lane]),
                             golden=int(before[name][word, lane]), count=len(wrong))
    words = list(state.table)
    table = np.stack([state.table[word] for word in words], axis=1)
    good = (table == before["table"][:, words]).all(axis=1) | (table == golden.table[:, words]).all(axis=1)
    for entry in np.flatnonzero(~good):
        yield Difference(where=f"exponent word of tensor {entry}", simulated=int(state.table[4][entry]),
                         golden=int(before["table"][entry, 4]))
    if not np.array_equal(state.program, golden.program):
        yield Difference(where="program", simulated=1, golden=0)
    lanes = np.concatenate(state.lfsr)
    if reset:
        allowed = GoldenMachine(device.config).lfsr[None]
    else:
        allowed = _orbit(before["lfsr"], golden.lfsr)
    for lane in np.flatnonzero(~(lanes == allowed).any(axis=0)):
        yield Difference(where=f"generator of lane {lane}", simulated=int(lanes[lane]),
                         golden=int(allowed[0][lane]))


def _orbit(first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Generator states [steps, T] from ``first`` to ``last``, two steps at a time."""
    states = [first]
    while not np.array_equal(states[-1], last):
        states.append(xorshift_step(xorshift_step(states[-1])))
    return np.array(states)
