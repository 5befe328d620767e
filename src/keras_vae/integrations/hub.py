"""Runs on the Hugging Face Hub: pushed from here, and pulled from there."""

import contextlib
import importlib.util
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from keras_vae.core.errors import InputError, RunError, first_line
from keras_vae.core.files import check_destination, replacing_folder, write_text
from keras_vae.evaluation.summary import summarize
from keras_vae.runs.run import Run

FILES = (
    "experiment.toml",
    "environment.json",
    "metrics.csv",
    "*.keras",
    "evaluation*.json",
    "figures/*.png",
    "images.npz",
)
"""What of a run is pushed and pulled: texts, figures, models in the format that loads without running code, and the few
images that some runs carry."""


def push(run: Run | str | Path, repository: str, *, public: bool = False) -> str:
    """Push a trained run to the Hub, with a model card; the repository then holds this run and nothing else.

    Who pushes is known by `hf auth login`, or by the token in `$HF_TOKEN`.

    Args:
        run: A complete run, or its folder.
        repository: `OWNER/NAME`; made if need be.
        public: Makes a new repository public; one that exists stays what it is.

    Returns:
        The repository's address.

    Raises:
        InputError: The run is unfinished, the name is no good, or access is refused.
        RunError: The Hub cannot be reached, or fails.

    Example:
        >>> push("mnist-2d", "digits")
        Traceback (most recent call last):
        keras_vae.core.errors.InputError: repository = digits: write OWNER/NAME
    """
    run = run if isinstance(run, Run) else Run.open(run)
    run.check_complete()
    check_installed()
    with wrap_errors(repository), tempfile.TemporaryDirectory() as folder:
        from huggingface_hub import HfApi

        for file in (file for pattern in FILES for file in sorted(run.path.glob(pattern))):
            copy = Path(folder) / file.relative_to(run.path)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, copy)
        write_text(Path(folder) / "README.md", _card(run, repository))
        api = HfApi(library_name="keras-vae")
        address = api.create_repo(repository, private=not public, exist_ok=True)
        api.upload_folder(
            repo_id=repository, folder_path=folder, delete_patterns="*", commit_message=f"Push the run {run.name}"
        )
    return str(address)


def pull(repository: str, out: str | Path | None = None, *, revision: str | None = None, force: bool = False) -> Run:
    """Pull a run from the Hub.

    Args:
        repository: `OWNER/NAME`.
        out: The folder to write; by default `runs/NAME`.
        revision: A branch, a tag or a commit; None takes the newest state.
        force: Replaces a run that exists.

    Returns:
        The run; no code of it is run, neither now nor when its model is loaded.

    Raises:
        InputError: There is no such repository, access is refused, it holds no run, or the folder exists.
        RunError: The Hub cannot be reached, or fails.
    """
    out = Path("runs", repository.rpartition("/")[2]) if out is None else Path(out).expanduser()
    check_destination(out, force=force, marker="experiment.toml", kind="run")
    check_installed()
    with wrap_errors(repository), replacing_folder(out) as folder:
        from huggingface_hub import HfApi, snapshot_download

        if "experiment.toml" not in HfApi(library_name="keras-vae").list_repo_files(repository, revision=revision):
            raise InputError(f"repository = {repository}: it holds no run; `vae push` makes such repositories")
        snapshot_download(
            repository, revision=revision, local_dir=folder, allow_patterns=list(FILES), library_name="keras-vae"
        )
        # The library's notes on what it downloaded.
        shutil.rmtree(folder / ".cache", ignore_errors=True)
        Run.open(folder)
    return Run(out)


def check_installed() -> None:
    """Refuse to go on without the package that talks to the Hub.

    Raises:
        InputError: It is not installed.
    """
    if importlib.util.find_spec("huggingface_hub") is None:
        raise InputError("the package huggingface_hub is missing: pip install 'keras-vae[hub]'")


@contextlib.contextmanager
def wrap_errors(repository: str) -> Iterator[None]:
    """Raise the errors of the Hub's client as a `RunError` or an `InputError` of one line."""
    from huggingface_hub import errors

    try:
        yield
    except errors.HFValidationError as error:
        raise InputError(f"repository = {repository}: write OWNER/NAME ({first_line(error)})") from None
    except errors.RevisionNotFoundError:
        raise InputError(f"repository = {repository}: it has no such revision") from None
    except (errors.RepositoryNotFoundError, errors.GatedRepoError, errors.LocalTokenNotFoundError):
        raise InputError(
            f"repository = {repository}: there is none, or it is not yours to use; `hf auth login` says who you are"
        ) from None
    except errors.HfHubHTTPError as error:
        if error.response is not None and error.response.status_code in (401, 403):
            raise InputError(f"repository = {repository}: access refused; `hf auth login` says who you are") from None
        raise RunError(f"the Hub fails: {first_line(error)}") from None
    # The library of HTTP that it builds on has changed, and may again: its name for this error has not.
    except (errors.HTTPError, errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:  # type: ignore[attr-defined]
        raise RunError(f"the Hub cannot be reached: {first_line(error)}") from None


def _card(run: Run, repository: str) -> str:
    numbers = "\n".join(summarize(run.evaluation or {}))
    return f"""---
library_name: keras-vae
tags: [variational-autoencoder, keras]
---
# {run.name}

{run.experiment.description}

```
{numbers}
```

`vae pull {repository}` brings it to `runs/{repository.rpartition("/")[2]}`; from there `vae sample`, `vae evaluate` and
`keras_vae.load` take it. `experiment.toml` is all that was chosen, `environment.json` what it was made with and the
checksum of its data, and `evaluation.json` how it was measured.
"""
