"""Checks of synthetic facts about a run: every problem is found, and healthy runs have no findings."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from synthetic_runs import (
    EPOCHS,
    FSQ,
    GRAY,
    HEALTHY,
    LADDER,
    VQ,
    black_and_white,
    code_counts,
    codes,
    curve,
    discriminator,
    experiment,
    falling,
    history,
    offset,
    rising,
    varying,
)

from keras_vae.core import registry
from keras_vae.evaluation.diagnostics import CHECKS, Finding, RunDiagnostics, run_checks


def names(findings: Sequence[Finding]) -> list[str]:
    return [finding.name for finding in findings]


PROBLEMS: dict[str, tuple[list[str], dict[str, Any], list[str]]] = {
    "collapse": (
        ["posterior collapse"],
        codes(informed=0) | {"metrics": history(kl_loss=[3.0] * 5 + [0.01] * 7, val_kl_loss=[3.0] * 5 + [0.01] * 7)},
        ["All 4 latent dimensions are unused since epoch 6 of 12", "warm-up"],
    ),
    "discriminator wins": (
        ["winning discriminator"],
        discriminator(loss=0.04, accuracy=0.992, real=3.1, fake=-4.0),
        ["99.2%", "0.040", "3.1", "-4.0", "start"],
    ),
    "discriminator learns nothing": (
        ["idle discriminator"],
        discriminator(loss=1.99, accuracy=0.5, real=0.01, fake=0.02),
        ["1.99", "learning_rate (now 0.001)"],
    ),
    "collapse of a flow": (
        ["posterior collapse"],
        codes(informed=0) | {"kl_per_group": np.full((200, 1), 0.02)},
        ["0.02"],
    ),
    "collapse without noise": (
        ["posterior collapse"],
        codes(informed=0) | {"kl_per_group": None, "z_log_var": None, "z_mean": np.full((200, 4), 0.5)},
        ["variance of 0", "All 4"],
    ),
    "collapse under β": (
        ["posterior collapse", "β too large"],
        codes(informed=0) | {"experiment": experiment("model.objective.beta=50.0")},
        ["model.objective.beta (now 50)"],
    ),
    "β outweighs the reconstruction": (
        ["β too large"],
        {"kl_per_group": np.full((200, 4), 0.2), "experiment": experiment("model.objective.beta=8.0")},
        ["β is 8", "0.8 nats", "reconstruction loss of 90.0"],
    ),
    "most dimensions unused": (
        ["unused latent dimensions"],
        codes(dimensions=20, informed=4),
        [
            "dimensions 4, 5, 6, 7, 8, 9, 10, 11 and 8 more (counted from 0) are unused",
            "4 of 20",
            "latent_dim (now 20)",
        ],
    ),
    "one dimension of two unused": (
        ["unused latent dimensions"],
        codes(dimensions=2, informed=1),
        ["dimension 1", "1 of 2", "map"],
    ),
    "one group of three unused": (
        ["unused groups"],
        LADDER | {"kl_per_group": varying([3.0, 0.0, 5.0])},
        ["Group 2 (counted from 1) is unused", "shallower"],
    ),
    "noise explodes": (
        ["log-variance out of range"],
        {"z_log_var": np.where(np.arange(4) == 1, 12.0, -1.0) * np.ones((200, 4))},
        ["25%", "12.0", "σ = 4e+02", "learning_rate (now 0.001)"],
    ),
    "noise vanishes": (
        ["log-variance out of range"],
        {"z_log_var": np.full((200, 4), -18.0), "experiment": experiment("model.objective.beta=1e-4")},
        ["100%", "-18.0", "model.objective.beta (now 0.0001)"],
    ),
    "pixels of 0 and 1": (
        ["low contrast"],
        {"train_images": black_and_white() // 255, "held_out_images": None},
        ["between 0 and 1 on the scale", "data.source"],
    ),
    "held-out images inverted": (
        ["inverted images"],
        {"held_out_images": 255 - HEALTHY["train_images"]},
        ["mean pixel is 0.2", "0.79 in the held-out", "invert"],
    ),
    "held-out images brighter": (
        ["held-out images differ"],
        {"held_out_images": black_and_white(white=0.55)},
        ["data.test"],
    ),
    "gray under a Bernoulli": (
        ["unsuitable likelihood"],
        {"train_images": GRAY, "held_out_images": GRAY},
        ["79% of the pixels are gray", "continuous-bernoulli"],
    ),
    "colors under a Bernoulli": (
        ["unsuitable likelihood"],
        {
            "train_images": black_and_white(channels=3),
            "held_out_images": None,
            "experiment": experiment('model.likelihood={ name = "bernoulli", binarize = "dynamic" }'),
        },
        ["3 channels", "discretized-logistic"],
    ),
    "σ vanishes": (
        ["collapsed pixel scale"],
        {"pixel_scale": 0.001, "experiment": experiment("model.likelihood=normal")},
        ["0.0010", "model.likelihood.scale"],
    ),
    "density without bound": (
        ["collapsed pixel scale"],
        {
            "metrics": history(reconstruction_loss=[-6.0 * 16] * EPOCHS),
            "experiment": experiment('model.likelihood={ name = "laplace", scale = "pixel" }'),
        },
        ["-6.00 nats per pixel", "-5.54"],
    ),
    "overfitting": (
        ["overfitting"],
        {"metrics": history(val_total_loss=rising(12, 6, 8))},
        ["Since epoch 6", "rose by", "training.keep", "early_stopping"],
    ),
    "learned nothing": (
        ["loss plateau"],
        {"metrics": history(11.1, 11.0), "train_images": black_and_white(white=0.5), "held_out_images": None},
        ["11.0 nats after 12 epochs", "predicting the mean image costs 11.0", "learning_rate (now 0.001)"],
    ),
    "learned nothing of a density": (
        ["loss plateau"],
        {"metrics": history(-500.0, -501.0), "experiment": experiment("model.likelihood=normal")},
        ["started at -500.0"],
    ),
    "skipped steps": (
        ["non-finite gradients"],
        {"metrics": history(skipped=[0.0] * 11 + [3.0])},
        ["3 steps", "learning_rate", "clip_norm"],
    ),
    "NaN": (["non-finite gradients"], {"metrics": history(val_total_loss=[np.nan] * EPOCHS)}, ["val_total_loss"]),
    "far from the prior": (
        ["codes far from the prior"],
        codes(shift=2.0) | {"experiment": experiment("model.objective.beta=0.1")},
        ["mean 1.99 and variance 1.06", "fit-prior", "model.objective.beta (now 0.1)"],
    ),
    "an offset that costs KL": (
        ["posterior collapse", "codes far from the prior"],
        {**codes(informed=0), **offset(codes(informed=0), 2.0)},
        ["All 4 latent dimensions are unused", "cost 8 nats per image", "away from the prior"],
    ),
    "most dimensions with an offset": (
        ["unused latent dimensions", "codes far from the prior"],
        offset(codes(dimensions=128, informed=4), 1.0),
        ["4 of 128 are used", "cost 62 nats per image"],
    ),
    "a group with a constant KL": (
        ["unused groups"],
        LADDER | {"kl_per_group": varying([3.0, 0.0, 5.0]) + np.array([0.0, 7.0, 0.0])},
        ["Group 2 (counted from 1) is unused", "cost 7 nats"],
    ),
    "inactive by the evaluation": (
        ["posterior collapse"],
        {"evaluation": {"latents": {"latent_dim": 4, "active_units": {"count": 0, "dimensions": []}}}},
        ["All 4 latent dimensions are unused"],
    ),
    "trained for too short": (
        ["under-training"],
        {"metrics": curve(falling(100.0, 45.0))},
        # The slope is 5, and the last 3 of 12 epochs begin with the 10th: 5 · 10.
        ["from 55.0 to 45.0 nats in the last 3 of 12 epochs, 5 nats per epoch", "about 50 more"],
    ),
    "trained for too short and collapsed": (
        ["under-training", "posterior collapse"],
        codes(informed=0)
        | {
            "metrics": history(epochs=3) | {"val_total_loss": [477.0, 340.0, 281.0]},
            "experiment": experiment("training.epochs=3"),
        },
        ["98 nats per epoch", "First train for longer, with training.epochs = 53"],
    ),
    "the last epoch diverges": (
        ["rising loss"],
        {"metrics": history() | {name: [*history()[name][:-1], 9.0] for name in ("total_loss", "val_total_loss")}},
        ["from 5.0 nats in epoch 11 to 9.0 nats in epoch 12", 'training.keep = "best"'],
    ),
    "decoder ignores the code": (
        ["identical reconstructions"],
        {"reconstruction_share": 0.001},
        ["0.1% of the variance", "learning_rate (now 0.001)"],
    ),
    "decoder ignores the label": (
        ["ignored condition"],
        {"reconstruction_share": 0.4, "condition_share": 0.0005, "experiment": experiment("model.latent_dim=2")},
        ["0.05% of the variance", "latent_dim (now 2)"],
    ),
    "outputs are NaN": (["non-finite gradients"], {"outputs_are_finite": False}, ["codes or reconstructions"]),
    "samples are copies": (
        ["copied training images"],
        {
            "evaluation": {
                "samples": {
                    "memorization": {"copying_suspected": True, "share_of_near_copies": 0.4, "three_sample_z": -9.0}
                }
            }
        },
        ["40% of the samples", "z is -9.0"],
    ),
    "codebook collapses": (
        ["collapsed codebook"],
        VQ | {"metrics": history(perplexity=[1.2] * EPOCHS, used_codes=[2.0] * EPOCHS)},
        ["2 codes", "1.2", "model.architecture.quantizer.num_codes (now 64)"],
    ),
    "codes die": (
        ["dead codes"],
        VQ | {"code_counts": code_counts(used=40), "metrics": history(perplexity=[15.0] * EPOCHS)},
        ["24 of 64 codes (38%)", "2,000 indices", "model.architecture.quantizer.decay to 0.9", "fsq or simvq"],
    ),
    "codes of a grid die": (
        ["dead codes"],
        VQ | {"code_counts": code_counts(used=40), "experiment": experiment(FSQ, preset="vq")},
        ["24 of 64 codes", "model.architecture.quantizer.levels (now [4, 4, 4])"],
    ),
}


@pytest.mark.parametrize("case", PROBLEMS)
def test_each_problem_is_found_and_no_other(case: str) -> None:
    expected, changes, texts = PROBLEMS[case]
    findings = run_checks(RunDiagnostics(**HEALTHY | changes))
    assert names(findings) == expected
    message = "\n".join(map(str, findings))
    assert all(text in message for text in texts), message


@pytest.mark.parametrize("case", PROBLEMS)
def test_findings_are_sentences_and_name_settings_that_exist(case: str) -> None:
    _, changes, _ = PROBLEMS[case]
    diagnostics = RunDiagnostics(**HEALTHY | changes)
    settings = diagnostics.experiment.model_dump()
    for finding in run_checks(diagnostics):
        for text in (finding.observation, finding.explanation, finding.suggestion):
            assert text.endswith("."), text
        named = re.findall(r"\b(model|training|data)\.(\w+)", finding.suggestion)
        assert all(name in settings[section] for section, name in named), finding.suggestion


SETTING = re.compile(r"""\b((?:model|training)\.[\w.]+) (?:=|to) (\{[^}]*\}|"?[\w-]+(?:\.\d+)?"?)""")


@pytest.mark.parametrize("case", PROBLEMS)
def test_suggested_settings_are_valid(case: str) -> None:
    _, changes, _ = PROBLEMS[case]
    diagnostics = RunDiagnostics(**HEALTHY | changes)
    for finding in run_checks(diagnostics):
        advice = re.sub(r"\(now [^)]*\)", "", finding.suggestion)
        for key, value in SETTING.findall(advice):
            changed = diagnostics.experiment.with_overrides([f"{key}={value}"])
            for kind in ("objective", "likelihood"):
                registry.build(kind, getattr(changed.model, kind))


def test_settings_are_recognized_in_suggestions() -> None:
    found = SETTING.findall('Set model.likelihood = { name = "normal", scale = 0.1 }, or training.clip_norm = 100.')
    assert found == [("model.likelihood", '{ name = "normal", scale = 0.1 }'), ("training.clip_norm", "100")]


def test_a_finding_prints_its_name_and_three_labeled_lines() -> None:
    assert str(Finding("low contrast", "One level.", "Too few.", "Use more.")).splitlines() == [
        "low contrast",
        "  observation: One level.",
        "  explanation: Too few.",
        "  suggestion:  Use more.",
    ]


def test_every_check_finds_some_problem() -> None:
    triggered = {
        check for _, changes, _ in PROBLEMS.values() for check in CHECKS if check(RunDiagnostics(**HEALTHY | changes))
    }
    assert triggered == set(CHECKS)


HARMLESS: dict[str, dict[str, Any]] = {
    "nothing changed": {},
    "codes in a small unit": {"z_mean": 0.01 * codes()["z_mean"], "reconstruction_share": 0.4},
    "converging slowly": {
        "metrics": curve([150 + 60 / epoch for epoch in range(1, 31)]),
        "experiment": experiment("training.epochs=30"),
        "train_images": None,
    },
    "falling by less than the noise": {
        "metrics": curve([30.0, 12, 11, 11.3, 10.7, 11.2, 10.6, 11.1, 10.5, 11.0, 10.4, 10.9]),
    },
    "interrupted while the loss falls": {
        "metrics": curve(falling(100.0, 45.0)),
        "experiment": experiment("training.epochs=50"),
    },
    "spike in the last epoch, best one kept": {
        "metrics": history() | {name: [*history()[name][:-1], 9.0] for name in ("total_loss", "val_total_loss")},
        "experiment": experiment("training.keep=best"),
    },
    "labels and codes used": {"reconstruction_share": 0.4, "condition_share": 0.13},
    "half of the dimensions unused": codes(dimensions=50, informed=20),
    "only an experiment and metrics": dict.fromkeys(
        ("train_images", "held_out_images", "kl_per_group", "z", "z_mean", "z_log_var")
    ),
    "one outlying log-variance": {"z_log_var": np.where(np.arange(800) == 7, 19.0, -2.0).reshape(200, 4)},
    "β still rising": codes(informed=0, shift=3.0) | {"beta_factor": 0.5},
    "latents still unused early in training": codes(informed=0)
    | {"experiment": experiment("training.epochs=50"), "metrics": curve(falling(12.0, 5.0))},
    "another prior": codes(shift=3.0) | {"experiment": experiment('model.prior={ name = "vamp" }')},
    "fitted prior": codes(shift=3.0) | {"has_fitted_prior": True},
    "few codes": {name: values[:5] for name, values in codes(shift=3.0).items()},
    "gray binarized": {
        "train_images": GRAY,
        "held_out_images": GRAY,
        "experiment": experiment('model.likelihood={ name = "bernoulli", binarize = "dynamic" }'),
    },
    "gray under a continuous Bernoulli": {
        "train_images": GRAY,
        "held_out_images": GRAY,
        "experiment": experiment("model.likelihood=continuous-bernoulli"),
    },
    "best epoch kept": {
        "metrics": history(val_total_loss=rising(12, 6, 8)),
        "experiment": experiment("training.keep=best"),
    },
    "noisy validation": {"metrics": history(val_total_loss=[12.0] + [5.0, 5.6] * 5 + [5.0])},
    "converged": {"metrics": history(5.0, 5.0)},
    "all groups used": LADDER | {"kl_per_group": varying([3.0, 1.0, 5.0])},
    "discriminator in balance": discriminator(loss=1.4, accuracy=0.8, real=0.5, fake=-0.4),
    "discriminator close to a win": discriminator(loss=0.3, accuracy=0.97, real=1.5, fake=-1.6),
    "discriminator that just started": discriminator(loss=2.0, accuracy=0.5, real=0.0, fake=0.0, epochs=2),
    "discriminator that raises the negative ELBO": discriminator(loss=1.4, accuracy=0.8, real=0.5, fake=-0.4)
    | {"metrics": curve(rising(12.0, 5.0, 7.0))},
    "codebook used": VQ | {"metrics": history(perplexity=[15.0] * EPOCHS, used_codes=[60.0] * EPOCHS)},
    "most codes used": VQ | {"code_counts": code_counts(used=50)},
    "too few indices to count unused codes": VQ | {"code_counts": code_counts(used=10) // 20},
}


@pytest.mark.parametrize("case", HARMLESS)
def test_harmless_changes_are_not_reported(case: str) -> None:
    assert names(run_checks(RunDiagnostics(**HEALTHY | HARMLESS[case]))) == []


def test_beta_is_the_weight_of_the_kl_only_under_the_elbo() -> None:
    assert RunDiagnostics(experiment=experiment("model.objective.beta=4.0"), metrics={}).beta == 4
    assert RunDiagnostics(experiment=experiment(preset="beta-tcvae"), metrics={}).beta == 1
