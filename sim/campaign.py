"""Long runs of random programs, every instruction compared: ``python -m sim.campaign --size 8 --programs 2000``."""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import dataclass, field

import click
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from shiftgrad.config import SIZES
from shiftgrad.device import DeviceError
from shiftgrad.isa import Opcode, Status
from sim.device import VerilatorDevice
from sim.interrupt import interrupt
from sim.loading import Pieces, execute_loading
from sim.model import SimulationError
from sim.programs import Case, execute, random_case, small_config

__all__ = ["Campaign", "campaign_case", "main"]

LOG_SECONDS = 15.0
INTERRUPT_EVERY, LOAD_EVERY, FAULT_EVERY, FAULTS = 8, 2, 3, 4
DENSE_SLOWER = 8  # the small machine's instructions, about
INTERRUPT_CYCLES = 40  # at most, times T, an instruction: about what the instructions take


def campaign_case(seed: int, device: VerilatorDevice) -> Case:
    """The program a campaign runs for ``seed``; every third one is full of errors."""
    return random_case(seed, device.config, length=device.config.program_words - 5, largest=2 * device.config.size + 2,
                       palette=2 + seed % 5, fault=FAULTS if seed % FAULT_EVERY == 0 else 0)


@dataclass
class Campaign:
    """Programs on one device, and what came of them so far; ``loaded`` are the words written while programs ran."""

    device: VerilatorDevice
    programs: int = 0
    stopped: int = 0
    loaded: int = 0
    reasons: Counter[Status] = field(default_factory=Counter)

    def run(self, seed: int) -> None:
        """The program of ``seed``, every eighth after stopping it once on the way; ``DeviceError`` on a mismatch.

        While every second one runs a host loads other words, if the machine takes them.
        """
        case, rng = campaign_case(seed, self.device), np.random.default_rng(seed)
        loads = self.device.config.loads_while_busy
        if seed % INTERRUPT_EVERY == 0:
            slow = DENSE_SLOWER if self.device.config.dense else 1
            cycles = int(rng.integers(INTERRUPT_CYCLES * slow * self.device.config.size * len(case.program)))
            reset = bool(rng.integers(2))
            pieces = Pieces(self.device.config, case, rng) if loads and not reset else None
            self.stopped += interrupt(self.device, case, cycles, reset=reset, pieces=pieces)
        if loads and seed % LOAD_EVERY == 0:
            reasons, words = execute_loading(self.device, case, rng)
            self.loaded += words
        else:
            reasons = execute(self.device, case)
        self.reasons.update(reasons)
        self.programs += 1

    def __str__(self) -> str:
        reasons = ", ".join(f"{status.name} {self.reasons[status]}" for status in Status if status in self.reasons)
        return (f"{self.programs} programs, {self.device.compared_instructions:,} instructions compared, "
                f"{self.device.mismatches} mismatches, {self.stopped} stopped on the way, "
                f"{self.loaded:,} words loaded meanwhile, "
                f"{self.device.cycles:,} cycles; ended with {reasons or 'nothing'}; compared: {self._operations()}")

    def _operations(self) -> str:
        counted = self.device.opcodes
        names = [opcode.name for opcode in Opcode if opcode.name in counted]
        others = counted.total() - sum(counted[name] for name in names)
        return ", ".join([*(f"{name} {counted[name]:,}" for name in names), *[f"none {others:,}"] * bool(others)])


@click.command()
@click.option("--size", type=click.Choice([str(size) for size in SIZES]), default="8", show_default=True,
              help="rows and columns of the array")
@click.option("--programs", type=click.IntRange(1), default=1000, show_default=True, help="how many to run")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="of the first; they count up")
@click.option("--dense", is_flag=True, help="the small machine of matrices only, 4 x 4")
@click.option("--unsigned", is_flag=True, help="a machine with unsigned activations")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help="stop after this time, not counting the build")
def main(size: str, programs: int, seed: int, dense: bool, unsigned: bool, seconds: float | None) -> None:
    """Run random programs on the simulated machine; after each instruction compare it with the golden machine.

    Stops with exit code 1 at the first mismatch, naming its seed.
    """
    device = VerilatorDevice(small_config(int(size), dense=dense, unsigned=unsigned))
    campaign = Campaign(device)
    console = Console(stderr=True)
    began = spoke = time.monotonic()
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("programs"),
                  TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=console, transient=True,
                  disable=not console.is_terminal) as progress:
        task = progress.add_task(f"{size} x {size}", total=programs)
        for number in range(seed, seed + programs):
            try:
                campaign.run(number)
            except (DeviceError, SimulationError) as error:
                progress.stop()
                click.echo(f"seed {number}: {error}", err=True)
                again = f"--size {size}{' --dense' * dense}{' --unsigned' * unsigned} --programs 1 --seed {number}"
                click.echo(f"again: python -m sim.campaign {again}", err=True)
                sys.exit(1)
            progress.advance(task)
            now = time.monotonic()
            if seconds and now - began > seconds:
                break
            if not console.is_terminal and now - spoke > LOG_SECONDS:
                spoke = now
                left = (now - began) * (programs / campaign.programs - 1)
                left = min(left, seconds - now + began) if seconds else left
                click.echo(f"{size} x {size}: {campaign.programs} of {programs} programs, {left:.0f} s left", err=True)
    click.echo(f"{size} x {size}, seeds {seed} to {number}: {campaign} ({time.monotonic() - began:.0f} s)")
    device.close()


if __name__ == "__main__":
    main()
