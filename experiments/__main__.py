"""``python -m experiments``: run, report, exponents, isometry, scaling-unit."""

from __future__ import annotations

import fnmatch
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import click  # noqa: E402

from experiments import report as reports  # noqa: E402
from experiments.grid import STUDIES, Job, Study, queue  # noqa: E402
from experiments.runner import run as run_jobs  # noqa: E402
from experiments.store import Store  # noqa: E402
from shiftgrad.datasets import DatasetError, load  # noqa: E402
from shiftgrad.train import Interrupted, stop_on_signals  # noqa: E402

PATH = click.Path(path_type=Path)
out_option = click.option("--out", type=PATH, default=Path("build/experiments"), show_default=True, metavar="DIR",
                          help="Folder of the runs' results.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def main() -> None:
    """Accuracy of int8 training beside float with and without batch normalisation, over batch sizes and depths."""


@main.command()
@out_option
@click.option("--mnist", type=PATH, metavar="DIR", help="Folder of MNIST's IDX files; without it mnist14 is left out.")
@click.option("--cifar10", type=PATH, metavar="DIR", help="Folder of CIFAR-10's batches; without it, that is left out.")
@click.option("--hours", type=click.FloatRange(min=0), metavar="H", help="Stop after so long; run again to go on.")
@click.option("--only", metavar="PATTERN", default="*", show_default=True,
              help="Runs whose name matches, such as 'digits-3*' or '*/int8-b1-*'; what tunes them must be done or "
                   "match too.")
@click.option("--take", type=PATH, metavar="FILE",
              help="An experiments.json whose runs count as done, such as the one in docs/results.")
@click.option("--list", "show", is_flag=True, help="Name the runs, done or not, and start none.")
def run(out: Path, mnist: Path | None, cifar10: Path | None, hours: float | None, only: str, take: Path | None,
        show: bool) -> None:
    """Do the runs that are not done yet, the most informative first.

    Every epoch is saved, so Ctrl-C costs at most one; the same command goes on. Needs the extra torch.
    """
    store = Store(out)
    if take:
        try:
            click.echo(f"{store.take(take)} results taken from {take}", err=True)
        except LookupError as error:
            raise click.ClickException(str(error)) from error
    work = [job for job in queue() if fnmatch.fnmatch(job.key, only)]
    if show:
        for job in work:
            click.echo(f"{'done' if store.result(job) else '    '} {job.key}")
        return
    folders = {name: folder for name, folder in (("mnist14", mnist), ("cifar10", cifar10)) if folder}
    try:
        with stop_on_signals() as stop:
            run_jobs(work, store, folders, stop, hours=hours)
    except Interrupted as stopped:
        click.echo(f"\nstopped at step {stopped.step} of {stopped.steps} of a run; the same command goes on", err=True)
        sys.exit(130)
    except (DatasetError, LookupError) as error:
        raise click.ClickException(str(error)) from error


@main.command()
@out_option
@click.option("--docs", type=PATH, default=Path("docs/results"), show_default=True, metavar="DIR",
              help="Where experiments.md, experiments.json and the plots go.")
def report(out: Path, docs: Path) -> None:
    """Tables and plots of the runs that are done."""
    for path in reports.write(Store(out), docs):
        click.echo(path)


def study_options(command: Callable[..., None]) -> Callable[..., None]:
    """A study, a batch size and a seed."""
    for option in (
        click.option("--docs", type=PATH, default=Path("docs/results"), show_default=True, metavar="DIR",
                     help="Where the files go."),
        click.option("--seed", type=int, default=0, show_default=True, help="Of weights, rounding and order."),
        click.option("--batch", type=click.IntRange(min=1), default=32, show_default=True, help="Samples a step."),
        click.option("--blocks", type=click.Choice(["3", "9"]), default="3", show_default=True, help="Depth."),
        click.option("--data-dir", type=PATH, metavar="DIR", help="Folder of the data set's files."),
        click.option("--dataset", type=click.Choice(["digits", "mnist14", "cifar10"]), default="digits",
                     show_default=True, help="What to learn."),
    ):
        command = option(command)
    return command


def _study(dataset: str, blocks: str) -> Study:
    return next(study for study in STUDIES if (study.dataset, study.blocks) == (dataset, int(blocks)))


@main.command()
@study_options
@click.option("--lr-shift", type=int, metavar="N", help="Learning rate 2^-N.  [default: the middle one of run]")
@click.option("--epochs", type=click.IntRange(min=1), metavar="N", help="Instead of those of run.")
def exponents(dataset: str, data_dir: Path | None, blocks: str, batch: int, seed: int, docs: Path,
              lr_shift: int | None, epochs: int | None) -> None:
    """Train int8 and log exponents, saturation and underflow of every tensor: table, chart, JSON."""
    from experiments import exponents as logs

    study = _study(dataset, blocks)
    job = Job(study=study, variant="int8", batch=batch, seed=seed)
    hyper = job.hyper(job.middle_shift if lr_shift is None else lr_shift)
    with stop_on_signals() as stop:
        found = logs.record(study, load(dataset, data_dir), replace(hyper, epochs=epochs or hyper.epochs), stop)
    for path in logs.write(found, docs):
        click.echo(path)


@main.command()
@study_options
def isometry(dataset: str, data_dir: Path | None, blocks: str, batch: int, seed: int, docs: Path) -> None:
    """Norms of activations and errors by block before the first step, int8 beside float: chart, JSON."""
    from experiments import isometry as norms

    found = norms.measure(_study(dataset, blocks).network, load(dataset, data_dir), batch=batch, seed=seed)
    for path in norms.write(found, docs):
        click.echo(path)


@main.command("scaling-unit")
@click.option("--docs", type=PATH, default=Path("docs/results"), show_default=True, metavar="DIR",
              help="Where scaling-unit.json, .md and .png go.")
@click.option("--seeds", default="1,2,3", show_default=True, metavar="N,N,...",
              help="Placement seeds; the fastest counts.")
def scaling_unit(docs: Path, seeds: str) -> None:
    """FP32 batch normalisation and the lane's scaling by shifts, alone: sizes, clocks, changes of nets; 8 minutes."""
    from experiments.batchnorm import compare, stimuli
    from experiments.batchnorm import report as comparison

    def say(line: str) -> None:
        click.echo(line, err=True)

    tried = [int(seed) for seed in seeds.split(",")]
    changes = stimuli.measure(say)
    found = compare.figures(compare.measure(tried, say), tried, changes)
    for path in comparison.write(found, docs):
        click.echo(path)


if __name__ == "__main__":
    main(prog_name="python -m experiments")
