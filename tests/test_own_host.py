"""A host that knows docs/host.md only ends with the same bits as shiftgrad's."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from shiftgrad.config import get_config
from shiftgrad.datasets import load
from shiftgrad.device import GoldenDevice
from shiftgrad.generate import description
from tests.arrays import assert_same
from tests.command_line import shiftgrad


def output(*arguments: object) -> str:
    done = shiftgrad(*arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


def saved(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path) as archive:
        return dict(archive)


class OwnHost:
    """Reads and writes 32-bit words of the bus, by the constants of shiftgrad.json."""

    def __init__(self, bus: GoldenDevice, about: dict[str, Any], plan: dict[str, Any]) -> None:
        self.bus, self.about, self.plan, self.regions = bus, about, plan, about["regions"]
        self.registers = {r["name"]: r["address"] for r in about["registers"]}
        self.size = self.register("CONFIG") & 0xFF
        self.tensors = {tensor["name"]: tensor for tensor in plan["tensors"]}

    def register(self, name: str) -> int:
        return int(self.bus.read(self.registers[name], 1)[0])

    def once(self, state: dict[str, NDArray[Any]]) -> None:
        for number, instruction in enumerate(self.plan["instructions"]):
            word = int(instruction["word"], 16)
            self.bus.write(self.regions["PROGRAM"] + 8 * number, [word & 0xFFFFFFFF, word >> 32])
        for tensor, changed in zip(self.plan["tensors"], state["table"], strict=True):
            words = [int(word, 16) for word in tensor["descriptor"]]
            words[4:7] = changed.tolist()
            self.bus.write(self.regions["TABLE"] + 32 * tensor["id"], words)
        for name in state.keys() - {"table", "generators"}:
            self.put(name, state[name])
        self.bus.write(self.registers["LFSR0"], state["generators"])

    def place(self, name: str) -> tuple[int, int, int]:
        """Address, bytes a word and bytes a lane."""
        memory = self.tensors[name]["memory"].upper()
        return self.regions[memory], self.about["numbers"][f"{memory}_PITCH"], 2 if memory == "VEC" else 1

    def put(self, name: str, values: NDArray[Any]) -> None:
        window, pitch, width = self.place(name)
        tensor = self.tensors[name]
        for r, row in enumerate(values.tolist()):
            words = bytearray(pitch * tensor["stride"])
            for c, value in enumerate(row):
                at = c // self.size * pitch + c % self.size * width
                words[at:at + width] = (value & (1 << 8 * width) - 1).to_bytes(width, "little")
            self.bus.write(window + pitch * (tensor["base"] + r * tensor["stride"]), np.frombuffer(bytes(words), "<u4"))

    def get(self, name: str) -> NDArray[Any]:
        window, pitch, width = self.place(name)
        tensor = self.tensors[name]
        raw = self.bus.read(window + pitch * tensor["base"], pitch * tensor["rows"] * tensor["stride"] // 4)
        lanes = np.asarray(raw, "<u4").view(f"<i{width}").reshape(tensor["rows"], tensor["stride"], -1)
        return lanes[:, :, :self.size].reshape(tensor["rows"], -1)[:, :tensor["cols"]]

    def step(self, images: NDArray[np.uint8], labels: NDArray[np.uint8], halvings: int) -> tuple[float, int]:
        self.put("input", images // 2)
        self.put("labels", labels[None, :])
        self.bus.write(self.registers["LR_SHIFT"], [halvings])
        self.bus.write(self.registers["START_PC"], [self.plan["entries"]["train"]])
        self.bus.write(self.registers["CTRL"], [1])
        while (status := self.register("STATUS")) & 1:
            pass
        assert status >> 8 == self.about["status"]["HALTED"]
        loss, correct, samples = (self.register(name) for name in ("LOSS", "CORRECT", "SAMPLES"))
        assert samples == len(labels)
        return loss / samples * np.log(2) / 256, correct


@pytest.mark.parametrize("config", ["sim_4x4", "sim_12x12"])
def test_ten_steps(tmp_path: Path, config: str) -> None:
    network = ("--config", config, "--hidden", "13", "--batch", 8, "--lr-shift", 5)
    plan = json.loads(output("estimate", *network, "--plan", "--json"))["plan"]
    for steps in (0, 10):
        output("train", *network, "--lr-drops", 0.002, "--max-steps", steps, "--save", tmp_path / f"{steps}.npz",
               "--quiet")
    first, last = (saved(tmp_path / f"{steps}.npz") for steps in (0, 10))
    about = json.loads(json.dumps(description(get_config(config))))  # shiftgrad.json

    host = OwnHost(GoldenDevice(get_config(config)), about, plan)
    assert host.register("MAGIC") == about["numbers"]["MAGIC_VALUE"]
    host.once({name.removeprefix("state/"): first[name] for name in first if name.startswith("state/")})
    data = load("digits", seed=0)
    order = np.random.default_rng([0, 0]).permutation(len(data.images))
    halvings = last["history/lr_extra"].tolist()  # how often each step's rate had been halved
    assert set(halvings) == {0, 1}
    losses = [host.step(data.images[part], data.labels[part], extra)
              for part, extra in zip(order[:80].reshape(10, 8), halvings, strict=True)]

    np.testing.assert_allclose([loss for loss, _ in losses], last["history/loss"], rtol=1e-12)
    wanted = {name.removeprefix("state/"): last[name] for name in last if name.startswith("state/")}
    table = host.bus.read(host.regions["TABLE"], 8 * len(plan["tensors"]))
    assert_same(wanted, {
        **{name: host.get(name) for name in wanted.keys() - {"table", "generators"}},
        "table": table.reshape(-1, 8)[:, 4:7], "generators": host.bus.read(host.registers["LFSR0"], host.size)})
