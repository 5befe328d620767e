"""Sweeps: their files, their workers, and the page about them."""

import getpass
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import assert_equal_runs, on_tensorflow
from keras_vae import InputError, cli
from keras_vae.core.errors import hide_passwords
from keras_vae.data.dataset import Splits
from keras_vae.integrations.sweep import Sweep, sweep, write_report
from keras_vae.integrations.sweep.config import SweepExperiment
from keras_vae.integrations.sweep.engine import storage_url
from keras_vae.integrations.sweep.worker import check_candidates
from keras_vae.runs.experiment import Experiment
from keras_vae.runs.run import Run
from keras_vae.training.trainer import train

SCALE = Path(__file__).parents[2] / "docs" / "scale.md"
POSTGRES = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/usr/bin"))
TEXT = """
name = "x"
[data]
source = "digits"
image_size = [6, 6]
[model]
network = { name = "mlp", widths = [4] }
[training]
epochs = 2
batch_size = 8
[sweep]
heartbeat = 1
pruner = "nop"
[sweep.space]
"training.learning_rate" = { low = 1e-4, high = 1e-2, log = true }
"model.latent_dim" = [1, 2]
"""
WORKER = """
import sys
from keras_vae.integrations.sweep import sweep
sweep(sys.argv[1], out=sys.argv[2], trials=int(sys.argv[3]), storage=sys.argv[4] if len(sys.argv) > 4 else None)
"""


def parse(*replaced: tuple[str, str]) -> SweepExperiment:
    text = TEXT
    for old, new in replaced:
        assert old in text
        text = text.replace(old, new)
    return SweepExperiment.from_toml(text, "x.toml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "learning_rate",
            "learning_rat",
            "training.learning_rat = 0.0001: no such setting; did you mean 'learning_rate'?",
        ),
        ("training.learning_rate", "data.source", "sweep.space.data.source"),
        ("training.learning_rate", "seed", "set sweep.repeats"),
        ("low = 1e-4", "low = -1.0", "a logarithmic range contains only numbers above 0"),
        ("low = 1e-4", "low = 1.0", "low is not below high"),
        ("log = true", "lag = true", "did you mean 'log'?"),
        ("[1, 2]", "[1, 1]", "contains a choice twice"),
        ("[1, 2]", "[1, 0]", "model.latent_dim = 0: too small"),
        ("heartbeat", "hartbeat", "did you mean 'heartbeat'?"),
        ("[sweep]", "[sweep]\nmetric = 'negativ_elbo'", "did you mean 'negative_elbo'?"),
    ],
)
def test_files_are_checked_at_once(old: str, new: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        parse((old, new))
    assert str(caught.value).startswith("x.toml: ")
    assert "\n" not in str(caught.value)


def test_other_commands_refuse_the_table() -> None:
    with pytest.raises(InputError, match="has a table"):
        Experiment.from_toml(TEXT, "x.toml")
    with pytest.raises(InputError, match="no table"):
        SweepExperiment.from_toml("seed = 3", "x.toml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('latent_dim" = [1, 2]', 'objective.beta" = [1.0, 4.0]', "use metric = negative_elbo"),
        ('latent_dim" = [1, 2]', 'objective" = ["elbo", "iwae"]', "use metric = negative_elbo"),
        ('latent_dim" = [1, 2]', 'likelihood" = ["bernoulli", "normal"]', "remove model.likelihood"),
    ],
)
def test_losses_of_different_meaning_are_not_ranked(splits: Splits, old: str, new: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        check_candidates(parse((old, new), ("[sweep]", "[sweep]\nmetric = 'total_loss'")), splits)


def test_the_bound_is_comparable_between_objectives_and_choices_are_built(splits: Splits) -> None:
    check_candidates(parse(('latent_dim" = [1, 2]', 'objective.beta" = [1.0, 4.0]')), splits)
    with pytest.raises(InputError, match=re.escape("model.prior = 'vam': unknown; did you mean 'vamp'?")):
        check_candidates(parse(('latent_dim" = [1, 2]', 'prior" = ["standard-normal", "vam"]')), splits)
    with pytest.raises(InputError, match=r"set data\.validation above 0"):
        check_candidates(parse(), splits._replace(validation=None))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sampler = 'tpa'", "did you mean 'tpe'?"),
        ("sampler = { name = 'tpe', n_startup = 3 }", "did you mean 'n_startup_trials'?"),
        ("sampler = 'grid'", "infinitely many values"),
        ("pruner = 'wilcoxon'", "sweep.pruner = 'wilcoxon': unknown"),
    ],
)
def test_samplers_and_pruners_are_checked(splits: Splits, tmp_path: Path, line: str, message: str) -> None:
    text = TEXT.replace('pruner = "nop"\n', "") if line.startswith("pruner") else TEXT
    experiment = SweepExperiment.from_toml(text.replace("[sweep]", f"[sweep]\n{line}"), "x.toml")
    with pytest.raises(InputError, match=re.escape(message)):
        sweep(experiment, splits, tmp_path / "x")
    assert not (tmp_path / "x").exists()


