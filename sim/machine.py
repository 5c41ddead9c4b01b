"""The machine as a simulation: its Verilog, its library, and where its state is."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw.small import layout
from shiftgrad.config import MEMORIES, Config
from shiftgrad.files import write_text
from sim.build import BUILD, ROOT, Progress, build
from sim.model import Simulation

__all__ = ["PUBLIC", "RESULTS", "MachineState", "library", "machine_state", "public", "verilog"]

TOP = "shiftgrad"
RESULTS = ("loss", "correct", "samples", "saturated")
PUBLIC = (
    *((f"*.{memory}", "bank*") for memory in MEMORIES),
    ("*.table", "word?"),
    ("*.lfsr*", "state"),
    *(("*.core.host", name) for name in ("program", *RESULTS)),
)
SMALL_PUBLIC = (
    ("*.act", "words"), ("*.parameters", "words"), ("*.core", "err"), ("*.core", "vec"),
    ("*.processor", "low"), ("*.processor", "high"),
    ("*.lane", "seed?"),
)


def verilog(config: Config) -> str:
    """The machine's Verilog, generated again only when its sources changed."""
    digest = hashlib.sha256(repr((replace(config, name=""), metadata.version("amaranth"))).encode())
    for folder in ("hw", "hw/small", "golden", "shiftgrad"):
        for source in sorted((ROOT / folder).glob("*.py")):
            if folder != "shiftgrad" or source.stem in ("config", "isa", "link"):
                digest.update(source.read_bytes())
    path = BUILD / "verilog" / f"{digest.hexdigest()[:20]}.v"
    if not path.exists():
        from hw.top import generate

        write_text(path, generate(config))
    return path.read_text()


def library(config: Config, progress: Progress | None = None) -> Path:
    """The machine's simulator; built when there is none for this Verilog."""
    return build(verilog(config), top=TOP, public=public(config), progress=progress)


def public(config: Config) -> tuple[tuple[str, str], ...]:
    """What :func:`machine_state` looks into."""
    return SMALL_PUBLIC if config.dense else PUBLIC


def machine_state(simulation: Simulation, config: Config) -> MachineState:
    """The state of either machine."""
    return (SmallState if config.dense else MachineState)(simulation, config)


class MachineState:
    """Live views of everything a program can change.

    Parameters
    ----------
    banks : memory -> a view [words] for each lane, unsigned
    program : uint64[program_words]
    table : host word of a tensor table entry -> uint32[tensors]
    lfsr : a view [1] for each lane
    results : register -> a view [1]
    """

    def __init__(self, simulation: Simulation, config: Config) -> None:
        lanes, view = range(config.size), simulation.view
        self.banks = {name: [view(f"*.core.{name}.bank{lane}") for lane in lanes] for name in MEMORIES}
        self.program = view("*.core.host.program")
        self.table = {word: view(f"*.core.table.word{word}") for word in (0, 1, 2, 3, 4, 5, 6)}
        self.lfsr = [view(f"*.post.lane{lane}.lfsr*.state") for lane in lanes]
        self.results = {name: view(f"*.core.host.{name}") for name in RESULTS}

    def memory(self, name: str) -> NDArray[Any]:
        """A copy of a data memory as the golden machine keeps it, [words, T] signed."""
        banks = np.stack(self.banks[name], axis=1)
        return banks.view(np.int16 if banks.itemsize == 2 else np.int8)


class SmallState(MachineState):
    """The same of the small machine, whose controller keeps all but the large memories in one."""

    def __init__(self, simulation: Simulation, config: Config) -> None:
        view = simulation.view
        act, parameters = (view(f"*.core.{name}.words").view(np.uint8) for name in ("act", "parameters"))
        whole = {"act": act, "wgt": parameters, "mom": parameters[4 * layout.MOMENTA:],
                 "err": view("*.core.err").view(np.uint8), "vec": view("*.core.vec")}
        self.banks = {name: [lanes[lane:4 * config.words(name):4] for lane in range(4)]
                      for name, lanes in whole.items()}
        data = view("*.core.processor.low")
        self.program = view("*.core.processor.high")[:2 * config.program_words].view(np.uint64)
        table = data[layout.TABLE:layout.TABLE + 8 * config.tensors].reshape(-1, 8)
        self.table = {word: table[:, word] for word in range(7)}
        self.lfsr = [view(f"*.core.lane.seed{lane}") for lane in range(4)]
        self.results = {name: data[layout.register(name.upper()):][:1] for name in RESULTS}
