"""How long a run waits, for what, and how often it tries: all of it in one place, since each limit leans on others.

From the shortest to the longest: a request to storage is given up after seconds of silence and tried again; a run waits
minutes for storage that is away; a rank that stands still is found when that cannot be the reason any more; notes of a
checkpoint are waited for beyond that. `tests/test_timelimits.py` holds them to it.
"""

from __future__ import annotations

S3_CONNECT_S = 2
"""To reach a storage server."""
S3_SILENCE_S = 30.0
"""Silence after which a request to storage is given up, unless ``ECGDIST_S3_TIMEOUT_S`` says otherwise."""
LOCK_S = 30.0
"""For the lock of a small file on a disk that is shared: whoever holds it writes that file, and nothing else."""
S3_ATTEMPTS = 8
"""Tries of a request. At one failed request in twenty, one fails for good once in 25 thousand million."""

PATIENCE_S = 600.0
"""How long a run waits for storage that is away (see `ecgdist.patience`), and whoever follows a job for its cluster."""

BEAT_S = 5.0
"""Between heartbeats of a run's lease."""
EXPIRES_S = 50.0
"""A heartbeat that stands still for so long is that of a dead process: less than a minute, and more than a request
takes that storage did not answer for the usual 30 s, and that was tried again."""

NOTICE_S = 30.0
"""From Ray's notice that a node drains to its end."""
RESIZE_S = 300.0
"""How long a resize waits for workers to save; what they did since the checkpoint before is then done again."""
DRAINED_S = 120.0
"""How long a drained node is waited for before training starts on the others; Ray Train counts it until it is gone."""
COUNTED_AGAIN_S = 15.0
"""How long Ray Train waits for a node that it counted on, and that may be dead, before it counts again."""

HUNG_AFTER_MINUTES = 15.0
"""How long a rank may be at one place of a step, unless `workers.hung_after_minutes` says otherwise."""
NOTES_S = 1800.0
"""How long rank 0 waits for the other ranks' parts of a checkpoint once its own is there."""
