"""The report of a corpus: one HTML file for the person who decides whether its ECGs are fit for training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from ecgdist.corpus import Corpus
from ecgdist.corpus.counts import Ints, encode, encode_lists
from ecgdist.corpus.duplicates import Duplicates, find_duplicates
from ecgdist.corpus.examples import MOST_MV, RefusedExample
from ecgdist.corpus.glossary import FLAGS, REASONS, meaning
from ecgdist.corpus.summary import Summary, headline, summarise
from ecgdist.record import STANDARD_LEADS, bits_to_mask
from ecgdist.report.corpus_plots import Histogram, draw_histograms, draw_people, draw_rates_and_lengths
from ecgdist.report.curves import svg
from ecgdist.report.ecgpaper import draw_record, png, width_mm
from ecgdist.report.html import Ecg, Image, data_uri, rendered
from ecgdist.signals.limbs import explain_limb_leads
from ecgdist.signals.quality import EXTREME_UV, LIMB_TOLERANCE_UV
from ecgdist.storage import Location

_TOP_LABELS = 30
_SHOWN_GROUPS = 20
_SHOWN_OF_GROUP = 6
_ECG_DOTS_PER_INCH = 110


@dataclass(frozen=True)
class DuplicateCounts:
    """Rows that hold one waveform.

    Attributes:
        groups: groups of two or more rows.
        rows: rows in them.
        across_patients: groups with more than one patient.
        across_sources: groups with more than one source.
        across_splits: groups in more than one official split.
        shown: the first groups, each as names of its rows.
        candidates: pairs that looked alike by fingerprint, before their signals were compared.
    """

    groups: int
    rows: int
    across_patients: int
    across_sources: int
    across_splits: int
    shown: list[list[str]]
    candidates: int


def write_corpus_report(corpus: Corpus, target: Location) -> Location:
    """Write the report of a corpus as one file that needs nothing else; returns where it is.

    Raises:
        DataError: if the corpus is damaged.
        StorageError: if something cannot be read or written.
    """
    target.write_bytes(render(corpus, summarise(corpus), find_duplicates(corpus)).encode())
    return target


def render(corpus: Corpus, summary: Summary, duplicates: Duplicates) -> str:
    """The report as HTML."""
    manifest = corpus.manifest
    found = count_duplicates(corpus, duplicates)
    return rendered(
        "corpus.html",
        summary=summary,
        headline=headline(summary),
        sources=manifest.sources,
        warnings=warnings(summary, found),
        plots=_plots(corpus, summary),
        top_labels=dict(list(summary.by_label.items())[:_TOP_LABELS]),
        measures=_measures(corpus),
        flagged=flagged_examples(corpus),
        refused=_refused_examples(corpus.refused_examples),
        duplicates=found,
        flags={flag: meaning(flag, FLAGS) for flag in sorted({*FLAGS, *summary.by_quality})},
        reasons={reason: meaning(reason, REASONS) for reason in summary.refused},
        settings=yaml.safe_dump(manifest.pack.model_dump(mode="json"), sort_keys=False),
        manifest=manifest,
    )


def warnings(summary: Summary, duplicates: DuplicateCounts) -> list[str]:
    """Sentences on what somebody should look at before training."""
    found = []
    for source, counts in summary.by_source.items():
        share = counts["refused"] / max(counts["listed"] - counts["excluded"], 1)
        if share > 0.05:
            found.append(f"{share:.1%} of the records of {source} were refused")
        swapped = summary.quality_by_source.get(source, {}).get("limb_leads_swapped", 0)
        if swapped > 0.5 * max(counts["rows"], 1):
            found.append(
                f"in most rows of {source} the limb leads would fit with other names: was its lead order misread?"
            )
    if duplicates.across_patients:
        found.append(
            f"{duplicates.across_patients:,} waveforms are filed under more than one patient: keep their rows in "
            "one split"
        )
    return found


def count_duplicates(corpus: Corpus, duplicates: Duplicates) -> DuplicateCounts:
    """What the groups of duplicates have in common."""
    groups = duplicates.groups
    rows = np.concatenate([np.zeros(0, dtype=np.int64), *groups])
    columns = corpus.columns("source", "record_id", "patient_key", "split").take(rows).to_pydict()
    across = dict.fromkeys(("source", "patient_key", "split"), 0)
    shown: list[list[str]] = []
    start = 0
    for group in groups:
        members = slice(start, start := start + len(group))
        for name in across:
            across[name] += len({value for value in columns[name][members] if value is not None}) > 1
        if len(shown) < _SHOWN_GROUPS:
            names = zip(*(columns[name][members] for name in ("source", "record_id", "split")), strict=True)
            texts = [
                f"{source}/{record}" + (f" ({split})" if split else "") for source, record, split in names
            ]
            more = len(texts) - _SHOWN_OF_GROUP
            shown.append(texts[:_SHOWN_OF_GROUP] + ([f"and {more:,} more"] if more > 0 else []))
    return DuplicateCounts(
        groups=len(groups),
        rows=len(rows),
        across_patients=across["patient_key"],
        across_sources=across["source"],
        across_splits=across["split"],
        shown=shown,
        candidates=duplicates.candidates,
    )


def flagged_examples(corpus: Corpus) -> dict[str, Ecg]:
    """An ECG with each quality flag, on ECG paper: the first of those that have the fewest other flags."""
    flag, rows = encode_lists(corpus.columns("quality")["quality"])
    num_flags = np.bincount(rows, minlength=corpus.manifest.rows)
    first = {}
    for number, name in enumerate(flag.names):
        mine = rows[flag.codes == number]
        first[name] = int(mine[num_flags[mine].argmin()])
    signals: dict[int, npt.NDArray[np.int16]] = {}
    for found, several in corpus.iter_signals(np.unique(list(first.values())).astype(np.int64), 16):
        signals |= dict(zip(found.tolist(), several, strict=True))
    facts = _facts(corpus, np.array(sorted(signals), dtype=np.int64))
    return {
        name: _flagged(name, facts[row], signals[row], corpus.manifest.pack.rate_hz)
        for name, row in first.items()
    }


def _facts(corpus: Corpus, rows: Ints) -> dict[int, dict[str, Any]]:
    names = (
        "source", "record_id", "segment", "lead_mask", "valid_samples", "nan_share", "flat_leads",
        "clipped_leads", "peak_uv", "limb_residual_uv",
    )  # fmt: skip
    return dict(zip(rows.tolist(), corpus.columns(*names).take(rows).to_pylist(), strict=True))


def _flagged(flag: str, facts: Mapping[str, Any], signal_uv: npt.NDArray[np.int16], rate_hz: float) -> Ecg:
    mask = np.asarray(bits_to_mask(facts["lead_mask"]))
    valid = signal_uv[:, : facts["valid_samples"]]
    said = [f"largest amplitude {facts['peak_uv'] / 1000:.2f} mV"]
    # The strip at the bottom shows a lead with what the flag is about.
    rhythm = "II"
    if flag == "extreme_amplitude":
        rhythm = STANDARD_LEADS[int(np.abs(valid.astype(np.int32)).max(axis=1).argmax())]
    for column, words in (("flat_leads", "constant"), ("clipped_leads", "clipped")):
        if facts[column]:
            names = _lead_names(facts[column])
            said.append(f"{words}: {', '.join(names)}")
            rhythm = names[0] if flag == column else rhythm
    if flag.startswith("limb_lead") and facts["limb_residual_uv"] is not None:
        said.append(f"limb leads contradict each other by {facts['limb_residual_uv']:.3g} µV")
    if flag in ("limb_leads_swapped", "limb_lead_inverted"):
        explained = explain_limb_leads(valid, LIMB_TOLERANCE_UV)
        if explained is not None:
            said.append(f"likely {explained.detail}")
    if facts["nan_share"]:
        said.append(f"{facts['nan_share']:.2%} of the samples filled")
    name = f"{facts['source']}/{facts['record_id']}"
    if facts["segment"]:
        name += f", segment {facts['segment']}"
    leads = _lead_names(facts["lead_mask"])
    return _on_paper(name, valid[mask] / 1000, rate_hz, leads, "; ".join(said), rhythm)


def _refused_examples(examples: list[RefusedExample]) -> dict[str, list[Ecg]]:
    drawn: dict[str, list[Ecg]] = {}
    for example in examples:
        signal = example.signal_mv
        seconds = signal.shape[1] / example.rate_hz
        said = f"{seconds:.3g} s at {example.rate_hz:g} Hz"
        without, rhythm = np.isnan(signal), "II"
        if without.any():
            rhythm = example.leads[int(without.sum(axis=1).argmax())]
            names = [lead for lead, row in zip(example.leads, without, strict=True) if row.any()]
            said += f"; {without.sum():,} samples without a value, in {', '.join(names)}"
        if not without.all():
            peak_mv = np.nanmax(np.abs(signal))
            said += f"; largest amplitude {peak_mv:.2f} mV" + (" or more" if peak_mv >= MOST_MV else "")
        name = f"{example.source}/{example.record_id}"
        ecg = _on_paper(name, signal, example.rate_hz, example.leads, said, rhythm)
        drawn.setdefault(example.reason, []).append(ecg)
    return drawn


def _on_paper(
    name: str,
    signal_mv: npt.NDArray[np.float64],
    rate_hz: float,
    leads: Sequence[str],
    caption: str,
    rhythm: str,
) -> Ecg:
    figure = draw_record(signal_mv, rate_hz, leads, title=name, rhythm=rhythm)
    image = Image(
        data_uri("image/png", png(figure, _ECG_DOTS_PER_INCH)),
        f"ECG {name} on ECG paper: {caption}.",
        width_mm(figure),
    )
    return Ecg(image, f"{name}: {caption}.")


def _lead_names(bits: int) -> list[str]:
    return [lead for lead, on in zip(STANDARD_LEADS, bits_to_mask(bits).tolist(), strict=True) if on]


def _plots(corpus: Corpus, summary: Summary) -> dict[str, Image]:
    source = encode(corpus.columns("source")["source"], null="none")
    columns = corpus.columns("peak_uv", "limb_residual_uv")
    peak_mv = columns["peak_uv"].to_numpy().astype(np.float64) / 1000
    residual_uv = columns["limb_residual_uv"].to_numpy().astype(np.float64)
    peaks = Histogram.of(
        "largest amplitude of a row", "mV", peak_mv, source, 0.1, 33, EXTREME_UV / 1000, "extreme_amplitude"
    )
    residuals = Histogram.of(
        "contradiction of the limb leads (RMS)",
        "µV",
        residual_uv,
        source,
        0.1,
        10_000,
        LIMB_TOLERANCE_UV,
        "limb_leads_inconsistent",
    )
    figures = {
        "rates": (
            draw_rates_and_lengths(summary.rate_hz_by_source, summary.length_s_by_source),
            f"Sampling rates and lengths by source: {summary.rate_hz_by_source}.",
        ),
        "people": (
            draw_people(summary.age_by_sex, summary.records_per_patient),
            f"Age by sex, and records per patient: {summary.records_per_patient}.",
        ),
        "measures": (
            draw_histograms([peaks, residuals]),
            "Histograms by source of the largest amplitude and of the contradiction of the limb leads.",
        ),
    }
    return {
        name: Image(data_uri("image/svg+xml", svg(figure)), alt) for name, (figure, alt) in figures.items()
    }


def _measures(corpus: Corpus) -> dict[str, dict[str, str]]:
    """Typical values of what is measured on every row, by source."""
    source = encode(corpus.columns("source")["source"], null="none")
    columns = corpus.columns("peak_uv", "limb_residual_uv", "nan_share")
    peak, residual, missing = (column.to_numpy().astype(np.float64) for column in columns.columns)
    found = {}
    for number, name in enumerate(source.names):
        mine = source.codes == number
        known = residual[mine & ~np.isnan(residual)]
        low, middle, high = np.percentile(peak[mine], (1, 50, 99)) / 1000
        found[name] = {
            "rows with gaps": f"{np.count_nonzero(missing[mine]):,}",
            "largest amplitude, mV: median (1 to 99 %)": f"{middle:.2f} ({low:.2f} to {high:.2f})",
            "limb leads off by, µV: median (99 %)": "{:.1f} ({:.1f})".format(*np.percentile(known, (50, 99)))
            if len(known)
            else "no row with all six",
        }
    return found
