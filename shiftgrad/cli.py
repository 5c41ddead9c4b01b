"""The command line."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from shiftgrad.checkpoint import CheckpointError
from shiftgrad.compiler import SCALES, CompileError
from shiftgrad.config import CONFIGS, ConfigError
from shiftgrad.datasets import DATASETS, DatasetError
from shiftgrad.device import DeviceError
from shiftgrad.host import MachineError
from shiftgrad.models import NetworkError
from shiftgrad.recipes import MODELS
from shiftgrad.record import HyperError
from shiftgrad.train import Interrupted
from shiftgrad.weights import WeightsError

__all__ = ["main"]

# the user's to mend, and the machine's or the run's
USAGE = (ConfigError, DatasetError, NetworkError, CompileError, CheckpointError, HyperError, WeightsError)
FAILURE = (DeviceError, MachineError, OSError)
FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130

Command = TypeVar("Command", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)


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


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=1))


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


@main.command()
@config_option(default=None)
@click.option("--dataset", type=click.Choice(list(DATASETS)), help="What to learn.  [default: digits]")
@click.option("--data-dir", type=PATH,
              help="Folder of MNIST's IDX files (train-*, t10k-*) or CIFAR-10's data_batch_* (binary or Python).")
@network_options
@click.option("--batch", type=int, help="Samples a step.  [default: 16 for digits, 32 for the others]")
@click.option("--epochs", type=int, help="Passes over the training data.  [default: 15, 8 for cifar10]")
@click.option("--max-steps", type=click.IntRange(min=0), help="Stop after this many steps in all, then evaluate.")
@click.option("--test-samples", type=click.IntRange(min=0), metavar="N",
              help="Evaluate on the first N held-out samples only: on the simulated RTL they take long.")
@click.option("--lr-shift", type=int, metavar="N",
              help="The learning rate starts at 2^-N.  [default: 4 for digits and cifar10, 3 for mnist and mnist14]")
@click.option("--lr-drops", type=Numbers(float, "fractions"), metavar="F,F,...",
              help="Fractions of the run after which it is halved, or none.  [default: 0.6,0.85]")
@click.option("--scale", type=click.Choice(SCALES),
              help="Exponents from each tensor's history, or from its own maximum (two passes).  [default: delayed]")
@click.option("--seed", type=int, help="Of parameters, rounding, order and division of the data.  [default: 0]")
@click.option("--eval-every", type=int, metavar="EPOCHS", help="Epochs between held-out evaluations.  [default: 1]")
@click.option("--flip/--no-flip", default=None,
              help="Mirror half of the training images, drawn anew each step.  [default: flip for cifar10 only]")
@click.option("--shift", type=int, metavar="N",
              help="Move training images by up to N pixels in both directions, drawn anew each step.  [default: 0]")
@click.option("--device", default="golden", metavar="DEVICE", show_default=True,
              help="golden (NumPy), verilator (the RTL), board:NAME (a simulated board at its serial pins, "
                   "every instruction compared) or serial:PORT (a board).")
@click.option("--compare/--no-compare", default=None,
              help="Compare every instruction of verilator with the golden machine.  [default: compare]")
@click.option("--save", type=PATH, metavar="FILE", help="Checkpoint: written after evaluations, at the end, on Ctrl-C.")
@click.option("--resume", type=PATH, metavar="FILE", help="Go on from a checkpoint (and save to it unless --save).")
@click.option("--resume-if-present", is_flag=True, help="Go on from --save if it holds an unfinished run.")
@click.option("--init", type=PATH, metavar="FILE",
              help="Weights to start with, as export writes them: .npz, or a PyTorch state_dict (.pt).")
@click.option("--report", type=PATH, metavar="DIR", help="Write report.html and result.json there.")
@click.option("--quiet", is_flag=True, help="No progress.")
@json_option
def train(as_json: bool, **options: Any) -> int:
    """Train a network and evaluate it on held-out data.

    The same bits come out on every device, and however often the run is interrupted and resumed. The last line says
    held-out accuracy, steps, instructions compared with the golden machine, and mismatches; a mismatch exits with 1.

    \b
    Examples:
      shiftgrad train --dataset mnist --data-dir ~/mnist
      shiftgrad train --model fixup_resnet --dataset cifar10 --data-dir ~/cifar10 --depth 9
      shiftgrad train --device verilator --report build/run --save build/run/checkpoint.npz
      shiftgrad train --resume build/run/checkpoint.npz
      shiftgrad train --init build/run/weights.npz --lr-shift 7
      shiftgrad train --config sim_16x16 --hidden 64,32 --batch 4 --lr-shift 6 --scale current
      shiftgrad train --device serial:/dev/ttyUSB0 --config ulx3s_85f_8x8
      shiftgrad train --device verilator --max-steps 20 --json | jq .utilization
      shiftgrad train --device verilator --config sim_8x8_large --dataset mnist --data-dir ~/mnist \\
          --model fixup_resnet --depth 3 --width 16 --batch 8 --max-steps 30 --test-samples 8
    """
    from shiftgrad import session

    if options["resume"] and options["resume_if_present"]:
        raise click.UsageError("--resume and --resume-if-present exclude each other")
    if options["resume"] and options["init"]:
        raise click.UsageError("--resume and --init exclude each other: a checkpoint has its weights")
    if options["resume_if_present"] and not options["save"]:
        raise click.UsageError("--resume-if-present needs --save, the file to look for")
    request = session.Request(as_json=as_json, **options)
    try:
        result, outcome = session.train(request)
    except Interrupted as stopped:
        click.echo(f"shiftgrad: {stopped}; {_how_to_resume(request)}", err=True)
        return INTERRUPTED
    if as_json:
        _print_json(result)
    else:
        if request.report:
            click.echo(f"report: {result['report']}")
        click.echo(outcome.final_line)
    if outcome.totals.mismatches:
        click.echo(f"shiftgrad: wanted every instruction to equal the golden machine's, got "
                   f"{outcome.totals.mismatches} of {outcome.totals.compared_instructions} that differ", err=True)
        return FAILED
    return 0


def _how_to_resume(request: Any) -> str:
    if not request.save_path:
        return "nothing was saved (--save FILE does)"
    words = ["shiftgrad", "train", "--resume", str(request.save_path)]
    words += ["--data-dir", str(request.data_dir)] if request.data_dir else []
    words += ["--device", request.device] if request.device != "golden" else []
    words += ["--max-steps", str(request.max_steps)] if request.max_steps is not None else []
    words += ["--test-samples", str(request.test_samples)] if request.test_samples is not None else []
    return f"go on with: {shlex.join(words)}"


@main.command()
@click.argument("checkpoint", type=PATH)
@click.option("--out", type=PATH, required=True, metavar="FILE",
              help="Arrays (.npz) or a PyTorch state_dict (.pt, needs the extra torch).")
@json_option
def export(checkpoint: Path, out: Path, as_json: bool) -> None:
    """Write the weights of a checkpoint as float32, each exactly mantissa x 2^exponent, in PyTorch's layouts.

    shiftgrad.torch_net rebuilds the float network from them; train --init starts from them.

    \b
    Examples:
      shiftgrad export build/run/checkpoint.npz --out build/run/weights.npz
      shiftgrad export build/run/checkpoint.npz --out build/run/weights.pt
    """
    from shiftgrad import checkpoint as checkpoints
    from shiftgrad import weights
    from shiftgrad.files import check_writable

    saved = checkpoints.load(checkpoint)
    found = weights.floats(saved.network, saved.state)
    check_writable(out)
    weights.write(out, found)
    if as_json:
        _print_json({"out": str(out), "network": saved.network.name, "step": saved.step,
                     "tensors": {name: list(array.shape) for name, array in found.items()}})
        return
    click.echo(f"{out}: {saved.network.parameters} parameters of {saved.network.name} after {saved.step} steps, in "
               f"{len(found)} tensors")


@main.command()
@config_option(default=None)
@click.option("--dataset", type=click.Choice(list(DATASETS)), default="digits", show_default=True,
              help="Sets inputs, classes and the other defaults.")
@network_options
@click.option("--batch", type=int, help="Samples a step.")
@click.option("--scale", type=click.Choice(SCALES), default="delayed", show_default=True, help="Exponent rule.")
@click.option("--clock-mhz", type=click.FloatRange(min=0, min_open=True), default=100.0, show_default=True,
              help="For samples a second.")
@click.option("--first-step", is_flag=True, help="The first step, before there is any exponent history.")
@click.option("--plan", "show_plan", is_flag=True, help="Memories, tensors and program too.")
@json_option
def estimate(config: str | None, dataset: str, batch: int | None, scale: str, clock_mhz: float, first_step: bool,
             show_plan: bool, as_json: bool, **network: Any) -> None:
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
    from shiftgrad.recipes import CLASSES, SHAPES, Options, config_of, hyper_of, network_of

    if not math.isfinite(clock_mhz):
        raise click.BadParameter(f"--clock-mhz: wanted a frequency, got {clock_mhz}")
    options = Options(**network | {"model": network["model"] or MODELS[0]})
    defaults = hyper_of(dataset, options.model)
    machine = get_config(config or config_of(dataset, options.model))
    if machine.dense:
        raise click.BadParameter(f"--config: wanted a machine with a model of its cycles, got {machine.name}, a small "
                                 "one; docs/small.md says what was measured")
    plan = compile_network(network_of(dataset, SHAPES[dataset], CLASSES, options), machine,
                           batch=defaults["batch"] if batch is None else batch, lr_shift=defaults["lr_shift"],
                           scale=scale)
    found = estimates.estimate(plan, first_step=first_step)
    rate = found.samples_per_second(clock_mhz)
    if as_json:
        _print_json({**found.to_json(), "clock_mhz": clock_mhz, "samples_per_second": rate,
                     **({"plan": plan.to_json()} if show_plan else {})})
        return
    if show_plan:
        click.echo(plan.describe() + "\n")
    click.echo(f"{found.table()}\n\n{rate:,.0f} samples a second at {clock_mhz:g} MHz, the host's transfers apart")


def _buildable() -> list[str]:
    return [name for name, config in CONFIGS.items() if not config.virtual]


@main.command()
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

    written = {name: [str(path) for path in write(get_config(name), out)] for name in config or _buildable()}
    if as_json:
        _print_json(written)
        return
    for paths in written.values():
        click.echo("\n".join(paths))


@main.command()
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
    from hw.boards import board_names
    from shiftgrad.bitstream import build
    from shiftgrad.build_report import BitstreamError, table, to_json

    if board not in board_names():
        raise click.BadParameter(f"no board {board!r}; there are: {', '.join(board_names())}")
    if not seeds:
        raise click.BadParameter("--seeds: wanted at least one, got none")
    try:
        built = build(board, out or Path("build/bitstream") / board, seeds=seeds, best=best,
                      progress=lambda line: click.echo(line, err=True))
    except BitstreamError as error:
        raise click.ClickException(str(error)) from error
    click.echo(to_json(built) if as_json else table(built), nl=False)


@main.command()
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

    built = folder or Path("build/bitstream") / board
    try:
        report, cells = reports.read(built / "report.json"), areas.load(built / areas.CELL_FILE)
        paths = areas.write(cells, docs, f"area-{board}", reports.area_title(report), asdict(report))
    except (reports.BitstreamError, areas.AreaError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        _print_json(json.loads(paths[0].read_text()))
    else:
        click.echo("\n".join(map(str, paths)))


@main.command()
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
    from shiftgrad.build_report import BitstreamError

    wanted = chips.builds(seeds, only)
    if not wanted:
        pairs = ", ".join("-".join(pair) for pair in chips.MATRIX)
        raise click.BadParameter(f"--seeds and --only: wanted at least one build, got none; there are: {pairs}")
    try:
        chips.run(wanted, out, hours=hours, progress=partial(click.echo, err=True))
    except BitstreamError as error:
        raise click.ClickException(str(error)) from error
    found = list(chips.summary(chips.read(out)))
    if as_json:
        _print_json(found)
    else:
        click.echo("\n".join(bench_silicon.summary({"pairs": found})))


@main.command()
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
        _print_json(found)
        return
    for name, figures in found.items():
        click.echo("\n".join(benches.PARTS[name].summary(figures)))
    click.echo(f"figures: {out / 'bench.md'}")


@main.command()
@config_option(default=None)
@json_option
def info(config: str | None, as_json: bool) -> None:
    """The configurations, data sets, models and boards there are; with --config, one machine's numbers."""
    from shiftgrad import about

    facts = about.machine(config) if config else about.everything()
    if as_json:
        _print_json(facts)
    else:
        click.echo(about.text(facts))
