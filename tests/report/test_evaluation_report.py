"""The report of an evaluation: one file that loads nothing, escapes everything, and shows what was evaluated."""

from __future__ import annotations

import base64
import io
import json
import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from ecgdist.cli import app
from ecgdist.config import build
from ecgdist.downstream.evaluate import EvaluateConfig, evaluate_whole
from ecgdist.downstream.outcome import Outcome
from ecgdist.downstream.schema import read_evaluation
from ecgdist.report.evaluation import Sections, render, without_folders
from ecgdist.report.evaluation_ecgs import Saliency, saliency
from ecgdist.report.evaluation_plots import maps
from tests.corpus.corpora import made_ecg, row, write_corpus
from tests.downstream.test_leaks import model
from tests.report.browser import DESKTOP_PX, PHONE_PX, Browser, problems
from tests.report.test_page import Reader

EVIL = "<script>alert('x')</script>\"><img src=x onerror=1>"
NOTICE = "Not a medical device. For research only."
FOLDS = ("one", "two", "three")
COUNT = 90
LABELS = f"""
name: mine
title: A task of the test
kind: multilabel
source: made
labels: {{{json.dumps(EVIL)}: ["x:a"], B: ["x:b"], C: ["x:c"]}}
negative: ["x:none"]
folds: {{train: [one], validation: [two], test: [three]}}
"""
AGE = """
{name: years, title: Age, kind: regression, source: made, target: age, unit: years,
 folds: {train: [one], validation: [two], test: [three]}}
"""


def codes(number: int) -> list[str]:
    third = number // 3
    return [code for code, on in (("x:a", third % 2), ("x:b", third % 3), ("x:c", third % 5 == 0)) if on] or [
        "x:none"
    ]


@dataclass(frozen=True)
class Made:
    """An evaluation, its report, and what is written beside it.

    Attributes:
        folder: with model, corpus and tasks.
        outcome: of the evaluation.
        sections: of its report.
        page: the report.
        figures: the evaluation's document.
        columns: of the file of predictions.
    """

    folder: Path
    outcome: Outcome
    sections: Sections
    page: str
    figures: dict[str, Any]
    columns: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("evaluation")
    rows = [
        row(
            made_ecg(n),
            f"{EVIL}{n}" if n == 2 else f"r{n}",
            labels=codes(n),
            split=FOLDS[n % 3],
            age=20.0 + n % 60,
        )
        for n in range(COUNT)
    ]
    corpus = write_corpus(found / "corpus", rows)
    model(found / "model", corpus, np.arange(0))
    (found / "labels.yaml").write_text(LABELS)
    (found / "age.yaml").write_text(AGE)
    return found


def evaluated(folder: Path, task: str) -> Made:
    values = {
        "model": str(folder / "model"), "task": str(folder / f"{task}.yaml"), "corpus": str(folder / "corpus"),
    }  # fmt: skip
    outcome = evaluate_whole(build(EvaluateConfig, {**values, "resamples": 100}))
    sections = Sections.of(outcome)
    table = pq.read_table(io.BytesIO(outcome.predictions.parquet(outcome.evaluation)))
    return Made(
        folder=folder,
        outcome=outcome,
        sections=sections,
        page=render(sections),
        figures=json.loads(outcome.evaluation.model_dump_json()),
        columns={name: np.array(table[name].to_pylist()) for name in table.column_names},
    )


@pytest.fixture(scope="module")
def labels(folder: Path) -> Made:
    return evaluated(folder, "labels")


@pytest.fixture(scope="module")
def age(folder: Path) -> Made:
    return evaluated(folder, "age")


@pytest.fixture(params=["labels", "age"])
def made(request: pytest.FixtureRequest) -> Made:
    found: Made = request.getfixturevalue(request.param)
    return found


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", page, flags=re.S)))


def test_the_notice_stands_at_the_head(made: Made) -> None:
    assert NOTICE in text_of(made.page)[:300]


def test_the_page_needs_nothing_else(made: Made) -> None:
    tags = Reader(made.page).tags
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in tags}
    assert "default-src 'none'" in made.page
    for tag, attributes in tags:
        for name in ("src", "href"):
            target = attributes.get(name) or "data:"
            assert target.startswith("data:") or (tag == "a" and target.startswith("#")), target[:80]
    assert not re.search(r"(https?:)?//[a-z]", re.sub(r"base64,[^\"]*", "", made.page))


