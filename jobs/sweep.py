"""`ecgdist sweep` for `ray job submit`: `python jobs/sweep.py WORDS`, as on the command line."""

import sys

from ecgdist.cli import app

app(["sweep", *sys.argv[1:]], prog_name="jobs/sweep.py")
