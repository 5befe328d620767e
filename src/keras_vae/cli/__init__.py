"""The command line: `vae`.

Results go to stdout, messages to stderr. A wrong call exits with 2 and a failure with 1, each with one line of
explanation. Keras and its backend take seconds to import, so every command imports what it needs when it runs.
"""

import io
import re
import sys
from typing import Annotated, Any, NoReturn

import typer
import typer.core

from keras_vae import __version__
from keras_vae.cli import common, explorer, inspecting, measuring, scoring, shipping, sweeping, training, using
from keras_vae.core.errors import InputError, RunError, is_out_of_memory, unknown
from keras_vae.core.files import printable

_UsageError: type[Exception] = typer.BadParameter.__bases__[0]
"""The base class of errors in the words of a command; Typer does not export it."""


class _Commands(typer.core.TyperGroup):
    """The commands, each listed with the whole of its summary."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the first word names, or the first two words."""
        if " ".join(args[:2]) in self.commands:
            args = [" ".join(args[:2]), *args[2:]]
        if args and args[0] not in self.commands and not ctx.resilient_parsing:
            raise unknown("command", args[0], self.commands)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands; Typer would shorten each summary to one line."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(1000)) for name, command in self.commands.items()])


app = typer.Typer(
    name="vae",
    cls=_Commands,
    help="Train, evaluate, explore and export variational autoencoders.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

for command in (
    *(training.train, sweeping.sweep, inspecting.plot, inspecting.sample, training.fit_prior, training.trust),
    *(measuring.evaluate, measuring.compare, measuring.doctor),
    *(using.encode, using.reconstruct, using.impute, scoring.score),
    explorer.explore,
    *(shipping.export, shipping.push, shipping.pull),
    *(inspecting.info, inspecting.presets, inspecting.data),
):
    app.command()(command)
app.command("data pack")(inspecting.data_pack)


def main() -> None:
    """Run the command line; report an error as one line and an exit code."""
    # Paths that are not UTF-8 are printed as they are, for other programs.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")
    try:
        # Without its standalone mode, Typer raises errors instead of printing them in several lines.
        _end(app(prog_name="vae", standalone_mode=False) or 0)
    except _UsageError as error:
        _fail(_usage_problem(error), 2)
    except InputError as error:
        _fail(str(error), 2)
    except RunError as error:
        _fail(str(error), 1)
    except ModuleNotFoundError as error:
        _fail(f"{error.name} is not installed; run `pip install {error.name}`, or install the extra that needs it", 1)
    except OSError as error:
        _fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", 1)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        _fail("not enough memory; use a smaller model, smaller batches, or fewer or smaller images", 1)
    finally:
        common.release_locks()


def _fail(message: str, code: int) -> NoReturn:
    print(f"vae: {printable(message)}", file=sys.stderr)
    _end(code)


def _end(code: int) -> NoReturn:
    """End the process; one that trains together with others must not wait for them."""
    if "keras_vae.core.backend" in sys.modules:
        from keras_vae.core.backend import end_process

        end_process(code)
    sys.exit(code)


def _usage_problem(error: Any) -> str:
    """Return the message for a wrong call of a command, given the error of Typer."""
    from pydantic import ValidationError

    from keras_vae.core.config import problem

    parameter, message = getattr(error, "param", None), error.message.removeprefix("Value error, ").removesuffix(".")
    usage = f"see `{'vae' if error.ctx is None else error.ctx.command_path} --help`"
    if message.startswith("No such option"):
        return _unknown_option(error.option_name, error.ctx)
    if parameter is None:
        return f"{message}; {usage}"
    name = parameter.metavar if parameter.param_type_name == "argument" else parameter.opts[-1]
    if not message:
        return f"{name}: missing; {usage}"
    value, is_choice, accepted = message.partition(" is not one of ")
    if is_choice:
        return str(unknown(name, value.strip("'\""), re.findall("'([^']*)'", accepted)))
    if isinstance(error.__cause__, ValidationError):
        first = error.__cause__.errors()[0]
        return f"{name} = {first['input']}: {problem(first)}"
    return f"{name}: {message}; {usage}"


def _unknown_option(option: str, ctx: Any) -> str:
    """Return the message for an option that does not exist; for commands with `--set`, it may be a setting."""
    from keras_vae.core.config import dotted_names
    from keras_vae.core.errors import closest
    from keras_vae.runs.experiment import Experiment

    options = [name for parameter in ctx.command.get_params(ctx) for name in parameter.opts if name.startswith("--")]
    settings = {name.rpartition(".")[2]: name for name in dotted_names(Experiment)}
    setting = closest(option, settings)
    if "--set" in options and setting and not closest(option, options):
        return f"option = {option!r}: unknown; write --set {settings[setting]}=VALUE"
    return str(unknown("option", option, options))


def _show_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    if ctx.invoked_subcommand is None:
        print(ctx.get_help(), file=sys.stderr)
        raise typer.Exit(2)