def test_every_image_is_whole_and_described(made: Made) -> None:
    tags = Reader(made.page).tags
    images = [attributes for tag, attributes in tags if tag == "img"]
    assert len(images) >= 5
    assert all(attributes["alt"] for attributes in images)
    for attributes in images:
        kind, content = re.fullmatch(r"data:(image/[a-z+]+);base64,(.+)", attributes["src"] or "").groups()  # type: ignore[union-attr]
        drawn = base64.b64decode(content, validate=True)
        if kind == "image/png":
            assert drawn[:4] == b"\x89PNG"
        else:
            assert re.findall(r'href="([^#][^"]*)"', drawn.decode()) == []
    assert [tag for tag, _ in tags].count("table") == [tag for tag, _ in tags].count("caption")
    targets = {attributes["id"] for _, attributes in tags if "id" in attributes}
    links = {(a["href"] or "")[1:] for tag, a in tags if tag == "a" and (a["href"] or "").startswith("#")}
    assert links == targets


def test_labels_and_ids_are_escaped(labels: Made) -> None:
    assert "<script" not in labels.page
    assert "<img src=x" not in labels.page
    assert "&lt;script&gt;" in labels.page
    assert Reader(labels.page).open == []


def test_no_folder_of_the_machine_is_in_the_page_or_in_its_data(made: Made) -> None:
    uri = re.search(r'download="evaluation.json" href="data:application/json;base64,([^"]+)"', made.page)
    assert uri is not None
    inside = base64.b64decode(uri[1]).decode()
    for text in (made.page, inside):
        assert str(made.folder) not in text
        assert made.folder.name not in text
    document = read_evaluation(inside.encode(), "inside")
    assert document.provenance.command.startswith("ecgdist evaluate model --task ")
    own = json.loads(inside)
    assert str(made.folder) in made.figures["provenance"]["command"]
    assert own["provenance"].pop("command") != made.figures["provenance"]["command"]
    assert {k: v for k, v in own.items() if k != "provenance"} == {
        k: v for k, v in made.figures.items() if k != "provenance"
    }


def test_folders_are_left_out_of_all_sentences(labels: Made) -> None:
    evaluation = labels.outcome.evaluation.model_copy(
        update={
            "split_note": "split named in /home/jane/own.csv",
            "warnings": ("half and/or 1/2 at s3://b/c/d",),
        }
    )
    shown = without_folders(evaluation)
    assert shown.split_note == "split named in own.csv"
    assert shown.warnings == evaluation.warnings
    spaced = evaluation.provenance.model_copy(
        update={"command": "ecgdist evaluate '/home/jane doe/a model' --x s3://b/c"}
    )
    command = without_folders(evaluation.model_copy(update={"provenance": spaced})).provenance.command
    assert command == "ecgdist evaluate 'a model' --x s3://b/c"


def test_the_figures_are_those_of_the_evaluation(labels: Made) -> None:
    text = text_of(labels.page)
    for metrics in (labels.figures["pretrained"]["metrics"], labels.figures["random_encoder"]["metrics"]):
        auroc = metrics["macro"]["auroc"]
        assert f"{auroc['value']:.3f} ({auroc['low']:.3f} to {auroc['high']:.3f})" in text
    alts = [a["alt"] for tag, a in Reader(labels.page).tags if tag == "img" and "ROC" in (a["alt"] or "")]
    figures = {each["label"]: each for each in labels.figures["pretrained"]["metrics"]["labels"]}
    assert len(alts) == len(figures)
    for label, each in figures.items():
        assert any(f"of {label}. Pretrained: AUROC {each['auroc']['value']:.3f}" in str(alt) for alt in alts)


def test_confusion_is_counted_from_the_predictions(labels: Made) -> None:
    found = labels.sections.confusion
    assert found is not None
    assert found.labels == (EVIL, "B", "C")
    cuts = {each["label"]: each["f1_threshold"] for each in labels.figures["pretrained"]["metrics"]["labels"]}
    for i, true in enumerate(found.labels):
        for j, said in enumerate(found.labels):
            both = labels.columns[f"truth:{true}"] & (labels.columns[f"pretrained:{said}"] >= cuts[said])
            assert found.together[i, j] == both.sum()
            assert found.wrong[i, j] == (both & ~labels.columns[f"truth:{said}"]).sum()
    table = text_of(labels.page.partition('<table class="confusion">')[2].partition("</table>")[0])
    for label, positives in zip(found.labels[1:], found.positives[1:], strict=True):
        assert f" {label} {positives} " in table


