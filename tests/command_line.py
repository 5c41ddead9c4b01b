"""The command line in this process."""

import re

from click.testing import CliRunner, Result

from shiftgrad.cli import main

__all__ = ["SMALL", "refused", "shiftgrad"]

SMALL = ("train", "--hidden", "12", "--batch", "32", "--epochs", "1")


def shiftgrad(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def refused(result: Result, status: int, pattern: str) -> None:
    assert result.exit_code == status
    assert result.stdout == ""
    assert result.stderr.startswith("shiftgrad: ") and result.stderr.count("\n") == 1, result.stderr
    assert re.search(pattern, result.stderr), result.stderr
