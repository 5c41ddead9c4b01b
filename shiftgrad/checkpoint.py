"""Checkpoints: everything a run needs to go on with the same bits, in one npz file that is whole or not there."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shiftgrad.config import Config
from shiftgrad.files import FileError, arrays_of, brief, write_bytes
from shiftgrad.models import LAYERS, Dense, Layer, Network
from shiftgrad.record import History, Hyper, Totals

__all__ = ["VERSION", "Checkpoint", "CheckpointError", "load", "save"]

FORMAT = "shiftgrad checkpoint"
VERSION = 1
HEADER, STATE, HISTORY = "header", "state/", "history/"
ROUTE = "; start without --resume, or name another file"


class CheckpointError(ValueError):
    """A file that is no usable checkpoint, or one of another run."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A training run between two steps.

    Parameters
    ----------
    network, config, hyper : what is trained, for which machine, and how
    dataset, digest : name and SHA-256 of the training data
    step, steps : training steps done, and of the whole run
    state : arrays of ``Host.state``: mantissas of weights, momenta and biases, exponents, histories, generators
    history, totals : figures so far

    The order of samples needs no state of its own: it is a function of seed and epoch.
    """

    network: Network
    config: Config
    hyper: Hyper
    dataset: str
    digest: str
    step: int
    steps: int
    state: dict[str, NDArray[Any]]
    history: History
    totals: Totals

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.step >= self.steps

    def expect(self, path: Path, **wanted: Any) -> None:
        """``CheckpointError`` unless the attributes named, its own or those of ``hyper``, have the values given."""
        for name, value in wanted.items():
            if (mine := getattr(self if hasattr(self, name) else self.hyper, name)) != value:
                was, now = (_brief(name, v) for v in (mine, value))
                raise CheckpointError(f"{path}: holds a run of another {name}: wanted {now}, got {was}{ROUTE}")


def _brief(name: str, value: Any) -> str:
    if name == "digest":
        return f"data with SHA-256 {value[:12]}..."
    if isinstance(value, Config):
        return f"{value.name} ({', '.join(f'{k} {v}' for k, v in asdict(value).items() if k != 'name')})"
    if isinstance(value, Network):
        return f"{value.name} ({', '.join(map(_size, value.layers))})"
    return str(value)


def _size(layer: Layer) -> str:
    size = getattr(layer, "units", getattr(layer, "channels", ""))
    return f"{layer.name} {size}".rstrip()


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write ``checkpoint`` to ``path`` (.npz), atomically: an interrupted save leaves the previous file as it was."""
    header = {
        "format": FORMAT, "version": VERSION,
        "network": _network_entry(checkpoint.network), "config": asdict(checkpoint.config),
        "hyper": asdict(checkpoint.hyper),
        "dataset": checkpoint.dataset, "digest": checkpoint.digest,
        "step": checkpoint.step, "steps": checkpoint.steps, "totals": asdict(checkpoint.totals),
        "state": list(checkpoint.state),
    }
    arrays: dict[str, Any] = {HEADER: np.frombuffer(json.dumps(header).encode(), np.uint8)}
    arrays |= {f"{STATE}{name}": array for name, array in checkpoint.state.items()}
    arrays |= {f"{HISTORY}{name}": array for name, array in checkpoint.history.to_arrays().items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_bytes(path, buffer.getvalue())


def load(path: Path | str) -> Checkpoint:
    """Read a checkpoint. One from before there were flips and shifts has none of them, which is the default.

    Raises
    ------
    CheckpointError
        no such file, not a checkpoint, of another version, truncated or damaged; the message names the file
    """
    path = Path(path)
    arrays = _arrays(path)
    header = _header(path, arrays)
    try:
        state = {name: arrays[f"{STATE}{name}"] for name in header["state"]}
        history = History.from_arrays(_under(arrays, HISTORY))
        if header["step"] != len(history.loss):
            raise ValueError(f"step {header['step']}, {len(history.loss)} losses")
        return Checkpoint(
            network=_network(header["network"]), config=Config(**header["config"]),
            hyper=Hyper(**header["hyper"] | {"drops": tuple(header["hyper"]["drops"])}),
            dataset=header["dataset"], digest=header["digest"], step=header["step"], steps=header["steps"], state=state,
            history=history, totals=Totals(**header["totals"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, brief(error)) from None


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Every array of the file, read at once so that a damaged one is noticed here."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: wanted a checkpoint, got: {error.strerror}") from None
    if data[:2] != b"PK":
        raise CheckpointError(f"{path}: wanted a checkpoint (.npz), got {len(data)} bytes of something else{ROUTE}")
    try:
        return arrays_of(data)
    except FileError as error:
        raise _damaged(path, str(error)) from None


def _damaged(path: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{path}: wanted a whole checkpoint, got a truncated or damaged one ({why}){ROUTE}")


def _header(path: Path, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    try:
        header = json.loads(arrays[HEADER].astype(np.uint8).tobytes())
        name, version = header["format"], header["version"]
    except (KeyError, TypeError, ValueError):
        name, version = None, None
    if name != FORMAT:
        raise CheckpointError(f"{path}: wanted a checkpoint, got a .npz file without its header{ROUTE}")
    if version != VERSION:
        raise CheckpointError(f"{path}: wanted checkpoint version {VERSION}, got {version}{ROUTE}")
    return dict(header)


def _network(entry: dict[str, Any]) -> Network:
    shape = {"shape": tuple(entry["shape"])} if entry.get("shape") else {}
    return Network(**entry | shape | {"layers": tuple(map(_layer, entry["layers"]))})


def _layer(entry: dict[str, Any]) -> Layer:
    """A layer from its fields and ``kind``, which was not written when all were Dense."""
    fields = dict(entry)
    kind = fields.pop("kind", Dense.__name__)
    return {layer.__name__: layer for layer in LAYERS}[kind](**fields)


def _network_entry(network: Network) -> dict[str, Any]:
    layers = [{"kind": type(layer).__name__, **asdict(layer)} for layer in network.layers]
    return {**asdict(network), "layers": layers}


def _under(arrays: dict[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name[len(prefix):]: array for name, array in arrays.items() if name.startswith(prefix)}
