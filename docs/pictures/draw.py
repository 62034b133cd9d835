"""Draw the pictures of the documents: `python docs/pictures/draw.py` writes them, and a test compares.

The layers are read from the contract of import-linter in pyproject.toml, and each module that a picture names has to be
one of them, so that the pictures cannot differ from the package.
"""

import tomllib
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from textwrap import dedent, indent
from typing import NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
WIDTH = 860
MARGIN = 24

# A picture has its own background, so that it is legible on any page, in light and dark mode.
STYLE = """
svg { --ground: #ffffff; --edge: #d6dae3; --ink: #1d2433; --faint: #5b6478; --band: #f5f6fa; --plain: #e6e9f0;
  --scheme: #cfe4fb; --verify: #e2d8fa; --decide: #cfeedd; --answer: #fbe0da; --refuse: #b3261e }
@media (prefers-color-scheme: dark) {
  svg { --ground: #161a23; --edge: #3a4254; --ink: #e8ebf2; --faint: #a3adc2; --band: #1e2430; --plain: #2d3546;
    --scheme: #1d4468; --verify: #44356f; --decide: #1f5140; --answer: #63302b; --refuse: #ff9d92 }
}
text { font: 13px ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: var(--ink) }
.title { font-size: 15px; font-weight: 600 }
.strong { font-weight: 600 }
.faint { fill: var(--faint); font-size: 12px }
.module { font: 11.5px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace }
.refusal { fill: var(--refuse); font-weight: 600 }
.ground { fill: var(--ground); stroke: var(--edge) }
.band { fill: var(--band) }
.box { fill: var(--band); stroke: var(--edge) }
.group { fill: none; stroke: var(--faint); stroke-dasharray: 4 4 }
.plain { fill: var(--plain) }
.scheme { fill: var(--scheme) }
.verify { fill: var(--verify) }
.decide { fill: var(--decide) }
.answer { fill: var(--answer) }
.way { fill: none; stroke: var(--ink); stroke-width: 1.6; marker-end: url(#ink) }
.no { fill: none; stroke: var(--refuse); stroke-width: 1.4; marker-end: url(#no) }
.back { fill: none; stroke: var(--faint); stroke-width: 1.4; stroke-dasharray: 5 3; marker-end: url(#faint) }
#ink path { fill: var(--ink) } #no path { fill: var(--refuse) } #faint path { fill: var(--faint) }
""".strip()

# The step of a request that a package implements; the other packages take no part.
STEPS = {
    "scheme": ("schemes",),
    "verify": ("jwt", "api_key", "issuers", "login"),
    "decide": ("auth", "scopes", "claims"),
    "answer": ("exceptions", "app"),
}


class Station(NamedTuple):
    """A step of a request: its title, its packages, its refusals, and what it passes on."""

    kind: str
    title: str
    text: str
    modules: tuple[str, ...] = ()
    refusals: tuple[tuple[str, str], ...] = ()
    onward: str = ""


WAY = (
    Station(
        "plain", "Connection", "an HTTP request, or the handshake of a WebSocket", onward="header, cookie or query"
    ),
    Station(
        "scheme",
        "1  Scheme",
        "extracts the raw credential",
        ("schemes",),
        (("no credential", "401  Bearer realm=…"), ("cross-site request", "403")),
        "raw credential: str",
    ),
    Station(
        "verify",
        "2  Auth.verify",
        "returns its claims, once a request",
        ("jwt", "api_key", "issuers", "login"),
        (("invalid credential", "401  invalid_token"), ("backend unavailable", "503  Retry-After")),
        "claims and granted scopes",
    ),
    Station(
        "decide",
        "3  Scopes",
        "compares required and granted scopes",
        ("auth", "scopes", "claims"),
        (("missing scope", "403  insufficient_scope"),),
        "claims: dict[str, Any]",
    ),
    Station(
        "decide",
        "4  Policies",
        "optional: user, owner, policy",
        ("auth",),
        (("policy returns False", "403"), ("unknown user", "401  invalid_token")),
        "claims, user or object",
    ),
    Station("plain", "Endpoint", "receives claims, user or object"),
)


