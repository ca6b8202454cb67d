import math

import pytest
import torch
from torch import Tensor

from ecgdist.models.s4d import S4D_SIZES, S4d, S4dLayer


def state_space(width: int = 3, state: int = 6) -> S4d:
    torch.manual_seed(0)
    return S4d(width, state).double()


def recurrence(module: S4d, u: Tensor) -> Tensor:
    """x_k = a x_{k-1} + b u_k, y = 2 Re(C x) + D u sample by sample, and the same backwards, one sample later."""
    log_a, b, c = module.discrete()
    y = torch.zeros_like(u)
    for direction, times in enumerate((range(u.shape[2]), range(u.shape[2] - 1, -1, -1))):
        x = torch.zeros(len(u), *log_a.shape, dtype=torch.complex128)
        for k in times:
            if direction == 1:
                y[:, :, k] += 2 * (c[1] * x).sum(dim=2).real
            x = log_a.exp() * x + b * u[:, :, k, None]
            if direction == 0:
                y[:, :, k] += 2 * (c[0] * x).sum(dim=2).real
    return y + module.skip[:, None] * u


@pytest.mark.parametrize("samples", [1, 2, 31, 64])
def test_the_fft_convolution_equals_the_recurrence(samples: int) -> None:
    module = state_space()
    u = torch.randn(2, 3, samples, dtype=torch.float64)
    torch.testing.assert_close(module(u), recurrence(module, u), atol=1e-12, rtol=1e-12)


def test_a_zero_order_hold_follows_the_continuous_system() -> None:
    """Of a step of ones, x(t) = (exp(A t) - 1) / A, exactly, at every multiple of the step."""
    module = state_space()
    log_a, b, _ = module.discrete()
    decay = module.log_decay.exp().reshape(3, 3)
    mode = torch.complex(-decay, module.frequency.reshape(3, 3))
    step = module.log_step.exp()[:, None]
    x = torch.zeros_like(b)
    for k in range(1, 20):
        x = log_a.exp() * x + b
        torch.testing.assert_close(x, ((mode * step * k).exp() - 1) / mode, atol=1e-12, rtol=1e-10)


def test_modes_begin_as_s4d_lin_and_steps_between_a_thousandth_and_a_tenth() -> None:
    module = state_space(width=200, state=8)
    torch.testing.assert_close(module.log_decay.exp(), torch.full((800,), 0.5, dtype=torch.float64))
    expected = math.pi * torch.arange(4, dtype=torch.float64)
    torch.testing.assert_close(module.frequency.reshape(200, 4)[7], expected, atol=1e-6, rtol=1e-6)
    steps = module.log_step.exp()
    assert 1e-3 <= steps.min() < 2e-3
    assert 5e-2 < steps.max() <= 1e-1


def test_an_impulse_is_seen_on_both_sides_and_further_than_any_kernel_of_a_convolution() -> None:
    module = state_space(width=8, state=8)
    u = torch.zeros(1, 8, 400, dtype=torch.float64)
    u[:, :, 200] = 1
    y = module(u).abs().amax(dim=1)[0]
    assert y[:100].max() > 1e-3
    assert y[300:].max() > 1e-3


def test_the_gradient_is_the_derivative() -> None:
    module = state_space(width=2, state=4)
    u = torch.randn(1, 2, 7, dtype=torch.float64, requires_grad=True)
    parameters = [weight.detach().clone().requires_grad_() for weight in module.parameters()]
    names = [name for name, _ in module.named_parameters()]

    def run(u: Tensor, *weights: Tensor) -> Tensor:
        return torch.func.functional_call(module, dict(zip(names, weights, strict=True)), (u,))

    assert torch.autograd.gradcheck(run, (u, *parameters))


def test_a_layer_keeps_padding_out_of_what_is_valid_and_its_gradient_is_the_derivative() -> None:
    torch.manual_seed(0)
    layer = S4dLayer(4, 4).double()
    torch.nn.init.normal_(layer.norm.bias)
    valid = torch.arange(9) < torch.tensor([[9], [5]])
    x = torch.randn(2, 9, 4, dtype=torch.float64, requires_grad=True)
    short = layer(x[1:, :5], valid[1:, :5])
    torch.testing.assert_close(layer(x, valid)[1:, :5], short, atol=1e-12, rtol=1e-12)
    assert torch.autograd.gradcheck(lambda x: layer(x, valid) * valid[:, :, None], (x,))


def test_float32_is_near_float64_over_ten_seconds() -> None:
    module = state_space(width=16, state=8)
    u = torch.randn(1, 16, 1250, dtype=torch.float64)
    expected = module(u)
    seen = module.float()(u.float()).double()
    assert (seen - expected).abs().max() < 1e-4 * expected.abs().max()


def test_weight_decay_spares_the_modes() -> None:
    """Optimizers decay weights of more than one dimension."""
    module = state_space()
    spared = {name for name, weight in module.named_parameters() if weight.ndim == 1}
    assert spared == {"log_step", "log_decay", "frequency", "skip"}


@pytest.mark.parametrize("name", S4D_SIZES)
def test_a_state_is_whole_pairs(name: str) -> None:
    assert S4D_SIZES[name].state % 2 == 0
