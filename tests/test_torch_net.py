"""The float network in PyTorch against the machine it was exported from."""

from pathlib import Path

import numpy as np
import pytest

from shiftgrad import checkpoint as checkpoints
from shiftgrad import weights
from shiftgrad.checkpoint import Checkpoint
from shiftgrad.compiler import compile_network
from shiftgrad.config import get_config
from shiftgrad.datasets import load
from shiftgrad.device import GoldenDevice
from shiftgrad.host import Host
from shiftgrad.images import mantissas
from shiftgrad.models import Block, Conv, Dense, GlobalAverage, MaxPool, Network, NetworkError, fixup_resnet, lenet, mlp
from shiftgrad.record import Hyper
from shiftgrad.train import Trainer

torch = pytest.importorskip("torch")
torch_net = pytest.importorskip("shiftgrad.torch_net")

NETWORKS = {
    "mlp": mlp(64, (48,), 10),
    "lenet": lenet((8, 8, 1), 10),
    "resnet": fixup_resnet((8, 8, 1), 10, channels=(8, 8, 16)),
    "conv shortcut": fixup_resnet((8, 8, 1), 10, channels=(8, 16), shortcut="conv"),
}
EPOCHS = {"mlp": 8, "lenet": 4, "resnet": 15}


def trained(network: Network, epochs: int, path: Path) -> tuple[Checkpoint, Trainer]:
    config, data = get_config("sim_8x8_large"), load("digits")
    hyper = Hyper(batch=16, epochs=epochs, lr_shift=4, drops=(0.7, 0.7), eval_every=epochs, sample_every=1000)
    plan = compile_network(network, config, batch=hyper.batch, lr_shift=hyper.lr_shift)
    trainer = Trainer(GoldenDevice(config), plan, data, hyper, save=path)
    trainer.run()
    return checkpoints.load(path), trainer


@pytest.mark.parametrize("kind", EPOCHS)
def test_agrees_with_the_device_on_held_out_digits(kind: str, tmp_path: Path) -> None:
    network = NETWORKS[kind]
    saved, trainer = trained(network, EPOCHS[kind], tmp_path / "run.npz")
    data = trainer.data
    device = trainer.host.predict(mantissas(data.test_images, data.centred))
    accuracy = trainer.history.epochs[-1].accuracy
    assert np.mean(device == data.test_labels) == pytest.approx(accuracy) and accuracy > 0.97
    weights.write(tmp_path / "w.pt", weights.floats(saved.network, saved.state))
    net = torch_net.FloatNet(network)
    net.load_state_dict(torch.load(tmp_path / "w.pt", weights_only=True))
    x = torch_net.inputs(data.test_images, network.input_shape if kind != "mlp" else data.shape, centred=data.centred)
    mine = torch_net.predictions(net, x)
    assert np.mean(mine == device) >= 0.99
    np.testing.assert_array_equal(torch_net.predictions(torch_net.from_checkpoint(tmp_path / "run.npz"), x), mine)


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_state_dict_has_the_exported_names_and_shapes(kind: str) -> None:
    network = NETWORKS[kind]
    rng = np.random.default_rng(3)
    state = {w.name: rng.integers(-9, 9, (w.fan_in, w.outputs)) for w in network.weights()}
    state |= {v.name: rng.integers(-9, 9, (1, v.size)) for v in network.vectors()}
    found = weights.floats(network, state)
    net = torch_net.FloatNet(network)
    assert {k: tuple(v.shape) for k, v in net.state_dict().items()} == {k: v.shape for k, v in found.items()}


CHAIN = Network(name="chain", shape=(6, 6, 3), layers=(
    Conv(name="conv", channels=5, step=2, relu=True), Conv(name="more", channels=4, pad=0), Dense(name="fc", units=7)))
SHORTCUTS = Network(name="shortcuts", shape=(7, 5, 3), layers=(
    Conv(name="stem", channels=4, bias="scalar"), Block(name="one", channels=6, step=2, shortcut="subsample"),
    Block(name="two", channels=5, step=2, shortcut="conv"), GlobalAverage(name="average"), Dense(name="fc", units=7)))


@pytest.mark.parametrize("network", (CHAIN, SHORTCUTS), ids=lambda network: network.name)
def test_colour_and_odd_sizes_to_a_rounding(network: Network) -> None:
    """One evaluation of an untrained network: but for the samples that saturated on the way, logits are the same."""
    config = get_config("sim_8x8")
    plan = compile_network(network, config, batch=16, lr_shift=4, scale="current")
    host = Host(GoldenDevice(config), plan)
    rng = np.random.default_rng(5)
    host.load(5, parameters={w.name: rng.integers(-40, 41, (w.fan_in, w.outputs)) for w in network.weights()}
              | {v.name: rng.integers(1000, 9000, (1, v.size)) for v in network.vectors()})
    images = rng.integers(0, 256, (16, network.elements), dtype=np.uint8)
    host.evaluate(mantissas(images, True), np.zeros(16, np.uint8))
    logits = np.ldexp(host.read_tensor("fc.out").astype(np.float64), host.exponents()["fc.out"])
    net = torch_net.FloatNet(network)
    state = {name: host.read_tensor(name) for name in (*(w.name for w in network.weights()),
                                                       *(v.name for v in network.vectors()))}
    net.load_weights(weights.floats(network, state))
    with torch.no_grad():
        mine = net(torch_net.inputs(images, network.input_shape, centred=True)).numpy()
    assert np.mean(np.abs(mine - logits) < 0.03 * np.abs(mine).max()) > 0.7


def test_a_state_dict_trains_on_the_device(tmp_path: Path) -> None:
    network = NETWORKS["resnet"]
    net = torch_net.FloatNet(network)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.05)
    torch.save({k: v.bfloat16() for k, v in net.state_dict().items()}, tmp_path / "w.pt")
    found = weights.quantised(network, weights.read(tmp_path / "w.pt"))
    assert found.mantissas["block1.conv1.weight"].any() and found.mantissas["block1.m"].shape == (1, 1)


def test_refusals(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(b"nothing")
    with pytest.raises(weights.WeightsError, match=r"w\.pt: wanted a state_dict of tensors"):
        weights.read(tmp_path / "w.pt")
    bad = Network(name="n", shape=(4, 4, 1), layers=(MaxPool(name="forward"), Dense(name="fc", units=2)))
    with pytest.raises(NetworkError, match="layer forward: a PyTorch module cannot have"):
        torch_net.FloatNet(bad)
