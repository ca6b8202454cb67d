"""`ecgdist embed` for `ray job submit`: `python jobs/embed.py WORDS`, as on the command line."""

import sys

from ecgdist.cli import app

app(["embed", *sys.argv[1:]], prog_name="jobs/embed.py")
