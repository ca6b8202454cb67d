"""What Ray Tune would tell of this process to everybody who may look at a cluster."""

from __future__ import annotations

import pytest
from ray.tune.execution.class_cache import _ActorClassCache

from ecgdist.downstream.sweep.job import no_keys_sent


def sent() -> dict[str, str]:
    """The variables that go along with a trial."""

    class Trial:
        """Any trial."""

    found: dict[str, str] = _ActorClassCache().get(Trial)._default_options["runtime_env"]["env_vars"]
    return found


def test_keys_of_the_storage_do_not_go_along_with_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")
    for name in names:
        monkeypatch.setenv(name, "planted")
    assert set(names) <= set(sent()), (
        "Ray sends them; where it does not any more, nothing has to be kept from it"
    )
    with no_keys_sent():
        inside = sent()
        assert inside
        assert "planted" not in inside.values()
    assert set(names) <= set(sent())
