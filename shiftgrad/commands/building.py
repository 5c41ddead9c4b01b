"""``generate``, ``bitstream``, ``area`` and ``silicon``."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path

import click

from shiftgrad.commands.options import PATH, Numbers, config_option, json_option, print_json
from shiftgrad.config import CONFIGS

__all__ = ["area", "bitstream", "generate", "silicon"]


def _check_board(name: str) -> None:
    from hw.boards import board_names

    if name not in board_names():
        raise click.BadParameter(f"no board {name!r}; there are: {', '.join(board_names())}")


def _buildable() -> list[str]:
    return [name for name, config in CONFIGS.items() if not config.virtual]


@click.command()
@config_option(default=None, multiple=True)
@click.option("--out", type=PATH, default=Path("build/verilog"), show_default=True, metavar="DIR",
              help="Output folder.")
@json_option
def generate(config: tuple[str, ...], out: Path, as_json: bool) -> None:
    """Write DIR/<config>/shiftgrad.v, shiftgrad.h and shiftgrad.json; every configuration unless some are named.

    \b
    Example:
      shiftgrad generate --config sim_8x8 --config sim_16x16 --out build/verilog
    """
    from shiftgrad.config import get_config
    from shiftgrad.generate import generate as write

    machines = [get_config(name) for name in config or _buildable()]
    for machine in machines:
        machine.check_buildable()
    written = {machine.name: [str(path) for path in write(machine, out)] for machine in machines}
    if as_json:
        print_json(written)
        return
    for paths in written.values():
        click.echo("\n".join(paths))


@click.command()
@click.option("--board", default="ulx3s_85f", show_default=True, metavar="NAME", help="shiftgrad info lists them.")
@click.option("--out", type=PATH, metavar="DIR", help="Output folder.  [default: build/bitstream/<board>]")
@click.option("--seeds", type=Numbers(int, "seeds"), default=(1, 2, 3), metavar="N,N,...",
              help="Placement seeds, tried until one meets timing.  [default: 1,2,3]")
@click.option("--best", is_flag=True, help="Try all seeds and keep the fastest.")
@json_option
def bitstream(board: str, out: Path | None, seeds: tuple[int, ...], best: bool, as_json: bool) -> None:
    """Synthesise, place, route and pack the machine for a board, with the open tools.

    \b
    Example:
      shiftgrad bitstream --board ulx3s_85f --seeds 1,2,3,4 --best
    """
    from shiftgrad.bitstream import build
    from shiftgrad.build_report import table, to_json

    _check_board(board)
    if not seeds:
        raise click.BadParameter("--seeds: wanted at least one, got none")
    built = build(board, out or Path("build/bitstream") / board, seeds=seeds, best=best,
                  progress=lambda line: click.echo(line, err=True))
    click.echo(to_json(built) if as_json else table(built), nl=False)


@click.command()
@click.option("--board", default="ulx3s_85f", show_default=True, metavar="NAME", help="shiftgrad info lists them.")
@click.option("--build", "folder", type=PATH, metavar="DIR",
              help="What bitstream wrote.  [default: build/bitstream/<board>]")
@click.option("--docs", type=PATH, default=Path("docs/results"), show_default=True, metavar="DIR",
              help="Where area-<board>.json, .md and .png go.")
@json_option
def area(board: str, folder: Path | None, docs: Path, as_json: bool) -> None:
    """LUTs, flip-flops, multipliers and block RAMs of a built board by unit, and a picture of where they are.

    \b
    Example:
      shiftgrad bitstream --board ulx3s_85f && shiftgrad area --board ulx3s_85f
    """
    from dataclasses import asdict

    from shiftgrad import area as areas
    from shiftgrad import build_report as reports

    if folder is None:
        _check_board(board)
    built = folder or Path("build/bitstream") / board
    report = reports.read(built / "report.json")
    if report.board != board:
        raise click.BadParameter(f"--build: wanted a build of {board}, got one of {report.board}")
    try:
        cells = areas.load(built / areas.CELL_FILE)
        paths = areas.write(cells, docs, f"area-{board}", reports.area_title(report), asdict(report))
    except areas.AreaError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        print_json(json.loads(paths[0].read_text()))
    else:
        click.echo("\n".join(map(str, paths)))


@click.command()
@click.option("--seeds", type=Numbers(int, "seeds"), default=(1, 2, 3), metavar="N,N,...",
              help="Placement seeds.  [default: 1,2,3]")
@click.option("--only", default="", metavar="TEXT", help="Builds whose board or configuration contains it.")
@click.option("--hours", type=click.FloatRange(min=0), metavar="H", help="Start no build after so long.")
@click.option("--out", type=PATH, default=Path("build/silicon"), show_default=True, metavar="DIR",
              help="Where finished builds are kept.")
@json_option
def silicon(seeds: tuple[int, ...], only: str, hours: float | None, out: Path, as_json: bool) -> None:
    """Place and route every board and configuration with several seeds, for the benchmark's part "silicon".

    Hours of work. Finished builds are kept by design and seed, so the same command goes on; Ctrl-C loses one build.

    \b
    Examples:
      shiftgrad silicon --hours 2
      shiftgrad silicon --only 25f --seeds 1
      shiftgrad bench --part silicon
    """
    from shiftgrad import bench_silicon
    from shiftgrad import silicon as chips

    wanted = chips.builds(seeds, only)
    if not wanted:
        pairs = ", ".join("-".join(pair) for pair in chips.MATRIX)
        raise click.BadParameter(f"--seeds and --only: wanted at least one build, got none; there are: {pairs}")
    if hours is not None and math.isnan(hours):
        raise click.BadParameter(f"--hours: wanted a number, got {hours}")
    chips.run(wanted, out, hours=hours, progress=partial(click.echo, err=True))
    found = list(chips.summary(chips.read(out)))
    if as_json:
        print_json({"pairs": found})
    else:
        click.echo("\n".join(bench_silicon.summary({"pairs": found})))
