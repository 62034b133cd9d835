"""Read YAML, with the line of each value. Needs the extra ``yaml``."""

from typing import Any

from fastapi_guard.api_key.mistakes import Place
from fastapi_guard.exceptions import ConfigurationError, MissingExtraError

try:
    import yaml
except ImportError:
    raise MissingExtraError("PyYAML", "yaml") from None


def load_yaml(source: str, text: str) -> tuple[Any, dict[Place, int]]:
    """Return the content of a YAML document, and the line of each path in it.

    Raises:
        ConfigurationError: It is not YAML, or a mapping has a name twice, of which a parser would keep one.
    """
    lines: dict[Place, int] = {}
    twice: list[str] = []
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None, lines
            _walk(node, (), lines, twice, set())
            content = loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        # The message of the parser quotes the file, and with it a key.
        mark = error.problem_mark or error.context_mark
        place = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
        msg = f"{source}{place}: this is not valid YAML"
        raise ConfigurationError(msg) from None
    except (yaml.YAMLError, ValueError, RecursionError):
        msg = f"{source}: this is not valid YAML: a character, a date or a number that cannot be"
        raise ConfigurationError(msg) from None
    if twice:
        raise ConfigurationError("\n".join(f"{source}, {place}: the same name a second time" for place in twice))
    return content, lines


def _walk(node: yaml.Node, path: Place, lines: dict[Place, int], twice: list[str], seen: set[int]) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    if not isinstance(node, yaml.MappingNode) or id(node) in seen:
        return
    seen.add(id(node))
    names: set[tuple[str, str]] = set()
    for number, (name, value) in enumerate(node.value, 1):
        line = name.start_mark.line + 1
        below = (*path, number if path == ("api_keys",) else str(name.value))
        lines[below] = line
        if isinstance(name, yaml.ScalarNode):
            if (name.tag, name.value) in names:
                twice.append(f"line {line}")
            names.add((name.tag, name.value))
        _walk(value, below, lines, twice, seen)
