"""Results on disk: one JSON file a job, and the checkpoint of one that is not done."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from experiments.grid import Job, queue
from shiftgrad.files import write_bytes, write_text

__all__ = ["Store", "write_whole"]


def write_whole(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """What ``write`` puts into a file, whole or not there."""
    buffer = io.BytesIO()
    write(buffer)
    write_bytes(path, buffer.getvalue())


class Store:
    """The folder of all results."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def take(self, path: Path) -> int:
        """Keep the results of ``path``, an experiments.json, that are not here yet, of studies as they are; how many.

        Raises
        ------
        LookupError
            ``path`` is not such a file
        """
        try:
            entries = {entry["key"]: entry for entry in json.loads(path.read_text()) if entry["study"]}
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise LookupError(f"{path}: wanted an experiments.json, got {error}") from error
        new = [job for job in queue() if self.result(job) is None
               and entries.get(job.key, {}).get("study") == job.study.facts]
        for job in new:
            write_text(self.result_path(job), json.dumps(entries[job.key], indent=1) + "\n")
        return len(new)

    def result_path(self, job: Job) -> Path:
        """Its result."""
        return self.folder / f"{job.key}.json"

    def checkpoint_path(self, job: Job) -> Path:
        """Its state while it is not done."""
        return self.folder / f"{job.key}.{'npz' if job.scale else 'pt'}"

    def result(self, job: Job) -> dict[str, Any] | None:
        """What it found; None when it is not done, or was of a study that has changed."""
        path = self.result_path(job)
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return found if found.get("study") == job.study.facts else None

    def finish(self, job: Job, result: dict[str, Any]) -> None:
        """Keep ``result``; the checkpoint goes."""
        write_text(self.result_path(job), json.dumps(result, indent=1) + "\n")
        self.checkpoint_path(job).unlink(missing_ok=True)

    def lr_shift(self, job: Job) -> int:
        """The learning rate of ``job``: its own, the best of its candidates (of equals the smallest) or the middle."""
        if job.lr_shift is not None:
            return job.lr_shift
        if not job.candidates:
            return job.middle_shift
        found = [(self.result(each), each) for each in job.candidates]
        missing = [each.key for result, each in found if result is None]
        if missing:
            raise LookupError(f"{job.key} takes the best learning rate of {', '.join(missing)}: not measured yet")
        best = max(found, key=lambda pair: (pair[0]["accuracy"], pair[1].lr_shift) if pair[0] else (0, 0))
        assert best[1].lr_shift is not None
        return best[1].lr_shift
