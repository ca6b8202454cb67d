"""Limits that lean on each other: whoever changes one of them hears of the others."""

from __future__ import annotations

from ecgdist import timelimits as limits
from ecgdist.pretraining.config import WorkersConfig


def test_a_request_is_given_up_before_a_lease_is_taken_for_dead() -> None:
    assert limits.S3_CONNECT_S < limits.S3_SILENCE_S
    assert limits.BEAT_S + limits.S3_SILENCE_S < limits.EXPIRES_S < 60


def test_a_rank_is_called_hung_only_when_storage_cannot_be_the_reason() -> None:
    assert WorkersConfig().hung_after_minutes == limits.HUNG_AFTER_MINUTES
    assert 60 * limits.HUNG_AFTER_MINUTES > limits.PATIENCE_S + limits.S3_SILENCE_S


def test_parts_of_a_checkpoint_are_waited_for_while_a_rank_may_wait_for_storage() -> None:
    assert limits.NOTES_S > limits.PATIENCE_S


def test_a_cluster_that_lost_a_node_is_counted_again_within_the_notice() -> None:
    assert limits.COUNTED_AGAIN_S < limits.NOTICE_S
