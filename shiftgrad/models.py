"""Networks as data: what is to be trained, with nothing about how."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Dense", "Network", "NetworkError", "mlp"]


class NetworkError(ValueError):
    """A network that makes no sense; the message names the layer."""


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


@dataclass(frozen=True, kw_only=True)
class Dense:
    """A fully connected layer: y = relu(x . W + bias), W of shape [inputs, units].

    Parameters
    ----------
    name : unique in its network; prefix of its tensors' names
    units : outputs, from 1
    relu : negative results become 0
    bias : add a 16-bit bias to every output
    zero : start W at zero (exponent of a quarter of the He deviation) instead of He values
    """

    name: str
    units: int
    relu: bool = False
    bias: bool = True
    zero: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.isidentifier():
            raise NetworkError(f"a layer's name must be an identifier, got {self.name!r}")
        if not _is_size(self.units):
            raise NetworkError(f"layer {self.name}: units must be an integer from 1, got {self.units!r}")


@dataclass(frozen=True, kw_only=True)
class Network:
    """A chain of layers; the last one's outputs are the logits of a softmax classifier.

    Parameters
    ----------
    name : used in reports and errors
    inputs : elements of a sample
    layers : first to last, at least one
    """

    name: str
    inputs: int
    layers: tuple[Dense, ...]

    def __post_init__(self) -> None:
        if not _is_size(self.inputs):
            raise NetworkError(f"network {self.name}: inputs must be an integer from 1, got {self.inputs!r}")
        if not isinstance(self.layers, tuple) or not self.layers:
            raise NetworkError(f"network {self.name}: layers must be a tuple of one or more, got {self.layers!r}")
        seen: set[str] = set()
        for index, layer in enumerate(self.layers):
            if not isinstance(layer, Dense):
                raise NetworkError(f"network {self.name}: layer {index} must be a Dense, got {type(layer).__name__}")
            if layer.name in seen:
                raise NetworkError(f"layer {layer.name}: names must be unique in network {self.name}, got it twice")
            seen.add(layer.name)
        last = self.layers[-1]
        if last.relu:
            raise NetworkError(f"layer {last.name}: the last layer gives logits: relu must be False, got True")
        if last.units < 2:
            raise NetworkError(f"layer {last.name}: a classifier needs at least 2 units, got {last.units}")

    @property
    def classes(self) -> int:
        """Units of the last layer."""
        return self.layers[-1].units

    def fan_in(self) -> Iterator[tuple[Dense, int]]:
        """Every layer with the number of its inputs, first to last."""
        inputs = self.inputs
        for layer in self.layers:
            yield layer, inputs
            inputs = layer.units

    @property
    def parameters(self) -> int:
        """Weights and biases together."""
        return sum(layer.units * (inputs + layer.bias) for layer, inputs in self.fan_in())


def mlp(inputs: int, hidden: Sequence[int], classes: int, *, name: str | None = None) -> Network:
    """A multilayer perceptron: ReLU layers ``fc1``, ``fc2``, ... of ``hidden`` units, then ``classes`` logits."""
    sizes = (*hidden, classes)
    layers = tuple(Dense(name=f"fc{i}", units=units, relu=i < len(sizes)) for i, units in enumerate(sizes, start=1))
    return Network(name=name or "mlp-" + "-".join(map(str, (inputs, *sizes))), inputs=inputs, layers=layers)
