"""The table of sources."""

import pytest

from ecgdist.errors import ConfigError, StorageError
from ecgdist.sources import SOURCES, open_source


@pytest.mark.parametrize("kind", SOURCES)
def test_a_kind_opens_its_source(kind: str) -> None:
    source = open_source(kind, "s3://bucket/folder")
    assert source.kind == kind
    assert source.root.uri == "s3://bucket/folder"


def test_an_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="unknown source kind 'dicom'; use one of ptbxl, ptbxl100, mimic, "):
        open_source("dicom", "anywhere")


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(StorageError, match="only local paths and s3://"):
        open_source("wfdb", "https://example.org/ecg")
