"""Trains a plan on any device: loads it, feeds mini-batches, reads results, saves and restores the state."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shiftgrad import isa
from shiftgrad.config import MEMORIES
from shiftgrad.device import ADDRESSES, Device, DeviceError
from shiftgrad.images import pixels
from shiftgrad.initialise import generator_seeds, initial_vectors, initial_weights
from shiftgrad.isa import Memory, Region, Status
from shiftgrad.plan import LOADED, Loading, Plan, Tensor
from shiftgrad.tensor_words import pack_tensor, unpack_tensor

__all__ = ["Batch", "Host", "MachineError", "StepResult"]

Array = NDArray[Any]
Batch = tuple[Array, Array]  # images and labels, as ``Host.load_batch`` takes them
Following = Callable[[], Batch | None]
IGNORED = 0xFFFF
DYNAMIC = slice(4, 7)  # words of a table entry that training changes: exponent, history
STORED = (Memory.WGT, Memory.MOM, Memory.VEC)
NATS = math.log(2) / 256  # one unit of the loss register


class MachineError(RuntimeError):
    """A program that did not reach HALT.

    Parameters
    ----------
    status : why it stopped
    pc : instruction it stopped at
    where : that instruction disassembled, with its layer
    """

    def __init__(self, status: Status, pc: int, where: str) -> None:
        super().__init__(f"wanted {Status.HALTED.name}, got {status.name} at instruction {pc}: {where}")
        self.status, self.pc, self.where = status, pc, where


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one program run reported.

    Parameters
    ----------
    loss : mean cross-entropy of the counted samples, in nats; 0 when there are none
    correct : samples classified correctly
    samples : samples counted (those with a valid label)
    saturated : mantissas the program's last FWD, BWD or GRAD saturated
    """

    loss: float
    correct: int
    samples: int
    saturated: int


def nothing() -> None:
    """No batch follows."""


