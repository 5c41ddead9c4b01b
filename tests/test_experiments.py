"""The measurements' machinery, on jobs of seconds: order, choice of learning rates, resuming, tables and plots."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments import grid, report, runner
from experiments.grid import Job, Study
from experiments.store import Store
from shiftgrad.datasets import load
from shiftgrad.layers import Block
from shiftgrad.models import fixup_resnet
from shiftgrad.train import Interrupted, Stop

TINY = Study(dataset="digits", channels=(4, 4, 8), epochs=1, tune_epochs=1, batches=(32, 128), seeds=(0, 1))
SMALL = replace(TINY, batches=(1, 32, 128))


def fake(store: Store, job: Job, accuracy: float, **more: object) -> None:
    epochs = [{"epoch": 1, "step": 2, "train_loss": 1.0, "train_accuracy": 0.5, "loss": 1.0, "accuracy": accuracy}]
    store.finish(job, {"key": job.key, "study": job.study.facts, "tunes": job.tunes, "variant": job.variant,
                       "batch": job.batch, "seed": job.seed, "accuracy": accuracy, "lr_shift": job.lr_shift or 4,
                       "epochs": epochs, "train_samples": 3, "test_samples": 4, **more})


def test_every_job_comes_once_behind_those_that_tune_it() -> None:
    for study in grid.STUDIES:
        seen: set[str] = set()
        for job in grid.jobs(study):
            assert job.key not in seen and job.fits
            assert job.tunes or {each.key for each in job.candidates} <= seen
            seen.add(job.key)
        batches = set(study.batches) - ({128} if study.dataset == "cifar10" else set())
        assert {f"{study.name}/int8-b{b}-s{s}" for b in batches for s in study.seeds} <= seen
        assert {job.batch for job in grid.jobs(study) if job.variant == "int8_current"} == batches & {1, 2}
        unsigned = batches if study.dataset == "cifar10" else set()
        assert {job.batch for job in grid.jobs(study) if job.variant == grid.UNSIGNED} == unsigned
        assert all((f"tune-int8-b{b}-" in " ".join(seen)) == (study.tune_epochs is not None) for b in batches)
    assert len({study.name for study in grid.STUDIES}) == len(grid.STUDIES)


def test_the_queue_has_every_job_once_and_the_first_study_first() -> None:
    keys = [job.key for job in grid.queue()]
    assert len(keys) == len(set(keys))
    assert set(keys) == {job.key for study in grid.STUDIES for job in grid.jobs(study)}
    first = [job.key for job in grid.jobs(grid.STUDIES[0])]
    assert keys[: len(first)] == first
    assert keys.index(f"{grid.STUDIES[6].name}/int8-b1-s0") < keys.index(f"{grid.STUDIES[1].name}/int8-b1-s1")


def test_rates_and_lengths_by_batch() -> None:
    assert [grid.middle_shift(b) for b in grid.BATCHES] == [7, 6, 5, 4, 4, 4]
    assert [grid.lengthened(3, b) for b in grid.BATCHES] == [3, 3, 3, 3, 6, 12]
    job = Job(study=TINY, variant="int8", batch=32, seed=2)
    assert [each.lr_shift for each in job.candidates] == [3, 4, 5] and job.candidates[0].variant == "int8"
    for batch, scales in ((2, ["delayed", "current", "current"]), (4, ["delayed", "current", "delayed"])):
        assert [replace(job, variant=v, batch=batch).hyper(5).scale for v in grid.VARIANTS[2:]] == scales
    configs = [replace(job, variant=v).config for v in grid.VARIANTS[2:]]
    assert configs == ["golden_16x16", "golden_16x16", "golden_16x16_unsigned"]
    assert job.hyper(5).lr_shift == 5 and job.hyper(5).seed == 2 and job.hyper(5).epochs == 2


def test_the_best_rate_is_taken_and_the_smaller_of_equals(tmp_path: Path) -> None:
    store, job = Store(tmp_path), Job(study=TINY, variant="int8", batch=32, seed=1)
    with pytest.raises(LookupError, match=r"tune-int8-b32-lr3, .*: not measured yet"):
        store.lr_shift(job)
    for each, accuracy in zip(job.candidates, (0.5, 0.7, 0.7), strict=True):
        fake(store, each, accuracy)
    assert store.lr_shift(job) == 5
    assert store.lr_shift(job.candidates[0]) == 3


def test_a_study_that_chooses_no_rate_takes_the_middle_one(tmp_path: Path) -> None:
    for batch in grid.BATCHES:
        job = Job(study=replace(TINY, tune_epochs=None), variant="fp32_bn", batch=batch, seed=0)
        assert not job.candidates and Store(tmp_path).lr_shift(job) == grid.middle_shift(batch)


def test_a_deep_network_takes_half_the_rate(tmp_path: Path) -> None:
    deep = replace(TINY, tune_epochs=None, channels=(4, *[4] * (grid.SHALLOW + 1)))
    for batch in grid.BATCHES:
        job = Job(study=deep, variant="int8", batch=batch, seed=0)
        assert Store(tmp_path).lr_shift(job) == grid.middle_shift(batch) + 1


def test_the_network_has_its_study_s_range() -> None:
    for study in grid.STUDIES:
        assert {layer.zero_range for layer in study.network.layers if isinstance(layer, Block)} == {study.zero_range}


def test_no_held_out_image_chooses_a_rate() -> None:
    data = load("digits")
    part = runner.validation(data)
    np.testing.assert_array_equal(np.concatenate([part.images, part.test_images]), data.images)
    np.testing.assert_array_equal(np.concatenate([part.labels, part.test_labels]), data.labels)
    assert len(part.test_labels) == len(data.labels) // 8


def test_tables_and_plots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "STUDIES", (SMALL,))
    store, docs = Store(tmp_path / "runs"), tmp_path / "docs"
    for variant, batch, seed, accuracy in (("fp32_fixup", 32, 0, 0.9), ("fp32_fixup", 32, 1, 0.8),
                                           ("int8", 32, 0, 0.82), ("fp32_bn", 128, 0, 0.5), ("fp32_fixup", 1, 0, 0.7),
                                           ("int8", 1, 0, 0.6), ("int8_current", 1, 0, 0.69)):
        fake(store, Job(study=SMALL, variant=variant, batch=batch, seed=seed), accuracy,
             **({"config": "golden_16x16"} if variant == "int8" else {}))
    written = report.write(store, docs)
    text = (docs / "experiments.md").read_text()
    assert "| 32 |  | **85.00** (80.00 to 90.00) | 82.00 (one seed) |  | -8.00 | 2^-4, 2^-4 |" in text
    assert "| 128 | **50.00** (one seed) |  |  |  |  | 2^-4 |" in text
    assert "| 1 |  | **70.00** (one seed) | 60.00 (one seed) | 69.00 (one seed) | -1.00 | 2^-4, 2^-4, 2^-4 |" in text
    assert "7 of 20 runs are done" in text and "(golden_16x16)" in text
    assert len(json.loads((docs / "experiments.json").read_text())) == 7
    for path in written[2:]:
        assert path.read_bytes()[1:4] == b"PNG" and f"({path.name})" in text


def test_a_table_has_the_columns_that_were_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    colour = replace(SMALL, dataset="cifar10")
    monkeypatch.setattr(report, "STUDIES", (colour,))
    store, docs = Store(tmp_path / "runs"), tmp_path / "docs"
    for variant, batch, accuracy in (("fp32_fixup", 1, 0.5), ("int8_unsigned", 1, 0.52), ("fp32_fixup", 32, 0.6)):
        fake(store, Job(study=colour, variant=variant, batch=batch, seed=0), accuracy)
    report.write(store, docs)
    text = (docs / "experiments.md").read_text()
    assert ("| batch | FP32, Fixup | int8, Fixup, unsigned ReLU | int8 less FP32 Fixup | unsigned less FP32 Fixup | "
            "learning rates |\n|---|---|---|---|---|---|\n") in text
    assert "| 1 | 50.00 (one seed) | **52.00** (one seed) |  | +2.00 | 2^-4, 2^-4 |" in text
    assert "| 32 | **60.00** (one seed) |  |  |  | 2^-4 |" in text


def test_a_run_is_skipped_when_done_or_without_its_data(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    store, jobs = Store(tmp_path), [Job(study=TINY, variant="int8", batch=32, seed=0)]
    jobs.append(replace(jobs[0], study=replace(TINY, dataset="mnist14")))
    fake(store, jobs[0], 0.5)
    runner.run(jobs, store, {}, Stop())
    assert capsys.readouterr().err == "1 jobs, 1 done\n"


class StopAfter(Stop):
    """Asks to stop when it has been asked ``count`` times."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def __bool__(self) -> bool:
        self.count -= 1
        return self.count < 0


