"""From layers to instructions: one class a kind of layer, its forward and backward side by side.

A layer declares its tensors once, then emits its forward pass into each program and its backward pass into one.
Parameters are used before they are updated. An error that went through ReLU is masked by whoever makes it, so
``<layer>.error`` is always that of the sum before ReLU.
"""

from __future__ import annotations

from golden.convolution import Window
from shiftgrad.draft import Draft, Value
from shiftgrad.isa import Flag, Opcode
from shiftgrad.models import Block, Conv, Dense, GlobalAverage, Layer, MaxPool, Network, Shape, Weights
from shiftgrad.packing import Packing

__all__ = ["Lowering", "lower"]


class Lowering:
    """A layer on its way to instructions.

    Parameters
    ----------
    draft : where tensors and instructions go
    layer : what to lower
    x : its input
    blocks : residual blocks of the network
    packing : how the input is laid out, for the first layer

    Attributes
    ----------
    y : its output
    """

    def __init__(self, draft: Draft, layer: Layer, x: Value, blocks: int, packing: Packing | None) -> None:
        self.draft, self.layer, self.x, self.packing = draft, layer, x, packing
        self.name = layer.name
        seen = x.shape
        self.weights = {w.name.removeprefix(f"{self.name}."): w for w in layer.weights(seen, blocks)}
        self.vectors = {v.name.removeprefix(f"{self.name}."): v for v in layer.vectors(seen)}
        self.y = Value(name=f"{self.name}.out", shape=layer.output(seen), error=f"{self.name}.error", relu=self._relu())
        self.declare()

    def _relu(self) -> bool:
        return bool(getattr(self.layer, "relu", False))

    def _keeps_sign(self) -> bool:
        """Whether the output cannot be negative because the input cannot."""
        return False

    def declare(self) -> None:
        """Declare parameters, output and error."""
        for weights in self.weights.values():
            self.draft.weights(weights, self.name, inputs=self._inputs(weights), window=self._window(weights))
        for vector in self.vectors.values():
            self.draft.vector(vector, self.name)
        self.draft.activation(self.y.name, self.y.shape, self.name, positive=self.y.relu or self._keeps_sign())
        self.draft.error(self.y.error, self.y.shape, self.name)

    def _window(self, weights: Weights) -> Window:
        return self.packing.window if self.packing else weights.window

    def _inputs(self, weights: Weights) -> int:
        return self.packing.shape[2] if self.packing else weights.inputs

    def forward(self) -> None:
        """Emit the forward pass."""
        raise NotImplementedError

    def backward(self) -> None:
        """Emit what makes the input's error, if that is wanted, and the updates."""
        raise NotImplementedError


class _Product(Lowering):
    """Dense and Conv."""

    def forward(self) -> None:
        flags, more = Flag.RELU if self.y.relu else Flag(0), {}
        if bias := self.vectors.get("bias"):
            flags, more = flags | Flag.BIAS, {"c": bias.name}
        self.draft.forward(self.name, Opcode.FWD, self.y.name, self.x.name, flags=flags,
                           b=self.weights["weight"].name, **more)

    def backward(self) -> None:
        weights = self.weights["weight"]
        if self.x.error:
            self.draft.backward(self.name, Opcode.BWD, self.x.error, self.y.error, b=weights.name, masked_by=self.x)
        self.draft.learn_weights(self.name, weights, self.x.name, self.y.error)
        if bias := self.vectors.get("bias"):
            self.draft.learn_vector(self.name, bias, self.y.error)


