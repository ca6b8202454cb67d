"""Which ranks the others wait for, by where each of them says it is."""

from __future__ import annotations

import json
import logging

import pytest

from ecgdist.pretraining.group import Group
from ecgdist.pretraining.logs import JsonLines, logging_as
from ecgdist.pretraining.whereabouts import Heard, Place, Whereabouts, find_hung


def heard(
    step: int, number: int, name: str, for_s: float, ago_s: float = 1.0, is_patient: bool = False
) -> Heard:
    return Heard(Place(step, number, name, is_patient, for_s), ago_s, "process 7 on here")


def test_places_are_counted_through_a_step_and_never_go_back() -> None:
    where = Whereabouts()
    where.begin(4)
    positions, names = [where.now.position], [where.now.name]
    with where.at("the backward pass"):
        positions.append(where.now.position)
        with where.at("all_reduce", is_patient=True):
            positions.append(where.now.position)
            names.append(where.now.name)
            assert where.now.is_patient
        names.append(where.now.name)
        assert not where.now.is_patient
    positions.append(where.now.position)
    where.begin(5)
    positions.append(where.now.position)
    assert positions == sorted(set(positions))
    assert names == ["the step", "all_reduce", "the backward pass"]
    assert where.now == (5, 0, "the step", False, pytest.approx(0, abs=5))


def test_a_rank_that_fails_leaves_its_place() -> None:
    where = Whereabouts()
    with pytest.raises(ZeroDivisionError), where.at("all_reduce"):
        raise ZeroDivisionError
    assert where.now.name == "start"


def test_nothing_is_said_while_every_rank_goes_on() -> None:
    assert find_hung({}, 60) is None
    assert find_hung({0: heard(9, 3, "all_reduce", 50), 1: heard(9, 2, "the backward pass", 50)}, 60) is None


def test_a_rank_that_goes_on_slowly_is_waited_for() -> None:
    assert (
        find_hung({0: heard(9, 90, "all_gather", 500), 1: heard(9, 60, "a validation batch", 3)}, 60) is None
    )


def test_the_rank_that_is_behind_is_named_with_the_collective_that_waits_for_it() -> None:
    ranks = {
        0: heard(9, 3, "all_reduce", 61),
        1: heard(9, 1, "reading a batch", 70),
        2: heard(9, 3, "all_reduce", 62),
    }
    assert find_hung(ranks, 60) == (
        "ranks 0, 2 wait in all_reduce for rank 1, for more than 60 s: "
        "rank 1 (step 9, process 7 on here) has been at reading a batch for 71 s"
    )


def test_a_rank_that_is_silent_is_named_wherever_it_was_last() -> None:
    ranks = {0: heard(9, 3, "all_gather", 61), 1: heard(8, 30, "the optimizer step", 0.1, ago_s=65)}
    said = find_hung(ranks, 60)
    assert said is not None
    assert "rank 0 waits in all_gather for rank 1" in said
    assert "has not been heard of for 65 s, when it was at the optimizer step" in said


def test_a_rank_that_never_spoke_is_named() -> None:
    said = find_hung({0: heard(0, 3, "all_gather", 61), 1: Heard(None, 70, "")}, 60)
    assert said is not None
    assert said.endswith("for more than 60 s: rank 1 has not been heard of yet")


def test_all_ranks_are_named_where_all_are_at_the_same_place() -> None:
    said = find_hung({0: heard(9, 3, "all_reduce", 61), 1: heard(9, 3, "all_reduce", 62)}, 60)
    assert said is not None
    assert said.startswith("no rank has gone on for 60 s: rank 0 (step 9, process 7 on here)")


def test_a_rank_that_waits_for_storage_is_waited_for() -> None:
    ranks = {
        0: heard(9, 1, "waiting for the checkpoint before", 100, is_patient=True),
        1: heard(9, 3, "saving a checkpoint", 99),
    }
    assert find_hung(ranks, 60) is None
    assert find_hung({**ranks, 2: heard(9, 0, "the step", 99)}, 60) is not None


def test_a_line_of_the_log_says_run_rank_and_step(capsys: pytest.CaptureFixture[str]) -> None:
    group = Group()
    group.whereabouts.begin(12)
    with logging_as("s3://bucket/run", group):
        logging.getLogger("ecgdist.patience").warning("waiting for %s", "storage\nand more")
        try:
            raise ValueError("bad")
        except ValueError:
            logging.getLogger("ecgdist.pretraining.worker").exception("training ends")
    logging.getLogger("ecgdist.patience").warning("not any more")
    first, second = (
        json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")
    )
    assert {name: first[name] for name in ("level", "run", "rank", "step", "message")} == {
        "level": "WARNING",
        "run": "s3://bucket/run",
        "rank": 0,
        "step": 12,
        "message": "waiting for storage\nand more",
    }
    assert "ValueError: bad" in second["error"]


def test_a_secret_is_not_made_part_of_a_line() -> None:
    record = logging.LogRecord("ecgdist", logging.INFO, "f.py", 1, "saved", (), None)
    assert set(json.loads(JsonLines("run", Group()).format(record))) == {
        "time", "level", "logger", "run", "rank", "step", "message",
    }  # fmt: skip
