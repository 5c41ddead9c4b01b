"""``train`` and ``export``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from shiftgrad.commands.options import (
    FAILED,
    INTERRUPTED,
    PATH,
    Numbers,
    config_option,
    json_option,
    network_options,
    print_json,
)
from shiftgrad.compiler import SCALES
from shiftgrad.datasets import DATASETS
from shiftgrad.train import Interrupted

__all__ = ["export", "train"]


@click.command()
@config_option(default=None)
@click.option("--dataset", type=click.Choice(list(DATASETS)), help="What to learn.  [default: digits]")
@click.option("--data-dir", type=PATH,
              help="Folder of MNIST's IDX files (train-*, t10k-*) or CIFAR-10's data_batch_* (binary or Python).")
@network_options
@click.option("--batch", type=int, help="Samples a step.  [default: 16 for digits, 32 for the others]")
@click.option("--epochs", type=int, help="Passes over the training data.  [default: 15, 8 for cifar10]")
@click.option("--max-steps", type=click.IntRange(min=0), help="Stop after this many steps in all, then evaluate.")
@click.option("--test-samples", type=click.IntRange(min=1), metavar="N",
              help="Evaluate on the first N held-out samples only: on the simulated RTL they take long.")
@click.option("--lr-shift", type=int, metavar="N",
              help="The learning rate starts at 2^-N.  [default: 4; 3 for mlp on mnist and mnist14]")
@click.option("--lr-drops", type=Numbers(float, "fractions"), metavar="F,F,...",
              help="Fractions of the run after which it is halved, or none.  [default: 0.6,0.85; fixup_resnet: "
                   "0.7,0.7, for cifar10 0.6,0.6,0.85,0.85]")
@click.option("--scale", type=click.Choice(SCALES),
              help="Exponents from each tensor's history, or from its own maximum (two passes).  [default: delayed; "
                   "current for fixup_resnet with batches of 1 and 2]")
@click.option("--seed", type=int, help="Of parameters, rounding, order and division of the data.  [default: 0]")
@click.option("--eval-every", type=int, metavar="EPOCHS", help="Epochs between held-out evaluations.  [default: 1]")
@click.option("--flip/--no-flip", default=None,
              help="Mirror half of the training images, drawn anew each step.  [default: flip for cifar10 only]")
@click.option("--shift", type=int, metavar="N",
              help="Move training images by up to N pixels in both directions, drawn anew each step.  [default: 0]")
@click.option("--device", default="golden", metavar="DEVICE", show_default=True,
              help="golden (NumPy), verilator (the RTL), board:NAME (a simulated board at its serial pins, "
                   "every instruction compared) or serial:PORT (a board; serial:PORT@BAUD for another rate than "
                   "1,000,000).")
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
        print_json(result)
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
    words += ["--report", str(request.report)] if request.report else []
    words += ["--max-steps", str(request.max_steps)] if request.max_steps is not None else []
    words += ["--test-samples", str(request.test_samples)] if request.test_samples is not None else []
    return f"go on with: {shlex.join(words)}"


@click.command()
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
    from shiftgrad.files import check_apart, check_writable

    check_apart({"CHECKPOINT": checkpoint, "--out": out})
    saved = checkpoints.load(checkpoint)
    found = weights.floats(saved.network, saved.state)
    check_writable(out)
    weights.write(out, found)
    if as_json:
        print_json({"out": str(out), "network": saved.network.name, "step": saved.step,
                    "tensors": {name: list(array.shape) for name, array in found.items()}})
        return
    click.echo(f"{out}: {saved.network.parameters} parameters of {saved.network.name} after {saved.step} steps, in "
               f"{len(found)} tensors")
