"""The corpus report: its figures, its ECGs, and that it is one file that loads nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import wfdb as wfdb_package

from ecgdist.corpus import Corpus
from ecgdist.corpus.duplicates import find_duplicates
from ecgdist.corpus.glossary import REASONS
from ecgdist.corpus.summary import summarise
from ecgdist.preprocessing import PackStep
from ecgdist.report.corpus import count_duplicates, flagged_examples, render, warnings, write_corpus_report
from ecgdist.storage import Location
from tests.packing.folders import DATA, georgia_folder, pack_to, ptbxl_folder
from tests.packing.test_refused_examples import write
from tests.report.browser import DESKTOP_PX, PHONE_PX, Browser, problems
from tests.report.test_page import Reader
from tests.signals.real_ecgs import recordings

pytestmark = pytest.mark.ray

EVIL = "<img src=x onerror=1>"


@pytest.fixture(scope="module")
def corpus(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """PTB-XL, and a hospital's folder: a copy of one signal, exchanged names, a clipped lead, refusals."""
    folder = tmp_path_factory.mktemp("report")
    ptbxl = ptbxl_folder(folder / "ptb-xl", 25)
    wfdb = georgia_folder(folder / "wfdb", "a", "b", "gone")
    (wfdb / "gone.mat").unlink()
    for name, signal_mv, leads in hospital():
        write_leads(wfdb, name, signal_mv, leads)
    gap = np.sin(np.arange(1000) / 10)[:, None] * np.array([[0.5, 1.0]])
    gap[100:200, 1] = np.nan
    write(wfdb, "gap", gap)
    (wfdb / "gap.hea").rename(wfdb / f"{EVIL}.hea")
    write(wfdb, "brief", gap[:99])
    pack = PackStep(rate_hz=100.0)
    return pack_to(
        folder / "corpus", f"ptbxl={ptbxl}", f"wfdb={wfdb}", pack=pack, max_refused_share=0.5
    ).corpus


def hospital() -> Iterator[tuple[str, np.ndarray, tuple[str, ...]]]:
    one, two, three = recordings(33)[30:]
    swapped = list(one.leads)
    swapped[4], swapped[5] = swapped[5], swapped[4]
    yield "swapped", one.signal_uv / 1000, tuple(swapped)
    clipped = two.signal_uv / 1000
    clipped[8, 300:400] = 4.0
    yield "clipped", clipped, two.leads
    yield "few", three.signal_uv[[1, 6]] / 1000, ("II", "V1")


def write_leads(folder: Path, name: str, signal_mv: np.ndarray, leads: tuple[str, ...]) -> None:
    wfdb_package.wrsamp(
        name, 100, ["mV"] * len(leads), list(leads), p_signal=signal_mv.T, fmt=["16"] * len(leads),
        write_dir=str(folder), adc_gain=[1000.0] * len(leads), baseline=[0] * len(leads),
    )  # fmt: skip


@pytest.fixture(scope="module")
def page(corpus: Corpus) -> str:
    return render(corpus, summarise(corpus), find_duplicates(corpus))


def test_the_notice_stands_at_the_head(page: str) -> None:
    head = page.partition("<h1>")[2][:200]
    assert "Not a medical device. For research only." in head


@pytest.mark.browser
@pytest.mark.parametrize("width_px", [PHONE_PX, DESKTOP_PX])
def test_it_can_be_read_on_a_telephone_and_on_a_desktop(
    browser: Browser, page: str, width_px: int, tmp_path: Path
) -> None:
    (tmp_path / "corpus.html").write_text(page)
    assert problems(browser, tmp_path / "corpus.html", width_px) == []


def test_the_headline_and_every_source_have_their_figures(page: str, corpus: Corpus) -> None:
    assert f"Corpus {corpus.corpus_id}: 30 rows of 30 records" in page
    text = re.sub(r"<[^>]+>|\s+", " ", page)
    assert re.search(r"ptbxl +25 +25 +0 +0 +25 +\d+ +CC BY 4\.0", text)
    assert re.search(r"wfdb +8 +5 +3 +38 % +0 +5 +5 ", text)
    assert "10.1038/s41597-020-0495-6" in page