@pytest.mark.parametrize("variant", grid.VARIANTS)
def test_an_interrupted_run_ends_with_the_same_figures(variant: str, tmp_path: Path) -> None:
    if variant.startswith("fp32"):
        pytest.importorskip("torch")
    job = Job(study=replace(TINY, epochs=2), variant=variant, batch=128, seed=1)
    for name in ("one", "two"):
        for each in job.candidates:
            fake(Store(tmp_path / name), each, 0.5)
    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    runner.run([job], one, {}, Stop())
    with pytest.raises(Interrupted):
        runner.run([job], two, {}, StopAfter(30))
    assert two.checkpoint_path(job).exists() and two.result(job) is None
    runner.run([job], two, {}, Stop())
    assert not two.checkpoint_path(job).exists()
    first, second = one.result(job), two.result(job)
    assert first and second
    assert first["epochs"] == second["epochs"] and len(first["epochs"]) == 8 and first["lr_shift"] == 5


def test_the_budget_ends_a_run(tmp_path: Path) -> None:
    store, job = Store(tmp_path), Job(study=TINY, variant="int8", batch=32, seed=0)
    for each in job.candidates:
        fake(store, each, 0.5)
    with pytest.raises(Interrupted):
        runner.run([job], store, {}, Stop(), hours=0)
    assert store.checkpoint_path(job).exists()


