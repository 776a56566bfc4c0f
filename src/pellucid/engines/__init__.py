"""Engines run whole networks on batches; all have the methods of engines.base.Engine."""

from pellucid.engines.base import NAMES, Engine, create
from pellucid.engines.reference import ReferenceEngine

__all__ = ["NAMES", "Engine", "ReferenceEngine", "create"]
