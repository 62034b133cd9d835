"""``fastapi-guard demo``: the command, the application that it serves, and the lines that call it."""
