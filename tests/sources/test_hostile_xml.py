"""XML files made to harm: no entity is expanded, no DTD fetched, no other file opened, little memory used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.sources.hostile_child import child
from tests.sources.made import made_ecg_uv, ukbiobank_xml

GOOD = ukbiobank_xml((made_ecg_uv(1, 5000) / 5).astype(int))
DECLARATION, BODY = GOOD.split("\n", 1)


def with_dtd(dtd: str, body: str = BODY) -> str:
    return f"{DECLARATION}\n<!DOCTYPE CardiologyXML {dtd}>\n{body}"


def billion_laughs(outside: Path) -> str:
    levels = [f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10)]
    dtd = f'[<!ENTITY a0 "12,">{"".join(levels)}]'
    return with_dtd(dtd, BODY.replace('lead="I">', 'lead="I">&a9;'))


def quadratic_blow_up(outside: Path) -> str:
    dtd = f'[<!ENTITY a "{"12," * 100_000}">]'
    return with_dtd(dtd, BODY.replace('lead="I">', f'lead="I">{"&a;" * 10_000}'))


def external_entity(outside: Path) -> str:
    dtd = f'[<!ENTITY a SYSTEM "file://{outside}/secret.txt">]'
    return with_dtd(dtd, BODY.replace('lead="I">', 'lead="I">&a;'))


def external_parameter_entity(outside: Path) -> str:
    return with_dtd(f'[<!ENTITY % a SYSTEM "file://{outside}/secret.txt"> %a;]')


def external_dtd(outside: Path) -> str:
    """Named and not fetched: vendors write such a line, and the record is read."""
    return with_dtd(f'SYSTEM "file://{outside}/secret.txt"')


def dtd_from_the_network(outside: Path) -> str:
    return with_dtd('PUBLIC "-//ECG//EN" "http://127.0.0.1:9/ecg.dtd"')


def defaults_for_attributes(outside: Path) -> str:
    """Every element would get a copy of a long text."""
    long = "planted" * 100_000
    return with_dtd(f'[<!ATTLIST a b CDATA "{long}">]', f"<CardiologyXML>{'<a/>' * 100_000}</CardiologyXML>")


def external_dtd_and_entity(outside: Path) -> str:
    return with_dtd(f'SYSTEM "file://{outside}/secret.txt" [<!ENTITY a "12,">]')


def included_file(outside: Path) -> str:
    include = f'<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="file://{outside}/secret.txt"/>'
    return GOOD.replace('<WaveformData lead="I">', f'<WaveformData lead="I">{include}x', 1)


def deep_nesting(outside: Path) -> str:
    return f"<CardiologyXML>{'<a>' * 100_000}"


def hundred_megabytes_of_text(outside: Path) -> str:
    return GOOD.replace("<PatientInfo>", f"<PatientInfo>{'planted ' * (100 * 2**17)}")


def a_million_elements(outside: Path) -> str:
    return f"<CardiologyXML>{'<a b=()/>' * 1_000_000}</CardiologyXML>".replace("()", '"c"')


def no_waveforms(outside: Path) -> str:
    scales = '<SampleRate units="Hz">500</SampleRate><Resolution units="uVperLsb">5</Resolution>'
    return f"<CardiologyXML><StripData>{scales}</StripData></CardiologyXML>"


def nan_for_a_sample(outside: Path) -> str:
    return GOOD.replace('lead="I">', 'lead="I">NaN,', 1)


def words_for_samples(outside: Path) -> str:
    return GOOD.replace('lead="V6">', 'lead="V6">Planted, ', 1)


def a_number_of_a_million_digits(outside: Path) -> str:
    return GOOD.replace('lead="I">', f'lead="I">{"9" * 1_000_000},', 1)


def a_number_too_large(outside: Path) -> str:
    return GOOD.replace('lead="I">', f'lead="I">{"9" * 400},', 1)


def leads_of_two_lengths(outside: Path) -> str:
    return GOOD.replace('lead="I">', 'lead="I">1,', 1)


def unclosed(outside: Path) -> str:
    return GOOD[:-200]


def nothing(outside: Path) -> str:
    return ""


def another_language(outside: Path) -> str:
    return "<html><body>404</body></html>"


HOSTILE = {
    billion_laughs: "unsafe_xml", quadratic_blow_up: "unsafe_xml", external_entity: "unsafe_xml",
    external_parameter_entity: "unsafe_xml", external_dtd_and_entity: "unsafe_xml",
    defaults_for_attributes: "unsafe_xml",
    included_file: "unreadable_signal", deep_nesting: "unreadable_signal",
    hundred_megabytes_of_text: "too_large", a_million_elements: "unknown_unit", no_waveforms: "unreadable_signal",
    nan_for_a_sample: "unreadable_signal", words_for_samples: "unreadable_signal",
    a_number_of_a_million_digits: "unreadable_signal", a_number_too_large: "unreadable_signal",
    leads_of_two_lengths: "unreadable_signal", unclosed: "unreadable_signal", nothing: "unreadable_signal",
    another_language: "unknown_unit",
}  # fmt: skip


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process of its own says that reads all hostile files."""
    base, outside = tmp_path_factory.mktemp("hostile"), tmp_path_factory.mktemp("outside")
    (outside / "secret.txt").write_text("12,")
    for maker in (*HOSTILE, external_dtd, dtd_from_the_network):
        (base / maker.__name__).mkdir()
        (base / maker.__name__ / "1000037_20205_2_0.xml").write_text(maker(outside), encoding="latin-1")
    return child("ukbiobank", outside, 64, sorted(base.iterdir()))


@pytest.mark.parametrize(("name", "reason"), [(maker.__name__, reason) for maker, reason in HOSTILE.items()])
def test_is_refused(answer: dict[str, Any], name: str, reason: str) -> None:
    (outcome,) = answer["outcomes"][name]
    assert outcome.startswith(f"{reason}: ")
    assert "lanted" not in outcome


@pytest.mark.parametrize("name", ["external_dtd", "dtd_from_the_network"])
def test_a_document_type_that_is_only_named_is_not_fetched(answer: dict[str, Any], name: str) -> None:
    assert answer["outcomes"][name] == ["read"]


def test_no_other_file_is_opened(answer: dict[str, Any]) -> None:
    assert answer["touched"] == []
    assert "secret.txt" in answer["control"]
