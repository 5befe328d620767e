"""Components by name: a decorator makes a class serializable by Keras and available in experiment files."""

import dataclasses
import difflib
import functools
import inspect
import numbers
from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import Any, ClassVar, Self, TypeVar, Union, get_args, get_origin

import keras
import pydantic

from keras_vae.core.config import problem
from keras_vae.core.errors import InputError, listed, shown, suggestion, unknown

PACKAGE = "keras_vae"
"""Package name of all classes in `.keras` files. Saved models depend on it."""

_CLASSES: dict[str, dict[str, type]] = {}
"""Registered classes by kind and short name."""

ComponentClass = TypeVar("ComponentClass", bound=type)


@dataclasses.dataclass(frozen=True)
class Component:
    """Base class of components without weights: frozen dataclasses whose fields are their settings."""

    kind: ClassVar[str]

    def get_config(self) -> dict[str, Any]:
        """Return the fields by name, nested components serialized as Keras expects."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            name: keras.saving.serialize_keras_object(value) if isinstance(value, Component) else value
            for name, value in values.items()
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Create the component from the result of `get_config`."""
        return cls(**{name: _deserialize(value) for name, value in config.items()})


class ComponentLayer(keras.layers.Layer):
    """Base class of components with weights: float32 layers that store each setting in an attribute of the same name.

    Args:
        **kwargs: Generic arguments of Keras layers. The dtype is always float32, which densities require.
    """

    kind: ClassVar[str]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute. The settings of a built layer are fixed, because compiled steps do not read them again."""
        parameter = None if name.startswith("_") else settings(type(self)).get(name)
        if parameter is not None and getattr(self, "built", False):
            raise InputError(
                f"{name} = {shown(value)}: fixed when {type(self).__name__} was built; build a new model with "
                f"{type(self).__name__}({name}=…)"
            )
        if parameter is not None:
            _check_number(name, value, parameter.annotation)
        super().__setattr__(name, value)

    def add_weight(self, *args: Any, **kwargs: Any) -> keras.Variable:
        """Add a weight that remains float32 in a model with mixed precision."""
        return super().add_weight(*args, **{"autocast": False, **kwargs})

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor by name, nested components serialized as Keras expects."""
        values = {name: getattr(self, name) for name in settings(type(self))}
        nested = {name: value for name, value in values.items() if isinstance(value, Component | ComponentLayer)}
        serialized = {name: keras.saving.serialize_keras_object(value) for name, value in nested.items()}
        return {**super().get_config(), **values, **serialized}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Create the component from the result of `get_config`."""
        values = {name: _deserialize(config[name]) for name in settings(cls) if name in config}
        return super().from_config({**config, **values})


def register(name: str) -> Callable[[ComponentClass], ComponentClass]:
    """Register a component, so that experiment files can name it and Keras can save it.

    The class inherits from `Component` and is a frozen dataclass, or inherits from `ComponentLayer` if it has weights.
    It also inherits from the base class of its kind, such as `keras_vae.priors.Prior`.

    Args:
        name: Short name for experiment files, in kebab case.

    Returns:
        A decorator that registers a class and returns it unchanged.

    Raises:
        InputError: The class does not meet these conditions, or another class has the same short name or class name.

    Example:
        >>> from keras_vae import Component, priors
        >>> @register("uniform")
        ... @dataclasses.dataclass(frozen=True)
        ... class Uniform(Component, priors.Prior): ...
    """

    def decorate(cls: ComponentClass) -> ComponentClass:
        _check_class(name, cls)
        kind = cls.kind  # type: ignore[attr-defined]
        saved_as = f"{PACKAGE}>{cls.__name__}"
        _check_unused(f"name = {name!r}: the {kind} '{name}'", cls, _CLASSES.get(kind, {}).get(name))
        _check_unused(f"name = {name!r}: a class '{saved_as}'", cls, keras.saving.get_registered_object(saved_as))
        if issubclass(cls, Component):
            _check_numbers_when_created(cls)
        keras.saving.register_keras_serializable(PACKAGE)(cls)
        _CLASSES.setdefault(kind, {})[name] = cls
        return cls

    return decorate


def _check_class(name: str, cls: type) -> None:
    where = f"name = {name!r}: {cls.__name__}"
    if not issubclass(cls, Component | ComponentLayer):
        raise InputError(
            f"{where} is not a component; inherit from Component, or from ComponentLayer if it has weights"
        )
    if not isinstance(getattr(cls, "kind", None), str):
        raise InputError(
            f"{where} has no kind; inherit from the base class of its kind, such as keras_vae.priors.Prior"
        )
    if issubclass(cls, Component) and "__dataclass_params__" not in vars(cls):
        raise InputError(f"{where} is not a dataclass; put @dataclass(frozen=True) between @register and the class")


def _check_numbers_when_created(cls: Any) -> None:
    """Make the constructor of a dataclass reject other values than numbers for parameters that are numbers."""
    create = cls.__init__

    @functools.wraps(create)
    def create_checked(self: Any, *args: Any, **kwargs: Any) -> None:
        parameters = settings(cls) if type(self) is cls else {}
        for name, value in {**dict(zip(parameters, args, strict=False)), **kwargs}.items():
            if name in parameters:
                _check_number(name, value, parameters[name].annotation)
        create(self, *args, **kwargs)

    cls.__init__ = create_checked


def _check_number(name: str, value: Any, annotation: Any) -> None:
    """Reject a value that is not a number, unless its annotation allows other types."""
    types = set(get_args(annotation)) if get_origin(annotation) in (Union, UnionType) else {annotation}
    if types <= {int, float, NoneType} and not (value is None and NoneType in types):
        expected = "a number" if float in types else "an integer"
        if isinstance(value, bool) or not isinstance(value, numbers.Real if float in types else numbers.Integral):
            raise InputError(f"{name} = {shown(value)}: not {expected}; pass {expected}")


def _check_unused(description: str, cls: type, other: type | None) -> None:
    """Reject the name of another class. The same class may be defined again, as in a notebook."""
    if other is not None and (cls.__module__, cls.__qualname__) != (other.__module__, other.__qualname__):
        raise InputError(f"{description} exists already, {other.__module__}.{other.__qualname__}; choose another name")


def registered(kind: str) -> dict[str, type]:
    """Return the registered classes of a kind by short name.

    Args:
        kind: Kind of component, such as `"prior"`, `"posterior"`, `"likelihood"`, `"objective"` or `"network"`.
    """
    return dict(_CLASSES[kind])


def snapshot() -> dict[str, dict[str, type]]:
    """Return all registered classes by kind and short name."""
    return {kind: dict(classes) for kind, classes in _CLASSES.items()}


def restore(classes: Mapping[str, Mapping[str, type]]) -> None:
    """Replace all registered classes by those of a snapshot."""
    _CLASSES.clear()
    _CLASSES.update({kind: dict(named) for kind, named in classes.items()})


def build(kind: str, spec: Mapping[str, Any], where: str | None = None) -> Any:
    """Build a component from its table in an experiment file.

    Args:
        kind: Kind of component, such as `"prior"`.
        spec: The short name under `name`, and arguments of the constructor under their names.
        where: The setting that contains the table, such as `"model.prior"`, for error messages; None uses the kind.

    Returns:
        The component.

    Raises:
        InputError: The name or an argument is unknown, or a value is invalid.

    Example:
        >>> from keras_vae import schedules
        >>> build("schedule", {"name": "warm-up", "steps": 200})
        WarmUp(steps=200)
    """
    where, classes = where or kind, registered(kind)
    name, arguments = spec.get("name"), {key: value for key, value in spec.items() if key != "name"}
    if not isinstance(name, str) or name not in classes:
        raise unknown(where, name, classes)
    cls = classes[name]
    accepted = settings(cls)
    for key, value in arguments.items():
        if key not in accepted:
            hint = suggestion(key, accepted)
            raise InputError(
                f"{where}.{key} = {shown(value)}: no such argument of {name}; {hint}accepted: {listed([*accepted])}"
            )
        arguments[key] = _convert_argument(f"{where}.{key}", value, accepted[key].annotation)
    try:
        return cls(**arguments)
    except InputError as error:
        names_argument = str(error).startswith(tuple(f"{key}{end}" for key in accepted for end in (" ", ".")))
        raise InputError(f"{where}.{error}" if names_argument else f"{where} = {name}: {error}") from None


def spec(kind: str, instance: Any) -> dict[str, Any]:
    """Return the table of a component, from which `build` creates an equal one.

    Args:
        kind: Kind of component.
        instance: A registered component.

    Returns:
        The short name under `name`, and all settings, defaults included. TOML has no null, so settings that are None
        are left out.
    """
    (name,) = (name for name, cls in _CLASSES[kind].items() if cls is type(instance))
    values = {key: getattr(instance, key) for key in settings(type(instance))}
    return {"name": name} | {key: _to_toml(value) for key, value in values.items() if value is not None}


def describe(instance: Any) -> dict[str, Any]:
    """Return the table of a component as `spec` does, or the class name of an object that is not registered.

    Args:
        instance: Any object.

    Example:
        >>> from keras_vae.components.likelihoods import Categorical
        >>> describe(Categorical())
        {'name': 'categorical'}
    """
    kinds = (kind for kind, classes in _CLASSES.items() if type(instance) in classes.values())
    kind = next(kinds, None)
    return {"name": type(instance).__name__} if kind is None else spec(kind, instance)


def check_component(name: str, value: Any, base: type) -> None:
    """Reject an argument that is not an instance of the base class of its kind.

    Args:
        name: Name of the argument.
        value: Its value; None is accepted.
        base: Base class, such as `keras_vae.priors.Prior`.

    Raises:
        InputError: The value is a name, a class, or an object of another type.
    """
    if value is None or isinstance(value, base):
        return
    kind = base.kind  # type: ignore[attr-defined]
    if isinstance(value, type) and issubclass(value, base):
        raise InputError(f"{name} = {value.__name__}: a class; pass an instance, such as {value.__name__}()")
    own = {key: cls.__name__ for key, cls in registered(kind).items() if cls.__module__.startswith(f"{PACKAGE}.")}
    module = f"{PACKAGE}.{kind}{'es' if kind.endswith('s') else 's'}"
    remedy = f"pass an instance of a class in {module}: {', '.join(sorted(own.values()))}"
    if isinstance(value, str):
        names = own | {class_name.lower(): class_name for class_name in own.values()}
        close = difflib.get_close_matches(value.lower(), names, n=1)
        remedy = f"pass {module}.{names[close[0]]}()" if close else remedy
    raise InputError(f"{name} = {shown(value)}: not an instance of {base.__name__}; {remedy}")


def settings(cls: type) -> dict[str, inspect.Parameter]:
    """Return the parameters of a constructor, without the generic ones of Keras layers."""
    parameters = inspect.signature(cls, eval_str=True).parameters
    return {name: parameter for name, parameter in parameters.items() if name != "kwargs"}


def _deserialize(value: Any) -> Any:
    """Convert the JSON value of a field: a table to a component, a list to a tuple."""
    if isinstance(value, dict):
        return keras.saving.deserialize_keras_object(value)
    return tuple(value) if isinstance(value, list) else value


def _convert_argument(where: str, value: Any, annotation: Any) -> Any:
    """Convert a value to the type of a parameter, and the name or table of a component to the component."""
    kinds = (getattr(type_, "kind", None) for type_ in (annotation, *get_args(annotation)))
    kind = next(filter(None, kinds), None)
    if kind is not None and isinstance(value, str | Mapping):
        return build(kind, {"name": value} if isinstance(value, str) else value, where)
    try:
        return pydantic.TypeAdapter(annotation).validate_python(value)
    except pydantic.ValidationError as error:
        raise InputError(f"{where} = {shown(value)}: {problem(error.errors()[0])}") from None


def _to_toml(value: Any) -> Any:
    """Convert a setting to a value that TOML can represent."""
    if isinstance(value, Component | ComponentLayer):
        return spec(value.kind, value)
    return list(value) if isinstance(value, tuple) else value
