import math

import pytest
import torch

from ecgdist.errors import TrainingError
from ecgdist.objectives.config import ObjectiveConfig
from ecgdist.objectives.hybrid import PretrainingModule
from ecgdist.objectives.teacher import MomentumTeacher, momentum_at
from tests.models.batches import TINY, WINDOW, ragged


def student_and_teacher() -> tuple[PretrainingModule, MomentumTeacher]:
    torch.manual_seed(0)
    student = PretrainingModule(TINY, ObjectiveConfig(), WINDOW)
    teacher = student.teacher()
    assert teacher is not None
    return student, teacher


def test_it_starts_as_a_copy_and_not_as_the_same_weights() -> None:
    student, teacher = student_and_teacher()
    own, followed = dict(teacher.named_parameters()), dict(student.student_parameters())
    assert own.keys() == followed.keys()
    assert all(torch.equal(own[name], followed[name]) for name in own)
    assert not {weight.data_ptr() for weight in own.values()} & {w.data_ptr() for w in followed.values()}


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.996, 1.0])
def test_an_update_follows_its_formula(momentum: float) -> None:
    student, teacher = student_and_teacher()
    before = {name: weight.double() for name, weight in teacher.named_parameters()}
    moved = {
        name: weight.detach() + 0.1 * torch.randn_like(weight)
        for name, weight in student.student_parameters()
    }
    teacher.update(moved.items(), momentum)
    for name, weight in teacher.named_parameters():
        expected = momentum * before[name] + (1 - momentum) * moved[name].double()
        assert (weight.double() - expected).abs().max() < 1e-7 * max(1.0, expected.abs().max().item())


def test_small_steps_of_a_bfloat16_student_are_not_lost() -> None:
    student, _ = student_and_teacher()
    student.to(torch.bfloat16)
    teacher = MomentumTeacher(student.encoder, student.projector)
    assert all(weight.dtype == torch.float32 for weight in teacher.parameters())
    before = teacher.encoder.transformer.norm.weight.clone()
    moved = {name: weight.detach() + 0.01 for name, weight in student.student_parameters()}
    for _ in range(10):
        teacher.update(moved.items(), 0.999)
    assert (teacher.encoder.transformer.norm.weight - before).mean().item() == pytest.approx(
        (moved["encoder.transformer.norm.weight"].float() - 1).mean().item() * (1 - 0.999**10), rel=1e-2
    )


def test_keys_have_length_one_and_no_gradient() -> None:
    _, teacher = student_and_teacher()
    keys = teacher.keys(*ragged(4))
    torch.testing.assert_close(keys.norm(dim=1), torch.ones(4))
    assert not keys.requires_grad
    assert not any(weight.requires_grad for weight in teacher.parameters())


@pytest.mark.parametrize("fault", ["missing", "unknown", "shape"])
def test_weights_that_do_not_match_are_refused_and_change_nothing(fault: str) -> None:
    student, teacher = student_and_teacher()
    before = {name: weight.clone() for name, weight in teacher.named_parameters()}
    given = {name: weight.detach() + 1 for name, weight in student.student_parameters()}
    name = "projector.layers.0.weight"
    if fault == "missing":
        del given[name]
    elif fault == "unknown":
        given["decoder.mask_token"] = torch.zeros(64)
    else:
        given[name] = torch.zeros(0)
    said = {"missing": name, "unknown": "decoder.mask_token", "shape": r"shape \(0,\)"}[fault]
    with pytest.raises(TrainingError, match=said):
        teacher.update(given.items(), 0.5)
    assert all(torch.equal(weight, before[key]) for key, weight in teacher.named_parameters())


def test_momentum_rises_by_half_a_cosine() -> None:
    path = [momentum_at(step, 100, 0.996, 1.0) for step in range(101)]
    assert path[0] == pytest.approx(0.996)
    assert path[50] == pytest.approx(0.998)
    assert path[100] == 1.0
    assert path[25] == pytest.approx(1 - 0.004 * (math.cos(math.pi / 4) + 1) / 2)
    assert path == sorted(path)
    assert momentum_at(101, 100, 0.996, 1.0) == 1.0