def layers() -> list[list[str]]:
    """Return the layers of the package, the highest first, from the contract of import-linter."""
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (contract,) = (contract for contract in linter["contracts"] if contract["id"] == "layers")
    return [[part.strip(" ()") for part in layer.split("|")] for layer in contract["layers"]]


def kind_of(module: str) -> str:
    """Return the step of a request that a package implements."""
    return next((kind for kind, modules in STEPS.items() if module in modules), "plain")


def text(x: float, y: float, words: str, style: str = "", anchor: str = "start") -> str:
    """Return a line of text."""
    return f'<text x="{x:g}" y="{y:g}" class="{style}" text-anchor="{anchor}">{escape(words, quote=False)}</text>'


def box(x: float, y: float, width: float, height: float, style: str, radius: int = 6) -> str:
    """Return a rounded rectangle."""
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius}" class="{style}"/>'


def path(steps: str, style: str) -> str:
    """Return a line with an arrow at its end."""
    return f'<path d="{steps}" class="{style}"/>'


def chips(modules: Sequence[str], x: float, y: float, right: float) -> tuple[list[str], float]:
    """Return the names of packages on their colours, in lines that end before ``right``, and their lower edge."""
    shapes, left = [], x
    for module in modules:
        width = 7 * len(module) + 14
        if left + width > right:
            left, y = x, y + 23
        shapes += [
            box(left, y, width, 19, kind_of(module), 4),
            text(left + width / 2, y + 13.5, module, "module", "middle"),
        ]
        left += width + 6
    return shapes, y + 19


def drawing(title: str, description: str, height: float, shapes: Sequence[str]) -> str:
    """Return a picture as SVG."""
    arrows = "\n".join(
        f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z"/></marker>'
        for name in ("ink", "no", "faint")
    )
    body = "\n".join([box(0.5, 0.5, WIDTH - 1, height - 1, "ground", 12), *shapes])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}" '
        'role="img" aria-labelledby="title description">\n'
        f'<title id="title">{escape(title)}</title>\n<desc id="description">{escape(description)}</desc>\n'
        f"<style>\n{indent(dedent(STYLE), '  ')}\n</style>\n<defs>\n{arrows}\n</defs>\n{body}\n</svg>\n"
    )


def way_of_a_request(top: float) -> tuple[list[str], float]:
    """Return the steps of a request from top to bottom, and their lower edge."""
    left, right, middle, aside = MARGIN + 14, 560, 70, 610
    shapes = [text(MARGIN, top + 12, "The steps of a request", "title")]
    y = top + 30
    guarded = []
    for number, station in enumerate(WAY):
        height = 74 if station.modules else 34
        if station.title[0] in "123":
            guarded += [y, y + height]
        shapes += [
            box(left, y, right - left, height, "box"),
            box(left, y, 6, height, station.kind, 3),
            text(left + 18, y + 22, station.title, "strong"),
            text(left + 190, y + 22, station.text, "faint"),
        ]
        shapes += chips(station.modules, left + 18, y + 39, right)[0]
        for line, (why, answer) in enumerate(station.refusals):
            at = y + 20 + 34 * line
            shapes += [
                path(f"M{right} {at}H{aside - 6}", "no"),
                text(aside, at - 3, why, "faint"),
                text(aside, at + 13, answer, "refusal"),
            ]
        y += height
        if number + 1 < len(WAY):
            # The border of the dependency, or the label, needs room here.
            gap = 44 if number in (0, 3) else 28
            words = 36 if number == 3 else 19
            shapes += [
                path(f"M{middle} {y}V{y + gap - 1}", "way"),
                text(middle + 14, y + words, station.onward, "faint"),
            ]
            y += gap
    shapes += [
        box(MARGIN, guarded[0] - 8, right - MARGIN + 14, guarded[-1] - guarded[0] + 30, "group", 10),
        text(right, guarded[-1] + 15, "one flat dependency: auth.dependency", "faint", "end"),
    ]
    return shapes, y


