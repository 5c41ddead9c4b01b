"""Files that are whole or not there: what they may be, links, and several that must not be one."""

import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from shiftgrad.files import FileError, arrays_of, check_apart, check_writable, write_bytes, write_text


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "file")
    for text in ("one", "two"):
        check_writable(tmp_path / "link")
        assert write_text(tmp_path / "link", text) == tmp_path / "link"
        assert (tmp_path / "link").is_symlink() and (tmp_path / "real" / "file").read_text() == text
    assert [path.name for path in (tmp_path / "real").iterdir()] == ["file"]


def test_only_regular_files_are_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")
    for path, why in ((tmp_path / "pipe", "Not a regular file"), (tmp_path / "folder", "Is a directory"),
                      (tmp_path / "file" / "below", "Not a directory"), (tmp_path / ("x" * 300), "File name too long")):
        for write in (check_writable, lambda path: write_bytes(path, b"new")):
            with pytest.raises(OSError, match=f"{re.escape(str(path))}: wanted a file that can be written, got: {why}"):
                write(path)
    assert (tmp_path / "pipe").is_fifo() and (tmp_path / "file").read_text() == "kept"


def test_a_long_name_and_a_new_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / ("x" * 250)
    check_writable(path)
    assert not (tmp_path / "new").exists()
    assert write_bytes(path, b"data").read_bytes() == b"data"


def test_several_that_are_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "a")
    check_apart({"--save": tmp_path / "a", "--init": tmp_path / "b", "--report": None, "--out": None})
    for other in (tmp_path / "a", tmp_path / "link", tmp_path / "x" / ".." / "a"):
        with pytest.raises(FileError, match="wanted a file of its own for --init, got that of --save"):
            check_apart({"--save": tmp_path / "a", "--init": other})


def test_damaged_archives_are_file_errors(tmp_path: Path) -> None:
    """Every byte changed, one at a time: never another error, and never an array of another kind unnoticed."""
    path = tmp_path / "x.npz"
    np.savez(path, a=np.arange(6, dtype=np.int8), b=np.ones((2, 2), np.float32))
    whole = path.read_bytes()
    assert sorted(arrays_of(whole)) == ["a", "b"]
    refused = 0
    for at in range(len(whole)):
        for bits in (0x01, 0xFF):
            data = bytearray(whole)
            data[at] ^= bits
            try:
                arrays_of(bytes(data))
            except FileError as error:
                refused += 1
                assert re.fullmatch(r"\w+(: .{1,103})?", str(error)) and str(error).isprintable()
    assert refused > len(whole)
    with zipfile.ZipFile(path, "w") as archive:  # an array of a tebibyte, says its header
        header = b"{'descr': '|i1', 'fortran_order': False, 'shape': (1099511627776,), }"
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(FileError):
        arrays_of(path.read_bytes())
