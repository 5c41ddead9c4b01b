"""Builds a configuration for cocotb and runs the benches; a failed bench is an exception."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from xml.etree import ElementTree

from cocotb_tools.check_results import get_results
from cocotb_tools.runner import Verilog, get_runner

from shiftgrad.config import Config
from shiftgrad.files import write_text
from sim.build import BUILD, Progress, toolchain
from sim.build import _lock as exclusive
from sim.machine import TOP, verilog

__all__ = ["BENCHES", "CONFIG_VARIABLE", "SMALL", "BenchError", "run"]

# small memories: a bench writes all of them over the bus
SMALL = Config(name="bench_4x4", size=4, act_words=64, err_words=64, wgt_words=96, mom_words=96, vec_words=24,
               program_words=16, tensors=16, classes=16)
BENCHES = ("registers", "windows", "programs", "recovery")
CONFIG_VARIABLE = "SHIFTGRAD_BENCH_CONFIG"
ARGUMENTS = ("-O3", "-fno-dfg", "-Wno-lint", "-Wno-ALWNEVER", "--x-assign", "fast", "--x-initial", "0", "--timing",
             "-DSHIFTGRAD_ASSERT", "--assert")
MAKEFLAGS = "CFG_CXXFLAGS_PCH_I=-include OPT_FAST=-O1 OPT_SLOW=-O0 OPT_GLOBAL=-O0"


class BenchError(RuntimeError):
    """A bench failed, or none ran."""


def run(benches: Sequence[str] = BENCHES, *, config: Config = SMALL, seed: int = 1, testcase: str | None = None,
        progress: Progress | None = None) -> int:
    """Run ``benches`` on ``config``; how many scenarios passed.

    Parameters
    ----------
    benches : modules of this package
    seed : of the random numbers in the benches
    testcase : only scenarios with this in their name

    Raises
    ------
    BenchError : names the scenarios that failed and where the log is
    """
    say = progress or (lambda line: print(line, flush=True))
    logging.getLogger("Verilator").setLevel(logging.WARNING)
    folder = _build(config, say)
    with tempfile.TemporaryDirectory(prefix="run-", dir=folder) as work, _environment():
        results = Path(work) / "results.xml"
        log = folder / f"{'-'.join(benches)}.log"
        say(f"benches: {', '.join(benches)} on {config.name}, seed {seed}")
        try:
            get_runner("verilator").test(
                test_module=[f"sim.benches.{bench}" for bench in benches],
                hdl_toplevel=TOP, hdl_toplevel_lang="verilog", build_dir=folder, test_dir=work,
                results_xml=str(results), seed=seed, log_file=log,
                test_filter=testcase, extra_env={CONFIG_VARIABLE: json.dumps(dataclasses.asdict(config))},
            )
        except SystemExit:  # the results say more
            pass
        return _passed(results, log)


def _passed(results: Path, log: Path) -> int:
    try:
        total, failed = get_results(results)
    except RuntimeError as error:
        raise BenchError(f"the simulation ended early (see {log})") from error
    cases = ElementTree.parse(results).getroot().iter("testcase")
    names = [case.get("name", "?") for case in cases if {"failure", "error"} & {child.tag for child in case}]
    if failed or names:
        raise BenchError(f"{max(failed, len(names))} of {total} scenarios failed: {', '.join(names)} (see {log})")
    if not total:
        raise BenchError(f"wanted at least one scenario, got none (see {log})")
    return total


def _build(config: Config, say: Progress) -> Path:
    """Folder of the simulation of ``config``, built when there is none for this Verilog."""
    text = verilog(config)
    key = repr((text, ARGUMENTS, MAKEFLAGS, metadata.version("verilator"), metadata.version("cocotb")))
    folder = BUILD / "cocotb" / hashlib.sha256(key.encode()).hexdigest()[:20]
    done = folder / "done"
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder / "lock", say), _environment():
        if not done.exists():
            say(f"benches: building {config.name}, once for this design")
            source = write_text(folder / "design.v", text)
            try:
                get_runner("verilator").build(
                    sources=[Verilog(source)], hdl_toplevel=TOP, build_args=ARGUMENTS, build_dir=folder, always=True,
                    timescale=("1ns", "1ps"), log_file=folder / "build.log")
            except (SystemExit, Exception) as error:
                log = folder / "build.log"
                raise BenchError(f"building {config.name} for the benches failed (see {log})") from error
            write_text(done, "")
    return folder


@contextmanager
def _environment() -> Iterator[None]:
    """The toolchain's environment in this process, from which the runner takes it."""
    before = dict(os.environ)
    os.environ.update(toolchain(), MAKEFLAGS=MAKEFLAGS)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
