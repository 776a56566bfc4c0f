"""Networks as plain data: what model files and spec.json hold.

A layer is {"layer": NAME, argument: value, ...} with the constructor's arguments. Sequential has "layers", Residual has
"body" and maybe "shortcut", Concat has "branches", MaxUnpool2d has "pool" and "body". A layer that stands at several
places is written once, then as {"same_as": PATH}. Reading makes layers of this package only, by their names; nothing is
imported or run.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from pellucid.errors import OptionError, unknown
from pellucid.nn import activation, conv, linear, norm, pool, resize
from pellucid.nn.containers import Concat, MaxUnpool2d, Residual, Sequential
from pellucid.nn.layer import Layer, join
from pellucid.nn.network import Network

LEAVES: dict[str, type[Layer]] = {
    name: kind
    for module in (activation, conv, linear, norm, pool, resize)
    for name, kind in sorted(vars(module).items())
    if isinstance(kind, type) and issubclass(kind, Layer) and kind.__module__ == module.__name__ and name[0] != "_"
}
_LISTS: dict[str, tuple[type[Network], str]] = {"Sequential": (Sequential, "layers"), "Concat": (Concat, "branches")}
_PARTS: dict[str, tuple[type[Network], set[str], set[str]]] = {
    "Residual": (Residual, {"body"}, {"body", "shortcut"}),
    "MaxUnpool2d": (MaxUnpool2d, {"pool", "body"}, {"pool", "body"}),
}
"""Containers: with a list of layers under a name, and with named parts, of which some are required."""

_DEPTH = 50
_PLACES = 10_000


def to_spec(layer: Layer) -> dict[str, Any]:
    """Return a layer or network as plain data.

    Args:
        layer: Made of this package's layers.

    Raises:
        OptionError: For a layer of one's own, which plain data cannot hold.

    >>> to_spec(Sequential(linear.Flatten(), linear.Linear(4, 2)))["layers"][0]
    {'layer': 'Flatten'}
    """
    if layer.leaf_count > _PLACES:
        raise OptionError(f"the network has more than {_PLACES} layers")
    return _to_spec(layer, "", {})


def _to_spec(layer: Layer, path: str, seen: dict[int, str]) -> dict[str, Any]:
    if path.count(".") > _DEPTH:
        raise OptionError(f"layer {path} is nested more than {_DEPTH} deep")
    if id(layer) in seen:
        return {"same_as": seen[id(layer)]}
    seen[id(layer)] = path
    name = type(layer).__name__
    if isinstance(layer, Network):
        children = {key: _to_spec(child, join(path, key), seen) for key, child in layer.children()}
        if name in _LISTS and type(layer) is _LISTS[name][0]:
            return {"layer": name, _LISTS[name][1]: list(children.values())}
        if name in _PARTS and type(layer) is _PARTS[name][0]:
            return {"layer": name, **children}
    elif LEAVES.get(name) is type(layer):
        return {"layer": name, **layer.config()}
    raise OptionError(f"{name} is not one of pellucid's layers, so a file cannot hold it; save its state_dict instead")


def from_spec(spec: object) -> Layer:
    """Return the layer or network that plain data describe, not built.

    Args:
        spec: As to_spec gives it.

    Raises:
        OptionError: For anything that is not a spec, with the place in it.

    >>> from_spec({"layer": "Sequential", "layers": [{"layer": "LazyLinear", "out_features": 10}]})
    Sequential(
      (0) LazyLinear(10)
    )
    """
    return _from_spec(spec, "", {})[0]


def _from_spec(spec: object, path: str, made: dict[str, tuple[Layer, int]]) -> tuple[Layer, int]:
    """Return a layer and how many places for a layer it takes; made holds what stands before it, by path."""
    where = f"layer {path}" if path else "the network"
    if path.count(".") > _DEPTH:
        raise OptionError(f"{where} is nested more than {_DEPTH} deep")
    if not isinstance(spec, Mapping) or not all(isinstance(key, str) for key in spec):
        raise OptionError(f'{where} must be an object such as {{"layer": "ReLU"}}, got {spec!r:.80}')
    if "same_as" in spec:
        if set(spec) != {"same_as"} or not isinstance(spec["same_as"], str) or spec["same_as"] not in made:
            raise OptionError(f"{where} is the same as {spec['same_as']!r:.80}, which does not stand before it")
        return made[spec["same_as"]]
    arguments = dict(spec)
    name = arguments.pop("layer", None)
    layer: Layer
    places = 1
    if isinstance(name, str) and name in _LISTS:
        kind, key = _LISTS[name]
        _check_keys(arguments, {key}, {key}, where)
        if not isinstance(arguments[key], list):
            raise OptionError(f'{where}: "{key}" must be a list, got {arguments[key]!r:.80}')
        children = [_from_spec(child, join(path, str(i)), made) for i, child in enumerate(arguments[key])]
        layer = kind(*(child for child, _ in children))
        places = sum(count for _, count in children)
    elif isinstance(name, str) and name in _PARTS:
        kind, required, known = _PARTS[name]
        _check_keys(arguments, required, known, where)
        parts = {key: _from_spec(child, join(path, key), made) for key, child in arguments.items()}
        layer = kind(**{key: child for key, (child, _) in parts.items()})
        places = sum(count for _, count in parts.values())
    elif isinstance(name, str) and name in LEAVES:
        parameters = list(inspect.signature(LEAVES[name].__init__).parameters.values())[1:]
        required = {p.name for p in parameters if p.default is p.empty}
        _check_keys(arguments, required, {p.name for p in parameters}, where)
        for flag in (p.name for p in parameters if p.annotation in (bool, "bool")):
            if type(arguments.get(flag, False)) is not bool:
                raise OptionError(f"{where} ({name}): {flag} must be True or False, got {arguments[flag]!r:.80}")
        try:
            layer = LEAVES[name](**arguments)
        except (TypeError, ValueError, OverflowError) as error:
            raise OptionError(f"{where} ({name}): {error}") from None
    else:
        raise OptionError(f"{where}: {unknown('layer', name, [*LEAVES, *_LISTS, *_PARTS])}")
    if places > _PLACES:
        raise OptionError(f"{where} has more than {_PLACES} layers")
    made[path] = layer, places
    return layer, places


def _check_keys(arguments: Mapping[str, Any], required: set[str], known: set[str], where: str) -> None:
    missing, strange = sorted(required - set(arguments)), sorted(set(arguments) - known)
    if missing:
        raise OptionError(f"{where} lacks {', '.join(missing)}")
    if strange:
        raise OptionError(f"{where}: {unknown('argument', strange[0], sorted(known) or ['(none)'])}")
