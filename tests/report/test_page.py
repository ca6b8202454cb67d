"""The page: has the figures it was given, escapes everything, loads nothing, and says what it lacks."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from ecgdist.downstream.assign import assign_splits
from ecgdist.downstream.label_evaluation import MultilabelEvaluation, compare_labels
from ecgdist.downstream.number_evaluation import compare_numbers
from ecgdist.downstream.tasks import load_task
from ecgdist.record import STANDARD_LEADS
from ecgdist.report.page import DataCounts, Missing, Reconstruction, ReportData, render, write_report
from ecgdist.report.run import EVALUATION, evaluation_of
from ecgdist.storage import Location
from tests.downstream.tables import PROVENANCE, make_index
from tests.report.browser import DESKTOP_PX, PHONE_PX, Browser, problems


@pytest.fixture(scope="module")
def evaluation() -> MultilabelEvaluation:
    index = make_index(450)
    index["age"], index["sex"] = np.arange(len(index)) % 80 + 15, "female"
    task = load_task("ptbxl-super")
    rng = np.random.default_rng(0)
    good = task.truth(index) + rng.normal(size=(len(index), 5))
    blind = rng.normal(size=(len(index), 5))
    splits = assign_splits(index, task)
    return compare_labels(index, task, splits, good, blind, PROVENANCE, resamples=100).evaluation


@pytest.fixture(scope="module")
def data(evaluation: MultilabelEvaluation) -> ReportData:
    signal = np.sin(np.arange(2250) / 20)[None] * np.linspace(0.2, 1, 12)[:, None]
    hidden = np.arange(2250) % 300 < 150
    return ReportData(
        title="A run",
        command="ecgdist demo --out demo",
        corpus_id="c0ffee",
        model_hash="beef01",
        seeds={"pretraining": 7},
        data=DataCounts(
            records=1353,
            patients=1339,
            by_source={"ptbxl": 1353},
            by_label={f"scp:L{k:02d}": 100 - k for k in range(20)},
            by_split={"fold1": 53},
            refused={"nan": 4, "unknown_lead": 2},
        ),
        metrics=[
            {"step": 10, "samples": 640, "loss": 4.25, "reconstruction": 1.0, "learning_rate": 1e-3},
            {"step": 20, "samples": 1280, "loss": 3.125, "reconstruction": 0.9, "learning_rate": 5e-4},
        ],
        reconstruction=Reconstruction("rec7", signal, signal * 0.9, hidden, 250.0, STANDARD_LEADS),
        evaluation=evaluation,
        settings={"model": {"size": "tiny"}},
        versions={"torch": "2.13.0"},
    )


@pytest.fixture(scope="module")
def page(data: ReportData) -> str:
    return render(data)


class Reader(HTMLParser):
    """Collects tags with their attributes, and checks that they nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"


def test_the_notice_stands_at_the_head(page: str) -> None:
    head = page.partition("<h1>")[2][:200]
    assert "Not a medical device. For research only." in head


@pytest.mark.browser
@pytest.mark.parametrize("width_px", [PHONE_PX, DESKTOP_PX])
def test_it_can_be_read_on_a_telephone_and_on_a_desktop(
    browser: Browser, page: str, width_px: int, tmp_path: Path
) -> None:
    (tmp_path / "index.html").write_text(page)
    assert problems(browser, tmp_path / "index.html", width_px) == []


def test_summary_has_the_real_figures(page: str, evaluation: MultilabelEvaluation) -> None:
    assert "1,353 recordings of 1,339 patients from ptbxl; 6 were refused" in page
    assert "20 steps (1,280 ECGs seen)" in page
    assert "from 4.250 at step 10 to 3.125" in page
    assert str(evaluation.pretrained.metrics.macro.auroc) in page
    assert str(evaluation.difference.auroc) in page


def test_probe_tables_have_every_figure(page: str, evaluation: MultilabelEvaluation) -> None:
    for name, figures in evaluation.macro_rows():
        assert name in page
        assert all(str(figure) in page for figure in figures)
    for arm in (evaluation.pretrained, evaluation.random_encoder):
        for row in arm.metrics.labels:
            assert f"{row.positives} of {row.positives + row.negatives}" in page
            figures = (row.auroc, row.auprc, row.f1)
            ours = arm is evaluation.pretrained
            for figure in (*figures, row.sensitivity, row.specificity, row.ece) if ours else figures:
                assert f"{figure.value:.3f}<br><small>{figure.low:.3f} to {figure.high:.3f}" in page
    assert "PTB-XL diagnostic superclasses (ptbxl-super)" in page
    for warning in evaluation.warnings:
        assert warning in page


def test_proof_settings_and_counts(page: str, evaluation: MultilabelEvaluation) -> None:
    for text in ("c0ffee", "beef", evaluation.split_digest, "pretraining 7, bootstrap 0"):
        assert text in page
    for text in ("torch 2.13.0", "size: tiny", "ecgdist demo --out demo", "unknown_lead"):
        assert text in page
    assert "scp:L14" in page
    assert "scp:L15" not in page
    assert "the 15 most frequent; 5 more are not shown" in page


