"""Python files of the user that register components, imported and stored in the runs that need them.

A run contains a copy of each file in the folder `code`. A run may come from another person, and loading a model must
not execute untrusted code. Therefore a file of a run is executed only if this user has imported a file with the same
content before (`vae train --import`, `train(..., imports=...)`) or has allowed it (`vae trust`,
`load(..., trust_code=True)`). The checksums of these files are stored in `~/.keras/keras_vae/trusted_code.txt`.
"""

import hashlib
import os
import sys
import types
from collections.abc import Iterable, Sequence
from pathlib import Path

from keras_vae.core.errors import InputError, first_line
from keras_vae.core.files import require_inside, write_text
from keras_vae.core.locks import locked

_TRUST_TIMEOUT = 10
"""Seconds to wait while another process writes the list of trusted files."""

_imported: set[str] = set()
"""Checksums of the files that this process has executed."""


def import_files(paths: Iterable[str | Path]) -> dict[str, bytes]:
    """Import Python files that register components, and trust their content from now on.

    Args:
        paths: The files. They may import installed packages, but not each other.

    Returns:
        The content of each file by its name.

    Raises:
        InputError: A file is missing, raises an exception, registers no component, or registers an existing name.
    """
    files = [Path(path) for path in paths]
    require_files(files)
    sources: dict[str, bytes] = {}
    for file in files:
        sources[file.name] = file.read_bytes()
        _import(file, sources[file.name])
    trust(sources.values())
    return sources


def require_files(files: Sequence[Path]) -> None:
    """Raise an error if a Python file does not exist or two files have the same name.

    Args:
        files: Paths of the files.

    Raises:
        InputError: A file is missing, is not a `.py` file, or has the same name as another one.
    """
    names = [file.name for file in files]
    for file in files:
        if file.suffix != ".py" or not file.is_file():
            raise InputError(f"import = {file}: no such Python file; pass the path of a .py file")
        if names.count(file.name) > 1:
            raise InputError(f"import = {file}: another file has the same name; rename one of them")


def import_kept(folder: Path, names: Sequence[str], *, trusted: bool = False) -> None:
    """Import the Python files in a run.

    Args:
        folder: The folder of the files.
        names: Their names, in the order of import.
        trusted: Whether to trust their content from now on.

    Raises:
        InputError: A file is missing, is not trusted, or raises an exception.
    """
    sources = read_kept(folder, names)
    if trusted:
        trust(sources.values())
    known = _trusted()
    for name, source in sources.items():
        if _checksum(source) not in known | _imported:
            raise InputError(
                f"{folder / name}: this run needs Python code that was never imported on this machine; read the file, "
                f"then allow it with `vae trust {folder.parent}` or keras_vae.load(..., trust_code=True)"
            )
    for name, source in sources.items():
        _import(folder / name, source)


def read_kept(folder: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Return the content of the Python files in a run by name.

    Raises:
        InputError: A file is missing, or lies outside of the folder.
    """
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise InputError(f"{folder / name}: the run needs this file, which is missing; restore it")
        require_inside(folder / name, folder.parent)
    return {name: (folder / name).read_bytes() for name in names}


def trust(sources: Iterable[bytes]) -> None:
    """Allow the execution of Python files with this content from now on."""
    new = {_checksum(source) for source in sources}
    if new <= _trusted():
        return
    with locked(_trust_file(), timeout=_TRUST_TIMEOUT):
        write_text(_trust_file(), "".join(f"{checksum}\n" for checksum in sorted(new | _trusted())))


def _import(path: Path, source: bytes) -> None:
    """Execute a file once per process; if it is rejected, restore the registered components."""
    import keras

    from keras_vae.core import registry
    from keras_vae.models import registration  # noqa: F401

    if _checksum(source) in _imported:
        return
    components, objects = registry.snapshot(), keras.saving.get_custom_objects()
    before = dict(objects)
    try:
        _execute(path, source)
        if registry.snapshot() == components:
            raise InputError(
                f'import = {path}: registers no component; decorate a class with @keras_vae.register("its-name")'
            )
    except InputError:
        registry.restore(components)
        objects.clear()
        objects.update(before)
        raise
    _imported.add(_checksum(source))


def _execute(path: Path, source: bytes) -> None:
    # Use the module name that `import` would use, so that classes that the user has already imported may be redefined.
    module = types.ModuleType(path.stem)
    module.__file__ = str(path)
    imported = sys.modules.get(path.stem)
    # Dataclasses look up the module to resolve their annotations.
    sys.modules[path.stem] = module
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except InputError as error:
        raise InputError(f"import = {path}: {error}") from None
    except Exception as error:
        raise InputError(f"import = {path}: raises {type(error).__name__}: {first_line(error)}; correct it") from None
    finally:
        sys.modules.pop(path.stem, None)
        if imported is not None:
            sys.modules[path.stem] = imported


def _checksum(source: bytes) -> str:
    return hashlib.sha256(source).hexdigest()


def _trust_file() -> Path:
    home = os.environ.get("KERAS_HOME") or os.path.join("~", ".keras")
    return Path(os.path.expanduser(home), "keras_vae", "trusted_code.txt")


def _trusted() -> set[str]:
    return set(_trust_file().read_text("utf-8").split()) if _trust_file().is_file() else set()
