"""`ecgdist pretrain` for `ray job submit`: `python jobs/pretrain.py CONFIG.yaml [--set key=value]`."""

import sys

from ecgdist.cli import app

app(["pretrain", *sys.argv[1:]], prog_name="jobs/pretrain.py")
