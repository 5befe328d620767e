"""Pages of the API: one for each public name of the package, and one for each namespace, with a table of its names."""

import importlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

from tools.site.docstrings import summary, to_rst

PACKAGE = "keras_vae"

GROUPS = {
    "Models": ["VAE", "HierarchicalVAE", "VQVAE", "BaseVAE", "ELBO"],
    "Training and runs": ["Experiment", "train", "resume", "fit_prior", "Run", "load", "Dataset"],
    "Measuring": ["evaluate", "EvaluationConfig", "compare", "diagnose", "plot", "write_report"],
    "scikit-learn": ["AnomalyDetector", "VAETransformer"],
    "Your own components": ["register", "Component", "ComponentLayer"],
    "Errors": ["InputError", "RunError"],
}
"""Groups of the public names of the package, in the order of the page."""

MODULES = {
    "data.sources": ["load", "stream", "load_splits"],
    "data.packing": ["pack"],
    "integrations.export": ["export"],
    "integrations.diffusers": ["from_diffusers", "to_diffusers", "experiment_of"],
    "integrations.hub": ["push", "pull"],
    "integrations.sweep": ["Sweep", "sweep", "write_report"],
    "evaluation.classifier_file": ["save_classifier"],
    "explorer": ["serve", "write_space", "write_web_page"],
}
"""Functions of further modules that the docs use."""

ANCESTORS = "Model, Layer, Component, tuple, Exception, BaseEstimator, object, ABC"
"""Base classes whose methods are documented elsewhere."""

HOOKS = "build, call, compute_output_shape, get_config, from_config, save_own_variables, load_own_variables"
"""Methods that Keras calls."""


@dataclass(frozen=True)
class Name:
    """A public name, as users write it."""

    namespace: str
    name: str
    object: Any

    @property
    def full(self) -> str:
        """The name with its namespace, as in `keras_vae.priors.VampPrior`."""
        return f"{self.namespace}.{self.name}"

    @property
    def page(self) -> str:
        """Path of its page, without a suffix: its own, or that of its namespace."""
        return f"api/{_short(self.namespace) if self.namespace != PACKAGE else self.name}"

    @property
    def directive(self) -> str:
        """Directive of autodoc for its kind."""
        if inspect.isclass(self.object):
            return "autoexception" if issubclass(self.object, Exception) else "autoclass"
        return "autofunction" if callable(self.object) else "autodata"

    @property
    def summary(self) -> str:
        """First sentence of its docstring."""
        return summary(inspect.getdoc(self.object) or "") if self.directive != "autodata" else ""


def exported(module: ModuleType) -> list[str]:
    """Return the public names of a module: `__all__`, or the classes and functions that it defines."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    ]


@cache
def namespaces() -> dict[str, list[Name]]:
    """Return the public names by namespace: those of the package, of its namespaces and of further modules."""
    package = importlib.import_module(PACKAGE)
    values = {name: getattr(package, name) for name in package.__all__ if not name.startswith("__")}
    found = {PACKAGE: [Name(PACKAGE, name, value) for name, value in values.items() if not inspect.ismodule(value)]}
    modules = {f"{PACKAGE}.{name}": value for name, value in values.items() if inspect.ismodule(value)}
    for namespace, module in modules.items():
        members = [Name(namespace, name, getattr(module, name)) for name in exported(module)]
        found[namespace] = [member for member in members if not inspect.ismodule(member.object)]
    for path, names in MODULES.items():
        module = importlib.import_module(f"{PACKAGE}.{path}")
        found[module.__name__] = [Name(module.__name__, name, getattr(module, name)) for name in names]
    return found


def public_names() -> Iterator[Name]:
    """Iterate over all public names."""
    for names in namespaces().values():
        yield from names


@cache
def _targets() -> dict[str, str]:
    """Return full names by the names that docstrings use: `priors.VampPrior`, and `VampPrior` if it is unique."""
    # An object with two names, such as `ELBO`, has its entry in its namespace, which comes after the package.
    entries = {id(name.object): name.full for name in public_names()}
    targets: dict[str, set[str]] = {}
    for name in public_names():
        for written in (name.name, _short(name.full), name.full):
            targets.setdefault(written, set()).add(entries[id(name.object)])
    return {written: names.pop() for written, names in targets.items() if len(names) == 1}


def link(written: str) -> str | None:
    """Return the full name of the public object that a name in a docstring denotes, or None."""
    return _targets().get(written.removesuffix("()"))


def pages() -> dict[str, str]:
    """Return the pages of the API in reStructuredText, by path."""
    written = {"api/index.rst": _index()}
    for namespace, names in namespaces().items():
        if namespace == PACKAGE:
            written |= {f"{name.page}.rst": "\n".join([_heading(name.name), _entry(name)]) for name in names}
        else:
            written[f"api/{_short(namespace)}.rst"] = _namespace_page(namespace, names)
    return written


def _index() -> str:
    public = {name.name: name for name in namespaces()[PACKAGE]}
    grouped = [name for names in GROUPS.values() for name in names]
    if set(grouped) != public.keys():
        raise ValueError(f"GROUPS: {sorted(set(grouped) ^ public.keys())} are not in both the package and the groups")
    lines = [_heading("API"), "Public names of ``keras_vae``. They are imported on first use.\n"]
    for title, names in GROUPS.items():
        lines += [_heading(title, "-"), _table([public[name] for name in names])]
    modules = [namespace for namespace in namespaces() if namespace != PACKAGE]
    for title, further in (("Namespaces", False), ("Further modules", True)):
        chosen = [module for module in modules if (_short(module) in MODULES) == further]
        rows = [(f":doc:`{_short(module)} </api/{_short(module)}>`", _module_summary(module)) for module in chosen]
        lines += [_heading(title, "-"), _list_table(rows)]
    documents = [public[name].page for name in grouped] + [f"api/{_short(module)}" for module in modules]
    return "\n".join([*lines, ".. toctree::", "   :hidden:", "", *(f"   /{document}" for document in documents), ""])


def _namespace_page(namespace: str, names: list[Name]) -> str:
    entries = [entry for name in names for entry in ("", _entry(name))]
    return "\n".join([_heading(_short(namespace)), _module_summary(namespace), "", _table(names), *entries])


def _entry(name: Name) -> str:
    entry = link(name.full)
    if entry != name.full:
        return f"Short for :py:obj:`{entry}`.\n"
    options = []
    if name.directive == "autoclass":
        options = ["   :members:", f"   :inherited-members: {ANCESTORS}", f"   :exclude-members: {HOOKS}"]
    return "\n".join([f".. {name.directive}:: {name.full}", *options, ""])


def _module_summary(namespace: str) -> str:
    module = getattr(importlib.import_module(PACKAGE), _short(namespace), None)
    return to_rst(summary((module or importlib.import_module(namespace)).__doc__ or ""))


def _short(namespace: str) -> str:
    return namespace.removeprefix(PACKAGE + ".")


def _table(names: list[Name]) -> str:
    return _list_table([(f":py:obj:`{name.name} <{link(name.full)}>`", to_rst(name.summary, link)) for name in names])


def _list_table(rows: list[tuple[str, str]]) -> str:
    lines = [".. list-table::", "   :widths: 30 70", ""]
    for first, second in rows:
        lines += [f"   * - {first}", f"     - {second}"]
    return "\n".join([*lines, ""])


def _heading(text: str, line: str = "=") -> str:
    return f"{text}\n{line * len(text)}\n"
