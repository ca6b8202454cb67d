"""Programs that come with the development packages."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path


def tool(name: str) -> str:
    """The program beside this Python, or on the PATH.

    Raises:
        RuntimeError: if it is not installed.
    """
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise RuntimeError(f"{name} is not installed: `make install` brings it")
    return found
