"""Weights to and from other programs: layouts, exactness, errors, the command line."""

import json
from pathlib import Path

import numpy as np
import pytest

from shiftgrad import checkpoint as checkpoints
from shiftgrad import weights
from shiftgrad.compiler import compile_network
from shiftgrad.config import get_config
from shiftgrad.device import GoldenDevice
from shiftgrad.host import Host
from shiftgrad.models import Conv, Dense, Network, fixup_resnet, lenet, mlp
from tests.command_line import shiftgrad

SEED = 11


def random_state(network: Network, seed: int = SEED) -> dict[str, np.ndarray]:
    """Mantissas of every parameter, corners included."""
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    state = {w.name: rng.integers(-127, 128, (w.fan_in, w.outputs)).astype(np.int8) for w in network.weights()}
    state |= {v.name: rng.integers(-32767, 32768, (1, v.size)).astype(np.int16) for v in network.vectors()}
    for array in state.values():
        array.flat[0] = 127 if array.dtype == np.int8 else -32767
    return state


NETWORKS = {
    "mlp": mlp(12, (5,), 3),
    "lenet": lenet((8, 8, 3), 10, channels=(4, 6)),
    "resnet": fixup_resnet((8, 8, 3), 4, channels=(4, 4, 8), shortcut="conv"),
}


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_there_and_back_is_exact(network: Network) -> None:
    state = random_state(network)
    found = weights.floats(network, state)
    assert list(found) == [*dict.fromkeys(found)] and set(found) == set(state)
    assert all(array.dtype == np.float32 and array.flags.c_contiguous for array in found.values())
    back = weights.quantised(network, found)
    assert back.saturated == 0 and back.total == network.parameters
    for name, array in state.items():
        np.testing.assert_array_equal(back.mantissas[name], array, err_msg=name)
        assert back.mantissas[name].dtype == array.dtype


def test_layouts() -> None:
    network = Network(name="n", shape=(2, 3, 2), layers=(Conv(name="conv", channels=4), Dense(name="fc", units=5)))
    state = random_state(network)
    found = weights.floats(network, state)
    assert {name: array.shape for name, array in found.items()} == {
        "conv.weight": (4, 2, 3, 3), "conv.bias": (4,), "fc.weight": (5, 24), "fc.bias": (5,)}
    exponents = Host(GoldenDevice(get_config("sim_8x8")), compile_network(
        network, get_config("sim_8x8"), batch=2, lr_shift=4))
    exponents.load(state=None)
    of = exponents.exponents()
    for o, i, y, x in ((0, 0, 0, 0), (3, 1, 2, 0), (2, 0, 1, 2)):
        mantissa = state["conv.weight"][(y * 3 + x) * 2 + i, o]
        assert found["conv.weight"][o, i, y, x] == mantissa * 2.0 ** of["conv.weight"]
    for o, c, y, x in ((0, 0, 0, 0), (4, 3, 1, 2), (1, 2, 0, 1)):
        mantissa = state["fc.weight"][(y * 3 + x) * 4 + c, o]
        assert found["fc.weight"][o, (c * 2 + y) * 3 + x] == mantissa * 2.0 ** of["fc.weight"]
    assert found["fc.bias"][1] == state["fc.bias"][0, 1] * 2.0**-14 and of["fc.bias"] == -14


def test_a_first_dense_layer_takes_an_image_in_channel_order() -> None:
    network = Network(name="n", shape=(2, 2, 3), layers=(Dense(name="fc", units=2),))
    state = random_state(network)
    found = weights.floats(network, state)["fc.weight"]
    _, y, x, c = 0, 1, 0, 2
    scale = found[0, 0] / state["fc.weight"][0, 0]
    assert found[1, (c * 2 + y) * 2 + x] == state["fc.weight"][(y * 2 + x) * 3 + c, 1] * scale


def test_quantising_rounds_to_nearest_and_saturates() -> None:
    network = mlp(4, (), 2)
    e = float(np.abs(weights.floats(network, {"fc1.weight": np.ones((4, 2)), "fc1.bias": np.ones((1, 2))})
                     ["fc1.weight"]).min())
    values = {"fc1.weight": np.array([[0.4, 0.6, -0.6, 126.4], [127.4, 127.6, -127.6, 1e30]]) * e,
              "fc1.bias": np.array([2.0, -0.5])}
    values["fc1.weight"][1, 3] = 1e308  # its mantissa is infinite
    found = weights.quantised(network, values)
    np.testing.assert_array_equal(found.mantissas["fc1.weight"].T, [[0, 1, -1, 126], [127, 127, -127, 127]])
    np.testing.assert_array_equal(found.mantissas["fc1.bias"], [[32767, -8192]])
    assert found.saturated == 4 and found.total == 10


