"""Options and output that several commands share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from shiftgrad.config import CONFIGS
from shiftgrad.recipes import MODELS

__all__ = ["FAILED", "INTERRUPTED", "PATH", "WRONG_USE", "Numbers", "config_option", "json_option", "network_options",
           "print_json"]

Command = TypeVar("Command", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)
FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130  # exit statuses


class Numbers(click.ParamType[Any]):
    """Comma-separated numbers of one kind; ``none`` is no number at all."""

    def __init__(self, kind: type[int] | type[float], name: str) -> None:
        self.kind, self.name = kind, name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The numbers as a tuple."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(self.kind(part) for part in value.split(",")) if value != "none" else ()
        except ValueError:
            example = "48,32" if self.kind is int else "0.6,0.85"
            self.fail(f"wanted {self.name} such as {example} or none, got {value!r}")


def config_option(*, default: str | None = "sim_8x8", multiple: bool = False) -> Callable[[Command], Command]:
    """``--config NAME``."""
    named = ", ".join(CONFIGS)
    return click.option("--config", type=click.Choice(list(CONFIGS)), metavar="NAME", default=default,
                        multiple=multiple, help=f"Machine: {named}." + (f"  [default: {default}]" if default else ""))


def _flat(ctx: click.Context, param: click.Parameter, value: tuple[tuple[int, ...], ...]) -> tuple[int, ...] | None:
    return sum(value, ()) if value else None


NETWORK_OPTIONS = (
    click.option("--model", type=click.Choice(MODELS), help="Kind of network.  [default: mlp]"),
    click.option("--hidden", type=Numbers(int, "sizes"), metavar="N,N,...", multiple=True, callback=_flat,
                 help="mlp: units of the hidden layers, or none.  [default: 48 for digits, 128 for mnist and mnist14, "
                      "32 for cifar10]"),
    click.option("--depth", type=int, metavar="N",
                 help="fixup_resnet: residual blocks, in three stages of doubling channels.  [default: 3]"),
    click.option("--width", type=int, metavar="N", help="fixup_resnet: channels of the first stage.  [default: 16]"),
    click.option("--channels", type=Numbers(int, "sizes"), metavar="N,N,...",
                 help="fixup_resnet: instead of those, channels of the stem and of every block, step 2 where they grow "
                      "[default on grey images: 8,8,16,16]; lenet: of both convolutions  [default: 8,16]"),
    click.option("--shortcut", type=click.Choice(["subsample", "conv"]),
                 help="fixup_resnet: past blocks of a new shape: every second pixel with channels of zeros, or a "
                      "1 x 1 convolution.  [default: subsample for digits, conv for the others]"),
    click.option("--zero-range", type=float, metavar="X",
                 help="fixup_resnet: weights that start at zero reach up to X times 4 of He's deviations; 1 keeps deep "
                      "networks from clipping them.  [default: 0.25]"),
)


def network_options(command: Command) -> Command:
    """What a network is made of."""
    for option in reversed(NETWORK_OPTIONS):
        command = option(command)
    return command


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")


def print_json(value: Any) -> None:
    """What ``--json`` prints."""
    click.echo(json.dumps(value, indent=1))
