"""Parts by name: one decorator makes a class serialisable by Keras and nameable in an experiment file."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self, TypeVar

import keras
import pydantic

from keras_vae.errors import InputError, unknown

PACKAGE = "keras_vae"
"""The name under which classes are written into `.keras` files; files out there depend on it."""

_PARTS: dict[str, dict[str, type]] = {}

PartClass = TypeVar("PartClass", bound=type)


@dataclasses.dataclass(frozen=True)
class Part:
    """A weightless, immutable part whose dataclass fields are its whole configuration."""

    kind: ClassVar[str]

    def get_config(self) -> dict[str, Any]:
        """Return the fields by name, as Keras's serialisation asks."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the part from what `get_config` returned."""
        return cls(**config)


def part(name: str) -> Callable[[PartClass], PartClass]:
    """Register a class under its kind and a short name.

    Args:
        name: The name that experiment files use, in kebab case. The class's `kind` says among what it is looked up.

    Returns:
        The decorator, which returns the class as it was.

    Example:
        >>> from keras_vae.priors import Prior
        >>> @part("uniform")
        ... @dataclasses.dataclass(frozen=True)
        ... class Uniform(Prior): ...
    """

    def register(cls: PartClass) -> PartClass:
        keras.saving.register_keras_serializable(PACKAGE)(cls)
        _PARTS.setdefault(cls.kind, {})[name] = cls  # type: ignore[attr-defined]
        return cls

    return register


def registered(kind: str) -> dict[str, type]:
    """Return the classes of one kind by short name.

    Args:
        kind: `"prior"`, `"likelihood"`, `"objective"` or `"network"`.

    Returns:
        A new dict from short name to class.
    """
    return dict(_PARTS[kind])


def build(kind: str, spec: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Build the part that a table of an experiment file describes.

    Args:
        kind: What the part is, such as `"prior"`.
        spec: Its short name under `name`, and the constructor's arguments under theirs.

    Returns:
        The part.

    Raises:
        InputError: The name or an argument is unknown, or a value is refused.

    Example:
        >>> build("objective", {"name": "elbo", "beta": 4.0})
        ELBO(beta=4.0)
    """
    name, arguments = spec["name"], {key: value for key, value in spec.items() if key != "name"}
    classes = registered(kind)
    if name not in classes:
        raise unknown(kind, name, classes)
    cls = classes[name]
    parameters = inspect.signature(cls, eval_str=True).parameters
    accepted = [key for key in parameters if key != "kwargs"]
    for key in arguments:
        if key not in accepted:
            raise unknown(f"argument of the {kind} {name}", key, accepted)
        try:
            arguments[key] = pydantic.TypeAdapter(parameters[key].annotation).validate_python(arguments[key])
        except pydantic.ValidationError as error:
            reason = error.errors()[0]["msg"].lower()
            raise InputError(f"{kind} {name}: {key} = {arguments[key]!r}: {reason}") from None
    return cls(**arguments)


def spec(kind: str, instance: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the table that `build` turns into an equal part, with every default written out.

    Args:
        kind: What the part is.
        instance: A registered part.

    Returns:
        Its short name under `name`, then its configuration.
    """
    (name,) = (name for name, cls in _PARTS[kind].items() if cls is type(instance))
    # Keras's own keys of a layer, such as its name, are no settings of the part.
    config = {
        key: value
        for key, value in instance.get_config().items()
        if key in inspect.signature(type(instance)).parameters
    }
    return {"name": name} | {key: list(value) if isinstance(value, tuple) else value for key, value in config.items()}