def the_layers(top: float) -> tuple[list[str], float]:
    """Return the layers from the highest to the lowest, and their lower edge."""
    shapes = [
        text(MARGIN, top + 12, "The layers of the package", "title"),
        text(WIDTH - MARGIN, top + 12, "a package imports only layers below its own", "faint", "end"),
    ]
    first = y = top + 28
    for layer in layers():
        modules, end = chips(layer, MARGIN + 34, y + 4, WIDTH - MARGIN - 4)
        shapes += [box(MARGIN + 26, y, WIDTH - 2 * MARGIN - 26, end + 4 - y, "band"), *modules]
        y = end + 7
    shapes.append(path(f"M{MARGIN + 10} {first + 2}V{y - 6}", "way"))
    key = {
        "scheme": "extracts the credential",
        "verify": "verifies it",
        "decide": "decides",
        "answer": "sends refusals",
    }
    x = MARGIN + 26.0
    for kind, words in [*key.items(), ("plain", "other")]:
        shapes += [box(x, y + 8, 14, 14, kind, 3), text(x + 20, y + 19.5, words, "faint")]
        x += 44 + 6.4 * len(words)
    return shapes, y + 22


def request_and_layers() -> str:
    """Return the steps of a request, and below them the layers in the same colours."""
    known = {module for layer in layers() for module in layer}
    named = {module for modules in STEPS.values() for module in modules}
    named |= {module for station in WAY for module in station.modules}
    if named - known:
        msg = f"not in any layer: {sorted(named - known)}"
        raise LookupError(msg)
    way, end = way_of_a_request(22)
    stack, end = the_layers(end + 34)
    return drawing(
        "The steps of a request, and the layers of the package",
        "Above: connection, scheme, Auth.verify, scopes and policies, endpoint, with the refusals of each. "
        "Below: the packages of fastapi_guard in their layers, coloured by their step.",
        end + MARGIN,
        [*way, *stack],
    )


class State(NamedTuple):
    """A state of a remote key set, its position, and what a request does in it."""

    x: int
    y: int
    name: str
    text: str


STATES = (
    State(24, 96, "Empty", "waits; 503"),
    State(206, 96, "Fresh", "decided immediately"),
    State(400, 96, "Due", "decided immediately"),
    State(400, 226, "Expired", "waits"),
    State(690, 226, "Stale", "decided immediately"),
    State(690, 356, "Gone", "waits; 503"),
)
# The path, its style, the position of its label, and the lines of the label.
CHANGES = (
    ("M170 122H200", "way", (0, 0), ()),
    ("M352 122H394", "way", (376, 84), ("80 % of the lifetime",)),
    ("M473 148V220", "way", (482, 182), ("lifetime ends,", "no attempt has failed")),
    ("M546 122H763V220", "way", (556, 112), ("lifetime ends while attempts fail",)),
    ("M546 242H684", "way", (618, 234), ("a fetch fails",)),
    ("M690 264H552", "way", (618, 282), ("no request",)),
    ("M763 278V350", "way", (769, 318), ("stale_for ends",)),
    ("M473 278V374H684", "way", (482, 364), ("stale_for ends",)),
    ("M690 396H279V154", "back", (290, 414), ("in any state: a fetch succeeds",)),
)


def key_set() -> str:
    """Return the states of a remote key set."""
    shapes = [text(MARGIN, 34, "The states of a remote key set", "title")]
    shapes.append(text(MARGIN, 54, "and a request with a known key in each of them", "faint"))
    kinds = {
        "Fresh": "decide",
        "Due": "decide",
        "Stale": "verify",
        "Expired": "scheme",
        "Empty": "plain",
        "Gone": "answer",
    }
    for x, y, name, words in STATES:
        shapes += [
            box(x, y, 146, 52, kinds[name], 8),
            text(x + 73, y + 23, name, "strong", "middle"),
            text(x + 73, y + 41, words, "faint", "middle"),
        ]
    for steps, style, (x, y), lines in CHANGES:
        anchor = "middle" if x in {376, 618} else "start"
        shapes.append(path(steps, style))
        shapes += [text(x, y + 15 * line, words, "faint", anchor) for line, words in enumerate(lines)]
    return drawing(
        "The states of a remote key set",
        "Empty, fresh, due, expired, stale and gone, with the transitions between them.",
        436,
        shapes,
    )


def pictures() -> Iterator[tuple[Path, str]]:
    """Yield the pictures with their files."""
    yield HERE / "request-and-layers.svg", request_and_layers()
    yield HERE / "key-set.svg", key_set()


if __name__ == "__main__":
    for file, picture in pictures():
        file.write_text(picture, encoding="utf-8")