class Host:
    """Drives ``device`` through ``plan``.

    Call :meth:`load` first. Every method that runs a program raises :class:`MachineError` when it does not reach HALT.

    Parameters
    ----------
    device : a machine of the plan's configuration
    plan : what to run

    Attributes
    ----------
    loading : where the next mini-batch goes, or why it has no place of its own
    overlaps : it has one, so that it is loaded while a program runs
    """

    def __init__(self, device: Device, plan: Plan) -> None:
        if device.config != plan.config:
            raise ValueError(f"the plan is for {plan.config.name}, the device is {device.config.name}")
        self.device = device
        self.plan = plan
        self.loading = plan.loading
        if plan.loading.second and not device.loads_while_busy:
            self.loading = Loading(second={}, why="for the device takes no writes while one runs")
        self.overlaps = bool(self.loading.second)
        self._lr_extra: int | None = None
        self._place = 0  # of the batch that the next program runs on
        self._seen = 0  # of the last batch that was written, or that a program ran on
        self._named: int | None = 0  # the place that the tensor table names
        self._torn = False  # that batch was not written whole
        self._running = False  # a program was started and has not been seen to end

    # --- parameters and state ---------------------------------------------------------------------

    def load(self, seed: int = 0, *, state: Mapping[str, Array] | None = None,
             parameters: Mapping[str, Array] | None = None) -> None:
        """Write program, tensor table, parameters and generators: fresh ones from ``seed``, or a saved ``state``.

        ``parameters`` are mantissas by tensor name that a fresh start takes instead of drawn ones.
        """
        plan = self.plan
        self._lr_extra, self._place, self._seen, self._named, self._torn = None, 0, 0, None, False
        program = np.array(plan.program, np.uint64).astype("<u8")
        self.device.write(plan.config.address(Region.PROGRAM), program.view("<u4").astype(np.uint32))
        table = np.array([tensor.descriptor() for tensor in plan.tensors], np.uint32)
        self.device.write(plan.config.address(Region.TABLE), table.reshape(-1))
        self._named = 0
        if state is not None:
            self.restore(state)
            return
        values: dict[str, Array] = {**initial_weights(plan.network, seed), **initial_vectors(plan.network),
                                    **(parameters or {})}
        for tensor in self._stored():
            momentum = np.zeros((tensor.rows, tensor.cols), np.int8)
            self.write_tensor(tensor.name, values.get(tensor.name, momentum))
        self.device.write(isa.LFSR_BASE, generator_seeds(seed, plan.config.size))

    def state(self) -> dict[str, Array]:
        """Everything training changes, as arrays.

        Returns
        -------
        dict
            Mantissas by name for every weight, bias and momentum; ``table``: uint32 [tensors, 3], the exponent and
            history words of the tensor table; ``generators``: uint32 [T]. Restoring it gives the bits of never having
            stopped.
        """
        state = {tensor.name: self.read_tensor(tensor.name) for tensor in self._stored()}
        state["table"] = self._read_table()[:, DYNAMIC]
        state["generators"] = np.array(self.device.read(isa.LFSR_BASE, self.plan.config.size), np.uint32)
        return state

    def restore(self, state: Mapping[str, Array]) -> None:
        """Write back what :meth:`state` returned; ``ValueError`` when it is of another network or machine."""
        shapes: dict[str, tuple[int, ...]] = {tensor.name: (tensor.rows, tensor.cols) for tensor in self._stored()}
        shapes |= {"table": (len(self.plan.tensors), 3), "generators": (self.plan.config.size,)}
        if set(state) != set(shapes):
            raise ValueError(f"a state of {self.plan.network.name} has {sorted(shapes)}, got {sorted(state)}")
        for name, shape in shapes.items():
            if np.shape(state[name]) != shape:
                raise ValueError(f"{name} must have shape {shape}, got {np.shape(state[name])}")
        for tensor in self._stored():
            self.write_tensor(tensor.name, state[tensor.name])
        table = self._read_table()
        table[:, DYNAMIC] = state["table"]
        self.device.write(self.plan.config.address(Region.TABLE), table.reshape(-1))
        self.device.write(isa.LFSR_BASE, np.asarray(state["generators"], np.uint32))

    def exponents(self) -> dict[str, int]:
        """The exponent of every tensor, as the device has it now."""
        table = self._read_table()
        return {t.name: isa.unpack(isa.DESCRIPTOR[4], int(table[t.id, 4]))["exponent"] for t in self.plan.tensors}

    @contextmanager
    def same_table(self) -> Iterator[None]:
        """Put the tensor table back at the end."""
        named, table = self._named, self._read_table()
        try:
            yield
        finally:
            self._named = None
            self.device.write(self.plan.config.address(Region.TABLE), table.reshape(-1))
            self._named = named

    # --- tensors ----------------------------------------------------------------------------------

    def write_tensor(self, name: str, values: Array) -> None:
        """Write mantissas [rows, cols]; ``ValueError`` when the shape is wrong or one is out of range."""
        self._rest()
        self._write(self.plan.tensor(name), values, self._place)
        self._seen = self._place

    def read_tensor(self, name: str) -> Array:
        """Mantissas [rows, cols]: int16 from the vector memory, int8 from the others, uint8 of unsigned tensors.

        An activation or error may have been overwritten by another tensor that shares its place. Input and labels are
        those that were written last, or of the last program if that has ended since.
        """
        tensor = self.plan.tensor(name)
        count = tensor.words * self.plan.config.pitch(MEMORIES[tensor.memory]) // 4
        words = self.device.read(self._address(tensor, self._seen), count)
        return unpack_tensor(words, (tensor.rows, tensor.cols), self.plan.config, tensor.memory,
                             unsigned=tensor.unsigned)

    def _write(self, tensor: Tensor, values: Array, place: int) -> None:
        if values.shape != (tensor.rows, tensor.cols):
            raise ValueError(f"{tensor.name} is {tensor.rows} x {tensor.cols}, got shape {values.shape}")
        bound = 32767 if tensor.memory == Memory.VEC else 255 if tensor.unsigned else 127
        least = 0 if tensor.unsigned else -bound
        low, high = values.min(), values.max()
        if tensor.name != "labels" and (low < least or high > bound):
            raise ValueError(f"{tensor.name}: mantissas must be from {least} to {bound}, got {low} to {high}")
        self.device.write(self._address(tensor, place), pack_tensor(values, self.plan.config, tensor.memory))

    def _base(self, tensor: Tensor, place: int) -> int:
        return self.plan.loading.second.get(tensor.name, tensor.base) if place else tensor.base

    def _address(self, tensor: Tensor, place: int) -> int:
        config = self.plan.config
        pitch = config.pitch(MEMORIES[tensor.memory])
        return config.address(Region[tensor.memory.name]) + self._base(tensor, place) * pitch

    # --- training ---------------------------------------------------------------------------------

    def load_batch(self, images: Array, labels: Array) -> None:
        """Write a mini-batch; a short one is padded with samples that count nowhere.

        Parameters
        ----------
        images : [n, ...], uint8 grey pixels or int8 mantissas of exponent -7, ``inputs`` a sample in the order height,
            width, channel; n from 1 to batch
        labels : [n] classes, from 0
        """
        self._rest()
        self._put((images, labels), self._place)
        self._seen = self._place

    def train_step(self, lr_extra: int = 0, following: Following = nothing) -> StepResult:
        """Run one training step on the loaded batch at learning rate 2^-(lr_shift + lr_extra).

        ``following`` gives the batch to load then, if there is one; it is asked, and the batch written, while the step
        runs if the host ``overlaps``. When that fails, so does this call, but not before the step has ended.
        """
        if lr_extra != self._lr_extra:
            if not 0 <= lr_extra <= isa.LR_MAX:
                raise ValueError(f"lr_extra must be from 0 to {isa.LR_MAX}, got {lr_extra}")
            self._lr_extra = None
            self.device.write(ADDRESSES["LR_SHIFT"], [lr_extra])
            self._lr_extra = lr_extra
        return self._run("train", following)

    def train_epoch(self, images: Array, labels: Array, rng: np.random.Generator, lr_extra: int = 0) -> StepResult:
        """One pass over the samples in an order drawn from ``rng``; losses averaged, counts added up."""
        order = rng.permutation(len(images))
        batches = ((images[order[part]], labels[order[part]]) for part in self._parts(len(order)))
        return _total(list(self._each(batches, lambda following: self.train_step(lr_extra, following))))

    def evaluate(self, images: Array, labels: Array) -> tuple[float, float]:
        """Accuracy (0 to 1) and mean loss in nats over ``images``.

        It replaces the loaded batch; parameters, histories and generators stay as they are.
        """
        total = _total(list(self.evaluations((images[part], labels[part]) for part in self._parts(len(images)))))
        return total.correct / max(1, total.samples), total.loss

    def evaluations(self, batches: Iterable[Batch]) -> Iterator[StepResult]:
        """Classify one batch after the other, each while the next one is loaded; the same as :meth:`evaluate`."""
        return self._each(batches, lambda following: self._run("evaluate", following))

    def predict(self, images: Array) -> NDArray[np.int64]:
        """The class of every one of ``images``, taken as by :meth:`load_batch`; leaves what :meth:`evaluate` leaves."""
        logits, found = f"{self.plan.network.layers[-1].name}.out", []
        parts = self._parts(len(images))
        runs = self.evaluations((images[part], np.zeros(len(images[part]), np.uint8)) for part in parts)
        for part, _ in zip(parts, runs, strict=True):
            found.append(self.read_tensor(logits)[: len(images[part])].argmax(axis=1))
        return np.concatenate(found) if found else np.zeros(0, np.int64)

    def select(self) -> None:
        """Have the tensor table name the place of the loaded batch; what runs a program here does it by itself."""
        if self._torn:
            raise ValueError("wanted a whole mini-batch, got one whose loading failed: load it again")
        self._rest()
        self._seen = self._place
        if self._named == self._place:
            return
        self._named = None
        for name in LOADED:
            tensor = self.plan.tensor(name)
            entry = self.plan.config.address(Region.TABLE) + 4 * isa.DESCRIPTOR_WORDS * tensor.id
            self.device.write(entry, [self._base(tensor, self._place)])
        self._named = self._place

    # --- inside -----------------------------------------------------------------------------------

    def _run(self, program: str, following: Following) -> StepResult:
        self.select()
        self._running, batch = True, None
        self.device.start(self.plan.entries[program])
        if self.overlaps:
            try:
                batch = following()
                if batch:
                    self._put(batch, 1 - self._place)
            except Exception:
                with suppress(DeviceError):
                    self._wait()
                raise
        status = self._wait()
        if status != Status.HALTED:
            pc = int(self.device.read(ADDRESSES["PC"])[0])
            raise MachineError(status, pc, self._where(pc))
        loss, correct, samples, saturated = map(int, self.device.read(ADDRESSES["LOSS"], 4))
        if self.overlaps:
            self._place ^= batch is not None
        elif batch := following():
            self.load_batch(*batch)
        return StepResult(loss=loss * NATS / max(1, samples), correct=correct, samples=samples, saturated=saturated)

    def _wait(self) -> Status:
        status = Status(self.device.wait())
        self._running = False
        return status

    def _rest(self) -> None:
        """Wait for a program that an interruption or a lost answer has left running: memories take writes meanwhile."""
        if self._running:
            self._wait()

    def _each(self, batches: Iterable[Batch], run: Callable[[Following], StepResult]) -> Iterator[StepResult]:
        left = iter(batches)
        batch = next(left, None)
        if batch:
            self.load_batch(*batch)
        while batch:
            asked: list[Batch | None] = []

            def following(asked: list[Batch | None] = asked) -> Batch | None:
                asked.append(next(left, None))
                return asked[0]

            if self.overlaps:
                yield run(following)
                batch = asked[0]
                continue
            yield run(nothing)  # what the program left may be read until the next batch is asked for, and overwrites it
            if batch := next(left, None):
                self.load_batch(*batch)

    def _put(self, batch: Batch, place: int) -> None:
        """Write a mini-batch to one of its places."""
        x, y = self._padded(*batch)
        loaded = place == self._place
        self._torn |= loaded
        self._write(self.plan.tensor("input"), self.plan.packing.apply(x), place)
        self._write(self.plan.tensor("labels"), y, place)
        self._torn &= not loaded

    def _padded(self, images: Array, labels: Array) -> tuple[Array, Array]:
        """Mantissas [batch, inputs] and labels [1, batch]."""
        batch, inputs = self.plan.batch, self.plan.network.elements
        count = len(images)
        if not 1 <= count <= batch or len(labels) != count:
            raise ValueError(f"wanted 1 to {batch} images and as many labels, got {count} and {len(labels)}")
        if images.size != count * inputs:
            raise ValueError(f"wanted {inputs} elements a sample, got {images.size // count}")
        if np.min(labels) < 0 or np.max(labels) >= self.plan.network.classes:
            raise ValueError(f"labels must be from 0 to {self.plan.network.classes - 1}, "
                             f"got {np.min(labels)} to {np.max(labels)}")
        x = np.zeros((batch, inputs), np.int8)
        x[:count] = pixels(images).reshape(count, inputs)
        y = np.full((1, batch), IGNORED, np.uint16)
        y[0, :count] = labels
        return x, y

    def _parts(self, count: int) -> list[slice]:
        return [slice(start, start + self.plan.batch) for start in range(0, count, self.plan.batch)]

    def _where(self, pc: int) -> str:
        if pc >= len(self.plan.instructions):
            return f"beyond the program's {len(self.plan.instructions)} instructions"
        instruction = self.plan.instructions[pc]
        return f"{instruction} ({f'layer {instruction.layer}, ' if instruction.layer else ''}{instruction.phase})"

    def _stored(self) -> list[Tensor]:
        return [tensor for tensor in self.plan.tensors if tensor.memory in STORED and tensor.name != "labels"]

    def _read_table(self) -> NDArray[np.uint32]:
        count = len(self.plan.tensors)
        words = self.device.read(self.plan.config.address(Region.TABLE), count * isa.DESCRIPTOR_WORDS)
        return np.array(words, np.uint32).reshape(count, isa.DESCRIPTOR_WORDS)


def _total(results: list[StepResult]) -> StepResult:
    samples = sum(r.samples for r in results)
    return StepResult(loss=sum(r.loss * r.samples for r in results) / max(1, samples), samples=samples,
                      correct=sum(r.correct for r in results), saturated=sum(r.saturated for r in results))