class _Block(Lowering):
    """A Fixup block: h = relu(conv1(x + b1a) + b1b), z = conv2(h + b2a), y = relu(m z + b2b + shortcut(x))."""

    def _relu(self) -> bool:
        return True

    def declare(self) -> None:
        super().declare()
        inner, image = self.y.shape, self.draft
        self.h = Value(name=f"{self.name}.h", shape=inner, relu=True)
        image.activation(self.h.name, inner, self.name, positive=True)
        for role in ("z", *(("s",) if "shortcut.weight" in self.weights else ())):
            image.activation(f"{self.name}.{role}", inner, self.name)
        for role in ("e_z", "e_h2", "e_h"):
            image.error(f"{self.name}.{role}", inner, self.name)
        image.error(f"{self.name}.e_u", self.x.shape, self.name)
        if self.x.error and "shortcut.weight" in self.weights:
            image.error(f"{self.name}.e_s", self.x.shape, self.name)

    def _of(self, role: str) -> str:
        return f"{self.name}.{role}"

    def forward(self) -> None:
        draft, x, of, products = self.draft, self.x.name, self._of, Flag.SCALAR
        draft.forward(self.name, Opcode.FWD, of("h"), x, b=of("conv1.weight"), c=of("b1b"), d=of("b1a"),
                      flags=products | Flag.RELU | Flag.BIAS)
        draft.forward(self.name, Opcode.FWD, of("z"), of("h"), b=of("conv2.weight"), d=of("b2a"), flags=products)
        if "shortcut.weight" in self.weights:
            draft.forward(self.name, Opcode.FWD, of("s"), x, b=of("shortcut.weight"))
            x = of("s")
        draft.forward(self.name, Opcode.ADD, self.y.name, of("z"), b=x, c=of("b2b"), d=of("m"),
                      flags=Flag.RELU | Flag.BIAS | Flag.SCALAR | Flag.PAIR)

    def backward(self) -> None:
        draft, name, of, error = self.draft, self.name, self._of, self.y.error
        weights, vectors = self.weights, self.vectors
        draft.backward(name, Opcode.ADDB, of("e_z"), error, d=of("m"), flags=Flag.SCALAR)
        draft.learn_vector(name, vectors["m"], error, factor=of("z"))
        draft.learn_vector(name, vectors["b2b"], error)
        draft.backward(name, Opcode.BWD, of("e_h2"), of("e_z"), b=of("conv2.weight"))
        draft.learn_weights(name, weights["conv2.weight"], of("h"), of("e_z"), of("b2a"))
        draft.learn_vector(name, vectors["b2a"], of("e_h2"))
        draft.backward(name, Opcode.ADDB, of("e_h"), of("e_h2"), masked_by=self.h)
        draft.learn_vector(name, vectors["b1b"], of("e_h"))
        draft.backward(name, Opcode.BWD, of("e_u"), of("e_h"), b=of("conv1.weight"))
        draft.learn_weights(name, weights["conv1.weight"], self.x.name, of("e_h"), of("b1a"))
        draft.learn_vector(name, vectors["b1a"], of("e_u"))
        self._shortcut_backward()

    def _shortcut_backward(self) -> None:
        draft, name, of, error = self.draft, self.name, self._of, self.y.error
        shortcut = self.weights.get("shortcut.weight")
        if self.x.error:
            back = error
            if shortcut:
                back = of("e_s")
                draft.backward(name, Opcode.BWD, back, error, b=shortcut.name)
            draft.backward(name, Opcode.ADDB, self.x.error, of("e_u"), b=back, flags=Flag.PAIR, masked_by=self.x)
        if shortcut:
            draft.learn_weights(name, shortcut, self.x.name, error)


class _Pool(Lowering):
    def _keeps_sign(self) -> bool:
        return self.draft.entries[self.x.name].unsigned


class _Average(_Pool):
    """GlobalAverage."""

    def forward(self) -> None:
        self.draft.forward(self.name, Opcode.AVG, self.y.name, self.x.name)

    def backward(self) -> None:
        if self.x.error:
            self.draft.backward(self.name, Opcode.AVGB, self.x.error, self.y.error, masked_by=self.x)


class _Max(_Pool):
    """MaxPool; the mask of MAXB is the operand that it finds the maximum of."""

    def forward(self) -> None:
        self.draft.forward(self.name, Opcode.MAX, self.y.name, self.x.name)

    def backward(self) -> None:
        if self.x.error:
            self.draft.backward(self.name, Opcode.MAXB, self.x.error, self.y.error, b=self.x.name, masked_by=self.x)


KINDS: dict[type[Layer], type[Lowering]] = {
    Dense: _Product, Conv: _Product, Block: _Block, GlobalAverage: _Average, MaxPool: _Max,
}


def lower(network: Network, packing: Packing, draft: Draft) -> list[Lowering]:
    """Declare input, labels and every layer's tensors in ``draft``; the layers, first to last, ready to emit."""
    draft.activation("input", packing.shape, "")
    draft.labels()
    x, found = Value(name="input", shape=_seen(network)), list[Lowering]()
    for index, (layer, _) in enumerate(network.steps()):
        packed = packing if not index and isinstance(layer, Conv | Dense) else None
        found.append(KINDS[type(layer)](draft, layer, x, network.blocks, packed))
        x = found[-1].y
    return found


def _seen(network: Network) -> Shape:
    """Shape of the input as the first layer sees it."""
    return next(iter(network.steps()))[1]
