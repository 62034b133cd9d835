"""What every answer that carries a token, a key or a cookie has in common."""

from fastapi import Response


async def no_store(response: Response) -> None:
    """Keep the answer out of every cache (RFC 6749 5.1): ``dependencies=[Depends(no_store)]``.

    Sets ``Cache-Control: no-store``, and adds Authorization and Cookie to ``Vary``, for a cache that was told to store
    all the same: it is one caller's answer.

    It reaches what FastAPI serialises for the endpoint; a Response object that the endpoint returns itself keeps its
    own headers.
    """
    response.headers["Cache-Control"] = "no-store"
    varies = ", ".join(response.headers.getlist("Vary"))
    named = {name.strip().lower() for name in varies.split(",")}
    missing = [name for name in ("Authorization", "Cookie") if name.lower() not in named and "*" not in named]
    if missing:
        response.headers["Vary"] = ", ".join([varies, *missing] if varies else missing)
