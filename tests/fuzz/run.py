"""Fuzz one target, led by the branches that an input reaches: ``python -m fuzz.run TARGET [SECONDS]``.

What reaches something new is kept in a folder of its own. What fails is written to the corpus, where the tests replay
it from then on. With ``merge`` for the seconds, the corpus takes in of that folder what reaches more than itself.
"""

import asyncio
import logging
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["fastapi_guard", "fuzz", "second_opinion"]):
    from fuzz.targets import CORPUS, TARGETS

FOUND = Path(".fuzz")


def main(name: str, seconds: str) -> None:
    """Fuzz for so many seconds, from the corpus on."""
    corpus, found = CORPUS / name, FOUND / name
    found.mkdir(parents=True, exist_ok=True)
    logging.disable()
    check, loop = TARGETS[name], asyncio.new_event_loop()

    def once(raw: bytes) -> None:
        loop.run_until_complete(check(raw))

    options = [f"-dict={CORPUS.parent / 'words.txt'}", f"-artifact_prefix={corpus}/", "-max_len=2048", "-timeout=10"]
    if seconds == "merge":
        options += ["-set_cover_merge=1", str(corpus), str(found)]
    else:
        options += [f"-max_total_time={seconds}", "-print_final_stats=1", str(found), str(corpus)]
    atheris.Setup([sys.argv[0], *options], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
