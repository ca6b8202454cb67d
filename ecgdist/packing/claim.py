"""Whose folder an output folder is: `packing.json` says so from its first moment on."""

from __future__ import annotations

import hashlib
import hmac
import os
from importlib.metadata import version

from pydantic import ValidationError

from ecgdist.config import Config
from ecgdist.corpus.corpus import MANIFEST
from ecgdist.corpus.patients import PatientHasher
from ecgdist.errors import ConfigError
from ecgdist.packing.notes import PARTS
from ecgdist.packing.plan import Plan
from ecgdist.storage import Location

CLAIM = "packing.json"
"""Says which packing a folder belongs to."""

_ELSEWHERE = "choose another --out, or remove that folder"


class Claim(Config):
    """A packing, so far as another that goes on with it must be the same."""

    ecgdist: str
    """Version of the software: another may cut, convert or note differently what is not yet a corpus."""
    plan: str
    """Digest of the plan."""
    sources: dict[str, str]
    """Keyed digest of the folder of each source, so that no path is in a corpus. Tables of two folders may be equal,
    and what they list be other records all the same."""

    @classmethod
    def of(cls, plan: Plan) -> Claim:
        """The claim of this software to this plan."""
        places = {name: _digest(plan.work.hasher, source.root) for name, source in plan.work.sources.items()}
        return cls(ecgdist=version("ecgdist"), plan=plan.digest, sources=places)


def claim_folder(plan: Plan) -> bool:
    """Make the output folder ours.

    Returns:
        Whether it holds the finished corpus of this plan already.

    Raises:
        ConfigError: if it holds anything but a packing of the same plan.
    """
    out, mine = plan.work.out, Claim.of(plan)
    claim = out / CLAIM
    if claim.exists():
        is_whole = (out / MANIFEST).exists()
        _refuse_other(out, _read(claim), mine, is_whole)
        if is_whole:
            (out / PARTS).delete()  # what an earlier call left that was killed just after the manifest
        return is_whole
    if out.is_file() or out.list_files():
        raise ConfigError(f"{out} exists and is not empty; choose another --out, or remove it first")
    claim.write_bytes(mine.model_dump_json().encode() + b"\n")
    return False


def _read(claim: Location) -> Claim:
    try:
        return Claim.model_validate_json(claim.read_bytes())
    except ValidationError as error:
        raise ConfigError(
            f"{claim} was damaged, or written by another version of ecgdist than {version('ecgdist')}, so nobody can "
            f"tell whose packing this is; {_ELSEWHERE}"
        ) from error


def _refuse_other(out: Location, found: Claim, mine: Claim, is_whole: bool) -> None:
    """Refuse a folder with another packing; who wrote a corpus that is whole does not matter."""
    if found.ecgdist != mine.ecgdist and not is_whole:
        raise ConfigError(
            f"{out} holds an unfinished packing of ecgdist {found.ecgdist}, and this is {mine.ecgdist}: "
            f"finish it with that version, or {_ELSEWHERE}"
        )
    if found.plan != mine.plan:
        raise ConfigError(f"{out} holds a packing of other records, settings or patient key; {_ELSEWHERE}")
    if moved := [name for name in mine.sources if found.sources.get(name) != mine.sources[name]]:
        raise ConfigError(
            f"{out} holds a packing of another folder of {', '.join(moved)}, which lists the same records: name the "
            f"folder that it was begun with, or {_ELSEWHERE}"
        )


def _digest(hasher: PatientHasher, root: Location) -> str:
    """What stands for a folder: its address without links, hashed with the patient key."""
    address = root.uri if root.is_s3 else os.path.realpath(root.uri)
    name = f"folder:{address}".encode(errors="surrogatepass")
    return hmac.new(hasher.key, name, hashlib.sha256).hexdigest()[:32]
