"""One ``shiftgrad train``: from what was asked for to a trained network, its figures and its files."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from shiftgrad import checkpoint as checkpoints
from shiftgrad import datasets, report, weights
from shiftgrad.checkpoint import Checkpoint, CheckpointError
from shiftgrad.compiler import compile_network
from shiftgrad.config import Config, get_config
from shiftgrad.datasets import Dataset
from shiftgrad.device import Device, DeviceError, GoldenDevice
from shiftgrad.files import check_apart, check_writable, write_text
from shiftgrad.models import Network
from shiftgrad.progress import watch_for
from shiftgrad.recipes import MODELS, Options, config_of, hyper_of, network_of, options_of, scale_of
from shiftgrad.record import Hyper, HyperError
from shiftgrad.train import Outcome, Trainer, digest, stop_on_signals

__all__ = ["Request", "open_device", "train"]

CHANGEABLE = ("epochs", "eval_every")  # hyperparameters that a resumed run may have otherwise


@dataclass(frozen=True, kw_only=True)
class Request:
    """The options of ``shiftgrad train``; None is "not given": the data set's default, or what the checkpoint says."""

    config: str | None = None
    model: str | None = None
    dataset: str | None = None
    hidden: tuple[int, ...] | None = None
    depth: int | None = None
    width: int | None = None
    channels: tuple[int, ...] | None = None
    shortcut: str | None = None
    zero_range: float | None = None
    batch: int | None = None
    epochs: int | None = None
    lr_shift: int | None = None
    lr_drops: tuple[float, ...] | None = None
    scale: str | None = None
    seed: int | None = None
    eval_every: int | None = None
    flip: bool | None = None
    shift: int | None = None
    max_steps: int | None = None
    test_samples: int | None = None
    data_dir: Path | None = None
    init: Path | None = None
    device: str = "golden"
    compare: bool | None = None
    save: Path | None = None
    resume: Path | None = None
    resume_if_present: bool = False
    report: Path | None = None
    quiet: bool = False
    as_json: bool = False

    @property
    def save_path(self) -> Path | None:
        """Where checkpoints go: ``save``, else the file resumed from."""
        return self.save or self.resume

    @property
    def options(self) -> Options:
        """What was asked of the network."""
        return Options(model=self.model or MODELS[0], hidden=self.hidden, depth=self.depth, width=self.width,
                       channels=self.channels, shortcut=self.shortcut, zero_range=self.zero_range)

    def hyper(self) -> dict[str, Any]:
        """The hyperparameters given, by their name in :class:`Hyper`."""
        given = {"batch": self.batch, "epochs": self.epochs, "lr_shift": self.lr_shift, "drops": self.lr_drops,
                 "scale": self.scale, "seed": self.seed, "eval_every": self.eval_every,
                 "flip": self.flip, "shift": self.shift}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class _Job:
    network: Network
    config: Config
    data: Dataset
    hyper: Hyper
    resume: Checkpoint | None


def open_device(name: str, config: Config, compare: bool | None = None, *, quiet: bool = False) -> Device:
    """The device called ``name``: ``golden``, ``verilator``, ``board:NAME``, ``serial:PORT`` or ``serial:PORT@BAUD``.

    Parameters
    ----------
    compare : compare every instruction with the golden machine (``verilator`` only, where it is the default)
    quiet : say nothing on standard error while the simulation is built
    """
    kind, _, port = name.partition(":")
    if compare and kind != "verilator":
        raise HyperError(f"--compare needs --device verilator, which it compares with the golden machine; got {name}")
    if name == "golden":
        return GoldenDevice(config)
    config.check_buildable()
    if name == "verilator":
        return _simulated(config, compare is not False, quiet)
    if kind == "serial" and port:
        return _serial(port, config)
    if kind == "board" and port:
        return _board(port, config, quiet)
    raise HyperError(f"device must be golden, verilator, board:NAME or serial:PORT, got {name!r}")


def _serial(name: str, config: Config) -> Device:
    from shiftgrad.serial_device import BAUD, SerialDevice

    rate = re.fullmatch(r"(.+)@([1-9]\d{0,8})", name, re.ASCII)  # other names have an @ too
    return SerialDevice(config, rate[1] if rate else name, baud=int(rate[2]) if rate else BAUD)


def _board(name: str, config: Config, quiet: bool) -> Device:
    from hw.boards import get_board
    from sim.board import BoardDevice
    from sim.build import BuildError
    from sim.model import SimulationError

    try:
        board = get_board(name)
    except ValueError as error:
        raise HyperError(str(error)) from error
    if board.config != config.name:
        raise HyperError(f"{name} carries {board.config}: wanted --config {board.config}, got {config.name}")
    try:
        return BoardDevice(board, progress=(lambda line: None) if quiet else None)
    except (BuildError, SimulationError) as error:
        raise DeviceError(f"the simulation of {name} cannot be made: {error}") from error


def _simulated(config: Config, compare: bool, quiet: bool) -> Device:
    from sim.build import BuildError
    from sim.device import VerilatorDevice
    from sim.model import SimulationError

    try:
        return VerilatorDevice(config, compare=compare, progress=(lambda line: None) if quiet else None)
    except (BuildError, SimulationError) as error:
        raise DeviceError(f"the simulation of {config.name} cannot be made: {error}") from error


