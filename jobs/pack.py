"""`ecgdist pack` for `ray job submit`: `python jobs/pack.py CONFIG.yaml [--set key=value]`."""

import sys

from ecgdist.cli import app

app(["pack", *sys.argv[1:]], prog_name="jobs/pack.py")
