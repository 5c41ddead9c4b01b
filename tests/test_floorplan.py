"""Places of block RAMs and multipliers."""

from dataclasses import replace

import pytest

from hw.boards.floorplan import LFE5U_25F, LFE5U_85F, BlockRams, place_banks, place_multipliers

DEVICE = BlockRams(columns=(4, 6, 8, 10, 13, 15), rows=(46, 22))


def test_the_device_has_208_block_rams() -> None:
    sites = {LFE5U_85F.site(column, row) for column in range(52) for row in range(4)}
    assert len(sites) == 208
    assert {"X4/Y22/EBR0", "X64/Y46/EBR3", "X69/Y70/EBR0", "X120/Y82/EBR3"} <= sites


def test_the_small_device_has_56() -> None:
    sites = {LFE5U_25F.site(column, row) for column in range(28) for row in range(2)}
    assert len(sites) == 56
    assert {"X4/Y25/EBR0", "X28/Y37/EBR3", "X33/Y25/EBR0", "X66/Y37/EBR3"} <= sites


def test_lanes_have_strips_and_large_memories_the_first_row() -> None:
    cells = [f"machine.core.{memory}.bank{lane}.{part}.0" for lane in range(2)
             for memory, parts in (("act", 1), ("wgt", 3)) for part in range(parts)]
    sites = place_banks([*cells, "machine.core.table.word0.0.0", "program.0.0"], DEVICE)
    assert sites == {
        **{f"machine.core.wgt.bank0.{part}.0": f"X{4 + 2 * part}/Y46/EBR{part}" for part in range(3)},
        "machine.core.act.bank0.0.0": "X4/Y22/EBR0",
        "machine.core.wgt.bank1.0.0": "X10/Y46/EBR3", "machine.core.wgt.bank1.1.0": "X13/Y46/EBR0",
        "machine.core.wgt.bank1.2.0": "X15/Y46/EBR1", "machine.core.act.bank1.0.0": "X10/Y22/EBR3",
    }


def test_the_first_columns_may_be_left_free() -> None:
    cells = [f"core.wgt.bank{lane}.{part}.0" for lane in range(2) for part in range(4)]
    sites = place_banks(cells, replace(DEVICE, free=2))
    assert set(sites.values()) == {f"X{x}/Y{y}/EBR{number}" for x, number in ((8, 2), (10, 3), (13, 0), (15, 1))
                                   for y in (46, 22)}


@pytest.mark.parametrize("banks", [0, 7])
def test_banks_that_do_not_fit_have_no_place(banks: int) -> None:
    cells = [f"core.wgt.bank{lane}.{part}.0" for lane in range(2) for part in range(banks)]
    sites = place_banks(cells, DEVICE)
    assert len(sites) == len(set(sites.values())) == 2 * min(banks, 6)


def test_multipliers_of_a_column_stand_together() -> None:
    cells = [f"machine.core.array.multipliers{column}.mult{row}" for column in range(8) for row in range(8)]
    sites = place_multipliers([*cells, "machine.core.vector.lane0.multiplier.mult0"], LFE5U_85F)
    assert sites.keys() == set(cells) and len(set(sites.values())) == 64
    assert [sites[f"machine.core.array.multipliers0.mult{row}"] for row in range(8)] == [
        f"X{13 + z}/Y{y}/MULT18_{z}" for y in (34, 58) for z in (0, 1, 4, 5)]
    assert [sites[f"machine.core.array.multipliers{column}.mult0"] for column in range(8)] == [
        f"X{x}/Y34/MULT18_0" for x in (13, 22, 40, 49, 69, 78, 96, 105)]


@pytest.mark.parametrize(("size", "device", "placed"), [(12, LFE5U_85F, 144), (16, LFE5U_85F, 0), (4, LFE5U_25F, 0),
                                                        (0, LFE5U_85F, 0)])
def test_an_array_is_placed_whole_or_not_at_all(size: int, device: BlockRams, placed: int) -> None:
    cells = [f"array.multipliers{column}.mult{row}" for column in range(size) for row in range(size)]
    assert len(set(place_multipliers(cells, device).values())) == placed