def test_the_float_networks_start_where_the_device_does() -> None:
    torch = pytest.importorskip("torch")
    from experiments import floating
    from shiftgrad import weights
    from shiftgrad.initialise import initial_vectors, initial_weights

    network = fixup_resnet((8, 8, 1), 10, channels=(4, 4, 8))
    net = floating.fixup_net(network, 3)
    back = weights.quantised(network, {name: p.detach().numpy() for name, p in net.named_parameters()})
    for name, mantissas in {**initial_weights(network, 3), **initial_vectors(network)}.items():
        np.testing.assert_array_equal(back.mantissas[name], mantissas, err_msg=name)
    norm = floating.batch_norm_net(network, 3)
    names = {name for name, _ in norm.named_parameters()}
    assert "block1.norm2.weight" in names and not any(name.endswith((".m", "b1a", "stem.bias")) for name in names)
    assert norm.block1.conv2.weight.std().item() == pytest.approx((2 / 36) ** 0.5, rel=0.2)
    assert norm(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_results_of_another_folder_count_as_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "STUDIES", (TINY,))
    monkeypatch.setattr(grid, "STUDIES", (TINY,))
    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    whole, part = (Job(study=TINY, variant="int8", batch=batch, seed=0) for batch in (32, 128))
    for seed in TINY.seeds:
        fake(one, replace(whole, seed=seed), 0.5)
    fake(one, part, 0.5)
    report.write(one, tmp_path)
    fake(two, part, 0.75)
    assert two.take(tmp_path / "experiments.json") == 2
    assert two.result(whole) == one.result(whole) and two.result(part)["accuracy"] == 0.75
    ran = []
    monkeypatch.setattr(runner, "_train", lambda job, *_: ran.append(job.key) or exit_at_once())
    with pytest.raises(Interrupted):  # nothing tunes what is done: the first that runs tunes batch 128
        runner.run([*whole.candidates, whole, *part.candidates], two, {}, Stop())
    assert ran == [part.candidates[0].key]
    monkeypatch.setattr(grid, "STUDIES", (replace(TINY, zero_range=1.0),))
    assert Store(tmp_path / "three").take(tmp_path / "experiments.json") == 0, "wanted no results of another study"
    assert one.result(whole) and one.result(replace(whole, study=grid.STUDIES[0])) is None
    with pytest.raises(LookupError, match="wanted an experiments.json, got"):
        two.take(tmp_path / "experiments.md")


def exit_at_once() -> None:
    raise Interrupted(0, 1)
