"""Experiments: TOML ↔ object, presets, overrides, and invalid values."""

import re
from pathlib import Path
from typing import Any

import pytest

from keras_vae.core.errors import InputError
from keras_vae.data.info import DatasetInfo
from keras_vae.runs.build import resolve
from keras_vae.runs.experiment import FORMAT, Experiment, preset_names

INFO = DatasetInfo(image_shape=(28, 28, 1), images=1000, classes=10)


@pytest.mark.parametrize("name", preset_names())
def test_resolved_preset_survives_a_round_trip_through_toml(name: str) -> None:
    info = INFO._replace(image_shape=(32, 32, 3)) if name.startswith("kl-") else INFO
    resolved = resolve(Experiment.preset(name), info).experiment
    again = Experiment.from_toml(resolved.to_toml(), "text")
    assert again == resolved
    assert resolve(again, info).experiment == resolved
    assert resolved.name == name
    assert "seed = 0" in resolved.to_toml()


def test_classic_has_the_settings_of_the_readme() -> None:
    experiment = Experiment.preset("classic")
    assert experiment.data.source == "mnist"
    assert experiment.data.holdout
    training = experiment.training
    assert (training.epochs, training.batch_size, training.learning_rate, training.optimizer) == (30, 128, 1e-3, "adam")
    assert experiment.model.latent_dim == 2
    assert experiment.model.objective == {"name": "elbo", "beta": 1.0}


def test_tutorial_weights_the_kl_by_one_over_latent_dim_and_holds_nothing_out() -> None:
    experiment = Experiment.preset("tutorial")
    for latent_dim in (2, 8):
        resolved = resolve(experiment.with_overrides([f"model.latent_dim={latent_dim}"]), INFO).experiment
        assert resolved.model.objective["beta"] == 1 / latent_dim
    assert not experiment.data.holdout
    assert "nothing held out" in experiment.description


def test_overrides_set_nested_values_in_toml() -> None:
    experiment = Experiment.preset("classic").with_overrides(
        ["training.epochs=5", "model.objective.beta=4.0", "data.source=digits", "data.image_size=[16, 20]", "seed=3"]
    )
    assert experiment.training.epochs == 5
    assert experiment.model.objective == {"name": "elbo", "beta": 4.0}
    assert experiment.data.source == "digits"
    assert experiment.data.image_size == [16, 20]
    assert experiment.seed == 3


def test_overrides_can_choose_a_component_and_then_set_its_arguments() -> None:
    experiment = Experiment.preset("classic").with_overrides(["model.objective=elbo", "model.objective.beta=2.0"])
    assert experiment.model.objective == {"name": "elbo", "beta": 2.0}


@pytest.mark.parametrize("text", ["objective = { beta = 4.0 }", "objective = { name = 5 }", "prior = 5"])
def test_component_without_a_name_is_rejected(text: str) -> None:
    with pytest.raises(InputError, match=r"model\.(objective|prior)"):
        Experiment.from_toml(f"[model]\n{text}", "text")


