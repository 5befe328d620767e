"""Pushing runs to the Hugging Face Hub, and pulling runs from it."""

import contextlib
import importlib.util
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from keras_vae.core.errors import InputError, RunError, first_line
from keras_vae.core.files import check_destination, replacing_folder, write_text
from keras_vae.core.markdown import code_block, escape
from keras_vae.evaluation.summary import summarize
from keras_vae.runs.run import Run

FILES = (
    "experiment.toml",
    "environment.json",
    "code/*.py",
    "metrics.csv",
    "*.keras",
    "evaluation*.json",
    "evaluation*.npz",
    "figures/*.png",
    "images.npz",
)
"""Files of a run that are pushed and pulled: text files, figures, sample images, and models in a format that does not
execute code."""


def push(run: Run | str | Path, repository: str, *, public: bool = False) -> str:
    """Push a trained run with a model card to the Hub, and replace the content of the repository.

    Authenticate with `hf auth login`, or with a token in `$HF_TOKEN`.

    Args:
        run: A complete run, or its folder.
        repository: `OWNER/NAME`; created if it does not exist.
        public: Whether to make a new repository public; an existing one keeps its visibility.

    Returns:
        The address of the repository.

    Raises:
        InputError: The run is unfinished, the name is invalid, or access is denied.
        RunError: The Hub cannot be reached, or reports a failure.

    Example:
        >>> push("mnist-2d", "digits")
        Traceback (most recent call last):
        keras_vae.core.errors.InputError: repository = 'digits': invalid name; pass OWNER/NAME
    """
    _check_name(repository)
    run = run if isinstance(run, Run) else Run.open(run)
    run.require_complete()
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
        out: The folder to write; `runs/NAME` by default.
        revision: A branch, a tag or a commit; None means the latest commit.
        force: Whether to replace an existing run.

    Returns:
        The run. Its Python files, if any, are executed only if you allow it; see `keras_vae.load`.

    Raises:
        InputError: The repository does not exist or contains no run, access is denied, or the folder exists.
        RunError: The Hub cannot be reached, or reports a failure.
    """
    _check_name(repository)
    out = Path("runs", repository.rpartition("/")[2]) if out is None else Path(out).expanduser()
    check_destination(out, force=force, marker="experiment.toml", kind="run")
    check_installed()
    with wrap_errors(repository), replacing_folder(out) as folder:
        from huggingface_hub import HfApi, snapshot_download

        if "experiment.toml" not in HfApi(library_name="keras-vae").list_repo_files(repository, revision=revision):
            raise InputError(f"repository = {repository!r}: contains no run; pull a repository that `vae push` created")
        snapshot_download(
            repository, revision=revision, local_dir=folder, allow_patterns=list(FILES), library_name="keras-vae"
        )
        # Remove the library's metadata of the download.
        shutil.rmtree(folder / ".cache", ignore_errors=True)
        Run.open(folder)
    return Run(out)


def check_installed() -> None:
    """Check that the client library of the Hub is installed.

    Raises:
        InputError: The package is missing.
    """
    if importlib.util.find_spec("huggingface_hub") is None:
        raise InputError("huggingface_hub: not installed; pip install 'keras-vae[hub]'")


def _check_name(repository: str) -> None:
    if repository.count("/") != 1:
        raise InputError(f"repository = {repository!r}: invalid name; pass OWNER/NAME")


@contextlib.contextmanager
def wrap_errors(repository: str) -> Iterator[None]:
    """Convert errors of the client library to a one-line `InputError` or `RunError`."""
    from huggingface_hub import errors

    try:
        yield
    except errors.HFValidationError as error:
        raise InputError(f"repository = {repository!r}: invalid name ({first_line(error)}); pass OWNER/NAME") from None
    except errors.RevisionNotFoundError:
        raise InputError(
            f"repository = {repository!r}: no such revision; pass an existing branch, tag or commit"
        ) from None
    except (errors.RepositoryNotFoundError, errors.GatedRepoError, errors.LocalTokenNotFoundError):
        raise InputError(
            f"repository = {repository!r}: does not exist, or you have no access; log in with `hf auth login`"
        ) from None
    except errors.HfHubHTTPError as error:
        if error.response is not None and error.response.status_code in (401, 403):
            raise InputError(f"repository = {repository!r}: access denied; log in with `hf auth login`") from None
        raise RunError(f"repository = {repository!r}: the Hub failed ({first_line(error)}); try again later") from None
    # The client library may change its HTTP library again, but it keeps this name for its errors.
    except (errors.HTTPError, errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:  # type: ignore[attr-defined]
        raise RunError(
            f"repository = {repository!r}: the Hub cannot be reached ({first_line(error)}); check the network"
        ) from None


def _card(run: Run, repository: str) -> str:
    numbers = code_block("\n".join(summarize(run.evaluation or {})))
    return f"""---
library_name: keras-vae
tags: [variational-autoencoder, keras]
---
# {escape(run.name)}

{escape(run.experiment.description)}

{numbers}

`vae pull {repository}` downloads this run to `runs/{repository.rpartition("/")[2]}`, for use with `vae sample`,
`vae evaluate` and `keras_vae.load`. `experiment.toml` contains all settings, `environment.json` the versions and the
checksum of the data, and `evaluation.json` the results and how they were measured.
"""
