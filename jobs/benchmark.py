"""`ecgdist benchmark` for `ray job submit`: `python jobs/benchmark.py WORDS`, as on the command line."""

import sys

from ecgdist.cli import app

app(["benchmark", *sys.argv[1:]], prog_name="jobs/benchmark.py")
