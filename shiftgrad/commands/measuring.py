"""``estimate``, ``bench`` and ``info``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from shiftgrad.commands.options import PATH, Numbers, config_option, json_option, network_options, print_json
from shiftgrad.compiler import SCALES
from shiftgrad.datasets import DATASETS
from shiftgrad.recipes import MODELS

__all__ = ["bench", "estimate", "info"]


@click.command()
@config_option(default=None)
@click.option("--dataset", type=click.Choice(list(DATASETS)), default="digits", show_default=True,
              help="Sets inputs, classes and the other defaults.")
@network_options
@click.option("--batch", type=int, help="Samples a step.")
@click.option("--lr-shift", type=int, metavar="N", help="The learning rate starts at 2^-N; for --plan.")
@click.option("--scale", type=click.Choice(SCALES), help="Exponent rule.  [default: that of train]")
@click.option("--clock-mhz", type=click.FloatRange(min=0, min_open=True), default=100.0, show_default=True,
              help="For samples a second.")
@click.option("--first-step", is_flag=True, help="The first step, before there is any exponent history.")
@click.option("--plan", "show_plan", is_flag=True, help="Memories, tensors and program too.")
@json_option
def estimate(config: str | None, dataset: str, batch: int | None, lr_shift: int | None, scale: str | None,
             clock_mhz: float, first_step: bool, show_plan: bool, as_json: bool, **network: Any) -> None:
    """Cycles, utilisation and resources of a training step, before anything is synthesised.

    \b
    Examples:
      shiftgrad estimate --config sim_16x16 --dataset mnist --batch 32
      shiftgrad estimate --hidden 64,32 --plan
      shiftgrad estimate --dataset mnist14 --model fixup_resnet --batch 16
    """
    from shiftgrad import estimate as estimates
    from shiftgrad.compiler import compile_network
    from shiftgrad.config import get_config
    from shiftgrad.recipes import CLASSES, SHAPES, Options, config_of, hyper_of, network_of, scale_of

    options = Options(**network | {"model": network["model"] or MODELS[0]})
    defaults = hyper_of(dataset, options.model)
    machine = get_config(config or config_of(dataset, options.model))
    if machine.dense:
        raise click.BadParameter(f"--config: wanted a machine with a model of its cycles, got {machine.name}, a small "
                                 "one; docs/small.md says what was measured")
    batch = defaults["batch"] if batch is None else batch
    plan = compile_network(network_of(dataset, SHAPES[dataset], CLASSES, options), machine, batch=batch,
                           lr_shift=defaults["lr_shift"] if lr_shift is None else lr_shift,
                           scale=scale or scale_of(options.model, batch))
    found = estimates.estimate(plan, first_step=first_step)
    if not math.isfinite(rate := found.samples_per_second(clock_mhz)):
        raise click.BadParameter(f"--clock-mhz: wanted a frequency, got {clock_mhz}")
    if as_json:
        print_json({**found.to_json(), "clock_mhz": clock_mhz, "samples_per_second": rate,
                    **({"plan": plan.to_json()} if show_plan else {})})
        return
    if show_plan:
        click.echo(plan.describe() + "\n")
    click.echo(f"{found.table()}\n\n{rate:,.0f} samples a second at {clock_mhz:g} MHz, the host's transfers apart")


@click.command()
@click.option("--part", "parts", multiple=True, metavar="PART",
              help="products, network, scaling, speed, loading or silicon; may be repeated.  [default: all of them]")
@config_option(default=None)
@click.option("--out", type=PATH, default=Path("build/bench"), show_default=True, metavar="DIR", help="Output folder.")
@click.option("--device", default="verilator", show_default=True, metavar="DEVICE", help="As of train.")
@click.option("--sizes", type=Numbers(int, "sizes"), default=(64, 128), metavar="N,N,...",
              help="M and N of the single products.  [default: 64,128]")
@click.option("--depths", type=Numbers(int, "depths"), default=(64, 128, 256), metavar="N,N,...",
              help="K of the single products.  [default: 64,128,256]")
@click.option("--builds", type=PATH, default=Path("build/silicon"), show_default=True, metavar="DIR",
              help="Where `shiftgrad silicon` keeps them.")
@click.option("-v", "--verbose", is_flag=True, help="Say what is being measured, and figures as they come.")
@json_option
def bench(parts: tuple[str, ...], config: str | None, out: Path, verbose: bool, as_json: bool, **given: Any) -> None:
    """Measure the machine on the RTL, by its own counters; bench.json, bench.md and charts go to DIR.

    \b
    products   single products by phase and size, and the step of 784-128-10 at batch 32 with both scale modes
    network    every instruction of a Fixup ResNet's step: 3 blocks of 16, 32, 64 channels on 28 x 28, batch 8
    scaling    that step, batch 4, on arrays of 4 x 4, 8 x 8 and 16 x 16
    speed      cycles a second of the simulation at 12 x 12, and the golden machine beside the simulated one
    loading    cycles between steps, the next mini-batch loaded then or before: AXI4-Lite, and a serial line
    silicon    clock and size of the boards that `shiftgrad silicon` has built, images a second beside PyTorch

    --config chooses another machine for products, network, or the simulation's speed. Parts that are not measured
    again stay in the files.

    \b
    Examples:
      shiftgrad bench
      shiftgrad bench --part products --config sim_16x16 --sizes 64 --depths 256,512 -v
      shiftgrad bench --part network --config sim_16x16_large --out build/bench16
    """
    from shiftgrad import bench as benches

    if wrong := [name for name in parts if name not in benches.PARTS]:
        raise click.BadParameter(f"no part {wrong[0]!r}; there are: {', '.join(benches.PARTS)}")
    def say(line: str) -> None:
        if verbose:
            click.echo(line, err=True)

    settings = benches.Settings(config=config, progress=say, **given)
    found = benches.run(out, parts or tuple(benches.PARTS), settings)
    if as_json:
        print_json(found)
        return
    for name, figures in found.items():
        click.echo("\n".join(benches.PARTS[name].summary(figures)))
    click.echo(f"figures: {out / 'bench.md'}")


@click.command()
@config_option(default=None)
@json_option
def info(config: str | None, as_json: bool) -> None:
    """The configurations, data sets, models and boards there are; with --config, one machine's numbers.

    \b
    Examples:
      shiftgrad info
      shiftgrad info --config ulx3s_85f_8x8 --json | jq .memories
    """
    from shiftgrad import about

    facts = about.machine(config) if config else about.everything()
    if as_json:
        print_json(facts)
    else:
        click.echo(about.text(facts))