def test_every_reason_of_refusal_is_explained_and_shown(page: str, corpus: Corpus) -> None:
    assert corpus.manifest.refused == {"missing_signal": 1, "nan": 1, "too_short": 1}
    for reason in corpus.manifest.refused:
        assert f"<h3>{reason}</h3>" in page
        assert REASONS[reason] in page
    assert "There is no ECG to show: no signal could be read." in page
    assert "100 samples without a value, in II; largest amplitude" in page
    assert "wfdb/brief: 0.99 s at 100 Hz" in page


def test_each_flag_is_explained_and_shown_once(page: str, corpus: Corpus) -> None:
    flagged = flagged_examples(corpus)
    assert set(flagged) == {flag for row in corpus.index.to_pylist() for flag in row["quality"]}
    assert {"clipped_leads", "limb_leads_inconsistent", "limb_leads_swapped"} <= set(flagged)
    assert flagged["limb_leads_swapped"].caption.endswith("likely aVL and aVF exchanged.")
    assert "wfdb/swapped" in flagged["limb_leads_swapped"].caption
    assert "clipped: V3" in flagged["clipped_leads"].caption
    for flag in flagged:
        assert f"<h3>{flag}</h3>" in page
        assert page.count(f"<dt>{flag}</dt>") == 1


def test_duplicates_are_counted_and_named(page: str, corpus: Corpus) -> None:
    found = count_duplicates(corpus, find_duplicates(corpus))
    assert ["wfdb/a", "wfdb/b"] in found.shown
    assert found.groups == len(found.shown)
    assert found.across_sources == 0
    assert found.across_patients >= 1
    assert f"{found.groups} waveforms occur in more than one row" in page
    assert "wfdb/a, wfdb/b" in page
    assert any("filed under more than one patient" in text for text in warnings(summarise(corpus), found))


def test_many_refusals_and_a_misread_order_are_warned_of(corpus: Corpus) -> None:
    found = count_duplicates(corpus, find_duplicates(corpus))
    summary = summarise(corpus)
    assert "37.5% of the records of wfdb were refused" in warnings(summary, found)
    assert not any("limb leads" in text for text in warnings(summary, found))
    all_swapped = summary.model_copy(update={"quality_by_source": {"ptbxl": {"limb_leads_swapped": 25}}})
    assert any("most rows of ptbxl" in text for text in warnings(all_swapped, found))


def test_the_page_is_one_file_that_loads_nothing(page: str) -> None:
    reader = Reader(page)
    assert reader.open == []
    tags = {tag for tag, _ in reader.tags}
    assert not {"script", "link", "iframe", "object"} & tags
    for tag, attributes in reader.tags:
        assert (attributes.get("src") or "data:").startswith("data:")
        assert (attributes.get("href") or "#").startswith("#")
        assert tag != "img" or attributes.get("alt")
    assert "default-src 'none'" in page
    places = {attributes["id"] for _, attributes in reader.tags if attributes.get("id")}
    linked = {(attributes["href"] or "")[1:] for _, attributes in reader.tags if "href" in attributes}
    assert linked == places


def test_names_from_outside_are_escaped(page: str) -> None:
    assert EVIL not in page
    assert "&lt;img src=x onerror=1&gt;" in page


def test_no_patient_key_is_shown(page: str, corpus: Corpus) -> None:
    keys = set(corpus.index["patient_key"].to_pylist())
    assert keys
    assert [key for key in keys if key in page] == []


def test_a_clean_corpus_says_so(ray_cluster: None, tmp_path: Path) -> None:
    corpus = pack_to(tmp_path / "corpus", f"wfdb={DATA / 'wfdb/georgia'}", pack={"rate_hz": 100.0}).corpus
    written = write_corpus_report(corpus, Location.of(tmp_path / "report.html"))
    page = written.read_bytes().decode()
    for sentence in (
        "No record was refused.",
        "No row has a flag.",
        "No waveform occurs twice",
        "no row has a flag",
    ):
        assert sentence in page
    assert Reader(page).open == []
