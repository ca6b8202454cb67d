"""Patient keys: a keyed hash, so that a corpus can group ECGs by patient without knowing who that is."""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass, field

from ecgdist.errors import ConfigError

KEY_VARIABLE = "ECGDIST_PATIENT_KEY"
KEY_FILE_VARIABLE = "ECGDIST_PATIENT_KEY_FILE"
_PUBLIC_KEY = b"ecgdist public data"
_MIN_KEY_CHARS = 16


@dataclass(frozen=True)
class PatientHasher:
    """Hashes the ids of patients with one key.

    Without a key of one's own the hash uses a constant that everybody can read: right for public data, where
    ids are published anyway; for hospital data set ``ECGDIST_PATIENT_KEY``, or ``ECGDIST_PATIENT_KEY_FILE`` to
    the path of a file that holds the key, which no list of processes and no log of an environment shows.
    """

    key: bytes = field(default=_PUBLIC_KEY, repr=False)

    @classmethod
    def from_environment(cls) -> PatientHasher:
        """The hasher for the key in the environment or in the file that it names, or the public one.

        Raises:
            ConfigError: if there are both, the file cannot be read, or the key is too short to protect anybody.
        """
        secret, path = os.environ.get(KEY_VARIABLE), os.environ.get(KEY_FILE_VARIABLE)
        if secret is not None and path is not None:
            raise ConfigError(f"{KEY_VARIABLE} and {KEY_FILE_VARIABLE} are both set; keep one of them")
        if path is not None:
            return cls(_strong(_key_in_file(path), KEY_FILE_VARIABLE))
        return cls() if secret is None else cls(_strong(secret, KEY_VARIABLE))

    @property
    def is_public(self) -> bool:
        """Whether this is the constant key of public data."""
        return self.key == _PUBLIC_KEY

    @property
    def fingerprint(self) -> str:
        """Tells two keys apart without giving either away."""
        return hashlib.sha256(b"fingerprint:" + self.key).hexdigest()[:16]

    def patient_key(self, source: str, patient_id: str | None, record_id: str) -> str:
        """A patient's key, 32 hexadecimal digits. A record without a patient id is a patient of its own."""
        name = f"patient:{source}:{patient_id}" if patient_id is not None else f"record:{source}:{record_id}"
        return hmac.new(self.key, name.encode(errors="surrogatepass"), hashlib.sha256).hexdigest()[:32]


def _key_in_file(path: str) -> str:
    """The key in a file, without the line end that editors add. Nobody but its owner and group may read it."""
    try:
        if os.stat(path).st_mode & 0o007:
            raise ConfigError(
                f"the file that {KEY_FILE_VARIABLE} names can be read by everybody; chmod 600 or 640 it"
            )
        with open(path, encoding="utf-8") as file:
            return file.read().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = (
            "is no text" if isinstance(error, UnicodeDecodeError) else f"cannot be read ({error.strerror})"
        )
        raise ConfigError(f"the file that {KEY_FILE_VARIABLE} names {reason}") from None


def _strong(secret: str, variable: str) -> bytes:
    if len(secret) < _MIN_KEY_CHARS:
        raise ConfigError(
            f"{variable}: the key has {len(secret)} characters; give at least {_MIN_KEY_CHARS} random ones"
        )
    return secret.encode()
