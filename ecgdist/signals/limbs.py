"""The six limb leads: do they obey the laws that tie them together, and if not, would other names mend it?

Two of the six are measured and the others follow: Einthoven's law III = II - I (1912), and Goldberger's
augmented leads (1942) aVR = -(I + II) / 2, aVL = (I - III) / 2, aVF = (II + III) / 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt

from ecgdist.record import STANDARD_LEADS

NUM_LIMB_LEADS = 6

_LAWS = np.array(
    [
        [1.0, -1.0, 1.0, 0.0, 0.0, 0.0],
        [0.5, 0.5, 0.0, 1.0, 0.0, 0.0],
        [-0.5, 0.0, 0.5, 0.0, 1.0, 0.0],
        [0.0, -0.5, -0.5, 0.0, 0.0, 1.0],
    ],
    dtype=np.float32,
)
"""What is 0 in each law, as weights of I, II, III, aVR, aVL, aVF."""

Signal = npt.NDArray[np.floating[Any]] | npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Explanation:
    """What would make the limb leads fit together.

    Attributes:
        flag: ``limb_leads_swapped`` or ``limb_lead_inverted``.
        detail: for a reader, e.g. ``"aVL and aVF exchanged"``.
    """

    flag: str
    detail: str


def limb_residual_uv(signal_uv: Signal) -> float:
    """How far the six limb leads contradict each other: the largest RMS, in microvolt, of what should be 0."""
    off = _LAWS @ signal_uv[:NUM_LIMB_LEADS].astype(np.float32)
    return float(np.sqrt(np.einsum("ls,ls->l", off, off).max() / off.shape[1]))


def explain_limb_leads(signal_uv: Signal, tolerance_uv: float) -> Explanation | None:
    """Other names, or one sign, with which the limb leads fit together to `tolerance_uv`; None if there are none.

    A name may be wrong because the file's order was taken for another (MIMIC-IV-ECG has aVF before aVL), a sign
    because -aVR is stored (Cabrera's order). The laws tell all names apart: no order of the six but the right one
    obeys them, unless leads are alike.
    """
    limbs = signal_uv[:NUM_LIMB_LEADS].astype(np.float64)
    moments = limbs @ limbs.T / limbs.shape[1]
    # The mean square of a law is a quadratic form of the leads' second moments: no signal is touched again.
    laws, details = _candidates()
    squares = np.einsum("clk,km,clm->cl", laws, moments, laws, optimize=True).max(axis=1)
    best = int(squares.argmin())
    return details[best] if squares[best] <= tolerance_uv**2 else None


@cache
def _candidates() -> tuple[npt.NDArray[np.float64], tuple[Explanation, ...]]:
    """``(candidates, 4, 6)`` laws for leads whose names are permuted, or one of which is inverted."""
    names = STANDARD_LEADS[:NUM_LIMB_LEADS]
    laws: list[npt.NDArray[np.float64]] = []
    details: list[Explanation] = []
    for lead, name in enumerate(names):
        signs = np.ones(NUM_LIMB_LEADS)
        signs[lead] = -1
        laws.append(_LAWS.astype(np.float64) * signs)
        details.append(Explanation("limb_lead_inverted", f"{name} inverted"))
    for order in permutations(range(NUM_LIMB_LEADS)):
        moved = [row for row, lead in enumerate(order) if row != lead]
        if not moved:
            continue
        # Row `row` is called names[row] and holds names[order[row]].
        laws.append(_LAWS[:, list(order)].astype(np.float64))
        if len(moved) == 2:
            text = f"{names[moved[0]]} and {names[moved[1]]} exchanged"
        else:
            text = ", ".join(f"{names[row]} is {names[order[row]]}" for row in moved)
        details.append(Explanation("limb_leads_swapped", text))
    return np.stack(laws), tuple(details)
