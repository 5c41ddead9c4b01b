"""Trains a plan on any device: loads it, feeds mini-batches, reads results, saves and restores the state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shiftgrad import isa
from shiftgrad.compiler import PIXEL_EXPONENT
from shiftgrad.config import MEMORIES, Config
from shiftgrad.device import ADDRESSES, Device
from shiftgrad.images import mantissas
from shiftgrad.initialise import generator_seeds, initial_vectors, initial_weights
from shiftgrad.isa import Memory, Region, Status
from shiftgrad.plan import Plan, Tensor

__all__ = ["Host", "MachineError", "StepResult", "pack_tensor", "pixels", "unpack_tensor"]

Array = NDArray[Any]
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


def pixels(images: Array) -> NDArray[np.int8]:
    """int8 mantissas of ``images``: uint8 pixels are taken for grey ones, not centred; int8 stays as it is."""
    if images.dtype == np.uint8:
        return mantissas(images, centred=False)
    if images.dtype != np.int8:
        raise TypeError(f"images must be uint8 pixels or int8 mantissas (e = {PIXEL_EXPONENT}), got {images.dtype}")
    if images.size and images.min() == -128:
        raise ValueError("mantissas must be from -127 to 127, got -128")
    return images


def pack_tensor(values: Array, config: Config, memory: Memory) -> NDArray[np.uint32]:
    """[rows, cols] mantissas as the 32-bit words the host writes; lanes beyond the last column are 0."""
    name = MEMORIES[memory]
    rows, cols = values.shape
    stride, size = config.stride(cols), config.size
    lanes = config.pitch(name) // config.lane_bytes(name)
    dtype = np.dtype(f"<i{config.lane_bytes(name)}")
    rowwise = np.zeros((rows, stride * size), dtype)
    rowwise[:, :cols] = values.astype(dtype)
    words = np.zeros((rows * stride, lanes), dtype)
    words[:, :size] = rowwise.reshape(-1, size)
    return words.view("<u4").reshape(-1).astype(np.uint32)


def unpack_tensor(words: Array, shape: tuple[int, int], config: Config, memory: Memory) -> Array:
    """The inverse of :func:`pack_tensor`: int16 from the vector memory, int8 from the others."""
    name = MEMORIES[memory]
    lanes = config.pitch(name) // config.lane_bytes(name)
    values = np.ascontiguousarray(words, "<u4").view(f"<i{config.lane_bytes(name)}").reshape(-1, lanes)
    dtype = np.int16 if memory == Memory.VEC else np.int8
    return values[:, : config.size].reshape(shape[0], -1)[:, : shape[1]].astype(dtype)


class Host:
    """Drives ``device`` through ``plan``.

    Call :meth:`load` first. Every method that runs a program raises :class:`MachineError` when it does not reach HALT.

    Parameters
    ----------
    device : a machine of the plan's configuration
    plan : what to run
    """

    def __init__(self, device: Device, plan: Plan) -> None:
        if device.config != plan.config:
            raise ValueError(f"the plan is for {plan.config.name}, the device is {device.config.name}")
        self.device = device
        self.plan = plan
        self._lr_extra: int | None = None

    # --- parameters and state ---------------------------------------------------------------------

    def load(self, seed: int = 0, *, state: Mapping[str, Array] | None = None) -> None:
        """Write program, tensor table, parameters and generators: fresh ones from ``seed``, or a saved ``state``."""
        plan = self.plan
        self._lr_extra = None
        program = np.array(plan.program, np.uint64).astype("<u8")
        self.device.write(plan.config.address(Region.PROGRAM), program.view("<u4").astype(np.uint32))
        table = np.array([tensor.descriptor() for tensor in plan.tensors], np.uint32)
        self.device.write(plan.config.address(Region.TABLE), table.reshape(-1))
        if state is not None:
            self.restore(state)
            return
        values: dict[str, Array] = {**initial_weights(plan.network, seed), **initial_vectors(plan.network)}
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

    # --- tensors ----------------------------------------------------------------------------------

    def write_tensor(self, name: str, values: Array) -> None:
        """Write mantissas [rows, cols]; ``ValueError`` when the shape is wrong or one is out of range."""
        tensor = self.plan.tensor(name)
        if values.shape != (tensor.rows, tensor.cols):
            raise ValueError(f"{name} is {tensor.rows} x {tensor.cols}, got shape {values.shape}")
        bound = 32767 if tensor.memory == Memory.VEC else 127
        low, high = values.min(), values.max()
        if name != "labels" and (low < -bound or high > bound):
            raise ValueError(f"{name}: mantissas must be from {-bound} to {bound}, got {low} to {high}")
        self.device.write(self._address(tensor), pack_tensor(values, self.plan.config, tensor.memory))

    def read_tensor(self, name: str) -> Array:
        """Mantissas [rows, cols]: int16 from the vector memory, int8 from the others.

        An activation or error may have been overwritten by another tensor that shares its place.
        """
        tensor = self.plan.tensor(name)
        count = tensor.words * self.plan.config.pitch(MEMORIES[tensor.memory]) // 4
        words = self.device.read(self._address(tensor), count)
        return unpack_tensor(words, (tensor.rows, tensor.cols), self.plan.config, tensor.memory)

    # --- training ---------------------------------------------------------------------------------

    def load_batch(self, images: Array, labels: Array) -> None:
        """Write a mini-batch; a short one is padded with samples that count nowhere.

        Parameters
        ----------
        images : [n, ...], uint8 grey pixels or int8 mantissas of exponent -7, ``inputs`` a sample in the order height,
            width, channel; n from 1 to batch
        labels : [n] classes, from 0
        """
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
        self.write_tensor("input", self.plan.packing.apply(x))
        self.write_tensor("labels", y)

    def train_step(self, lr_extra: int = 0) -> StepResult:
        """Run one training step on the loaded batch at learning rate 2^-(lr_shift + lr_extra)."""
        if lr_extra != self._lr_extra:
            if not 0 <= lr_extra <= isa.LR_MAX:
                raise ValueError(f"lr_extra must be from 0 to {isa.LR_MAX}, got {lr_extra}")
            self.device.write(ADDRESSES["LR_SHIFT"], [lr_extra])
            self._lr_extra = lr_extra
        return self._run("train")

    def train_epoch(self, images: Array, labels: Array, rng: np.random.Generator, lr_extra: int = 0) -> StepResult:
        """One pass over the samples in an order drawn from ``rng``; losses averaged, counts added up."""
        order = rng.permutation(len(images))
        results = []
        for start in range(0, len(order), self.plan.batch):
            chosen = order[start : start + self.plan.batch]
            self.load_batch(images[chosen], labels[chosen])
            results.append(self.train_step(lr_extra))
        return _total(results)

    def evaluate(self, images: Array, labels: Array) -> tuple[float, float]:
        """Accuracy (0 to 1) and mean loss in nats over ``images``.

        It replaces the loaded batch; parameters, histories and generators stay as they are.
        """
        results = []
        for start in range(0, len(images), self.plan.batch):
            chosen = slice(start, start + self.plan.batch)
            self.load_batch(images[chosen], labels[chosen])
            results.append(self._run("evaluate"))
        total = _total(results)
        return total.correct / max(1, total.samples), total.loss

    # --- inside -----------------------------------------------------------------------------------

    def _run(self, program: str) -> StepResult:
        status = Status(self.device.run(self.plan.entries[program]))
        if status != Status.HALTED:
            pc = int(self.device.read(ADDRESSES["PC"])[0])
            raise MachineError(status, pc, self._where(pc))
        loss, correct, samples, saturated = map(int, self.device.read(ADDRESSES["LOSS"], 4))
        return StepResult(loss=loss * NATS / max(1, samples), correct=correct, samples=samples, saturated=saturated)

    def _where(self, pc: int) -> str:
        if pc >= len(self.plan.instructions):
            return f"beyond the program's {len(self.plan.instructions)} instructions"
        instruction = self.plan.instructions[pc]
        return f"{instruction} ({f'layer {instruction.layer}, ' if instruction.layer else ''}{instruction.phase})"

    def _stored(self) -> list[Tensor]:
        return [tensor for tensor in self.plan.tensors if tensor.memory in STORED and tensor.name != "labels"]

    def _address(self, tensor: Tensor) -> int:
        config = self.plan.config
        return config.address(Region[tensor.memory.name]) + tensor.base * config.pitch(MEMORIES[tensor.memory])

    def _read_table(self) -> NDArray[np.uint32]:
        count = len(self.plan.tensors)
        words = self.device.read(self.plan.config.address(Region.TABLE), count * isa.DESCRIPTOR_WORDS)
        return np.array(words, np.uint32).reshape(count, isa.DESCRIPTOR_WORDS)


def _total(results: list[StepResult]) -> StepResult:
    samples = sum(r.samples for r in results)
    return StepResult(loss=sum(r.loss * r.samples for r in results) / max(1, samples), samples=samples,
                      correct=sum(r.correct for r in results), saturated=sum(r.saturated for r in results))
