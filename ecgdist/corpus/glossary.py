"""What flags and reasons of refusal mean, in words for a clinician."""

from __future__ import annotations

FLAGS = {
    "all_flat": "No lead changes in this segment: electrodes off, or a pause in a long recording.",
    "arm_leads_reversed_suspected": "Lead I runs against V6 and aVR along with it, as with the electrodes of both "
    "arms exchanged. Einthoven's law holds even so. Dextrocardia or an extreme axis can look alike: read the ECG.",
    "clipped_leads": "At least one lead stays exactly at its highest or lowest value, over plateaus of 20 ms "
    "together, at least 0.5 mV from its median: the amplifier or the file was at its limit.",
    "extreme_amplitude": "A sample is beyond plus or minus 10 mV: an artefact, pacing spike or wrong scale.",
    "flat_leads": "At least one lead is constant through the segment, as with an electrode off.",
    "limb_lead_inverted": "The limb leads contradict each other, and would fit with the sign of one of them "
    "reversed: for example -aVR stored as aVR (Cabrera's order).",
    "limb_leads_derived": "The source has leads I and II only; III, aVR, aVL and aVF were computed from them.",
    "limb_leads_inconsistent": "Einthoven's law (III = II - I) or Goldberger's (aVR, aVL, aVF) is off by more than "
    "25 µV (RMS): names exchanged in the file, a wrong gain in one lead, or one disturbed lead.",
    "limb_leads_swapped": "The limb leads contradict each other, and would fit with other names: two or more were "
    "exchanged in the file. The example says which.",
    "nan_filled": "Samples without a value were filled by straight lines; the index has their share (nan_share).",
    "padding_stripped": "The source pads recordings with zeros; they were taken off.",
    "patient_unknown": "The source holds several ECGs of a patient but does not say which: no split can keep them "
    "together.",
    "tail_dropped": "The recording went on for less than the shortest segment; that rest was left out.",
}
"""Meaning of each quality flag."""

REASONS = {
    "all_flat": "Every lead is constant: electrodes off, or an empty file.",
    "all_zero": "Every sample is zero: padding without an ECG.",
    "amplitude": "A sample is beyond the limit: mostly a wrong unit or gain in the header.",
    "bad_flag": "The source gave a flag that is not a short name.",
    "bad_gain": "The gain of a lead is zero or not a number.",
    "bad_label": "A label is not a code with a prefix; free text does not enter a corpus.",
    "bad_rate": "The sampling rate is missing, not a number, or too low to hold a QRS complex.",
    "bad_shape": "The signal is not a table of leads and samples.",
    "bad_split": "The official split is not a short name; free text does not enter a corpus.",
    "checksum": "The signal differs from the checksum in its header: the file was damaged or changed.",
    "clipped_leads": "More leads are clipped at their extreme value than the rule allows.",
    "duplicate_id": "Another record of the source has the same name.",
    "duplicate_lead": "One lead occurs twice.",
    "flat_leads": "More leads are constant than the rule allows.",
    "foreign_record": "The folder holds a record that does not belong to this data set.",
    "lead_count": "The numbers of lead names and of signals differ.",
    "limb_leads_inconsistent": "The limb leads contradict each other by more than the rule allows.",
    "link_outside": "A link puts the record's file outside of the source's folder; it was not opened.",
    "missing_file": "The record is listed, but the file that should hold it is not there.",
    "missing_header": "The record is listed, but its header file is not there.",
    "missing_signal": "The record is listed, but its signal is not there.",
    "mixed_rates": "The leads of one file have different sampling rates.",
    "multi_segment": "The header joins several records; each is to be read on its own.",
    "nan": "More samples have no value (NaN or infinite) than the rule allows; by default, a single one.",
    "no_leads": "None of the channels is one of the twelve standard leads.",
    "not_in_table": "The ECG is there, but the source's table has no row for it.",
    "too_large": "The file is larger than one of this kind can be.",
    "too_long": "The header declares a recording longer than a file of this kind can be.",
    "too_short": "The recording is shorter than the shortest segment.",
    "truncated_signal": "The signal file is shorter than its header says.",
    "unknown_file": "The file is of no kind that is read: WFDB, .npy, HDF5 or .csv.",
    "unknown_format": "The file stores samples in a form that is not known.",
    "unknown_lead": "A channel is not one of the twelve leads, and is not to be ignored either.",
    "unknown_patient": "The file does not say whose ECG it is, so that splits by patient cannot hold.",
    "unknown_subset": "The record is in none of the known subsets of the data set.",
    "unknown_unit": "The unit is not a voltage.",
    "unreadable_header": "The header does not follow its format.",
    "unreadable_metadata": "The record's row in the source's table does not follow its format.",
    "unreadable_signal": "The signal file does not follow its format.",
    "unsafe_path": "The source names a file outside its folder, or by what no file can be named; it was not opened.",
    "unsafe_xml": "The file declares entities or the like, which no ECG needs; it was not read.",
}
"""Meaning of each reason of refusal."""


def meaning(slug: str, known: dict[str, str]) -> str:
    """What a flag or a reason means; of one that a source of your own gives, its name must do."""
    return known.get(slug, slug.replace("_", " ").capitalize() + ".")
