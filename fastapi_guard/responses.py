"""What every answer that carries a token, a key or a cookie has in common."""

from fastapi import Response


async def no_store(response: Response) -> None:
    """Set ``Cache-Control: no-store`` on the answer (RFC 6749 5.1): ``dependencies=[Depends(no_store)]``.

    It reaches what FastAPI serialises for the endpoint; a Response object that the endpoint returns itself keeps its
    own headers.
    """
    response.headers["Cache-Control"] = "no-store"
