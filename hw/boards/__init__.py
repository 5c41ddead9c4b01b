"""Boards: one small file each, which defines ``BOARD``."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from hw.boards.board import Board

__all__ = ["Board", "board_names", "get_board"]


def board_names() -> list[str]:
    """Names of the boards there are."""
    modules = (info.name for info in pkgutil.iter_modules(__path__))
    return sorted(name for name in modules if hasattr(import_module(f"{__name__}.{name}"), "BOARD"))


def get_board(name: str) -> Board:
    """The board called ``name``; ``ValueError`` lists the boards there are."""
    names = board_names()
    if name not in names:
        raise ValueError(f"no board {name!r}; there are: {', '.join(names)}")
    board: Board = import_module(f"{__name__}.{name}").BOARD
    return board
