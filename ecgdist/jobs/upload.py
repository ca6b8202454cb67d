"""What is sent to a cluster with a job: its configuration, and nothing that it does not need."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from ecgdist.errors import ConfigError
from ecgdist.jobs import entrypoint
from ecgdist.jobs.code import code_digest, copy_code
from ecgdist.scratch import scratch_folder

CONFIG, SCRIPT = "job.yaml", "job.py"
"""Names in the job's working directory."""
_ABOUT = "job.json"
LIMIT_MB = 10.0
"""Most that is sent if nobody says otherwise; Ray's own limit is 100 MiB."""
_SHOWN = 8
_MB = 1e6


@dataclass(frozen=True)
class Upload:
    """Folders that are ready to be sent.

    Attributes:
        working_dir: of the job; holds `CONFIG`, `SCRIPT` and files that were asked for.
        modules: folders for Ray's ``py_modules``: this package, or none.
        sizes: of every file in bytes, by name.
    """

    working_dir: Path
    modules: tuple[Path, ...]
    sizes: Mapping[str, int]

    @property
    def total_bytes(self) -> int:
        """Of all files."""
        return sum(self.sizes.values())

    def check_size(self, limit_mb: float) -> None:
        """Refuse to send more than so much.

        Raises:
            ConfigError: naming the largest files.
        """
        if self.total_bytes > limit_mb * _MB:
            largest = sorted(self.sizes.items(), key=lambda item: -item[1])[:3]
            named = ", ".join(f"{name} ({size / _MB:.1f} MB)" for name, size in largest)
            raise ConfigError(
                f"the files are {self.total_bytes / _MB:.1f} MB, more than {limit_mb:g} MB; the largest: {named}. "
                "Put what is large into s3://, or raise --upload-limit-mb (Ray takes at most 100 MiB)"
            )

    def __str__(self) -> str:
        own = [name for name in self.sizes if not name.startswith("ecgdist")]
        code = len(self.sizes) - len(own)
        names = [*own[:_SHOWN], *([f"{len(own) - _SHOWN} more"] if len(own) > _SHOWN else [])]
        names += [f"{code} files of ecgdist {metadata.version('ecgdist')}"] if code else []
        return f"{self.total_bytes / 1e3:,.1f} kB in {len(self.sizes)} files: {', '.join(names)}"


@contextmanager
def prepared(values: Mapping[str, Any], files: Mapping[str, Path], with_code: bool) -> Iterator[Upload]:
    """Lay out what will be sent, in a folder that is there for the time of the block.

    Args:
        values: of the configuration.
        files: to send along, by the name that they get.
        with_code: whether to send this package, for a cluster that has another version or none.

    Raises:
        ConfigError: if a file has a name that the job needs itself.
    """
    if taken := {CONFIG, SCRIPT, _ABOUT} & set(files):
        raise ConfigError(f"a file that goes along cannot be called {min(taken)}; rename it")
    with scratch_folder("job") as scratch:
        folder = scratch / "job"
        folder.mkdir()
        (folder / CONFIG).write_text(yaml.safe_dump(dict(values), sort_keys=False), encoding="utf-8")
        shutil.copyfile(entrypoint.__file__, folder / SCRIPT)
        about = {"ecgdist": metadata.version("ecgdist"), "digest": code_digest(), "with_code": with_code}
        (folder / _ABOUT).write_text(json.dumps(about), encoding="utf-8")
        for name, path in files.items():
            shutil.copyfile(path, folder / name)
        modules = copy_code(scratch / "modules") if with_code else []
        sizes = {str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.iterdir())}
        for module in modules:
            sizes |= {
                str(path.relative_to(module.parent)): path.stat().st_size
                for path in sorted(module.rglob("*"))
                if path.is_file()
            }
        yield Upload(folder, tuple(modules), sizes)
