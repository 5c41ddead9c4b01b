"""The command line: its commands are in shiftgrad/commands."""

from __future__ import annotations

import sys
from typing import Any

import click

from shiftgrad.build_report import BitstreamError
from shiftgrad.checkpoint import CheckpointError
from shiftgrad.commands import building, learning, measuring
from shiftgrad.commands.options import FAILED, INTERRUPTED, WRONG_USE
from shiftgrad.compiler import CompileError
from shiftgrad.config import ConfigError
from shiftgrad.datasets import DatasetError
from shiftgrad.device import DeviceError
from shiftgrad.files import FileError
from shiftgrad.host import MachineError
from shiftgrad.models import NetworkError
from shiftgrad.record import HyperError
from shiftgrad.weights import WeightsError

__all__ = ["main"]

# the user's to mend, and the machine's or the run's
USAGE = (ConfigError, DatasetError, NetworkError, CompileError, CheckpointError, FileError, HyperError, WeightsError)
FAILURE = (BitstreamError, DeviceError, MachineError, OSError)


class Main(click.Group):
    """A group whose errors are one line on standard error: exit status 2 for wrong use or data, 1 for failures."""

    def main(self, args: Any = None, prog_name: Any = None, complete_var: Any = None, standalone_mode: bool = True,
             **extra: Any) -> Any:
        """Run, report, exit."""
        try:
            status = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        except (KeyboardInterrupt, click.Abort):
            _stop("interrupted", INTERRUPTED)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(error.exit_code)
        except click.ClickException as error:
            context = getattr(error, "ctx", None)
            hint = f" ({context.command_path} --help explains)" if context else ""
            _stop(f"{error.format_message()}{hint}", error.exit_code)
        except USAGE as error:
            _stop(str(error), WRONG_USE)
        except FAILURE as error:
            _stop(str(error), FAILED)
        sys.exit(status if isinstance(status, int) else 0)


def _stop(message: str, status: int) -> None:
    click.echo(f"shiftgrad: {' '.join(message.split())}", err=True)
    sys.exit(status)


@click.group(cls=Main, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="shiftgrad", prog_name="shiftgrad")
def main() -> None:
    """An int8 systolic-array accelerator that trains networks by itself: train on it, generate it, build it.

    \b
    Start here:
      shiftgrad train                              a digit classifier on the golden machine, seconds
      shiftgrad train --device verilator           the same on the simulated RTL, compared bit for bit
      shiftgrad estimate --dataset mnist           what a step will cost, before anything is built
      shiftgrad generate --config sim_8x8          Verilog, C header and JSON description
      shiftgrad info                               the configurations, data sets and boards there are
    """


for command in (learning.train, learning.export, measuring.estimate, measuring.bench, measuring.info,
                building.generate, building.bitstream, building.area, building.silicon):
    main.add_command(command)
