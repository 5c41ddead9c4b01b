"""Files that are either whole or not there."""

from __future__ import annotations

import errno
import io
import os
import stat
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["FileError", "arrays_of", "brief", "check_apart", "check_writable", "write_bytes", "write_text"]


class FileError(ValueError):
    """Files that cannot all be what they were asked to be."""


def write_bytes(path: Path, data: bytes) -> Path:
    """Write ``data`` beside ``path``, flush it to disk, then move it into place; returns ``path``.

    Folders are made and links followed; ``OSError`` names the file and says what is wrong.
    """
    place = Path(os.path.realpath(path))
    draft = place.with_name(f".{zlib.crc32(place.name.encode(errors='surrogateescape')):08x}.{os.getpid()}.tmp")
    with _named(path):
        _check_file(place)
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            with draft.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, place)
        finally:
            draft.unlink(missing_ok=True)
    return path


def check_writable(path: Path) -> None:
    """``OSError`` when :func:`write_bytes` to ``path`` could not work; nothing is made or written."""
    place = Path(os.path.realpath(path))
    with _named(path):
        _check_file(place)
        folder = place.parent
        while not folder.exists():
            folder = folder.parent
        with tempfile.TemporaryFile(dir=folder):
            pass


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """An ``OSError`` says which file it is about."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{path}: wanted a file that can be written, got: {error.strerror or error}") from error


def _check_file(place: Path) -> None:
    try:
        mode = os.stat(place).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "Not a regular file")


def check_apart(files: Mapping[str, Path | None]) -> None:
    """``FileError`` when two of ``files``, by what they are for, are one."""
    places: dict[str, str] = {}
    for what, path in files.items():
        if path is not None and (other := places.setdefault(os.path.realpath(path), what)) != what:
            raise FileError(f"{path}: wanted a file of its own for {what}, got that of {other}")


def write_text(path: Path, text: str) -> Path:
    """:func:`write_bytes` of ``text`` in UTF-8."""
    return write_bytes(path, text.encode())


def arrays_of(data: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz file by name, every one read and no object unpickled; ``FileError`` says what is wrong."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # NumPy and zipfile do not say what a damaged file may raise
        raise FileError(brief(error)) from error


def brief(error: Exception) -> str:
    """Kind and first line of another library's error, in a length to be read."""
    first = next(iter(str(error).splitlines()), "")
    text = "".join(c if c.isprintable() else "?" for c in first)
    return f"{type(error).__name__}: {text[:100]}{'...' * (len(text) > 100)}" if text else type(error).__name__
