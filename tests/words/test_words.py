"""The check of phrases to avoid: its patterns, its exceptions, and the list of files that are still to be cleaned."""

from pathlib import Path

import pytest

from words import check

pytestmark = pytest.mark.once

PHRASES = check.read_phrases()
EXAMPLES = [(phrase, text) for phrase in PHRASES for text in phrase.finds]
ALLOWED = [(phrase, text) for phrase in PHRASES for text in phrase.passes]


def found_in(file: str, source: str, *allowed: check.Allowed) -> list[tuple[int, str]]:
    """Return the line and the words of each finding in a source."""
    return [(finding.line, finding.found) for finding in check.Checker(PHRASES, allowed).findings(file, source)]


@pytest.mark.parametrize(("phrase", "text"), EXAMPLES, ids=[text for _, text in EXAMPLES])
def test_a_phrase_to_avoid_is_found(phrase: check.Phrase, text: str) -> None:
    """Each pattern matches the examples that it names."""
    assert phrase.pattern.search(text)


@pytest.mark.parametrize(("phrase", "text"), ALLOWED, ids=[text for _, text in ALLOWED])
def test_plain_english_passes(phrase: check.Phrase, text: str) -> None:
    """A pattern does not match the words to write instead, and no other pattern does."""
    assert phrase.part in {"text", "summary"}
    assert not any(other.pattern.search(text) for other in PHRASES if other.part in {"text", phrase.part})


def test_a_page_is_prose_from_its_first_line_to_its_last() -> None:
    """A phrase is found in text and in code, also where a line ends within it; the line is the one it begins on."""
    page = "# Title\n\nThe store is\naway.\n\n```python\nfor each in keys:\n    pass\n```\n"
    assert found_in("docs/page.md", page) == [(3, "is away"), (7, "for each in")]


def test_wide_code_on_a_page() -> None:
    """A line of code on a page has at most 88 columns; prose and hidden blocks may be wider."""
    wide = "x" * 89
    page = f"{wide}\n\n```python\n{wide[:88]}\n{wide}\n```\n\n<!-- invisible-code-block: python\n{wide}\n-->\n"
    assert found_in("docs/page.md", page) == [(5, "89 columns")]
    assert found_in("docs/page.md", page, check.Allowed("docs/page.md", wide, "one command")) == []


def test_a_python_file() -> None:
    """Docstrings, comments, messages and loop variables are checked; code is not."""
    source = (
        '"""Know the keys.\n\nThe store\n    is away.\n"""\n'
        "# a stranger\n# whoever\n\n\n"
        "def f(each):\n"
        '    """Return the key."""\n'
        '    raise ValueError(f"{each!r} is no key")  # nobody\n'
        "for each in strangers:\n    is_away = each\n"
    )
    findings = [(1, "Know"), (4, "is away"), (6, "stranger"), (7, "whoever"), (10, "each"), (12, "is no k")]
    findings += [(12, "nobody"), (13, "each")]
    assert sorted(found_in("fastapi_guard/module.py", source)) == findings


def test_strings_of_tests_are_data() -> None:
    """In a test, docstrings and comments are checked, and other strings are not."""
    assert found_in("tests/test_x.py", 'assert f() == "a stranger"  # a stranger\n') == [(1, "stranger")]


def test_the_rules_for_first_lines_stay_with_them() -> None:
    """A word that is avoided in the first line of a docstring passes further down."""
    assert found_in("fastapi_guard/x.py", '"""Return it.\n\nIt takes what a caller gives.\n"""\n') == []
    assert found_in("fastapi_guard/x.py", '"""It takes what\na caller gives.\n"""\n') == [(1, "takes"), (2, "gives")]


def test_a_reviewed_exception() -> None:
    """An exception covers its words in its file alone, and one without use is a mistake."""
    allowed = check.Allowed("docs/a.md", "the RFC says so", "a quotation")
    assert found_in("docs/a.md", "the RFC\nsays so, it says", allowed) == [(2, "says")]
    assert found_in("docs/b.md", "the RFC says so", allowed) == [(1, "says")]
    checker = check.Checker(PHRASES, [allowed])
    checker.findings("docs/a.md", "nothing")
    assert checker.unused == [allowed]
    checker.findings("docs/a.md", "the RFC says so")
    assert checker.unused == []


def test_the_report() -> None:
    """Findings count outside the list; a clean file on the list and an exception without use are mistakes."""
    finding = check.Finding("docs/a.md", 3, "anew", "verified anew", "again")
    found = {"docs/a.md": [finding], "docs/b.md": [finding]}
    unused = [check.Allowed("docs/c.md", "words", "a reason")]
    assert check.mistakes(found, ["docs/b.md", "docs/d.md"], unused) == [
        "docs/a.md:3: 'anew' in 'verified anew'; write: again",
        "docs/d.md is clean or gone: run `python tests/words/check.py --update`",
        "exceptions.toml: nothing in docs/c.md needs 'words'",
    ]


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The command fails with the findings; `--update` drops clean files; a named file is checked, listed or not."""
    (tmp_path / "README.md").write_text("Serve strangers.\n", encoding="utf-8")
    listed = tmp_path / "to_clean.txt"
    listed.write_text("# root\n\nREADME.md\nSECURITY.md\n", encoding="utf-8")
    monkeypatch.setattr(check, "ROOT", tmp_path)
    monkeypatch.setattr(check, "TO_CLEAN", listed)
    monkeypatch.setattr(check, "read_exceptions", list)
    assert check.main([]) == 1
    assert capsys.readouterr().out == "SECURITY.md is clean or gone: run `python tests/words/check.py --update`\n"
    assert check.main(["--update"]) == 0
    assert listed.read_text(encoding="utf-8") == "# root\n\nREADME.md\n"
    assert check.main(["README.md"]) == 1
    assert "README.md:1: 'strangers'" in capsys.readouterr().out


def test_the_files_that_are_checked() -> None:
    """The package, the tests, the examples and the pages are checked."""
    files = check.checked_files()
    for file in ("README.md", "docs/index.md", "fastapi_guard/scopes.py", "tests/conftest.py", "noxfile.py"):
        assert file in files
    assert any(file.startswith("examples/") for file in files)


def test_every_exception_has_a_reason() -> None:
    """A reviewed exception names its reason."""
    assert all(allowed.reason for allowed in check.read_exceptions())
