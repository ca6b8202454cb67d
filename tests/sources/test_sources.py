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


def test_folders_of_your_own_may_be_named() -> None:
    named, unnamed = (open_source(kind, "s3://bucket/folder") for kind in ("npy:clinic-1", "npy"))
    assert (named.kind, named.dataset_name) == ("npy", "clinic-1")
    assert (unnamed.kind, unnamed.dataset_name) == ("npy", "npy")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("npy:", "a name has 1 to 32 small letters"),
        ("npy:Clinic", "for example npy:clinic-1"),
        ("npy:two words", "a name has 1 to 32 small letters"),
        ("npy:../clinic", "a name has 1 to 32 small letters"),
        ("npy:a:b", "a name has 1 to 32 small letters"),
        ("npy:" + "a" * 33, "a name has 1 to 32 small letters"),
        ("wfdb:ptbxl", "ptbxl is the name of a kind or a published data set; choose another"),
        ("npy:hdf5", "hdf5 is the name of a kind"),
        ("ptbxl:clinic", "ptbxl is one published data set and takes no name; only wfdb, npy, hdf5 do"),
        ("dicom:clinic", "unknown source kind 'dicom'"),
    ],
)
def test_a_name_that_cannot_be_is_refused(kind: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        open_source(kind, "anywhere")
