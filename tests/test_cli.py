"""The command line: how it refuses, and every command but train."""

import json
from pathlib import Path

import pytest

from shiftgrad.bench_products import product_plan
from shiftgrad.config import CONFIGS, get_config
from shiftgrad.datasets import DATASETS
from shiftgrad.estimate import estimate
from shiftgrad.record import PHASES
from tests.command_line import SMALL, refused, shiftgrad

# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (("train", "--nope"), "No such option"),
        (("nothing",), "No such command"),
        (("train", "--config", "sim_5x5"), "sim_5x5.* is not one of"),
        (("train", "--hidden", "a"), "wanted sizes such as 48,32 or none, got 'a'"),
        (("train", "--hidden", "0"), "units must be an integer from 1, got 0"),
        (("train", "--hidden", "5000"), "layer fc1: .* does not fit"),
        (("train", "--batch", "0"), "batch must be an integer from 1, got 0"),
        (("train", "--lr-drops", "0.9,0.1"), "drops must be fractions from 0 to 1, ascending"),
        (("train", "--lr-shift", "64"), "lr_shift"),
        (("train", "--device", "tpu"), "device must be golden, verilator, board:NAME or serial:PORT, got 'tpu'"),
        (("train", "--device", "board:icebreaker"), "icebreaker carries up5k_4x4: wanted --config up5k_4x4, got sim_8x8"
         ),
        (("train", "--device", "board:none"), "no board 'none'; there are: "),
        (("train", "--device", "serial:"), "got 'serial:'"),
        (("train", "--compare"), "--compare needs --device verilator"),
        (("train", "--dataset", "mnist"), "wanted --data-dir"),
        (("train", "--dataset", "mnist", "--data-dir", "/nowhere"), "/nowhere: wanted .* got no such folder"),
        (("train", "--resume", "/nowhere.npz"), "/nowhere.npz: wanted a checkpoint"),
        (("train", "--resume", "a", "--resume-if-present"), "exclude each other"),
        (("train", "--resume-if-present"), "needs --save"),
        (("train", "--epochs", "1" + 400 * "0"), "epochs must be at most 1,000,000"),
        (("train", "--lr-shift", "58"), "halvings must be at most 63, got 64"),
        (("train", "--shift", "-1"), "shift must be an integer from 0, got -1"),
        (("train", "--shift", "8"), "shift must be less than the sides of an image, 8 x 8, got 8"),
        (("train", "--dataset", "cifar10", "--data-dir", "/nowhere"), "/nowhere: wanted .* got no such folder"),
        (("estimate", "--clock-mhz", "0"), "0"),
        (("estimate", "--clock-mhz", "nan"), "wanted a frequency, got nan"),
        (("estimate", "--clock-mhz", "inf"), "wanted a frequency, got inf"),
        (("bitstream", "--board", "nope"), "no board 'nope'; there are: .*ulx3s_85f"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(arguments: tuple[str, ...], pattern: str) -> None:
    refused(shiftgrad(*arguments), 2, pattern)


def test_failures_are_one_line_and_status_1(tmp_path: Path) -> None:
    refused(shiftgrad("train", "--device", "serial:/dev/nothing", "--quiet"), 1,
            "cannot open serial port '/dev/nothing' at 1000000 baud")
    refused(shiftgrad("train", "--device", "serial:/dev/nothing@115200", "--quiet"), 1,
            "cannot open serial port '/dev/nothing' at 115200 baud")
    for name in ("usb@2-port0", "/dev/nothing@0", f"/dev/nothing@{'9' * 5000}", "@9600"):  # no rate: a name as it is
        refused(shiftgrad("train", "--device", f"serial:{name}", "--quiet"), 1,
                f"cannot open serial port '{name}' at 1000000 baud")
    (tmp_path / "file").write_text("")
    for option, path in (("--save", "file/c.npz"), ("--save", "."), ("--report", "file")):
        result = shiftgrad(*SMALL, option, tmp_path / path)  # no progress either: refused before the first step
        refused(result, 1, "wanted a file that can be written, got: (Not a directory|File exists|Is a directory)")
    result = shiftgrad("bench", "--device", "golden", "--out", tmp_path / "file")
    refused(result, 1, "wanted a file that can be written")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


# --- the other commands ---------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["train", "estimate", "generate", "bitstream", "bench"])
def test_help_teaches_by_example(command: str) -> None:
    assert f"shiftgrad {command}" in shiftgrad(command, "--help").stdout.split("Options:")[0]
    assert command in shiftgrad("--help").stdout


def test_no_command_is_the_help() -> None:
    result = shiftgrad()
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr == shiftgrad("--help").stdout


def test_info() -> None:
    everything = json.loads(shiftgrad("info", "--json").stdout)
    assert list(everything["configs"]) == list(CONFIGS) and set(everything["datasets"]) == set(DATASETS)
    assert {name: (entry["flip"], entry["shift"]) for name, entry in everything["datasets"].items()} == {
        "digits": (False, 0), "mnist": (False, 0), "mnist14": (False, 0), "cifar10": (True, 0)}
    text = shiftgrad("info").stdout
    assert [line.split()[0] for line in text.splitlines() if line.endswith("--flip")] == ["cifar10"]
    assert all(name in text for name in (*CONFIGS, *everything["boards"]))
    one = json.loads(shiftgrad("info", "--config", "sim_4x4", "--json").stdout)
    assert one["macs_per_cycle"] == 16 and one["bytes"] == get_config("sim_4x4").bytes_total
    assert "sim_4x4: 4 x 4 array" in shiftgrad("info", "--config", "sim_4x4").stdout


def test_estimate() -> None:
    found = json.loads(shiftgrad("estimate", "--dataset", "mnist", "--clock-mhz", "50", "--json").stdout)
    assert found["network"] == "mlp-784-128-10" and found["batch"] == 32
    assert found["samples_per_second"] == pytest.approx(50e6 * 32 / found["programs"]["train"]["cycles"])
    text = shiftgrad("estimate", "--hidden", "8", "--plan").stdout
    assert "mlp-64-8-10 on sim_8x8" in text and "program train at 0" in text


@pytest.mark.parametrize("phase", list(PHASES))
def test_bench_products_are_what_they_say(phase: str) -> None:
    plan = product_plan(get_config("sim_4x4"), phase, 8, 12, 16)
    cost = estimate(plan).costs[0]
    assert cost.macs == 8 * 12 * 16 and cost.instruction.opcode.name == PHASES[phase]


SMALL_BENCH = ("--config", "sim_4x4", "--device", "golden", "--sizes", "8,12", "--depths", "16")


def test_bench_products_on_the_golden_machine(tmp_path: Path) -> None:
    result = shiftgrad("bench", "--part", "products", *SMALL_BENCH, "--out", tmp_path, "--json")
    found = json.loads(result.stdout)
    assert json.loads((tmp_path / "bench.json").read_text()) == found and list(found) == ["products"]
    products, steps = found["products"]["products"], found["products"]["steps"]
    assert len(products) == 3 * 4 and result.stderr == ""
    assert all(p["macs"] == p["m"] * p["n"] * p["k"] and p["utilization"] is None for p in products)
    delayed, current = steps
    assert delayed["macs"] == current["macs"] == sum(phase["macs"] for phase in delayed["phases"].values())
    text = (tmp_path / "bench.md").read_text()
    assert "Training step of mlp-784-128-10" in text and "![products](products.svg)" in text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bench.json", "bench.md", "products-causes.svg",
                                                          "products.svg"]