def test_the_worst_errors_are_those_of_the_file_with_their_truth(labels: Made) -> None:
    columns = labels.columns
    cuts = {each["label"]: each["f1_threshold"] for each in labels.figures["pretrained"]["metrics"]["labels"]}
    text, shown = text_of(labels.page).replace("&lt;", "<").replace("&gt;", ">"), 0
    for label in ("B", "C"):
        probability, true = columns[f"pretrained:{label}"], columns[f"truth:{label}"]
        for kind, wrong, key in (
            ("false positive", ~true & (probability >= cuts[label]), probability),
            ("false negative", true & (probability < cuts[label]), -probability),
        ):
            assert (f"{label}: {kind}" in text) == wrong.any()
            if wrong.any():
                shown += 1
                record = int(np.where(wrong, key, -np.inf).argmax())
                said = (
                    f"made/{columns['record_id'][record]}: probability of {label} {probability[record]:.3f}"
                )
                assert said in text or EVIL in said
    assert shown >= 2


def test_the_occluded_ecg_has_the_probability_that_was_reported(labels: Made) -> None:
    found = labels.sections.saliency
    assert isinstance(found, Saliency)
    heading = labels.sections.examples[0].heading
    assert found.heading == heading
    label = heading.rpartition(":")[0]
    record = re.search(r"made/(.+): probability of", found.ecg.caption)
    assert record is not None
    number = labels.columns["record_id"].tolist().index(record[1])
    assert found.prediction == pytest.approx(labels.columns[f"pretrained:{label}"][number], abs=1e-5)
    assert len(found.leads) == 12
    assert all(each.fall <= each.rise and each.mean > 0 for each in found.leads)
    assert f"{found.prediction:.3g} for the whole ECG" in text_of(labels.page)


def test_a_number_has_its_own_sections(age: Made) -> None:
    text = text_of(age.page)
    assert "ROC and precision-recall" not in text
    assert "Predicted and true" in text
    error = age.columns["pretrained:age"] - age.columns["truth:age"]
    for kind, record in (("overestimated", error.argmax()), ("underestimated", error.argmin())):
        assert f"age: {kind}" in text
        predicted, true = age.columns["pretrained:age"][record], age.columns["truth:age"][record]
        assert f"predicted {predicted:.4g}, true {true:.4g} years." in text


def test_what_another_kind_of_evaluation_lacks_is_said(labels: Made) -> None:
    bare = replace(labels.outcome, embeddings=None, predictor=None)
    text = text_of(render(replace(labels.sections, maps=maps(bare, 0), saliency=saliency(bare))))
    assert "Left out: What made the predictions is not at hand." in text
    assert "Left out: This kind of evaluation has no embeddings." in text


def test_more_labels_than_fit_are_folded(labels: Made) -> None:
    page = render(replace(labels.sections, most_cards=2))
    assert "1 more labels" in text_of(page)
    assert page.count("<img") == labels.page.count("<img")


def test_the_command_writes_what_it_says_and_prints_one_document(labels: Made) -> None:
    files = {name: str(labels.folder / f"out.{name}") for name in ("out", "predictions", "html")}
    where = [word for name, path in files.items() for word in (f"--{name}", path)]
    command = shlex.split(labels.outcome.evaluation.provenance.command)[1:]
    result = CliRunner().invoke(app, [*command, *where, "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == json.loads(Path(files["out"]).read_text()) == labels.figures
    assert Path(files["html"]).read_text() == labels.page
    table = pq.read_table(files["predictions"])
    assert {name: table[name].to_pylist() for name in table.column_names} == {
        name: values.tolist() for name, values in labels.columns.items()
    }


@pytest.mark.browser
@pytest.mark.parametrize("width_px", [PHONE_PX, DESKTOP_PX])
def test_it_can_be_read_on_a_telephone_and_on_a_desktop(browser: Browser, made: Made, width_px: int) -> None:
    task = made.outcome.evaluation.task
    (made.folder / f"{task}-shown.html").write_text(made.page)
    assert problems(browser, made.folder / f"{task}-shown.html", width_px) == []
    # Drawn text keeps its size: no drawing with small print is shrunk to half of it.
    shrunk = browser.run(
        """return [...document.images].filter(each => each.src.startsWith('data:image/svg') &&
             each.getBoundingClientRect().width < 0.85 * each.naturalWidth).map(each => each.alt)"""
    )
    assert shrunk == []


@pytest.mark.browser
def test_the_browser_sees_what_would_be_wrong(browser: Browser, tmp_path: Path) -> None:
    """The checks above can fail."""
    (tmp_path / "bad.html").write_text(
        "<!DOCTYPE html><main><p style='width: 3000px'>wide</p><img alt='broken' src='data:image/png;base64,AAAA'>"
        "<script>console.error('loud')</script></main>"
    )
    found = problems(browser, tmp_path / "bad.html", PHONE_PX)
    for start in ("console: ", "not drawn: broken", "the page is 30", "beyond the edge: P wide"):
        assert any(each.startswith(start) for each in found), found
