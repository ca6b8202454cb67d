"""Commands one after the other on one local cluster: `python -m tests.packing.commands '[["pack", ...], ...]'`."""

from __future__ import annotations

import json
import sys

from ecgdist.cli import app
from ecgdist.raytools import ray_session

if __name__ == "__main__":
    with ray_session(num_cpus=2):
        for command in json.loads(sys.argv[1]):
            try:
                app(command)
            except SystemExit as end:
                print(f"exit {end.code}")
