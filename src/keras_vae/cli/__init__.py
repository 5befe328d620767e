"""The command line: `vae`.

Results go to stdout, messages to stderr. A wrong call exits with 2 and a failure with 1, each with one line of
explanation. Keras and its backend take seconds to import, so every command imports what it needs when it runs.
"""

import re
import sys
from typing import Annotated, Any

import typer
import typer.core

from keras_vae import __version__
from keras_vae.cli import explorer, inspecting, measuring, scoring, shipping, training, using
from keras_vae.core.errors import InputError, RunError, unknown


class _Commands(typer.core.TyperGroup):
    """The commands, with invalid values reported in the style of this package."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            if error.param is None or not error.message:
                raise
            raise _invalid_value(error.param.opts[-1], error) from None


def _invalid_value(option: str, error: typer.BadParameter) -> InputError:
    """Return the error for an invalid value of an option, given that of Typer."""
    from pydantic import ValidationError

    from keras_vae.core.config import problem

    message = error.message.removeprefix("Value error, ").removesuffix(".")
    value, is_choice, accepted = message.partition(" is not one of ")
    if is_choice:
        return unknown(option, value.strip("'\""), re.findall("'([^']*)'", accepted))
    if isinstance(error.__cause__, ValidationError):
        first = error.__cause__.errors()[0]
        return InputError(f"{option} = {first['input']}: {problem(first)}")
    return InputError(f"{option}: {message}")


app = typer.Typer(
    name="vae",
    cls=_Commands,
    help="Train, evaluate, explore and export variational autoencoders.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

for command in (
    *(training.train, inspecting.plot, inspecting.sample, training.fit_prior, training.trust),
    *(measuring.evaluate, measuring.compare, measuring.doctor),
    *(using.encode, using.reconstruct, scoring.score),
    explorer.explore,
    *(shipping.export, shipping.push, shipping.pull),
    *(inspecting.info, inspecting.presets, inspecting.data),
):
    app.command()(command)


def main() -> None:
    """Run the command line; report an error as one line and an exit code."""
    try:
        app()
    except InputError as error:
        _fail(str(error), 2)
    except RunError as error:
        _fail(str(error), 1)
    except ModuleNotFoundError as error:
        _fail(f"{error.name} is not installed; run `pip install {error.name}`, or install the extra that needs it", 1)
    except OSError as error:
        _fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", 1)


def _fail(message: str, code: int) -> None:
    print(f"vae: {message}", file=sys.stderr)
    sys.exit(code)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None: ...
