"""Packing goes on where it stopped: after a full disk, too many refusals, or lost files."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from ecgdist.corpus import Corpus
from ecgdist.errors import DataError
from tests.packing.folders import edit, files_of, georgia_folder, pack_to, ptbxl_folder
from tests.packing.kills import COMMAND, ROOT, finished, stamps

pytestmark = pytest.mark.ray


@pytest.fixture
def namespace() -> list[str]:
    """A command prefix under which one may mount; a machine that forbids it cannot have a disk that we may fill."""
    prefix = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    try:
        probe = subprocess.run(
            [*prefix, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("a small file system cannot be mounted: there is no unshare command")
    if probe.returncode:
        pytest.skip(f"a small file system cannot be mounted: {probe.stderr.strip()}")
    return prefix


@pytest.mark.slow
def test_a_full_disk_is_said_and_the_same_command_goes_on(namespace: list[str], tmp_path: Path) -> None:
    source = ptbxl_folder(tmp_path / "ptb-xl", 20)
    disk = tmp_path / "disk"
    disk.mkdir()
    pack = shlex.join([*COMMAND, f"ptbxl={source}", str(disk / "corpus")])
    script = f"""
        mount -t tmpfs -o size=2m tmpfs {disk} || exit 9
        head -c 1960k /dev/zero > {disk}/ballast  # what is left holds the first small file, but no shard
        {pack}; echo "exit $?"
        ls {disk}/corpus/manifest.json
        rm {disk}/ballast
        {pack} && cp -r {disk}/corpus {tmp_path}/saved
    """
    done = subprocess.run(
        [*namespace, "sh", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "exit 1"
    errors = [line for line in done.stderr.splitlines() if line.startswith("StorageError: ")]
    assert len(errors) == 1, done.stderr
    assert (
        "the disk is full; free some space or write elsewhere, then run the same command again" in errors[0]
    )
    assert "Traceback" not in done.stderr
    assert "manifest.json': No such file" in done.stderr
    saved = Corpus(tmp_path / "saved")
    saved.verify()
    assert saved.corpus_id == done.stdout.splitlines()[-1]
    assert not [
        name for name in saved.location.list_files() if "part" in Path(name).suffix + Path(name).parts[0]
    ]


def test_mended_files_are_read_again(ray_cluster: None, tmp_path: Path) -> None:
    """After a stop over refusals, only the shards without one are kept."""
    folder = georgia_folder(tmp_path / "wfdb", *"abcdefgh")
    edit(folder / "c.hea", "/mV", "/mmHg")
    edit(folder / "g.hea", "/mV", "/mmHg")
    out, source = tmp_path / "corpus", f"wfdb={folder}"
    for _ in range(2):
        with pytest.raises(DataError, match="wfdb/c: unknown_unit: unit 'mmHg' is not a voltage"):
            pack_to(out, source, records_per_shard=2, max_refused_share=0.2)
    for name in "cg":
        edit(folder / f"{name}.hea", "/mmHg", "/mV")
    result = pack_to(out, source, records_per_shard=2, max_refused_share=0.2)
    assert result.corpus.manifest.rows == 8
    assert 2 <= result.built < 4
    pack_to(tmp_path / "unbroken", source, records_per_shard=2)
    assert files_of(out) == files_of(tmp_path / "unbroken")


def stopped_packing(out: Path, folder: Path) -> str:
    """A packing of eight records, two a shard, that has stopped over the last shard when the others were finished."""
    georgia_folder(folder, *"abcdefgh")
    edit(folder / "h.hea", "/mV", "/mmHg")
    for _ in range(20):  # the shard with the refused record may be the first that is finished
        with pytest.raises(DataError, match="wfdb/h"):
            pack_to(out, f"wfdb={folder}", records_per_shard=2, max_refused_share=0.1)
        if len(finished(out)) == 4:
            break
    assert finished(out) == {"00000", "00001", "00002", "00003"}
    edit(folder / "h.hea", "/mmHg", "/mV")
    return f"wfdb={folder}"


def test_shards_whose_files_vanished_are_built_again(ray_cluster: None, tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    source = stopped_packing(out, tmp_path / "wfdb")
    before = stamps(out)
    (out / "shards/00000.parquet").unlink()
    (out / "parts/00001.parquet").unlink()
    assert pack_to(out, source, records_per_shard=2).built == 3
    assert [name for name, stamp in sorted(stamps(out).items()) if stamp == before[name]] == ["00002"]
    pack_to(tmp_path / "unbroken", source, records_per_shard=2)
    assert files_of(out) == files_of(tmp_path / "unbroken")


@pytest.mark.parametrize(
    "content", [b"", b"{}", b'{"shard": 1, "packed": {}, "refused": {}}', b"\xff", b"[" * 9]
)
def test_a_damaged_note_is_said(ray_cluster: None, tmp_path: Path, content: bytes) -> None:
    out = tmp_path / "corpus"
    source = stopped_packing(out, tmp_path / "wfdb")
    note = out / "parts/00001.json"
    note.write_bytes(content)
    with pytest.raises(DataError, match=rf"{note} is not the note of a shard .* remove that file"):
        pack_to(out, source, records_per_shard=2)
    note.unlink()
    assert pack_to(out, source, records_per_shard=2).built == 2


def test_what_a_killed_call_left_is_cleared_away(ray_cluster: None, tmp_path: Path) -> None:
    """A file half-written at the kill, and the notes if it came just after the manifest."""
    source, out = f"wfdb={georgia_folder(tmp_path / 'wfdb', 'a', 'b')}", tmp_path / "corpus"
    pack_to(out, source)
    whole = files_of(out)
    (out / "manifest.json").unlink()
    (out / "shards/.00000.parquet.1234abcd.part").write_bytes(b"half")
    assert pack_to(out, source).built == 1
    assert files_of(out) == whole
    (out / "parts").mkdir()
    (out / "parts/00000.json").write_bytes(b"{}")
    assert pack_to(out, source).built == 0
    assert files_of(out) == whole
