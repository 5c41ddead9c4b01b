"""Progress of nextpnr, on lines of its log."""

import pytest

from shiftgrad.route_progress import PATIENCE, RouteProgress

LOG = (
    ("Info: Packing constants..", "Packing constants.."),
    ("Info: iter=0 steplen=1.1 a=31.8 penalty=[0.00, 0.00, 0.00, 0.00]", "  5 %, about 10 min left (placement 0)"),
    ("Info: iter=600 steplen=1.1 a=31.8 penalty=[0.00, 0.00, 0.00, 0.00]", " 35 %, about 2 min left (placement 600)"),
    ("Info: Running simulated annealing placer for refinement.", "Running simulated annealing placer for refinement."),
    ("Info:   at iteration #10: temp = 0.000000, timing cost = 720, wirelen = 293942",
     " 51 %, about 1 min left (refinement 10)"),
    ("Info: Routing 142028 arcs.", "Routing 142028 arcs."),
    ("Info:    IterCnt |  w/ripup   wo/ripup |  w/r  wo/r |      arcs| batch(sec) total(sec)|", None),
    ("Info:       1000 |      220        779 |  220   779 |    140000|       2.69       2.69|",
     " 67 %, about 1 min left (routing, 140000 arcs left)"),
    ("Info:     160000 |    22948     135316 |  234   766 |     14000|       0.99     113.05|",
     " 94 %, about 0 min left (routing, 14000 arcs left)"),
    ("Info:     181136 |    26213     150343 |   11   106 |         0|       0.83     143.32|",
     " 97 %, about 0 min left (routing, 0 arcs left)"),
    ("Info: something else", None),
)


HEAP = (
    ("Info:     at iteration #1, type ALL: wirelen solved = 171601, spread = 744353, legal = 789951; time = 6.47s",
     "  6 %, about 6 min left (placement 1)"),
    ("Info:     at iteration #18, type ALL: wirelen solved = 171601, spread = 744353, legal = 789951; time = 6.47s",
     " 13 %, about 4 min left (placement 18)"),
    ("Info:   at iteration #11: temp = 0.000000, timing cost = 1336, wirelen = 470013",
     " 35 %, about 2 min left (refinement 11)"),
    ("Info:       1000 |      220        779 |  220   779 |    200000|       2.69       2.69|",
     " 57 %, about 1 min left (routing, 200000 arcs left)"),
)


def routing(iteration: int, left: int) -> str:
    """A line of router1."""
    return f"Info: {iteration:10} |      220        779 |  220   779 | {left:9}|       2.69       2.69|\n"


@pytest.mark.parametrize("log", [LOG, HEAP], ids=["static", "heap"])
def test_a_run(log: tuple[tuple[str, str | None], ...]) -> None:
    now = [0.0]
    progress = RouteProgress(interval=15.0, clock=lambda: now[0])
    for line, wanted in log:
        now[0] += 10.0 if wanted is None or "left" not in wanted else 20.0
        assert progress.feed(line) == wanted


def test_lines_come_at_intervals() -> None:
    now = [0.0]
    progress = RouteProgress(interval=15.0, clock=lambda: now[0])
    spoken = 0
    for iteration in range(90):
        now[0] += 1.0
        spoken += progress.feed(f"Info: iter={iteration} steplen=1.0 a=1.0") is not None
    assert spoken == 90 // 15


def test_the_last_arcs_may_take_long() -> None:
    progress = RouteProgress()
    for iteration in range(1000, 4 * PATIENCE, 1000):
        progress.feed(routing(iteration, 1))
        assert progress.stuck is None


def test_a_router_that_gets_nowhere_is_told_from_a_slow_one() -> None:
    progress, lines = RouteProgress(), PATIENCE // 1000
    for number, left in enumerate([900, 500, 300, *[400] * 10, 299, *[350] * (lines - 1)], 1):
        progress.feed(routing(1000 * number, left))
        assert progress.stuck is None
    progress.feed(routing(1000 * (number + 1), 299))
    assert progress.stuck
    assert progress.stuck.startswith(f"299 arcs left at best after {1000 * (number + 1)} iterations")
