"""Schedules against their formulas."""

import json
import math
import tomllib
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tomli_w
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
    without_annealing,
)
from keras_vae.core import registry
from keras_vae.core.errors import InputError
from keras_vae.runs.experiment import Experiment

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
def test_schedule_equals_its_formula_at_every_step(schedule: Schedule, formula: Callable[[int], float]) -> None:
    # In a model, the step is an int32 weight.
    values = [schedule(ops.convert_to_tensor(step, "int32")) for step in STEPS]
    assert {keras.backend.standardize_dtype(value.dtype) for value in values} == {"float32"}
    np.testing.assert_allclose([float(value) for value in values], [formula(int(step)) for step in STEPS], atol=1e-6)
    assert min(float(value) for value in values) >= 0
    assert max(float(value) for value in values) <= 1


def test_fractions_of_all_training_steps_become_steps() -> None:
    assert in_steps(WarmUp(steps=0.1), 2000) == WarmUp(steps=200)
    assert in_steps(WarmUp(steps=50), 2000) == WarmUp(steps=50)
    assert in_steps(Cosine(), 300) == Cosine(steps=300)
    assert in_steps(Cyclical(steps=0.001), 100) == Cyclical(steps=1)
    assert in_steps(Constant(), 100) == Constant()
    assert in_steps(ELBO(beta=2.0, schedule=WarmUp(steps=0.5)), 100) == ELBO(beta=2.0, schedule=WarmUp(steps=50))
    assert in_steps(BetaTC(), 100) == BetaTC()


@pytest.mark.parametrize("kind", [WarmUp, Cyclical, Cosine, Exponential])
def test_integer_one_is_one_step_and_float_one_is_all_steps(kind: type[Schedule]) -> None:
    name = {cls: name for name, cls in registry.registered("schedule").items()}[kind]
    for one, steps in ((1, 1), (np.int64(1), 1), (1.0, 2000), (np.float32(0.5), 1000)):
        assert in_steps(kind(steps=one), 2000).steps == steps
    for text, steps in (("1", 1), ("1.0", 2000), ("1.5", 1.5), ("3", 3)):
        # From an experiment file to the file of the run, and from there to the file of the model.
        spec = tomllib.loads(f"name = '{name}'\nsteps = {text}")
        schedule = registry.build("schedule", spec)
        written = tomli_w.dumps(registry.spec("schedule", schedule))
        assert registry.build("schedule", tomllib.loads(written)) == schedule
        config = json.loads(json.dumps(keras.saving.serialize_keras_object(schedule)))
        loaded = keras.saving.deserialize_keras_object(config)
        assert loaded == schedule
        assert type(loaded.steps) is type(schedule.steps)
        for instance in (schedule, loaded, in_steps(schedule, 2000)):
            assert in_steps(instance, 2000).steps == steps
    override = Experiment().with_overrides([f"training.schedule={{name='{name}', steps=1}}"])
    assert type(Experiment.from_toml(override.to_toml(), "").training.schedule["steps"]) is int


def test_schedule_of_an_objective_can_be_removed() -> None:
    assert without_annealing(ELBO(beta=2.0, schedule=WarmUp(steps=3))) == ELBO(beta=2.0)
    assert without_annealing(BetaTC(beta=2.0)) == BetaTC(beta=2.0)


@pytest.mark.parametrize("schedule", [WarmUp(), Cyclical(), Cosine(), Exponential(), WarmUp(steps=0.5)])
def test_fraction_of_an_unknown_number_of_steps_is_rejected(schedule: Schedule) -> None:
    with pytest.raises(
        InputError,
        match=r"steps = [\d.]+: a fraction of all training steps, but their number is unknown outside of an experiment",
    ):
        schedule(3)
    assert 0 <= float(in_steps(schedule, 10)(3)) <= 1


def test_optimizer_follows_a_scheduled_rate_that_keras_can_save() -> None:
    rate = ScheduledRate(0.5, WarmUp(steps=4))
    variable = keras.Variable(np.zeros(1, "float32"))
    optimizer = keras.optimizers.SGD(rate)
    changes = []
    for _ in range(6):
        before = to_numpy(variable).copy()
        optimizer.apply([ops.ones(1)], [variable])
        changes.append(float((before - to_numpy(variable))[0]))
    np.testing.assert_allclose(changes, [0, 0.125, 0.25, 0.375, 0.5, 0.5], atol=1e-6)
    loaded = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(rate))
    assert (loaded.learning_rate, loaded.schedule) == (0.5, WarmUp(steps=4))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: WarmUp(steps=0), "steps = 0: not a valid length; pass a finite number"),
        (lambda: WarmUp(steps=math.nan), "steps = nan"),
        (lambda: WarmUp(steps=math.inf), "steps = inf"),
        (lambda: Cyclical(steps=-1), "steps = -1"),
        (lambda: Cyclical(rise=0), r"rise = 0: not a fraction of a cycle; pass a number in \(0, 1\]"),
        (lambda: Cyclical(rise=1.5), "rise = 1.5"),
        (lambda: Cosine(steps=0), "steps = 0"),
        (lambda: Cosine(warm_up=1.0), r"warm_up = 1.0: out of range; pass a number in \[0, 1\)"),
        (lambda: Cosine(end=-0.1), "end = -0.1"),
        (lambda: Exponential(steps=0), "steps = 0"),
        (lambda: Exponential(end=0), r"end = 0: out of range; pass a number in \(0, 1\]"),
        (lambda: Exponential(end=2), "end = 2"),
    ],
)
def test_invalid_schedule_is_rejected(build: Callable[[], Schedule], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()
