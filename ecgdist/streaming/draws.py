"""Random numbers that depend on (seed, step, position in the global batch) alone, not on a rank or a history.

Resuming needs no generator state, and any number of workers draws the same numbers for the same record.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Names of the independent streams; a new use takes a new number and leaves the others as they are.
MASK, CROP_STUDENT, CROP_TEACHER = 100, 101, 102


@dataclass(frozen=True)
class Draws:
    """Draws for every position of every global batch of a run.

    Attributes:
        seed: of the run.
        global_batch: rows of a step.
    """

    seed: int
    global_batch: int

    def uniform(
        self, stream: int, step: int, positions: npt.NDArray[np.int64], width: int
    ) -> npt.NDArray[np.float32]:
        """``(len(positions), width)`` numbers in [0, 1)."""
        return self._generator(stream, step).random((self.global_batch, width), dtype=np.float32)[positions]

    def integers(
        self, stream: int, step: int, positions: npt.NDArray[np.int64], below: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """``(len(positions),)`` integers, the i-th in ``[0, below[i])``."""
        share = self._generator(stream, step).random(self.global_batch)[positions]
        return np.minimum((share * below).astype(np.int64), below - 1)

    def _generator(self, stream: int, step: int) -> np.random.Generator:
        return np.random.Generator(
            np.random.Philox(np.random.SeedSequence(self.seed, spawn_key=(stream, step)))
        )
