"""``python -m sim.benches``: all benches, or those named; exit status 1 when a scenario fails."""

from __future__ import annotations

import sys

import click

from shiftgrad.config import CONFIGS, get_config
from sim.benches.runner import BENCHES, SMALL, BenchError, run


@click.command()
@click.argument("benches", nargs=-1, type=click.Choice(BENCHES))
@click.option("--config", type=click.Choice([SMALL.name, *CONFIGS]), default=SMALL.name, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
def main(benches: tuple[str, ...], config: str, seed: int) -> None:
    """Drive the Verilog of a configuration over AXI4-Lite, with and without idle cycles and back-pressure."""
    chosen = SMALL if config == SMALL.name else get_config(config)
    try:
        passed = sum(run([bench], config=chosen, seed=seed) for bench in benches or BENCHES)
    except BenchError as error:
        click.echo(f"benches: {error}", err=True)
        sys.exit(1)
    click.echo(f"benches: {passed} scenarios passed")


if __name__ == "__main__":
    main()
