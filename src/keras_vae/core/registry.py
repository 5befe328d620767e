"""Parts by name: one decorator makes a class serializable by Keras and nameable in an experiment file."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self, TypeVar

import keras
import pydantic

from keras_vae.core.errors import InputError, unknown

PACKAGE = "keras_vae"
"""The name under which classes are written into `.keras` files; files out there depend on it."""

_PARTS: dict[str, dict[str, type]] = {}

PartClass = TypeVar("PartClass", bound=type)


@dataclasses.dataclass(frozen=True)
class Component:
    """A weightless, immutable part whose dataclass fields are its whole configuration."""

    kind: ClassVar[str]

    def get_config(self) -> dict[str, Any]:
        """Return the fields by name, parts among them serialized, as Keras asks."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            name: keras.saving.serialize_keras_object(value) if isinstance(value, Component) else value
            for name, value in values.items()
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the part from what `get_config` returned."""
        return cls(**{name: _read(value) for name, value in config.items()})


class ComponentLayer(keras.layers.Layer):
    """A part with weights: a float32 layer whose constructor's parameters, kept under their names, configure it.

    Args:
        **kwargs: As for every Keras layer, but for the precision, which is that of densities: float32.
    """

    kind: ClassVar[str]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})

    def add_weight(self, *args: Any, **kwargs: Any) -> keras.Variable:
        """Add a weight as Keras does, one that a mixed policy of the model around it leaves as it is."""
        return super().add_weight(*args, **{"autocast": False, **kwargs})

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's parameters by name."""
        return {**super().get_config(), **{name: getattr(self, name) for name in settings(type(self))}}


def register(name: str) -> Callable[[PartClass], PartClass]:
    """Register a class under its kind and a short name.

    Args:
        name: The name that experiment files use, in kebab case. The class's `kind` says among what it is looked up.

    Returns:
        The decorator, which returns the class as it was.

    Example:
        >>> from keras_vae.components.priors import Prior
        >>> @register("uniform")
        ... @dataclasses.dataclass(frozen=True)
        ... class Uniform(Prior): ...
    """

    def decorate(cls: PartClass) -> PartClass:
        keras.saving.register_keras_serializable(PACKAGE)(cls)
        _PARTS.setdefault(cls.kind, {})[name] = cls  # type: ignore[attr-defined]
        return cls

    return decorate


def registered(kind: str) -> dict[str, type]:
    """Return the classes of one kind by short name.

    Args:
        kind: What to list: `"prior"`, `"posterior"`, `"likelihood"`, `"objective"`, `"network"`, ….

    Returns:
        A new dict from short name to class.
    """
    return dict(_PARTS[kind])


def build(kind: str, spec: Mapping[str, Any]) -> Any:
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
    accepted = settings(cls)
    for key, value in arguments.items():
        if key not in accepted:
            raise unknown(f"{kind} {name}: argument", key, accepted)
        arguments[key] = _checked(f"{kind} {name}: {key}", value, accepted[key].annotation)
    return cls(**arguments)


def spec(kind: str, instance: Any) -> dict[str, Any]:
    """Return the table that `build` turns into an equal part, with every default written out.

    Args:
        kind: What the part is.
        instance: A registered part.

    Returns:
        Its short name under `name`, then its settings; those that are None, which TOML cannot say, are left out.
    """
    (name,) = (name for name, cls in _PARTS[kind].items() if cls is type(instance))
    values = {key: getattr(instance, key) for key in settings(type(instance))}
    return {"name": name} | {key: _plain(value) for key, value in values.items() if value is not None}


def describe(instance: Any) -> dict[str, Any]:
    """Return what to tell readers of a part: its table, as `spec` returns it, or the name of a class without one.

    Args:
        instance: Any part.

    Example:
        >>> from keras_vae.components.likelihoods import Categorical
        >>> describe(Categorical())
        {'name': 'categorical'}
    """
    kinds = (kind for kind, classes in _PARTS.items() if type(instance) in classes.values())
    kind = next(kinds, None)
    return {"name": type(instance).__name__} if kind is None else spec(kind, instance)


def settings(cls: type) -> dict[str, inspect.Parameter]:
    """Return the constructor's parameters, without those that Keras gives every layer."""
    parameters = inspect.signature(cls, eval_str=True).parameters
    return {name: parameter for name, parameter in parameters.items() if name != "kwargs"}


def _read(value: Any) -> Any:
    if isinstance(value, dict):
        return keras.saving.deserialize_keras_object(value)
    return tuple(value) if isinstance(value, list) else value


def _checked(where: str, value: Any, annotation: Any) -> Any:
    kind = getattr(annotation, "kind", None)
    if kind is not None and isinstance(value, str | Mapping):
        return build(kind, {"name": value} if isinstance(value, str) else value)
    try:
        return pydantic.TypeAdapter(annotation).validate_python(value)
    except pydantic.ValidationError as error:
        raise InputError(f"{where} = {value!r}: {error.errors()[0]['msg'].lower()}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, Component):
        return spec(value.kind, value)
    return list(value) if isinstance(value, tuple) else value
