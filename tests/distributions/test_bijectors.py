"""Masked affine bijectors against numerical Jacobians."""

from collections.abc import Sequence

import numpy as np
import pytest
from keras import ops

from helpers import gradient, jacobians, randomize, tensor, to_numpy
from keras_vae.distributions.bijectors import MaskedAffineBijector

rng = np.random.default_rng(4)


@pytest.fixture(autouse=True)
def reset_random_numbers() -> None:
    rng.bit_generator.state = np.random.default_rng(4).bit_generator.state


DEGREES = [(0, 1, 2, 3), (3, 1, 0, 2), (0, 1, 0, 1), (1, 0, 1), (0,), (1,)]


def make(degrees: Sequence[int], hidden: Sequence[int] = (16, 16), context_dim: int = 0) -> MaskedAffineBijector:
    bijector = MaskedAffineBijector(degrees, hidden, context_dim)
    randomize(bijector, 0.7)
    return bijector


@pytest.mark.parametrize("degrees", DEGREES)
@pytest.mark.parametrize("hidden", [(), (16,), (16, 16)])
def test_jacobian_is_triangular_in_the_order_of_the_degrees(degrees: tuple[int, ...], hidden: tuple[int, ...]) -> None:
    bijector = make(degrees, hidden)
    u = rng.normal(size=(5, len(degrees))).astype("float32")
    jacobian = jacobians(lambda u: bijector.transform(u)[0], u)
    order = np.array(degrees)
    lower = order[:, None] > order[None]
    assert not jacobian[:, ~lower & ~np.eye(len(degrees), dtype=bool)].any()
    # Every dependence that the order allows exists.
    assert (np.abs(jacobian[:, lower]).max(0) > 1e-3).all()
    log_scale = to_numpy(bijector.transform(tensor(u))[1])
    np.testing.assert_allclose(np.log(np.diagonal(jacobian, axis1=1, axis2=2)), log_scale, atol=2e-3)


@pytest.mark.parametrize("degrees", DEGREES)
def test_inverse_takes_one_pass_per_degree(degrees: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    bijector, u = make(degrees), rng.normal(size=(6, len(degrees))).astype("float32")
    v, log_scale = bijector.transform(tensor(u))
    if len(degrees) > 1:
        assert np.abs(to_numpy(v) - u).max() > 0.1
    num_passes, evaluate = [], bijector._shift_and_log_scale
    monkeypatch.setattr(bijector, "_shift_and_log_scale", lambda *args: num_passes.append(1) or evaluate(*args))
    back, minus_log_scale = bijector.inverse(v)
    assert len(num_passes) == max(degrees) + 1
    np.testing.assert_allclose(to_numpy(back), u, atol=1e-4)
    np.testing.assert_allclose(to_numpy(minus_log_scale), -to_numpy(log_scale), atol=1e-4)
    np.testing.assert_allclose(to_numpy(bijector.transform(bijector.inverse(tensor(u))[0])[0]), u, atol=1e-4)


def test_context_affects_every_dimension_and_broadcasts_over_samples() -> None:
    bijector = make((0, 1, 2), context_dim=4)
    u, context = rng.normal(size=(5, 7, 3)).astype("float32"), rng.normal(size=(5, 1, 4)).astype("float32")
    together = to_numpy(bijector.transform(tensor(u), tensor(context))[0])
    alone = [to_numpy(bijector.transform(tensor(u[row]), tensor(context[row]))[0]) for row in range(5)]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    other = to_numpy(bijector.transform(tensor(u), tensor(context + 1.0))[0])
    assert (np.abs(other - together).reshape(-1, 3).max(0) > 1e-2).all()
    back = to_numpy(bijector.inverse(tensor(together), tensor(context))[0])
    np.testing.assert_allclose(back, u, atol=1e-4)


@pytest.mark.parametrize("direction", ["transform", "inverse"])
def test_detaching_weights_removes_their_gradients_and_keeps_those_of_codes(direction: str) -> None:
    bijector, u = make((0, 1), context_dim=2), rng.normal(size=(4, 2)).astype("float32")
    context = tensor(rng.normal(size=(4, 2)))

    def loss(u: object, detach_weights: bool) -> object:
        v, log_scale = getattr(bijector, direction)(u, context, detach_weights)
        return ops.sum(ops.square(v) + log_scale)

    free, of_weights = gradient(lambda u: loss(u, False), u, [bijector])
    kept, of_detached = gradient(lambda u: loss(u, True), u, [bijector])
    np.testing.assert_allclose(kept, free, rtol=1e-4, atol=1e-5)
    assert all(np.abs(change).max() > 1e-4 for change in of_weights)
    assert not any(change.any() for change in of_detached)


def test_log_scales_are_bounded_and_start_near_the_identity() -> None:
    bijector, u = make((0, 1, 2)), rng.normal(size=(50, 3)).astype("float32")
    randomize(bijector, 100.0)
    assert np.abs(to_numpy(bijector.transform(tensor(u))[1])).max() <= 2.0
    fresh = MaskedAffineBijector((0, 1, 2), (16,))
    np.testing.assert_allclose(to_numpy(fresh.transform(tensor(u))[0]), u, atol=0.3)