@on_tensorflow("sweeps do not depend on the backend, but for trainings, as in the next test")
def test_sweep_trains_every_point_of_a_grid_records_failures_and_writes_a_page(splits: Splits, tmp_path: Path) -> None:
    changes = [
        ("{ low = 1e-4, high = 1e-2, log = true }", "[1e-3, 1e30]"),
        ("pruner", "sampler = 'grid'\nrepeats = 2\npruner"),
    ]
    experiment = parse(*changes)
    opened = sweep(experiment, splits, tmp_path / "x")
    assert sorted((t.settings["training.learning_rate"], t.settings["model.latent_dim"]) for t in opened.trials) == [
        (1e-3, 1),
        (1e-3, 2),
        (1e30, 1),
        (1e30, 2),
    ]
    assert sorted(trial.state for trial in opened.trials) == ["complete", "complete", "failed", "failed"]
    errors = [trial.error or "" for trial in opened.trials if trial.state == "failed"]
    assert all("training.learning_rate (now 1e+30)" in error for error in errors)
    best = opened.ranked[0]
    runs = [Run.open(tmp_path / "x" / name) for name in best.runs]
    assert [run.experiment.seed for run in runs] == [0, 1]
    assert best.value == pytest.approx(sum(run.metrics["val_negative_elbo"][-1] for run in runs) / 2)
    again = sweep(experiment, splits, tmp_path / "x")
    assert len(again.trials) == 4
    page = write_report(Sweep.open(tmp_path / "x")).read_text("utf-8")
    assert all(
        text in page for text in ("History", "Parallel coordinates", f'href="{best.runs[0]}/"', "data:image/png")
    )
    with pytest.raises(InputError, match=re.escape("training.epochs = 3: the sweep")):
        sweep(experiment.with_overrides(["training.epochs=3"]), splits, tmp_path / "x")
    message = (
        r"^sweep\.space\.model\.latent_dim = \[1, 3\]: the sweep .* was started with \[1, 2\]; choose another --out$"
    )
    with pytest.raises(InputError, match=message):
        sweep(parse(*changes, ("[1, 2]", "[1, 3]")), splits, tmp_path / "x")


@on_tensorflow("sweeps do not depend on the backend")
@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_a_trial_whose_worker_gave_no_sign_of_life_is_resumed(splits: Splits, tmp_path: Path) -> None:
    opened = sweep(parse(), splits, tmp_path / "x", trials=1)
    lost = opened.study.ask()
    assert len(sweep(parse(), splits, tmp_path / "x", trials=2).ranked) == 2
    assert opened.study.trials[lost.number].state.name == "FAIL"


def test_pruned_trials_remain_interrupted_runs(splits: Splits, tmp_path: Path) -> None:
    experiment = parse(('"nop"', '{ name = "threshold", upper = 0.0 }'))
    (trial,) = sweep(experiment, splits, tmp_path / "x", trials=1).trials
    assert (trial.state, list(trial.history)) == ("pruned", [1])
    run = Run.open(tmp_path / "x" / trial.runs[0])
    assert not run.is_complete
    assert len(run.metrics["epoch"]) == 1
    run.load_model()


