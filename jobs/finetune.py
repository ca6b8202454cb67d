"""`ecgdist finetune` for `ray job submit`: `python jobs/finetune.py WORDS`, as on the command line."""

import sys

from ecgdist.cli import app

app(["finetune", *sys.argv[1:]], prog_name="jobs/finetune.py")
