"""Every reason and flag that the package gives is explained in words for a clinician."""

from __future__ import annotations

import re
from pathlib import Path

import ecgdist
from ecgdist.corpus.glossary import FLAGS, REASONS, meaning

PACKAGE = Path(ecgdist.__file__).parent


def source_text(*folders: str) -> str:
    files = [file for folder in folders for file in sorted((PACKAGE / folder).rglob("*.py"))]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def test_every_reason_of_refusal_is_explained() -> None:
    text = source_text(".")
    given = set(re.findall(r'(?:RecordRefused|_refuse_leads)\(\s*"([a-z_0-9]+)"', text))
    given |= set(re.findall(r'refusal=\("([a-z_0-9]+)",', text))
    assert len(given) > 20
    assert given - set(REASONS) == set()


def test_every_flag_is_explained() -> None:
    text = source_text("signals", "sources") + (PACKAGE / "preprocessing.py").read_text(encoding="utf-8")
    given = set(
        re.findall(r'flags\.(?:append|add)\("([a-z_]+)"|Explanation\("([a-z_]+)"|flags = \("([a-z_]+)"', text)
    )
    names = {name for found in given for name in found if name}
    assert {"tail_dropped", "limb_leads_swapped", "clipped_leads"} <= names
    assert names - set(FLAGS) == set()


def test_explanations_are_sentences_in_order() -> None:
    for known in (FLAGS, REASONS):
        assert list(known) == sorted(known)
        assert all(text.endswith(".") and text[0].isupper() for text in known.values())


def test_a_slug_that_nobody_explained_is_still_readable() -> None:
    assert meaning("odd_thing", FLAGS) == "Odd thing."