def train(request: Request) -> tuple[dict[str, Any], Outcome]:
    """Do what ``request`` asks.

    Returns
    -------
    The figures in plain types, as ``--json`` prints them, and the outcome.

    Raises
    ------
    Interrupted
        by SIGINT, SIGTERM or SIGHUP, after the step in progress and with the checkpoint written
    """
    job = _resumed(request) or _fresh(request)
    plan = compile_network(job.network, job.config, batch=job.hyper.batch, lr_shift=job.hyper.lr_shift,
                           scale=job.hyper.scale)
    initial = _initial(request, job.network) if request.init and not job.resume else None
    made = {"--save": request.save_path, **{f"--report's {path.name}": path for path in _report_paths(request)}}
    check_apart({"--init": request.init, "--report": request.report, **made})
    for path in made.values():
        if path:
            check_writable(path)
    device = open_device(request.device, job.config, request.compare, quiet=request.quiet)
    try:
        trainer = Trainer(device, plan, job.data, job.hyper, resume=job.resume, save=request.save_path,
                          initial=initial)
        if not trainer.host.overlaps and not (request.quiet or request.as_json):
            print(trainer.host.loading, file=sys.stderr)
        with stop_on_signals() as stop, watch_for(quiet=request.quiet or request.as_json) as watch:
            outcome = trainer.run(max_steps=request.max_steps, watch=watch, stop=stop)
    finally:
        device.close()
    result = _result(request, trainer, outcome)
    if request.report:
        _write_report(request, result, outcome)
    return result, outcome


def _fresh(request: Request) -> _Job:
    dataset, options = request.dataset or "digits", request.options
    given = hyper_of(dataset, options.model) | request.hyper()
    hyper = Hyper(**{"scale": scale_of(options.model, given["batch"])} | given)
    data = _load(dataset, request, hyper.seed)
    return _Job(network=network_of(dataset, data.shape, data.classes, options), data=data, hyper=hyper, resume=None,
                config=get_config(request.config or config_of(dataset, options.model)))


def _load(name: str, request: Request, seed: int) -> Dataset:
    """The data set, with as many held-out samples as were asked for."""
    data, most = datasets.load(name, request.data_dir, seed), request.test_samples
    return replace(data, test_images=data.test_images[:most], test_labels=data.test_labels[:most])


def _initial(request: Request, network: Network) -> dict[str, Any]:
    """Mantissas of the weights file; what it lost on the way is said on standard error."""
    assert request.init
    found = weights.quantised(network, weights.read(request.init), request.init)
    if found.saturated and not (request.quiet or request.as_json):
        print(f"{request.init}: {found.saturated} of {found.total} parameters were out of range and saturated",
              file=sys.stderr)
    return found.mantissas


def _resumed(request: Request) -> _Job | None:
    """The job of the checkpoint to go on from; None when there is none. What was asked for must not contradict it."""
    path = request.resume
    if path is None and request.resume_if_present and request.save and request.save.exists():
        path = request.save
    if path is None:
        return None
    saved = checkpoints.load(path)
    hyper = replace(saved.hyper, **{k: v for k, v in request.hyper().items() if k in CHANGEABLE})
    steps = saved.steps // saved.hyper.epochs * hyper.epochs
    if saved.finished and saved.step >= steps and not request.resume:
        if not (request.quiet or request.as_json):
            print(f"{path}: holds a run that is finished, so another one starts", file=sys.stderr)
        return None
    most = min(steps, request.max_steps if request.max_steps is not None else steps)
    if saved.step > most:
        raise HyperError(f"{path}: is at step {saved.step}, wanted to stop at {most}")
    wanted = {key: value for key, value in request.hyper().items() if key not in CHANGEABLE}
    saved.expect(path, **({"dataset": request.dataset} if request.dataset else {}),
                 **({"config": get_config(request.config)} if request.config else {}))
    for name, value in wanted.items():
        saved.expect(path, **{name: value})
    data = _load(saved.dataset, request, saved.hyper.seed)
    if request.model not in (None, saved.network.kind):
        raise CheckpointError(f"{path}: holds a run of another model: wanted {request.model}, got {saved.network.kind}")
    if given := request.options.given:
        saved.expect(path, network=network_of(data.name, data.shape, data.classes, options_of(saved.network, given)))
    saved.expect(path, digest=digest(data))
    return _Job(network=saved.network, config=saved.config, data=data, hyper=hyper, resume=saved)


def _result(request: Request, trainer: Trainer, outcome: Outcome) -> dict[str, Any]:
    totals = outcome.totals
    save = request.save_path
    return {
        "accuracy": outcome.accuracy, "loss": outcome.loss, "steps": outcome.steps,
        "compared_instructions": totals.compared_instructions, "mismatches": totals.mismatches,
        "cycles": totals.cycles or None, "macs": totals.macs, "metered_steps": totals.metered,
        "utilization": totals.utilisation(trainer.plan.config.macs_per_cycle),
        "seconds": round(totals.seconds, 3), "model": trainer.plan.network.kind, "device": request.device,
        **trainer.facts(),
        "loading": str(trainer.host.loading), "resumed_from_step": trainer.resumed_from, "counters": totals.counters,
        "history": [asdict(epoch) for epoch in outcome.history.epochs],
        "checkpoint": str(save) if save else None,
        "report": str(request.report / "report.html") if request.report else None,
    }


def _report_paths(request: Request) -> list[Path]:
    return [request.report / name for name in ("report.html", "result.json")] if request.report else []


def _write_report(request: Request, result: dict[str, Any], outcome: Outcome) -> None:
    texts = report.render(result, outcome.history, outcome.final_line), json.dumps(result, indent=1) + "\n"
    for path, text in zip(_report_paths(request), texts, strict=True):
        write_text(path, text)
