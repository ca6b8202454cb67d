"""`ecgdist evaluate` for `ray job submit`: `python jobs/evaluate.py WORDS`, as on the command line."""

import sys

from ecgdist.cli import app

app(["evaluate", *sys.argv[1:]], prog_name="jobs/evaluate.py")