def test_passwords_are_hidden() -> None:
    url = storage_url("postgresql://me:secret@host/db", Path("x"))
    assert url == "postgresql+psycopg://me:secret@host/db"
    assert hide_passwords(f"vae sweep --storage {url}?password=secret") == (
        "vae sweep --storage postgresql+psycopg://me:***@host/db?password=***"
    )


def test_a_missing_extra_names_its_installation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["vae", "sweep", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert "pip install 'keras-vae[sweep]'" in capsys.readouterr().err


def test_the_example_of_the_docs_is_valid() -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", SCALE.read_text("utf-8").partition("## Many trainings")[2], re.DOTALL)[
        :1
    ]
    assert SweepExperiment.from_toml(text, "docs/scale.md").sweep.space


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "x.toml"
    path.write_text(TEXT.replace("epochs = 2", "epochs = 4").replace("batch_size = 8", "batch_size = 32"))
    return path


def start(*arguments: object) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", WORKER, *map(str, arguments)], stderr=subprocess.DEVNULL)


@pytest.mark.slow
@on_tensorflow("one backend is enough for processes")
def test_two_workers_share_the_trials_and_resume_those_of_a_killed_one(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "x"
    first, second = start(file, out, 3), start(file, out, 3)
    try:
        deadline = time.monotonic() + 300
        while not list(out.glob("*/checkpoint/state.npz")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        # Kill the worker of the run that has a checkpoint.
        path = next(out.glob("*/checkpoint/state.npz")).parents[1]
        holder = json.loads((path / ".lock").read_text("utf-8"))["pid"]
        os.kill(holder, signal.SIGKILL)
        survivor = second if first.pid == holder else first
        assert survivor.wait(300) == 0
    finally:
        first.kill()
        second.kill()
    trials = Sweep.open(out).trials
    assert [trial.state for trial in trials] == ["complete"] * 3
    assert len({tuple(trial.settings.items()) for trial in trials}) == 3
    assert len(list(out.glob("*/model.keras"))) == 3
    undisturbed = train(Run.open(path).experiment, out=tmp_path / "undisturbed")
    assert_equal_runs(Run.open(path), undisturbed)


@pytest.fixture
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a temporary PostgreSQL server."""
    if not (POSTGRES / "initdb").exists():
        pytest.skip("PostgreSQL is not installed")
    root = getpass.getuser() == "root"
    user = ["runuser", "-u", "postgres", "--"] if root else []
    folder = Path(f"/var/tmp/keras-vae-{os.getpid()}")
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    (folder / "password").write_text("secret")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = folder / "data"
    try:
        subprocess.run(
            [
                *user,
                POSTGRES / "initdb",
                "-D",
                data,
                "-U",
                "me",
                "-A",
                "scram-sha-256",
                "--pwfile",
                folder / "password",
                "--no-sync",
            ],
            check=True,
            capture_output=True,
            cwd=folder,
        )
        server = [*user, POSTGRES / "pg_ctl", "-D", data, "-w", "-l", folder / "log"]
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        subprocess.run([*server, "-o", options, "start"], check=True, capture_output=True, cwd=folder)
        yield f"postgresql://me:secret@127.0.0.1:{port}/postgres"
        subprocess.run([*server, "-m", "immediate", "stop"], check=True, capture_output=True, cwd=folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
@on_tensorflow("one backend is enough for a database")
def test_postgresql_is_a_storage_and_its_password_is_written_nowhere(
    postgres: str, splits: Splits, tmp_path: Path
) -> None:
    opened = sweep(parse(), splits, tmp_path / "x", trials=2, storage=postgres)
    assert [trial.state for trial in opened.trials] == ["complete", "complete"]
    assert len(Sweep.open(tmp_path / "x", postgres).trials) == 2
    with pytest.raises(InputError, match="pass its --storage"):
        Sweep.open(tmp_path / "x")
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"secret" in path.read_bytes()]
