"""Schedules against their formulas at given steps."""

import math
from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import ops

from helpers import to_numpy
from keras_vae.components.objectives import ELBO, BetaTC
from keras_vae.components.schedules import (
    Constant,
    Cosine,
    Cyclical,
    Exponential,
    Schedule,
    ScheduledRate,
    WarmUp,
    in_steps,
)
from keras_vae.core.errors import InputError

STEPS = np.arange(0, 61)


def cosine(step: int) -> float:
    if step < 10:
        return min(1.0, step / 10)
    return 0.2 + 0.8 * (1 + math.cos(math.pi * min(1.0, (step - 10) / 30))) / 2


@pytest.mark.parametrize(
    ("schedule", "formula"),
    [
        (Constant(), lambda step: 1.0),
        (WarmUp(steps=20), lambda step: min(1.0, step / 20)),
        (Cyclical(steps=12), lambda step: min(1.0, (step % 12) / 6)),
        (Cyclical(steps=12, rise=1.0), lambda step: (step % 12) / 12),
        (Cosine(steps=40, warm_up=0.25, end=0.2), cosine),
        (Cosine(steps=40), lambda step: (1 + math.cos(math.pi * min(1.0, step / 40))) / 2),
        (Exponential(steps=30, end=0.1), lambda step: 0.1 ** (step / 30)),
    ],
)
def test_schedule_is_its_formula_at_every_step(schedule: Schedule, formula: Callable[[int], float]) -> None:
    # A step is an int32 weight in a model.
    values = [schedule(ops.convert_to_tensor(step, "int32")) for step in STEPS]
    assert {keras.backend.standardize_dtype(value.dtype) for value in values} == {"float32"}
    np.testing.assert_allclose([float(value) for value in values], [formula(int(step)) for step in STEPS], atol=1e-6)
    assert min(float(value) for value in values) >= 0
    assert max(float(value) for value in values) <= 1


def test_shares_of_a_training_become_whole_steps_and_steps_stay() -> None:
    assert in_steps(WarmUp(steps=0.1), 2000) == WarmUp(steps=200)
    assert in_steps(WarmUp(steps=50), 2000) == WarmUp(steps=50)
    assert in_steps(Cosine(), 300) == Cosine(steps=300)
    assert in_steps(Cyclical(steps=0.001), 100) == Cyclical(steps=1)
    assert in_steps(Constant(), 100) == Constant()
    assert in_steps(ELBO(beta=2.0, schedule=WarmUp(steps=0.5)), 100) == ELBO(beta=2.0, schedule=WarmUp(steps=50))
    assert in_steps(BetaTC(), 100) == BetaTC()


@pytest.mark.parametrize("schedule", [WarmUp(), Cyclical(), Cosine(), Exponential(), WarmUp(steps=0.5)])
def test_a_share_of_steps_whose_number_is_unknown_is_refused(schedule: Schedule) -> None:
    with pytest.raises(InputError, match="a share of all steps, whose number only an experiment knows"):
        schedule(3)
    assert 0 <= float(in_steps(schedule, 10)(3)) <= 1


def test_scheduled_rate_is_what_an_optimizer_learns_by_and_survives_keras() -> None:
    rate = ScheduledRate(0.5, WarmUp(steps=4))
    variable = keras.Variable(np.zeros(1, "float32"))
    optimizer = keras.optimizers.SGD(rate)
    moved = []
    for _ in range(6):
        before = to_numpy(variable).copy()
        optimizer.apply([ops.ones(1)], [variable])
        moved.append(float((before - to_numpy(variable))[0]))
    np.testing.assert_allclose(moved, [0, 0.125, 0.25, 0.375, 0.5, 0.5], atol=1e-6)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(rate))
    assert (again.learning_rate, again.schedule) == (0.5, WarmUp(steps=4))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: WarmUp(steps=0), "warm-up: steps = 0"),
        (lambda: WarmUp(steps=math.nan), "warm-up: steps = nan"),
        (lambda: WarmUp(steps=math.inf), "warm-up: steps = inf"),
        (lambda: Cyclical(steps=-1), "cyclical: steps = -1"),
        (lambda: Cyclical(rise=0), r"rise = 0: .* \(0, 1\]"),
        (lambda: Cyclical(rise=1.5), "rise = 1.5"),
        (lambda: Cosine(steps=0), "cosine: steps = 0"),
        (lambda: Cosine(warm_up=1.0), r"warm_up = 1.0: must lie in \[0, 1\)"),
        (lambda: Cosine(end=-0.1), "end = -0.1"),
        (lambda: Exponential(steps=0), "exponential: steps = 0"),
        (lambda: Exponential(end=0), r"end = 0: must lie in \(0, 1\]"),
        (lambda: Exponential(end=2), "end = 2"),
    ],
)
def test_what_no_training_has_is_refused(build: Callable[[], Schedule], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()
