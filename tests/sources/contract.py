"""What every source promises. A test of a new source subclasses `SourceContract` and gives it a `source`."""

from __future__ import annotations

import errno
import os
import re
import shutil
from dataclasses import fields
from multiprocessing import Pipe
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from ecgdist.errors import DataError, RecordRefused
from ecgdist.record import Recording
from ecgdist.sources import SOURCES, Listing, Source, open_source

SLUG = re.compile(r"[a-z]+(_[a-z]+)*")


def read_all(source: Source) -> tuple[list[Recording], dict[str, RecordRefused]]:
    """Every record that can be read, and the refusal of every other one by record id."""
    recordings, refusals = [], {}
    for listing in source.list_records():
        try:
            recordings.append(source.read_record(listing))
        except RecordRefused as refused:
            refusals[listing.record_id] = refused
    return recordings, refusals


def through_pipe(thing: object) -> object:
    """What arrives in another process."""
    receiver, sender = Pipe(duplex=False)
    sender.send(thing)
    return receiver.recv()


class SourceContract:
    """The tests; `source` is a fixture: a local folder with readable records and at least one refused."""

    def test_is_in_the_table_of_sources(self, source: Source) -> None:
        assert SOURCES[source.kind] is type(source)
        assert open_source(source.kind, source.root).list_records() == source.list_records()

    def test_states_licence_and_citation(self, source: Source) -> None:
        assert source.licence
        assert "https://doi.org/" in source.citation
        assert source.dataset

    def test_lists_the_same_whatever_the_order_of_the_file_system(
        self, source: Source, tmp_path: Path
    ) -> None:
        files = [path for path in Path(source.root.uri).rglob("*") if path.is_file()]
        for path in sorted(files, reverse=True):
            copy = tmp_path / path.relative_to(source.root.uri)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        assert open_source(source.kind, str(tmp_path)).list_records() == source.list_records()

    def test_record_ids_are_unique(self, source: Source) -> None:
        ids = [listing.record_id for listing in source.list_records()]
        assert all(ids)
        assert len(ids) == len(set(ids)) >= 2

    def test_travels_to_another_process(self, source: Source) -> None:
        arrived = through_pipe(source)
        assert isinstance(arrived, type(source))
        listings = source.list_records()
        assert through_pipe(listings) == listings
        assert vars(arrived) == {"root": source.root, "name": None}

    def test_every_record_is_read_or_refused_with_a_reason(self, source: Source) -> None:
        recordings, refusals = read_all(source)
        assert recordings
        assert refusals
        assert len(recordings) + len(refusals) == len(source.list_records())
        for refused in refusals.values():
            assert SLUG.fullmatch(refused.reason)
            assert refused.detail

    def test_recordings_are_in_microvolt_with_named_leads(self, source: Source) -> None:
        for recording in read_all(source)[0]:
            assert recording.source == source.kind
            assert recording.signal_uv.shape[0] == len(recording.leads) > 0
            assert np.issubdtype(recording.signal_uv.dtype, np.floating)
            assert recording.rate_hz >= 100
            assert 50 < np.nanmax(np.abs(recording.signal_uv)) < 20_000
            assert list(recording.labels) == sorted(set(recording.labels))
            assert all(re.fullmatch(r"[a-z0-9]+:\S+", label) for label in recording.labels)

    def test_recordings_keep_what_the_listing_says(self, source: Source) -> None:
        listed = {listing.record_id: listing for listing in source.list_records()}
        for recording in read_all(source)[0]:
            listing = listed[recording.record_id]
            for name in ("patient_id", "age", "sex", "labels", "split"):
                assert getattr(listing, name) in (None, (), getattr(recording, name))

    def test_reading_many_gives_what_reading_one_gives(self, source: Source) -> None:
        listings = source.list_records()[::-1]
        found = list(source.read_many(listings))
        recordings, refusals = read_all(source)
        alone = {recording.record_id: recording for recording in recordings}
        assert len(found) == len(listings)
        for listing, each in zip(listings, found, strict=True):
            if isinstance(each, RecordRefused):
                assert each.reason == refusals[listing.record_id].reason
                continue
            expected = alone[listing.record_id]
            np.testing.assert_array_equal(each.signal_uv, expected.signal_uv)
            names = [field.name for field in fields(Recording) if field.name != "signal_uv"]
            assert [getattr(each, name) for name in names] == [getattr(expected, name) for name in names]

    def test_a_refused_listing_is_never_read(self, source: Source) -> None:
        readable = read_all(source)[0][0]
        listing = next(each for each in source.list_records() if each.record_id == readable.record_id)
        values = {field.name: getattr(listing, field.name) for field in fields(Listing)}
        with pytest.raises(RecordRefused, match="some_reason: because"):
            source.read_record(Listing(**{**values, "refusal": ("some_reason", "because")}))

    def test_an_empty_folder_is_an_error_that_names_it(self, source: Source, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=re.escape(str(tmp_path / "nothing"))):
            open_source(source.kind, str(tmp_path / "nothing")).list_records()


def failing_disk(path: Path, *_: object) -> NoReturn:
    """Stands for `Path.open` of a disk that fails: none that does can be had."""
    raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
