"""Where block RAMs and multipliers go: a lane's banks and a column's multipliers together, side by side."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["LFE5U_25F", "LFE5U_85F", "BlockRams", "place_banks", "place_multipliers"]

MULTIPLIER = re.compile(r"(?:.*\.)?array\.multipliers(?P<column>\d+)\.mult(?P<row>\d+)")
BANK = re.compile(r"(?:.*\.)?(?P<memory>\w+)\.bank(?P<lane>\d+)\.[\d.]+")


@dataclass(frozen=True, kw_only=True)
class BlockRams:
    """The block RAM sites of a device: ``columns`` x ``rows``, as nextpnr numbers its grid; and its multipliers.

    Block RAM i of a row, counted from the left, is number i modulo ``group`` of its group. The first ``free`` columns
    are left to what is no bank of a lane: control, which gathers around its multipliers.

    A multiplier's site is one of four of a slice pair: ``dsp_columns`` x ``dsp_rows``, those in the middle first. The
    first column is left to control. Without them multipliers stay where the placer puts them.
    """

    columns: tuple[int, ...]
    rows: tuple[int, ...]
    group: int = 4
    free: int = 0
    dsp_columns: tuple[int, ...] = ()
    dsp_rows: tuple[int, ...] = ()

    def site(self, column: int, row: int) -> str:
        """Name of the site in the ``column``-th column and the ``row``-th row."""
        return f"X{self.columns[column]}/Y{self.rows[row]}/EBR{column % self.group}"


# a group is 9 tiles wide; the clock spine lies between the left 12 and the right 16
LFE5U_25F = BlockRams(
    columns=tuple(start + offset for start in (*range(4, 23, 9), *range(33, 61, 9)) for offset in (0, 2, 4, 6)),
    rows=(37, 25),
)
# as before; the clock spine lies between the left 28 and the right 24
LFE5U_85F = BlockRams(
    columns=tuple(start + offset for start in (*range(4, 59, 9), *range(69, 115, 9)) for offset in (0, 2, 4, 6)),
    rows=(46, 70, 22, 82),  # those in the middle first
    free=4,
    dsp_columns=(*range(4, 59, 9), *range(69, 115, 9)),
    dsp_rows=(34, 58, 10),
)


def place_banks(cells: Iterable[str], device: BlockRams) -> dict[str, str]:
    """Sites for the block RAM cells that are banks of a lane; other cells and banks beyond a lane's share have none.

    Lane n of T gets the n-th of T equal strips of the device, but for the columns left free. Left to themselves,
    placers strew a lane's banks over the whole device, and the lane's logic after them.
    """
    banks: dict[int, list[tuple[str, str]]] = {}
    for cell in cells:
        if found := BANK.fullmatch(cell):
            banks.setdefault(int(found["lane"]), []).append((found["memory"], cell))
    total, size = len(device.columns) - device.free, max(banks, default=0) + 1
    sites: dict[str, str] = {}
    for lane, found_banks in banks.items():
        strip = range(device.free + total * lane // size, device.free + total * (lane + 1) // size)
        free = [device.site(column, row) for row in range(len(device.rows)) for column in strip]
        large_first = sorted(found_banks, key=lambda bank: (-sum(bank[0] == other for other, _ in found_banks), bank))
        sites |= {cell: site for (_, cell), site in zip(large_first, free, strict=False)}
    return sites


def place_multipliers(cells: Iterable[str], device: BlockRams) -> dict[str, str]:
    """Sites for those cells that are multipliers of an array: a column of the array to a column of the device.

    Rows go to rows, four of them to each of the device's; columns are spread over the width, as the lanes are. An
    array that does not fit has none.
    """
    found = [(int(match["column"]), int(match["row"]), cell) for cell in cells if (match := MULTIPLIER.fullmatch(cell))]
    size, room = 1 + max((column for column, _, _ in found), default=0), len(device.dsp_columns) - 1
    rows = sorted(device.dsp_rows[:(size + 3) // 4])
    if size > min(room, 4 * len(rows)):
        return {}
    sites = {}
    for column, row, cell in found:
        z = (0, 1, 4, 5)[row % 4]
        sites[cell] = f"X{device.dsp_columns[1 + column * room // size] + z}/Y{rows[row // 4]}/MULT18_{z}"
    return sites
