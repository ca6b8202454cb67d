"""The code of this package as files: whether a cluster has the same, and a copy to send to one that has not."""

from __future__ import annotations

import hashlib
import shutil
from importlib import metadata
from pathlib import Path

import ecgdist

_SAMPLE_ECGS = ("sample", "ptb-xl")
"""Ten MB that no job reads."""


def code_files(root: Path | None = None) -> list[Path]:
    """The files of the package, relative to its folder, in order; without the ECGs that ship with it."""
    root = root or package_folder()
    return sorted(
        relative
        for path in root.rglob("*")
        if path.is_file()
        and "__pycache__" not in (relative := path.relative_to(root)).parts
        and relative.parts[: len(_SAMPLE_ECGS)] != _SAMPLE_ECGS
    )


def code_digest(root: Path | None = None) -> str:
    """SHA-256 over names and contents of those files: two environments with the same run the same code."""
    root = root or package_folder()
    digest = hashlib.sha256()
    for relative in code_files(root):
        content = hashlib.sha256((root / relative).read_bytes()).hexdigest()
        digest.update(f"{relative.as_posix()} {content}\n".encode())
    return digest.hexdigest()


def package_folder() -> Path:
    """Where this package lies."""
    return Path(ecgdist.__file__).parent


def copy_code(into: Path) -> list[Path]:
    """Copy the package, and beside it what says its version, for Ray's ``py_modules``. Returns both folders."""
    code = into / "ecgdist"
    for relative in code_files():
        (code / relative).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(package_folder() / relative, code / relative)
    about = into / f"ecgdist-{metadata.version('ecgdist')}.dist-info"
    about.mkdir()
    # What is installed on the cluster may say another version, or nothing is.
    said = metadata.distribution("ecgdist").read_text("METADATA") or ""
    (about / "METADATA").write_text(said, encoding="utf-8")
    return [code, about]