def test_component_may_be_given_by_its_name_only() -> None:
    experiment = Experiment.from_toml('[model]\nprior = "standard-normal"', "text")
    assert experiment.model.prior == {"name": "standard-normal"}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("training.epochs=0", "training.epochs = 0: too small; choose at least 1"),
        ("training.epochs=-1", "training.epochs = -1"),
        ("training.epochs=many", "training.epochs = 'many': not an integer; pass an integer"),
        ("training.epoch=5", "training.epoch = 5: no such setting; did you mean 'epochs'?"),
        ("trainin.epochs=5", "did you mean 'training'"),
        ("model.latent_dim=0", "model.latent_dim = 0"),
        ("model.latent_dim=2.5", "model.latent_dim = 2.5"),
        ("training.learning_rate=0", "training.learning_rate = 0: too small; choose more than 0"),
        ("training.learning_rate=nan", "training.learning_rate = nan"),
        (
            "training.precision=float16",
            "training.precision = 'float16': unknown; did you mean 'float32'? accepted: auto, ",
        ),
        ("data.validation=-0.1", "data.validation = -0.1"),
        ("data.image_size=[28]", "pass [height, width]"),
        ("data.colour=gray", "did you mean 'color'"),
        ("training.epochs", "not of the form key=value"),
        ("=5", "not of the form key=value"),
        ("seed=-1", "seed = -1"),
        (
            "model.prior.num_component=3",
            "model.prior.num_component = 3: model.prior is not set; choose it as well: "
            "model.prior={name = …, num_component = 3}",
        ),
        (
            "model.objective.schedule.steps=0.5",
            "model.objective.schedule is not set; choose it as well: model.objective.schedule={name = …, steps = 0.5}",
        ),
        ("model.priors.components=3", "model.priors.components = 3: no such setting; did you mean 'prior'?"),
        (
            "model.image_losses[0].weight=2",
            "model.image_losses[0].weight = 2: a list is set as a whole; pass model.image_losses = [ … ]",
        ),
        (
            'model.image_losses={name="adversarial"}',
            "a table, not a list of tables; pass it in brackets, as [{ … }]",
        ),
        (
            "training.epochs.x=3",
            "training.epochs = 30 is not a table; set training.epochs itself",
        ),
        ("format=2", "format = 2: too large; choose at most 1"),
        ("training.keep=" + "[" * 5000, "training.keep = '[[["),
        ("model.latent_dim=" + "9" * 5000, "model.latent_dim = '999"),
    ],
)
def test_invalid_override_is_rejected_with_its_key_and_value(setting: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        Experiment.preset("classic").with_overrides([setting])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"modl": {}}, "modl = {}: no such setting; did you mean 'model'?"),
        ({"training": {"epochs": -1}}, "training.epochs = -1: too small; choose at least 1"),
        ({"training": {"epoch": 1}}, "training.epoch = 1: no such setting; did you mean 'epochs'?"),
        ({"model": 3}, "model = 3: not a table; pass a table"),
    ],
)
def test_constructor_rejects_an_invalid_value_with_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        Experiment(**values)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = ", "not TOML"),
        (f"format = {FORMAT + 1}", f"written by a newer keras-vae (format {FORMAT + 1}"),
        ("[training]\nepochs = true", "training.epochs = True"),
        ("[models]", "did you mean 'model'"),
        ("a = " + "[" * 5000, "nested too deeply"),
        ("model.prior" + ".a" * 5000 + " = 1", "within more than 16 others"),
        ("seed = " + "9" * 5000, "not TOML"),
        ("format = -5", "format = -5: too small; choose at least 1"),
    ],
)
def test_invalid_file_is_rejected(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "experiment.toml"
    file.write_text(text)
    with pytest.raises(InputError) as error:
        Experiment.from_file(file)
    assert message in str(error.value)
    assert str(file) in str(error.value)


def test_missing_file_binary_file_and_unknown_preset_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "image.toml").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(InputError, match="not text in UTF-8"):
        Experiment.from_file(tmp_path / "image.toml")
    with pytest.raises(InputError, match=r"no such experiment file; pass the path of an existing file$"):
        Experiment.from_file(tmp_path / "nowhere.toml")
    with pytest.raises(InputError, match="did you mean 'classic'"):
        Experiment.preset("clasic")


def test_overrides_given_as_one_string_are_rejected() -> None:
    with pytest.raises(InputError, match=r"settings = 'training.epochs=1': a string; pass a list, such as"):
        Experiment().with_overrides("training.epochs=1")


def test_every_preset_cites_its_paper() -> None:
    assert preset_names() == sorted(
        [
            "compact",
            *("tutorial", "classic", "mlp", "iwae", "vamp", "flow-prior", "iaf", "beta-vae", "beta-tcvae", "dip-vae"),
            *("info-vae", "conditional", "ladder", "vq", "rae", "continuous-bernoulli", "photo", "kl-f4", "kl-f8"),
        ]
    )
    for name in preset_names():
        description = Experiment.preset(name).description
        assert any(source in description for source in ("arXiv", "ICLR", "NeurIPS", "chapter")), name


@pytest.mark.parametrize("name", preset_names())
def test_descriptions_state_no_number_that_another_setting_would_make_wrong(name: str) -> None:
    # A run keeps the description of its preset, whatever else is overridden.
    text = re.sub(r"\([^)]*\)", "", Experiment.preset(name).description)
    assert not re.search(r"\d|\b(two|five|sixteen)\b", text)
