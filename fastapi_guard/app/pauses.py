"""Keep the pauses of the garbage collector out of the slowest responses."""

import gc
from typing import Final

# Objects that are allocated before the young ones are searched, and how often the older generations are.
_THRESHOLDS: Final = (50_000, 20, 100)


def tune_gc() -> None:
    """Exempt what the application has built so far from garbage collection, and collect the rest less often.

    Call it once in each worker when everything is imported and built: in the lifespan, before ``yield``. It changes
    ``gc`` for the whole process. Without it, a full collection searches every route, model and module, and the
    requests of that moment wait for it.

    Memory that is part of a reference cycle is freed later; all other memory is freed at once, as before.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
