"""Checkpoint files: whole or not there, and every wrong one named."""

import io
import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from shiftgrad.checkpoint import VERSION, Checkpoint, CheckpointError, load, save
from shiftgrad.config import get_config
from shiftgrad.models import mlp
from shiftgrad.record import Epoch, History, Hyper, Totals


def example(seed: int = 11) -> Checkpoint:
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    history = History(loss=[1.5, 0.25], accuracy=[0.5, 1.0], lr_extra=[0, 1],
                      epochs=[Epoch(epoch=1, step=2, train_loss=0.875, train_accuracy=0.75, loss=0.5, accuracy=0.625)])
    history.sample({"fc1.weight": -7, "fc1.out": 3}, {"forward": 0.125})
    return Checkpoint(
        network=mlp(6, (5,), 3), config=get_config("sim_4x4"),
        hyper=Hyper(batch=4, epochs=2, drops=(0.5,), flip=True, shift=2),
        dataset="blobs", digest="ab" * 32, step=2, steps=10,
        state={"fc1.weight": rng.integers(-127, 128, (6, 5)).astype(np.int8),
               "fc1.bias": rng.integers(-32767, 32768, (1, 5)).astype(np.int16),
               "table": rng.integers(0, 1 << 32, (14, 3), dtype=np.uint32),
               "generators": rng.integers(1, 1 << 32, 4, dtype=np.uint32)},
        history=history,
        totals=Totals(counters={"FWD_MACS": 1 << 47}, metered=1, compared_instructions=20, seconds=1.5),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "checkpoint.npz"
    save(path, example())
    return path


def rewrite(path: Path, **changes: object) -> None:
    """Change header entries; None removes one."""
    with np.load(path) as archive:
        arrays = dict(archive)
    header = json.loads(arrays["header"].tobytes()) | changes
    header = {key: value for key, value in header.items() if value is not None}
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(path, **arrays)


def test_round_trip(path: Path) -> None:
    wanted, got = example(), load(path)
    for name in ("network", "config", "hyper", "dataset", "digest", "step", "steps", "history", "totals"):
        assert getattr(got, name) == getattr(wanted, name), name
    assert got.state.keys() == wanted.state.keys()
    for name, array in wanted.state.items():
        assert got.state[name].dtype == array.dtype
        np.testing.assert_array_equal(got.state[name], array)
    assert not got.finished and replace(got, step=10).finished


def test_one_from_before_there_was_augmentation(path: Path) -> None:
    hyper = asdict(example().hyper)
    del hyper["flip"], hyper["shift"]
    rewrite(path, hyper=hyper)
    assert load(path).hyper == replace(example().hyper, flip=False, shift=0)


def test_equal_runs_give_equal_arrays(tmp_path: Path, path: Path) -> None:
    save(tmp_path / "again.npz", load(path))
    with np.load(path) as one, np.load(tmp_path / "again.npz") as other:
        assert one.files == other.files
        assert all(np.array_equal(one[name], other[name]) for name in one.files)


def test_every_truncation_is_noticed(path: Path) -> None:
    data = path.read_bytes()
    for length in {0, 1, 2, 4, 30, len(data) // 2, len(data) - 30, len(data) - 1}:
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match="wanted a (whole )?checkpoint") as caught:
            load(path)
        assert str(path) in str(caught.value)


def test_a_flipped_bit_is_noticed(path: Path) -> None:
    data = bytearray(path.read_bytes())
    at = data.index(b"state/fc1.weight.npy") + 60
    data[at] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        load(path)


@pytest.mark.parametrize("content", [b"", b"hello, world", b"\x93NUMPY"])
def test_not_a_checkpoint(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"x.npz: wanted a checkpoint .* got {len(content)} bytes"):
        load(path)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere.npz: wanted a checkpoint, got: No such file"):
        load(tmp_path / "nowhere.npz")
    with pytest.raises(CheckpointError, match="Is a directory"):
        load(tmp_path)


def test_another_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    with pytest.raises(CheckpointError, match="without its header"):
        load(tmp_path / "x.npz")


def test_pickles_are_refused(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return (os.mkdir, (str(tmp_path / "boom"),))

    np.savez(tmp_path / "x.npz", header=np.array([Bomb()], object))
    with pytest.raises(CheckpointError, match=r"truncated or damaged one \(ValueError: Object arrays"):
        load(tmp_path / "x.npz")
    assert not (tmp_path / "boom").exists()


def test_another_version(path: Path) -> None:
    rewrite(path, version=VERSION + 1)
    with pytest.raises(CheckpointError, match=f"wanted checkpoint version {VERSION}, got {VERSION + 1}"):
        load(path)


@pytest.mark.parametrize(
    "changes", [{"format": "something"}, {"hyper": None}, {"state": ["fc9.weight"]}, {"network": {"name": "x"}},
                {"config": {"name": "x", "size": 5}}, {"totals": {"secret": 1}},
                {"hyper": {"batch": 4, "epochs": 2, "drops": [], "flip": 1}}])
def test_a_damaged_header(path: Path, changes: dict) -> None:
    rewrite(path, **changes)
    with pytest.raises(CheckpointError, match="checkpoint.npz: wanted a"):
        load(path)


@pytest.mark.parametrize("byte", [4, 6, 8])
def test_a_damaged_archive_directory(path: Path, byte: int) -> None:
    """Version, flags and compression of the first file: each ends in another exception of zipfile."""
    data = bytearray(path.read_bytes())
    for entry in (b"PK\x01\x02", b"PK\x03\x04"):
        data[data.index(entry) + byte + 2 * (entry[2] == 1)] ^= 0x61
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        load(path)


def test_expect(path: Path) -> None:
    saved = load(path)
    saved.expect(path, config=get_config("sim_4x4"), network=mlp(6, (5,), 3), batch=4, dataset="blobs")
    for wanted, message in (
        ({"config": get_config("sim_8x8")}, r"another config: wanted sim_8x8 \(size 8.*got sim_4x4 \(size 4"),
        ({"network": mlp(6, (7,), 3)}, r"another network: wanted mlp-6-7-3 .*got mlp-6-5-3 "),
        ({"batch": 8}, "another batch: wanted 8, got 4"),
        ({"flip": False}, "another flip: wanted False, got True"),
        ({"digest": "cd" * 32}, "wanted data with SHA-256 cdcdcdcdcdcd"),
    ):
        with pytest.raises(CheckpointError, match=message):
            saved.expect(path, **wanted)


@pytest.mark.parametrize("fails", ["replace", "fsync"])
def test_a_failed_save_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    before = path.read_bytes()

    def broken(*args: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, fails, broken)
    with pytest.raises(OSError, match="disk full"):
        save(path, replace(example(), step=3))
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_file_is_flushed_before_it_is_moved(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("fsync", "replace"):
        original = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, n=name, f=original: (calls.append(n), f(*a)))
    save(path, example())
    assert calls == ["fsync", "replace"]
    assert io.BytesIO(path.read_bytes()).read(2) == b"PK"
