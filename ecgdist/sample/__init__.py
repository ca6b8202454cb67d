"""Real ECGs that ship with the package: 353 PTB-XL ECGs at 100 Hz (CC BY 4.0, see NOTICE.md)."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def sample_folder() -> Path:
    """The folder of the shipped ECGs, in the layout of PTB-XL."""
    return Path(str(resources.files(__package__) / "ptb-xl"))
