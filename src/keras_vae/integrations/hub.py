"""Pushing runs to the Hugging Face Hub, and pulling runs from it."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from keras_vae.core.errors import InputError, RunError, first_line, require_packages
from keras_vae.core.files import (
    check_destination,
    check_name,
    name_problem,
    reading,
    replacing_folder,
    require_inside,
    write_text,
    writing,
)
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

        copy_files(run, Path(folder))
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
    with wrap_errors(repository), replacing_folder(out, replace=force) as folder:
        from huggingface_hub import HfApi, snapshot_download

        names = HfApi(library_name="keras-vae").list_repo_files(repository, revision=revision)
        if "experiment.toml" not in names:
            raise InputError(f"repository = {repository!r}: contains no run; pull a repository that `vae push` created")
        for name in names:
            # Files with a leading dot, such as .gitattributes, are not pulled.
            if any(name_problem(part.removeprefix(".")) for part in name.split("/")):
                raise InputError(f"repository = {repository!r}: its file {name!r} is a path; pull another repository")
        snapshot_download(
            repository, revision=revision, local_dir=folder, allow_patterns=list(FILES), library_name="keras-vae"
        )
        # Remove the library's metadata of the download.
        shutil.rmtree(folder / ".cache", ignore_errors=True)
        for file in folder.rglob("*"):
            require_inside(file, folder)
        Run.open(folder)
    return Run(out)


def copy_files(run: Run, folder: Path) -> None:
    """Copy the files of a run that are shared, while no other process writes to the run.

    Args:
        run: The run.
        folder: The folder to copy them to.

    Raises:
        InputError: A file is a link that leaves the run, or not a regular file.
        RunError: Another process writes to the run, or a file cannot be written.
    """
    # Nobody writes to a run that is read-only.
    is_writable = not run.is_pretrained and os.access(run.path, os.W_OK)
    with run.lock() if is_writable else contextlib.nullcontext():
        for file in (file for pattern in FILES for file in sorted(run.path.glob(pattern))):
            require_inside(file, run.path)
            copy = folder / file.relative_to(run.path)
            with reading(file):
                content = file.read_bytes()
            with writing(copy):
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(content)


def check_installed() -> None:
    """Check that the client library of the Hub is installed.

    Raises:
        InputError: The package is missing.
    """
    require_packages("hub", ["huggingface_hub"], "hub")


def _check_name(repository: str) -> None:
    if repository.count("/") != 1:
        raise InputError(f"repository = {repository!r}: invalid name; pass OWNER/NAME")
    for part in repository.split("/"):
        check_name("repository", part)


@contextlib.contextmanager
def wrap_errors(repository: str) -> Iterator[None]:
    """Convert errors of the client library to a one-line `InputError` or `RunError`, and suppress its warnings.

    The library would print two lines for every attempt to reach the Hub.
    """
    from huggingface_hub import errors
    from huggingface_hub.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
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
    finally:
        logging.set_verbosity(level)


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
