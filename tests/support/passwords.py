"""Hash passwords quickly, and count the hashes."""

from collections import Counter
from typing import Any

from fastapi_guard.login.passwords import PasswordHasher

QUICK = {"argon2__memory_cost": 64, "argon2__time_cost": 1, "argon2__parallelism": 1, "bcrypt__rounds": 4}


def quick_hasher(*schemes: str, **options: Any) -> PasswordHasher:
    """Return a hasher with the least work that the schemes allow."""
    names = schemes or ("argon2", "bcrypt")
    settings = {name: value for name, value in QUICK.items() if name.split("__")[0] in names}
    return PasswordHasher(names, settings=settings, workers=2, **options)


class CountingContext:
    """Count the calls that a hasher makes to libpass: each one but `needs_update` costs the work of one hash."""

    def __init__(self, hasher: PasswordHasher) -> None:
        """Wrap the libpass context of `hasher`."""
        self.context = hasher._context
        self.calls: Counter[str] = Counter()
        self.verified: list[Any] = []
        hasher._context = self  # type: ignore[assignment]

    def hash(self, password: Any) -> Any:
        """Count, and hash."""
        self.calls["hash"] += 1
        return self.context.hash(password)

    def verify(self, password: Any, hash: Any) -> Any:  # noqa: A002 - libpass calls it that
        """Count unless it raises: libpass raises before it hashes."""
        result = self.context.verify(password, hash)
        self.calls["verify"] += 1
        self.verified.append(hash)
        return result

    def needs_update(self, hash: Any) -> Any:  # noqa: A002 - libpass calls it that
        """Return whether the hash is outdated; not counted."""
        return self.context.needs_update(hash)
