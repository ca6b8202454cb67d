"""`ecgdist compare` for `ray job submit`: `python jobs/compare.py WORDS`, as on the command line."""

import sys

from ecgdist.cli import app

app(["compare", *sys.argv[1:]], prog_name="jobs/compare.py")
