"""What holds for every augmentation, and how a configuration names them."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import pytest
import torch
from pydantic import Field

from ecgdist.config import build
from ecgdist.errors import ConfigError
from ecgdist.signals.augment import AUGMENTATIONS, Augmentation, AugmentConfig, Randoms, Rows, Scaled, View
from ecgdist.signals.augment.choice import stream_keys
from tests.signals.augment.batches import RATE_HZ, applied, batch, randoms

NO_STRENGTH: dict[str, dict[str, float]] = {
    "resized_crop": {"stretch": 0},
    "time_out": {"longest_s": 0},
    "time_shift": {"longest_s": 0},
    "lead_drop": {"lead_p": 0},
    "amplitude_scale": {"change": 0},
    "gaussian_noise": {"rms_uv": 0},
    "baseline_wander": {"amplitude_uv": 0},
    "powerline": {"amplitude_uv": 0},
}

every = pytest.mark.parametrize("name", AUGMENTATIONS)


def augmentation(name: str, **values: float) -> Augmentation:
    (built,) = build(AugmentConfig, {"student": [{"name": name, **values}]}).student
    return built


@every
def test_the_table_has_each_under_its_own_name(name: str) -> None:
    assert AUGMENTATIONS[name].model_fields["name"].default == name


@every
def test_it_says_what_it_could_destroy(name: str) -> None:
    assert "May destroy: " in " ".join((AUGMENTATIONS[name].__doc__ or "").split())


@every
def test_it_changes_something_and_leaves_padding_missing_leads_and_its_input_alone(name: str) -> None:
    view, chosen = batch(), augmentation(name)
    before = view.signal_uv.clone()
    changed = applied(chosen, view, RATE_HZ, randoms(chosen))
    assert torch.equal(view.signal_uv, before)
    assert not torch.equal(changed.signal_uv, before)
    assert changed.signal_uv.dtype == torch.float32
    assert changed.signal_uv.shape == before.shape
    assert torch.equal(changed.valid_samples, view.valid_samples)
    assert not (changed.lead_mask & ~view.lead_mask).any()
    outside = ~(Rows(view).in_time[:, None] & changed.lead_mask[:, :, None])
    assert not changed.signal_uv[outside].any()
    assert changed.signal_uv.isfinite().all()


@every
def test_without_strength_it_changes_nothing(name: str) -> None:
    view, chosen = batch(), augmentation(name, **NO_STRENGTH[name])
    changed = applied(chosen, view, RATE_HZ, randoms(chosen))
    assert torch.equal(changed.signal_uv, view.signal_uv)
    assert torch.equal(changed.lead_mask, view.lead_mask)


@every
@pytest.mark.parametrize("order", [[5, 3, 1, 0, 2, 4], [2], [0, 1], [4, 5, 0]])
def test_a_record_has_the_same_bits_in_any_batch(name: str, order: list[int]) -> None:
    view, chosen = batch(), augmentation(name)
    numbers = randoms(chosen)
    whole = applied(chosen, view, RATE_HZ, numbers)
    picked = Randoms(numbers.uniform[order], None if numbers.normal is None else numbers.normal[order])
    part = applied(chosen, View(*(values[order] for values in view)), RATE_HZ, picked)
    assert torch.equal(part.signal_uv, whole.signal_uv[order])
    assert torch.equal(part.lead_mask, whole.lead_mask[order])


@every
@pytest.mark.parametrize("chosen_rows", [[0, 2, 3], [1], [4, 5], [0, 1, 2, 3, 4, 5]])
def test_some_rows_are_changed_as_all_would_be_and_the_others_not(name: str, chosen_rows: list[int]) -> None:
    view, chosen = batch(), augmentation(name)
    numbers, index = randoms(chosen), torch.tensor(chosen_rows)
    whole = applied(chosen, view, RATE_HZ, numbers)
    expected_uv, expected_mask = view.signal_uv.clone(), view.lead_mask.clone()
    expected_uv[index], expected_mask[index] = whole.signal_uv[index], whole.lead_mask[index]
    part = Randoms(numbers.uniform[index], None if numbers.normal is None else numbers.normal[index])
    mask = view.lead_mask.clone()
    rows = Rows(view, index)
    changed = chosen.effect(rows, RATE_HZ, part).write(rows)
    assert changed.signal_uv is view.signal_uv, "it is overwritten"
    assert torch.equal(changed.signal_uv, expected_uv)
    assert torch.equal(changed.lead_mask, expected_mask)
    assert torch.equal(view.lead_mask, mask), "the mask of the batch is not"


@every
def test_an_empty_batch_stays_empty(name: str) -> None:
    chosen = augmentation(name)
    numbers = randoms(chosen)
    none = Randoms(numbers.uniform[:0], None if numbers.normal is None else numbers.normal[:0])
    assert len(applied(chosen, View(*(values[:0] for values in batch())), RATE_HZ, none).signal_uv) == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every
def test_cpu_and_gpu_agree(name: str) -> None:
    view, chosen = batch(), augmentation(name)
    numbers = randoms(chosen)
    on_cpu = applied(chosen, view, RATE_HZ, numbers)
    there = Randoms(numbers.uniform.cuda(), None if numbers.normal is None else numbers.normal.cuda())
    on_gpu = applied(chosen, View(*(values.cuda() for values in view)), RATE_HZ, there)
    torch.testing.assert_close(on_gpu.signal_uv.cpu(), on_cpu.signal_uv, rtol=0, atol=1e-2)
    assert torch.equal(on_gpu.lead_mask.cpu(), on_cpu.lead_mask)


def test_a_configuration_names_them_with_or_without_settings_and_survives_json() -> None:
    config = build(
        AugmentConfig,
        {
            "student": ["time_out", {"name": "gaussian_noise", "p": 0.3, "rms_uv": 10}],
            "teacher": ["lead_drop"],
        },
    )
    assert [chosen.model_dump() for chosen in config.student] == [
        {"p": 0.5, "name": "time_out", "longest_s": 2.0},
        {"p": 0.3, "name": "gaussian_noise", "rms_uv": 10.0},
    ]
    assert build(AugmentConfig, config.model_dump(mode="json")) == config
    assert AugmentConfig() == build(AugmentConfig, {"student": [], "teacher": []})


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ("time_oot", f"unknown augmentation time_oot; accepted are {', '.join(AUGMENTATIONS)}"),
        ("time_oot", "did you mean time_out?"),
        (
            {"name": "blur"},
            "student.0 = {'name': 'blur'}: unknown augmentation blur; accepted are resized_crop",
        ),
        ({"p": 0.5}, "give a name or a mapping with one, such as {name: time_out, p: 0.5}; accepted are"),
        (3, "student.0 = 3: give a name or a mapping with one"),
        ({"name": ["time_out"]}, "give a name or a mapping with one"),
        (
            {"name": "time_out", "longest": 1},
            "unknown key longest (value 1); accepted here: longest_s, name, p",
        ),
        ({"name": "time_out", "longest_s": -1}, "time_out: longest_s = -1: Input should be greater than"),
        ({"name": "time_out", "p": 1.5}, "time_out: p = 1.5: Input should be less than or equal to 1"),
        ({"name": "lead_drop", "lead_p": 2}, "lead_drop: lead_p = 2"),
        ({"name": "gaussian_noise", "rms_uv": float("inf")}, "gaussian_noise: rms_uv = inf"),
        (
            {"name": "baseline_wander", "lowest_hz": 2},
            "baseline_wander: lowest_hz = 2 is above highest_hz = 1",
        ),
        ({"name": "powerline", "frequencies_hz": []}, "give one or more frequencies above 0, e.g. [50, 60]"),
        ({"name": "powerline", "frequencies_hz": [-50]}, "give one or more frequencies above 0"),
    ],
)
def test_a_wrong_entry_is_named_with_what_is_accepted(entry: Any, sentence: str) -> None:
    with pytest.raises(ConfigError) as raised:
        build(AugmentConfig, {"student": [entry]})
    assert sentence in str(raised.value)


def test_random_numbers_go_by_name_so_that_others_may_come_and_go() -> None:
    short = build(AugmentConfig, {"student": ["time_out", "powerline"]}).student
    long = build(AugmentConfig, {"student": ["lead_drop", "time_out", "time_out", "powerline"]}).student
    keys = stream_keys(long)
    assert len(set(keys)) == 4
    assert stream_keys(short) == [keys[1], keys[3]]


class Inverted(Augmentation):
    """All that a new augmentation is: a name, a strength, how many numbers it takes, and what it does.

    May destroy: the axis.
    """

    num_uniform: ClassVar[int] = 1

    name: Literal["inverted"] = "inverted"
    share: float = Field(default=0.5, ge=0, le=1)

    def effect(self, rows: Rows, rate_hz: float, randoms: Randoms) -> Scaled:
        sign = torch.where(randoms.uniform < self.share, -1.0, 1.0)
        return Scaled(sign[:, :, None])


def test_a_new_one_is_a_class_and_a_line_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(AUGMENTATIONS, "inverted", Inverted)
    chosen = augmentation("inverted", share=1.0, p=1.0)
    view = batch()
    assert torch.equal(applied(chosen, view, RATE_HZ, randoms(chosen)).signal_uv, -view.signal_uv)
    (again,) = build(AugmentConfig, AugmentConfig(student=(chosen,)).model_dump(mode="json")).student
    assert again == chosen
