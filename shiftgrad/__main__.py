"""``python -m shiftgrad``."""

from shiftgrad.cli import main

main(prog_name="shiftgrad")
