"""Cells of the tables that come with HDF5 data sets. No error quotes a cell: it may hold anything."""

from __future__ import annotations

import re

from ecgdist.record import MOST_YEARS, Sex

_WHOLE = re.compile(r"([0-9]{1,18})(?:\.0*)?")


def whole_number(text: str | None) -> int:
    """``"15709"`` and ``"15709.0"`` as 15709, for an id that must be there.

    Raises:
        ValueError: for anything else.
    """
    match = _WHOLE.fullmatch((text or "").strip())
    if match is None:
        raise ValueError("an id is not a whole number")
    return int(match[1])


def truth(text: str | None) -> bool | None:
    """``"True"`` and ``"1"`` as True, ``"False"`` and ``"0"`` as False, nothing and ``"-1"`` as None.

    Raises:
        ValueError: for anything else.
    """
    word = (text or "").strip().lower()
    if word in ("", "-1"):
        return None
    if word not in ("true", "1", "false", "0"):
        raise ValueError("a cell is neither True nor False")
    return word in ("true", "1")


def sex_of(is_male: str | None) -> Sex | None:
    """The sex that an ``is_male`` cell states.

    Raises:
        ValueError: as `truth`.
    """
    male = truth(is_male)
    return None if male is None else "male" if male else "female"


def age_of(text: str | None) -> float | None:
    """Years; None for nothing, for NaN and for the -1 that stands for nothing.

    Raises:
        ValueError: for anything else that is no number.
    """
    try:
        age = float(text or "-1")
    except ValueError:
        raise ValueError("an age is not a number") from None
    return age if 0 <= age <= MOST_YEARS else None
