"""The log of a Ray job as it is written, each line once, over broken connections too."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing

import aiohttp
from ray.job_submission import JobDetails, JobSubmissionClient

from ecgdist.jobs.cluster import OutOfReach, job_details
from ecgdist.timelimits import PATIENCE_S

_SILENT_S = 120.0
"""A connection on which nothing comes for so long is made anew: its other end may be gone without a word."""
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 15.0
_LAST_TRIES = 3
"""For the rest of the log of a job that has ended; its node may have gone with it."""


class LogFollower:
    """Hands on a job's log from its beginning.

    Ray sends the whole log on every new connection; what was handed on already is counted in characters and left out.

    Args:
        client: of the cluster.
        job_id: of a job that it knows.
        write: takes the next piece of the log.
        tell: takes a sentence about a connection that broke.
        patience_s: how long the cluster may be out of reach.
    """

    def __init__(
        self,
        client: JobSubmissionClient,
        job_id: str,
        write: Callable[[str], None],
        tell: Callable[[str], None],
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._client, self._job_id, self._write, self._tell = client, job_id, write, tell
        self._patience_s = patience_s
        self._written = 0
        self._away_since_s: float | None = None

    def follow(self) -> JobDetails:
        """Hand on the log until the job has ended; says how it did.

        Raises:
            ConfigError: if the cluster does not know the job, stays out of reach, or takes our token no more.
        """
        wait_s, tries = _FIRST_WAIT_S, 0
        while True:
            before = self._written
            broken = asyncio.run(self._listen())
            found = self._asked()
            if found is not None and found.status.is_terminal():
                tries += 1
                if broken is None:
                    return found
                if tries == _LAST_TRIES:
                    self._tell("the job has ended; the rest of its log cannot be had")
                    return found
            if broken and self._written > before:
                self._tell(f"the connection to the cluster broke ({broken}); following again")
            wait_s = _FIRST_WAIT_S if self._written > before else min(2 * wait_s, _LONGEST_WAIT_S)
            time.sleep(wait_s)

    async def _listen(self) -> str | None:
        """Hand on what one connection brings, from the beginning of the log.

        Returns None if it ended as it should, else why it broke; nothing if it was given up because it was silent.
        """
        seen = 0
        try:
            async with aclosing(self._client.tail_job_logs(self._job_id)) as pieces:
                while True:
                    async with asyncio.timeout(_SILENT_S):
                        piece = await anext(pieces)
                    self._hand_on(seen, piece)
                    seen += len(piece)
        except StopAsyncIteration:
            return None
        except aiohttp.WSServerHandshakeError as error:
            return f"status {error.status}"
        except TimeoutError:
            return ""
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            return type(error).__name__

    def _hand_on(self, start: int, piece: str) -> None:
        """Write what is new of a piece of the log that begins at character `start`."""
        new = piece[max(self._written - start, 0) :]
        if new:
            self._write(new)
            self._written = start + len(piece)

    def _asked(self) -> JobDetails | None:
        """What the cluster says of the job now, or None if it cannot be asked.

        Raises:
            ConfigError: as `follow`.
        """
        try:
            found = job_details(self._client, self._job_id)
        except OutOfReach as error:
            now_s = time.monotonic()
            if self._away_since_s is None:
                self._away_since_s = now_s
                self._tell(f"{error}; waiting for it")
            if now_s - self._away_since_s > self._patience_s:
                raise
            return None
        self._away_since_s = None
        return found
