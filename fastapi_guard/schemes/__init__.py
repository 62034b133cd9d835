"""From a connection to the raw credential in it, and the challenge of each scheme (RFC 9110 11, RFC 6750 2 and 3).

A scheme answers ``None`` where nothing was sent for it, and raises Unauthorized where what was sent cannot be a
credential. Nothing here decides whether a credential is valid.
"""

from fastapi_guard.schemes.api_key import APIKeyScheme
from fastapi_guard.schemes.base import Scheme, is_quotable
from fastapi_guard.schemes.bearer import BearerOptions, BearerScheme, DPoPScheme
from fastapi_guard.schemes.callable import CallableScheme, SchemeCallable, as_scheme

__all__ = [
    "APIKeyScheme",
    "BearerOptions",
    "BearerScheme",
    "CallableScheme",
    "DPoPScheme",
    "Scheme",
    "SchemeCallable",
    "as_scheme",
    "is_quotable",
]
