"""Stores of state: refresh families, sessions, revocations, proofs that were seen."""

from fastapi_guard.stores.memory import MemoryStore
from fastapi_guard.stores.protocol import Record, Store

__all__ = ["MemoryStore", "Record", "Store"]
