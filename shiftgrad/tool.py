"""Runs one tool of a build: its output in a log, its milestones as progress, an end to what gets nowhere."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from shiftgrad.build_report import BitstreamError
from shiftgrad.route_progress import RouteProgress

__all__ = ["run", "yowasp"]

SILENCE = 300  # seconds: making room for every cell is a matter of seconds, or with an unlucky seed of hours


def yowasp(entry: str) -> list[str]:
    """The command that runs the YoWASP entry point ``entry``, ``module:function``, in a process of its own."""
    module, function = entry.split(":")
    return [sys.executable, "-c", f"import sys; from {module} import {function} as run; sys.exit(run())"]


def run(step: str, command: Sequence[str], *, cwd: Path, log: Path, say: Callable[[str], None]) -> None:
    """Run ``command`` in ``cwd``; ``BitstreamError`` when it fails, or when a route gets nowhere.

    Parameters
    ----------
    step : what it is for; nextpnr's lines are followed when it begins with "route"
    say : called with a line of progress
    """
    route = RouteProgress() if step.startswith("route") else None
    with log.open("w") as text, subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        line = ""
        try:
            for line in _lines(process.stdout, SILENCE if route else None):
                text.write(line)
                text.flush()
                if route and (news := route.feed(line)):
                    say(news)
                if route and route.stuck:
                    raise BitstreamError(f"{step} stopped: {route.stuck} (see {log})")
        except TimeoutError:
            process.kill()
            raise BitstreamError(f"{step} stopped: nothing for {SILENCE} s after {line.strip()!r}; the design is "
                                 f"too dense for the device, or try another seed (see {log})") from None
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        lines = [line for line in log.read_text().splitlines() if line.strip()] or ["no output"]
        last = next((line for line in reversed(lines) if "error" in line.lower()), lines[-1])
        raise BitstreamError(f"{step} failed with exit code {process.returncode}: {last} (see {log})",
                             killed=process.returncode < 0)


def _lines(stream: IO[bytes], patience: int | None) -> Iterator[str]:
    """The lines of ``stream``; ``TimeoutError`` when nothing comes for ``patience`` seconds.

    They are counted one by one: a pause of the whole computer is one of them.
    """
    begun, quiet = b"", 0
    while True:
        if not select.select([stream], [], [], 1.0)[0]:
            quiet += 1
            if quiet == patience:
                raise TimeoutError
            continue
        quiet, found = 0, os.read(stream.fileno(), 1 << 16)
        *lines, begun = (begun + found).split(b"\n")
        yield from (line.decode(errors="replace") + "\n" for line in lines)
        if not found:
            if begun:
                yield begun.decode(errors="replace")
            return
