"""The table `[sweep]` of an experiment file: the metric, the sampler, the pruner and the search space."""

import functools
import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from keras_vae.core.config import ConfigModel
from keras_vae.core.errors import InputError, shown
from keras_vae.integrations.sweep.space import Dimension, Values, parse_dimension
from keras_vae.runs.experiment import ComponentSpec, Experiment

_FIXED = {
    "data": "the metric of different images is not comparable",
    "seed": "it would rank seeds; set sweep.repeats to average over several",
    "name": "it does not change the training",
    "description": "it does not change the training",
    "format": "it does not change the training",
    "sweep": "it is a setting of the sweep, not of a trial",
}
"""Settings that a search space must not contain, and the reasons."""

_MAX_COMBINATIONS = 1000
"""Number of combinations of candidate values up to which all of them are validated."""


class SweepConfig(ConfigModel):
    """`[sweep]`: the settings that the trials of a sweep change, and the metric that ranks them.

    Args:
        metric: The number to minimize, on validation images: `negative_elbo`, `total_loss` or `reconstruction_loss`.
            It is that of the weights that the run keeps.
        sampler: Chooses the values of a trial, given the results of others: `tpe`, `random`, `grid`, `qmc`, `cma-es` or
            `gp`, or a table with `name` and arguments of the sampler of Optuna.
        pruner: Stops unpromising trials after an epoch: `median`, `percentile`, `successive-halving`, `hyperband`,
            `threshold` or `nop`, which stops none, or a table with `name` and arguments of the pruner of Optuna. It
            compares the first seed of each trial.
        repeats: Number of seeds per trial, from that of the experiment on; the mean of the metric is reported.
        heartbeat: Seconds between two signs of life of a worker. After twice this time without one, another worker
            resumes its trial.
        space: By dotted key, as for `--set`: a list of choices, or a table with `low`, `high` and optionally `log` or
            `step`. A range is of integers if both of its limits are integers.
    """

    metric: Literal["negative_elbo", "total_loss", "reconstruction_loss"] = "negative_elbo"
    sampler: ComponentSpec = Field({"name": "tpe"})
    pruner: ComponentSpec = Field({"name": "median"})
    repeats: Annotated[int, Field(ge=1, le=1000)] = 1
    heartbeat: Annotated[int, Field(ge=1)] = 60
    space: Annotated[dict[str, Any], Field(min_length=1)]


class SweepExperiment(Experiment):
    """An experiment with a table `[sweep]`.

    Args:
        sweep: The `[sweep]` table.

    Example:
        >>> space = {"model.latent_dim": [2, 8], "training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}
        >>> SweepExperiment.from_tables({"sweep": {"space": space}}).sweep.metric
        'negative_elbo'
    """

    sweep: SweepConfig

    @classmethod
    def from_tables(cls, tables: Mapping[str, Any], where: str = "") -> Self:
        """Return the experiment described by nested tables.

        Args:
            tables: Values by key.
            where: The origin of the values, for error messages; empty if they are arguments.

        Raises:
            InputError: There is no table `[sweep]`, or a key, a value or a candidate of the search space is invalid.
        """
        prefix = f"{where}: " if where else ""
        if "sweep" not in tables:
            raise InputError(f"{prefix}no table [sweep]; add one with a search space, or use `vae train`")
        experiment = super().from_tables(tables, where)
        try:
            experiment._check_space()
        except InputError as error:
            raise InputError(f"{prefix}{error}") from None
        return experiment

    @functools.cached_property
    def space(self) -> dict[str, Dimension]:
        """The search space: the possible values of each setting, by its dotted key."""
        return {key: parse_dimension(f"sweep.space.{key}", value) for key, value in self.sweep.space.items()}

    @property
    def base(self) -> Experiment:
        """The experiment without its table `[sweep]`."""
        return Experiment(**{name: getattr(self, name) for name in Experiment.model_fields})

    def trial(self, values: Mapping[str, Any], repeat: int = 0) -> Experiment:
        """Return the experiment of a trial.

        Args:
            values: Values of the settings in the search space, by dotted key.
            repeat: Number that is added to the seed.

        Raises:
            InputError: A value is invalid.
        """
        return self.base.with_values([*values.items(), ("seed", self.seed + repeat)])

    def candidates(self) -> Iterable[Values]:
        """Return values of trials, to be checked before the first one.

        They are all combinations of the choices and of the limits of ranges if these are few, else combinations that
        differ from the first one in one setting.
        """
        limits = {key: dimension.candidates for key, dimension in self.space.items()}
        if math.prod(map(len, limits.values())) <= _MAX_COMBINATIONS:
            return [dict(zip(limits, values, strict=True)) for values in itertools.product(*limits.values())]
        first = {key: values[0] for key, values in limits.items()}
        return [first, *(first | {key: value} for key, values in limits.items() for value in values[1:])]

    def _check_space(self) -> None:
        for key in self.space:
            if reason := _FIXED.get(key.partition(".")[0]):
                raise InputError(f"sweep.space.{key} = {shown(self.sweep.space[key])}: {reason}; remove it")
        self.trial({}, self.sweep.repeats - 1)
        for values in self.candidates():
            try:
                self.trial(values)
            except InputError as error:
                raise InputError(f"sweep.space: {error}") from None
