"""Masked affine steps against numerical Jacobians."""

from collections.abc import Sequence

import numpy as np
import pytest
from keras import ops

from helpers import gradient, jacobians, randomize, tensor, to_numpy
from keras_vae.distributions.bijectors import MaskedAffineBijector

rng = np.random.default_rng(4)


@pytest.fixture(autouse=True)
def same_numbers_whatever_ran_before() -> None:
    rng.bit_generator.state = np.random.default_rng(4).bit_generator.state


DEGREES = [(0, 1, 2, 3), (3, 1, 0, 2), (0, 1, 0, 1), (1, 0, 1), (0,), (1,)]


def make(degrees: Sequence[int], hidden: Sequence[int] = (16, 16), context_dim: int = 0) -> MaskedAffineBijector:
    step = MaskedAffineBijector(degrees, hidden, context_dim)
    randomize(step, 0.7)
    return step


@pytest.mark.parametrize("degrees", DEGREES)
@pytest.mark.parametrize("hidden", [(), (16,), (16, 16)])
def test_jacobian_is_triangular_in_the_order_of_degrees(degrees: tuple[int, ...], hidden: tuple[int, ...]) -> None:
    step = make(degrees, hidden)
    u = rng.normal(size=(5, len(degrees))).astype("float32")
    jacobian = jacobians(lambda u: step.transform(u)[0], u)
    order = np.array(degrees)
    lower = order[:, None] > order[None]
    assert not jacobian[:, ~lower & ~np.eye(len(degrees), dtype=bool)].any()
    # Every dependence that the order allows is there.
    assert (np.abs(jacobian[:, lower]).max(0) > 1e-3).all()
    log_scale = to_numpy(step.transform(tensor(u))[1])
    np.testing.assert_allclose(np.log(np.diagonal(jacobian, axis1=1, axis2=2)), log_scale, atol=2e-3)


@pytest.mark.parametrize("degrees", DEGREES)
def test_inverse_undoes_forward_in_as_many_passes_as_degrees(
    degrees: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    step, u = make(degrees), rng.normal(size=(6, len(degrees))).astype("float32")
    v, log_scale = step.transform(tensor(u))
    if len(degrees) > 1:
        assert np.abs(to_numpy(v) - u).max() > 0.1
    num_passes, evaluate = [], step._shift_and_log_scale
    monkeypatch.setattr(step, "_shift_and_log_scale", lambda *args: num_passes.append(1) or evaluate(*args))
    back, minus_log_scale = step.inverse(v)
    assert len(num_passes) == max(degrees) + 1
    np.testing.assert_allclose(to_numpy(back), u, atol=1e-4)
    np.testing.assert_allclose(to_numpy(minus_log_scale), -to_numpy(log_scale), atol=1e-4)
    np.testing.assert_allclose(to_numpy(step.transform(step.inverse(tensor(u))[0])[0]), u, atol=1e-4)


def test_context_steers_every_dimension_and_broadcasts_over_draws() -> None:
    step = make((0, 1, 2), context_dim=4)
    u, context = rng.normal(size=(5, 7, 3)).astype("float32"), rng.normal(size=(5, 1, 4)).astype("float32")
    together = to_numpy(step.transform(tensor(u), tensor(context))[0])
    alone = [to_numpy(step.transform(tensor(u[row]), tensor(context[row]))[0]) for row in range(5)]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    other = to_numpy(step.transform(tensor(u), tensor(context + 1.0))[0])
    assert (np.abs(other - together).reshape(-1, 3).max(0) > 1e-2).all()
    back = to_numpy(step.inverse(tensor(together), tensor(context))[0])
    np.testing.assert_allclose(back, u, atol=1e-4)


@pytest.mark.parametrize("direction", ["transform", "inverse"])
def test_frozen_weights_have_no_gradient_and_codes_keep_theirs(direction: str) -> None:
    step, u = make((0, 1), context_dim=2), rng.normal(size=(4, 2)).astype("float32")
    context = tensor(rng.normal(size=(4, 2)))

    def loss(u: object, detach_weights: bool) -> object:
        v, log_scale = getattr(step, direction)(u, context, detach_weights)
        return ops.sum(ops.square(v) + log_scale)

    free, of_weights = gradient(lambda u: loss(u, False), u, [step])
    kept, of_frozen = gradient(lambda u: loss(u, True), u, [step])
    np.testing.assert_allclose(kept, free, rtol=1e-4, atol=1e-5)
    assert all(np.abs(change).max() > 1e-4 for change in of_weights)
    assert not any(change.any() for change in of_frozen)


def test_log_scales_are_bounded_and_a_fresh_step_is_nearly_the_identity() -> None:
    step, u = make((0, 1, 2)), rng.normal(size=(50, 3)).astype("float32")
    randomize(step, 100.0)
    assert np.abs(to_numpy(step.transform(tensor(u))[1])).max() <= 2.0
    fresh = MaskedAffineBijector((0, 1, 2), (16,))
    np.testing.assert_allclose(to_numpy(fresh.transform(tensor(u))[0]), u, atol=0.3)
