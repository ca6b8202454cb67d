"""Groups of processes, as the tests of pretraining have them."""

from tests.pretraining.conftest import processes

__all__ = ["processes"]