@pytest.mark.parametrize(("change", "message"), [
    ({"fc1.bias": None}, r"w\.npz: has no fc1\.bias; mlp-4-2 has fc1\.weight, fc1\.bias"),
    ({"fc9.weight": np.zeros(2)}, r"w\.npz: has unknown fc9\.weight"),
    ({"fc1.weight": np.zeros((4, 2))}, r"w\.npz: fc1\.weight must have shape \(2, 4\), got \(4, 2\)"),
    ({"fc1.bias": np.array([1.0, np.nan])}, r"w\.npz: fc1\.bias must be finite numbers, got a NaN"),
    ({"fc1.bias": np.array(["a", "b"])}, r"w\.npz: fc1\.bias must be finite numbers, got type <U1"),
])
def test_unusable_weights_are_refused(change: dict, message: str) -> None:
    network = mlp(4, (), 2)
    values = {"fc1.weight": np.zeros((2, 4)), "fc1.bias": np.zeros(2)} | change
    with pytest.raises(weights.WeightsError, match=message):
        weights.quantised(network, {k: v for k, v in values.items() if v is not None}, "w.npz")


def test_files_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no archive")
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    for name, message in (("none.npz", "No such file"), ("text.npz", "wanted an .npz archive"),
                          ("array.npz", "wanted an .npz archive"), ("weights.h5", r"\.npz or \.pt, got \.h5")):
        with pytest.raises(weights.WeightsError, match=message):
            weights.read(tmp_path / name)
    with pytest.raises(weights.WeightsError, match="got no ending"):
        weights.write(tmp_path / "weights", {})


def test_export_and_train_from_the_file(tmp_path: Path) -> None:
    save, out = tmp_path / "run.npz", tmp_path / "weights.npz"
    assert shiftgrad("train", "--hidden", 8, "--max-steps", 30, "--save", save, "--quiet").exit_code == 0
    said = shiftgrad("export", save, "--out", out)
    assert said.stdout == f"{out}: 610 parameters of mlp-64-8-10 after 30 steps, in 4 tensors\n"
    assert json.loads(shiftgrad("export", save, "--out", out, "--json").stdout)["tensors"]["fc1.weight"] == [8, 64]
    again = tmp_path / "again.npz"
    assert shiftgrad("train", "--hidden", 8, "--max-steps", 0, "--init", out, "--save", again, "--quiet").exit_code == 0
    one, other = checkpoints.load(save), checkpoints.load(again)
    for tensor in weights.floats(one.network, one.state):
        np.testing.assert_array_equal(one.state[tensor], other.state[tensor], err_msg=tensor)
    assert not other.state["fc1.momentum"].any()


def test_refusals_of_the_command_line(tmp_path: Path) -> None:
    out = tmp_path / "w.npz"
    weights.write(out, {"fc1.weight": np.zeros((10, 64), np.float32), "fc1.bias": np.full(10, 3.0)})
    wrong = shiftgrad("train", "--hidden", 8, "--init", out)
    assert wrong.exit_code == 2 and "has no fc2.bias, fc2.weight" in wrong.stderr and wrong.stderr.count("\n") == 1
    both = shiftgrad("train", "--init", out, "--resume", out)
    assert both.exit_code == 2 and "exclude each other" in both.stderr
    loud = shiftgrad("train", "--hidden", "none", "--init", out, "--max-steps", 0)
    assert f"{out}: 10 of 650 parameters were out of range and saturated\n" in loud.stderr
    missing = shiftgrad("export", tmp_path / "none.npz", "--out", out)
    assert missing.exit_code == 2 and "No such file" in missing.stderr


def test_a_state_dict_of_other_things_is_named(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    for entries, message in (({"model": {}, "epoch": 3}, "got 'model': dict"), ([1], "AttributeError")):
        torch.save(entries, tmp_path / "x.pt")
        with pytest.raises(weights.WeightsError, match=f"wanted a state_dict of tensors, .*{message}"):
            weights.read(tmp_path / "x.pt")