def test_bench_parts_stay_in_the_files(tmp_path: Path) -> None:
    first = json.loads(shiftgrad("bench", "--part", "products", *SMALL_BENCH, "--out", tmp_path, "--json").stdout)
    result = shiftgrad("bench", "--part", "scaling", "--device", "golden", "--out", tmp_path, "-v")
    assert "sim_16x16_large: starting golden" in result.stderr
    found = json.loads((tmp_path / "bench.json").read_text())
    assert found["products"] == first["products"]
    assert [machine["size"] for machine in found["scaling"]["machines"]] == [4, 8, 16]
    assert len({machine["step"]["macs"] for machine in found["scaling"]["machines"]}) == 1
    assert "## The same step on larger arrays" in (tmp_path / "bench.md").read_text()
    refused(shiftgrad("bench", "--part", "nope"), 2, "no part 'nope'; there are: products, network, scaling, speed")


def test_bench_network_on_the_golden_machine(tmp_path: Path) -> None:
    result = shiftgrad("bench", "--part", "network", "--device", "golden", "--out", tmp_path, "--json")
    found = json.loads(result.stdout)["network"]
    assert found["step"]["macs"] == sum(row["macs"] for row in found["instructions"])
    assert set(found["classes"]) == {"forward", "backward", "gradient", "loss", "vector unit"}
    assert "| block3 | backward | BWD | 392 x 64 x 576 |" in (tmp_path / "bench.md").read_text()
