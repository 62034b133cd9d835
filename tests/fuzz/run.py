"""Fuzz one target, led by the branches that an input reaches: ``python -m fuzz.run TARGET [SECONDS]``.

What reaches something new is kept in a folder of its own. What fails is written to the corpus, where the tests replay
it from then on. With ``merge`` for the seconds, the corpus takes in of that folder what reaches more than itself.
"""

import asyncio
import logging
import signal
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["fastapi_guard", "fuzz", "support.reference_verifier"]):
    from fuzz.targets import CORPUS, TARGETS

FOUND = Path(".fuzz")


def options_of(name: str, seconds: str) -> list[str]:
    """Return the arguments of libFuzzer."""
    corpus, found = CORPUS / name, FOUND / name
    found.mkdir(parents=True, exist_ok=True)
    options = [f"-dict={CORPUS.parent / 'words.txt'}", f"-artifact_prefix={corpus}/", "-max_len=2048", "-timeout=10"]
    if seconds == "merge":
        return [*options, "-set_cover_merge=1", str(corpus), str(found)]
    return [*options, f"-max_total_time={seconds}", "-print_final_stats=1", str(found), str(corpus)]


def main(name: str, *arguments: str) -> None:
    """Fuzz a target; libFuzzer, which starts itself once more to merge, passes all that it wants."""
    options = options_of(name, *arguments) if len(arguments) == 1 else arguments
    logging.disable()
    check, loop = TARGETS[name], asyncio.new_event_loop()

    def once(raw: bytes) -> None:
        try:
            loop.run_until_complete(check(raw))
        except BaseException:
            # The alarm of -timeout could end the process before libFuzzer has written the input.
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise

    atheris.Setup([f"{sys.executable} -m fuzz.run {name}", *options], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
