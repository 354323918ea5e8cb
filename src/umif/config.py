"""Typed configs, recipes and the one registry.

A config is a pydantic model whose fields say what they mean and what the paper uses; an unknown key is an error that
names the nearest known one. A recipe is a YAML file of one config; `key=value` overrides it from the command line.

The registry holds everything that a dataset, an objective, a task or a backbone adds. The modules of UmiF's own
packages are found by scanning, third parties' through the entry-point group `umif.plugins`, so adding one is one file.
"""

from __future__ import annotations

import importlib
import pkgutil
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from umif.errors import ConfigError, RegistryError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Kind = Literal["reader", "objective", "task", "backbone"]
KINDS: tuple[Kind, ...] = get_args(Kind)
ENTRY_POINT_GROUP = "umif.plugins"
# Where UmiF's own entries live; every module of these packages is imported on first use of the kind.
_HOMES: dict[Kind, str] = {
    "reader": "umif.readers",
    "objective": "umif.objectives",
    "task": "umif.tasks",
    "backbone": "umif.models",
}

T = TypeVar("T")
ConfigT = TypeVar("ConfigT", bound="Config")


class Registry:
    """Names of each kind → classes or functions. A duplicate name is an error, never an overwrite."""

    def __init__(self) -> None:
        self._entries: dict[Kind, dict[str, Any]] = {kind: {} for kind in KINDS}
        self._scanned: set[Kind] = set()
        self._plugins_loaded = False

    def register(self, kind: str, name: str) -> Callable[[T], T]:
        """Return a decorator that registers a class or function under `kind` and `name`.

        Raises:
            RegistryError: `kind` is none of `KINDS`, or `name` is taken by something else.
        """
        key = self._kind(kind)

        def decorate(entry: T) -> T:
            known = self._entries[key].get(name)
            same = known is not None and (known.__module__, known.__qualname__) == (
                getattr(entry, "__module__", None),
                getattr(entry, "__qualname__", None),
            )
            if known is not None and not same:
                raise RegistryError(
                    f"the {kind} {name!r} is already registered by {known.__module__}.{known.__qualname__}",
                    where=f"{getattr(entry, '__module__', '?')}.{getattr(entry, '__qualname__', '?')}",
                    fix="choose another name",
                )
            self._entries[key][name] = entry
            return entry

        return decorate

    def get(self, kind: str, name: str) -> Any:
        """Return the entry `name` of `kind`.

        Raises:
            RegistryError: nothing of that name; the nearest name is offered.
        """
        key = self._kind(kind)
        self._load(key)
        try:
            return self._entries[key][name]
        except KeyError:
            raise RegistryError(f"no {kind} is called {name!r}", fix=nearest(name, self._entries[key])) from None

    def names(self, kind: str) -> list[str]:
        """Return the names registered under `kind`, sorted."""
        key = self._kind(kind)
        self._load(key)
        return sorted(self._entries[key])

    def _kind(self, kind: str) -> Kind:
        for known in KINDS:
            if known == kind:
                return known
        raise RegistryError(f"there is no kind {kind!r}", fix=nearest(kind, KINDS))

    def _load(self, kind: Kind) -> None:
        if kind not in self._scanned:
            self._scanned.add(kind)
            home = importlib.import_module(_HOMES[kind])
            for module in pkgutil.iter_modules(home.__path__):
                importlib.import_module(f"{home.__name__}.{module.name}")
        if not self._plugins_loaded:
            self._plugins_loaded = True
            for entry_point in entry_points(group=ENTRY_POINT_GROUP):
                entry_point.load()


REGISTRY = Registry()
register = REGISTRY.register


class Config(BaseModel):
    """Base of all configs: typed, frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def parse_config(kind: type[ConfigT], data: dict[str, Any], *, where: str | Path) -> ConfigT:
    """Validate `data` as a config of type `kind`.

    Raises:
        ConfigError: naming the key, what was wrong with it and, for an unknown key, the nearest known one.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = _known_keys(kind, first["loc"][:-1])
            raise ConfigError(f"unknown key {key!r}", where=where, fix=nearest(str(first["loc"][-1]), known)) from None
        value = first.get("input")
        raise ConfigError(f"{key or 'config'} = {value!r}: {first['msg']}", where=where) from None


def _known_keys(kind: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    model: Any = kind
    for part in path:
        if not (isinstance(model, type) and issubclass(model, BaseModel)) or not isinstance(part, str):
            return []
        annotation = model.model_fields[part].annotation
        models = [a for a in (annotation, *get_args(annotation)) if isinstance(a, type) and issubclass(a, BaseModel)]
        model = models[0] if models else None
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file that holds one mapping.

    Raises:
        ConfigError: the file is missing, is not YAML or holds something else; the line is named.
    """
    file = Path(path)
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError("there is no such file", where=file, fix="recipes live under recipes/*.yaml") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read as text: {error}", where=file) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"is not valid YAML: {getattr(error, 'problem', error)}", where=f"{file}{line}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError("must hold key: value lines", where=file)
    return data


def apply_overrides(data: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return `data` with `a.b=value` overrides applied; values are read as YAML.

    Raises:
        ConfigError: an override has no `=`, or goes through a key that holds no mapping.
    """
    result: dict[str, Any] = _copy(data)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"{override!r} is no override", fix="write key=value, for example train.steps=1000")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(f"the value in {override!r} is not valid YAML", where=key) from None
        *parents, last = key.strip().split(".")
        here = result
        for parent in parents:
            inner = here.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"{parent!r} holds a value, not a group of keys", where=key)
            here = inner
        here[last] = value
    return result


def _copy(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _copy(value) for key, value in data.items()}
    return [_copy(value) for value in data] if isinstance(data, list) else data


def load_recipe(kind: type[ConfigT], path: str | Path, overrides: Sequence[str] = ()) -> ConfigT:
    """Read the recipe at `path`, apply `key=value` overrides and validate it as `kind`.

    An override into a mapping that the file leaves to its default changes that default: one objective's temperature
    does not drop the other objectives.
    """
    data = dict(read_yaml(path))
    for override in overrides:
        top, dot, _ = override.partition("=")[0].strip().partition(".")
        field = kind.model_fields.get(top)
        if dot and field is not None and isinstance(field.default, dict):
            data.setdefault(top, _copy(field.default))
    return parse_config(kind, apply_overrides(data, overrides), where=path)