def test_page_loads_nothing(page: str) -> None:
    tags = Reader(page).tags
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in tags}
    assert not re.search(r"(https?:)?//[a-z]", re.sub(r"base64,[^\"]*", "", page))
    for _, attributes in tags:
        for name in ("src", "href", "data"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert "default-src 'none'" in page


def test_images_inside_the_page_load_nothing_either(page: str) -> None:
    images = re.findall(r"data:(image/[a-z+]+);base64,([^\"]+)", page)
    assert [kind for kind, _ in images] == ["image/svg+xml", "image/svg+xml", "image/png", "image/svg+xml"]
    for kind, content in images:
        if kind == "image/svg+xml":
            drawing = base64.b64decode(content).decode()
            assert re.findall(r'href="([^#][^"]*)"', drawing) == []


def test_page_is_well_formed_and_accessible(page: str) -> None:
    reader = Reader(page)
    assert reader.open == []
    assert all(attributes.get("alt") for tag, attributes in reader.tags if tag == "img")
    tags = [tag for tag, _ in reader.tags]
    assert tags.count("table") == tags.count("caption")
    assert dict(reader.tags)["html"]["lang"] == "en"


def test_ecg_has_its_true_width(page: str) -> None:
    (width,) = (a["style"] for tag, a in Reader(page).tags if tag == "img" and "style" in a)
    assert width == "width: 245.0mm"  # 225 mm for 9 s, and the margins with the calibration pulse


def test_hostile_text_is_escaped(data: ReportData) -> None:
    evil = "<script>alert('x')</script>\"><img src=x onerror=1>"
    counts = replace(
        data.data, by_source={evil: 1}, by_label={evil: 1}, refused={evil: 1}, by_split={evil: 1}
    )
    assert isinstance(data.reconstruction, Reconstruction)
    page = render(
        replace(
            data,
            title=evil,
            command=evil,
            corpus_id=evil,
            model_hash=evil,
            seeds={evil: 1},
            data=counts,
            reconstruction=replace(data.reconstruction, record_id=evil),
            evaluation=Missing(evil),
            settings={evil: evil},
            versions={evil: evil},
        )
    )
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;" in page
    assert Reader(page).open == []


def test_missing_parts_say_why(data: ReportData) -> None:
    page = render(
        replace(
            data,
            metrics=[],
            model_hash=Missing("The run has not finished."),
            reconstruction=Missing("The model has no decoder."),
            evaluation=Missing("No probe has been run."),
        )
    )
    for sentence in ("The run has not finished.", "The model has no decoder.", "No probe has been run."):
        assert sentence in page
    assert "no metrics were written" in page
    assert "<img" not in page
    assert Reader(page).open == []


def test_summary_does_not_claim_a_difference_that_the_interval_does_not_show(data: ReportData) -> None:
    assert isinstance(data.evaluation, MultilabelEvaluation)
    difference = data.evaluation.difference
    for low, high, words in (
        (0.01, 0.2, "the pretrained encoder is the better one"),
        (-0.01, 0.2, "too small to tell from zero"),
        (-0.2, -0.01, "the untrained encoder is the better one"),
    ):
        auroc = difference.auroc.model_copy(update={"low": low, "high": high})
        changed = difference.model_copy(update={"auroc": auroc})
        assert words in render(
            replace(data, evaluation=data.evaluation.model_copy(update={"difference": changed}))
        )


def test_an_evaluation_of_another_version_is_missing_and_the_rest_is_shown(
    data: ReportData, evaluation: MultilabelEvaluation, tmp_path: Path
) -> None:
    run = Location.of(tmp_path)
    assert isinstance(evaluation_of(run), Missing)
    (tmp_path / EVALUATION).write_text(evaluation.model_dump_json())
    assert evaluation_of(run) == evaluation
    (tmp_path / EVALUATION).write_text(
        evaluation.model_dump_json().replace('"schema_version":1', '"schema_version":0')
    )
    old = evaluation_of(run)
    assert isinstance(old, Missing)
    assert "evaluate again" in render(replace(data, evaluation=old))


def test_report_is_written_as_one_file(data: ReportData, tmp_path: Path) -> None:
    written = write_report(data, str(tmp_path / "report"))
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["index.html"]
    assert written.read_bytes().decode() == render(data)


def test_subgroups_reliability_and_the_command_are_shown(
    page: str, data: ReportData, evaluation: MultilabelEvaluation
) -> None:
    assert evaluation.subgroups
    for group in evaluation.subgroups:
        assert f"{group.attribute} {group.group}" in page
        assert str(group.auroc) in page
    assert "Reliability diagrams of 5 labels" in page
    assert evaluation.provenance.command in page
    small = evaluation.model_copy(update={"subgroups": (), "small_subgroups": evaluation.subgroups})
    assert "All subgroups of the test records are too small" in render(replace(data, evaluation=small))


def test_a_number_has_its_own_table(data: ReportData) -> None:
    index = make_index(900)
    index["age"] = np.arange(len(index)) % 70 + 19.0
    task = load_task("ptbxl-age")
    rng = np.random.default_rng(0)
    good = index["age"].to_numpy()[:, None] + rng.normal(size=(len(index), 3))
    found = compare_numbers(
        index,
        task,
        assign_splits(index, task),
        good,
        rng.normal(size=(len(index), 3)),
        PROVENANCE,
        resamples=100,
    ).evaluation
    page = render(replace(data, evaluation=found))
    for name, figures in found.rows():
        assert name in page
        assert all(str(figure) in page for figure in figures)
    assert "has a mean absolute error of" in page
    assert "the pretrained encoder is the better one" in page
    assert all(str(group.mae) in page for group in found.subgroups)
    assert Reader(page).open == []
