"""Phrases that are not plain English or not the field's term, and every text of the project in which they could stand.

python tests/language.py      # list what is found, by package
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: phrase -> what to write
PHRASES = {
    r"spoil(s|ed|t|ing)?": "corrupt",
    r"mend(s|ed|ing)?": "fix",
    r"tells?|told": "report, print, name, show, distinguish",
    r"hears?|heard": "report; a process does not respond",
    r"(says?|said) so": "report",
    r"say what|says (what|which|who|where)": "report, describe",
    r"behind": "after, downstream of",
    r"leads? out of": "escapes (a folder); converts to",
    r"(leave|leaves|outside of) (its|their) memory|out of its memory": "access out of bounds",
    r"whole or not at all": "atomically",
    r"(put|puts|set) right": "recover, repair",
    r"(go|goes|going|went) on(?! with the)": "resume, continue",
    r"alike": "identical, equivalent, equal within tolerance",
    r"foreign": "untrusted, third-party",
    r"isolation process|trusting process": "sandbox",
    r"(as )?(a )?part of the (output|tensor|steps|scale)('s)?": "fraction, relative to",
    r"spe(ll|lt|lls|lled) out": "decompose",
    r"anew": "again, re-",
    r"exchanges? (the |two )?axes": "transpose",
    r"(what|whatever|that) stands? on": "head, downstream graph",
    r"(is|are|was|were|be) none of": "is not one of",
    r"(has|have|had) not(?! (yet|been|only|\w+(ed|en)\b|run|read|set|put|written|met|left|come))": "does not have",
    r"(?<!there )(is|are|was|were) no(?! (longer|more|less|different|matter|other)\b)(?= \w)": "is not a",
    r"is so already|are so already": "already has this value",
    r"(was|were) seen to": "verified against",
    r"the ones? (that|of|with|in|which|whose|from|for|by|on|at)": "repeat the noun",
    r"no such one|such ones?": "repeat the noun",
    r"in (a moment|moments)|have a moment|a moment to": "a number with a unit",
    r"without a word": "silently",
    r"needed before": "prerequisites",
    r"(was|is|were) not to be had|to be had": "is unavailable",
    r"(this|the|one) (room|house)": "module, package",
    r"who (has|have) (it|them)": "name the reader",
    r"nobody's|somebody's": "name them",
    r"for life without": "to run without",
    r"leaves? nothing": "write nothing",
    r"(?<=[.;:] )(?-i:Of) (?!course\b)\w+": "subject, verb, object: no fronted genitive",
    r"(?-i:test of) \w+": "subject, verb, object: no fronted genitive",
}
ADVICE = list(PHRASES.values())
_NUMBERED = "|".join(f"(?P<p{i}>{phrase})" for i, phrase in enumerate(PHRASES))
# The boundary comes first, so that the phrases are tried at the beginnings of words alone.
PATTERN = re.compile(rf"\b(?:{_NUMBERED})(?!\w)", re.IGNORECASE)

#: strings and comments of Python source, which the module tokenize takes long to find
TOKENS = re.compile(
    r"""
    "{3} [^"\\]* (?: (?: \\. | "(?!"") ) [^"\\]* )* "{3}
    | '{3} [^'\\]* (?: (?: \\. | '(?!'') ) [^'\\]* )* '{3}
    | " [^"\\\n]* (?: \\. [^"\\\n]* )* "
    | ' [^'\\\n]* (?: \\. [^'\\\n]* )* '
    | (?P<comment>\#[^\n]*)
    """,
    re.VERBOSE | re.DOTALL,
)

DOCUMENTS = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs/**/*.md", "scripts/**/README.md")


@dataclass(frozen=True)
class Text:
    """A text that people read: a docstring, a message, a comment, a line of a page."""

    place: str
    text: str


@dataclass(frozen=True)
class Finding:
    """A phrase that must not come back."""

    place: str
    phrase: str
    context: str
    advice: str

    def __str__(self) -> str:
        return f"{self.place}: {self.phrase!r} in {self.context!r}; write: {self.advice}"


def strings(path: Path) -> Iterator[Text]:
    """Strings of a Python file, f-strings with {} for their values; names of functions and classes as words."""
    name = str(path.relative_to(ROOT))
    inside: set[int] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            parts = [str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values]
            inside.update(id(part) for part in ast.walk(node))
            yield Text(f"{name}:{node.lineno}", "".join(parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield Text(f"{name}:{node.lineno}", node.value)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield Text(f"{name}:{node.lineno}", node.name.replace("_", " "))


def comments(path: Path) -> Iterator[Text]:
    """Comments of a Python file; those of adjacent lines together."""
    name, source = str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
    first, text, last = 0, "", 0
    number, place = 1, 0
    for match in TOKENS.finditer(source):
        if match["comment"] is None:
            continue
        number, place = number + source.count("\n", place, match.start()), match.start()
        if number != last + 1:
            yield Text(f"{name}:{first}", text)
            first, text = number, ""
        text, last = f"{text}\n{match['comment'].lstrip('#: ')}", number
    yield Text(f"{name}:{first}", text)


def help_texts() -> Iterator[Text]:
    """What each command prints for --help."""
    import click

    from bertsym.cli.group import COMMANDS, cli

    context = click.Context(cli, info_name="bertsym")
    yield Text("bertsym --help", cli.get_help(context))
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        yield Text(f"bertsym {name} --help", command.get_help(click.Context(command, context, info_name=name)))


def document_texts() -> Iterator[Text]:
    """The pages, paragraph by paragraph; the glossary's and the dictionary's own words aside."""
    for pattern in DOCUMENTS:
        for path in sorted(ROOT.glob(pattern)):
            if ".build" in path.parts:
                continue
            line = 1
            for paragraph in path.read_text(encoding="utf-8").split("\n\n"):
                yield Text(f"{path.relative_to(ROOT)}:{line}", paragraph)
                line += paragraph.count("\n") + 2


def texts(folders: Sequence[str] = ("bertsym", "scripts", "tests")) -> Iterator[Text]:
    """The texts of the Python files in `folders`, of the pages, and of --help."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path.name not in ("language.py", "test_language.py"):
                yield from strings(path)
                yield from comments(path)
    yield from document_texts()
    yield from help_texts()


def findings(text: Text) -> Iterator[Finding]:
    """The phrases of PHRASES in a text, whose lines may be wrapped anywhere."""
    flat = re.sub(r"\s+", " ", text.text)
    for match in PATTERN.finditer(flat):
        index = next(i for i in range(len(ADVICE)) if match[f"p{i}"])
        context = flat[max(0, match.start() - 40) : match.end() + 40]
        yield Finding(text.place, match[0], context, ADVICE[index])


def main(place: str = "") -> int:
    """List the findings by package; the exit code is 1 if there are any."""
    by_package: dict[str, list[Finding]] = defaultdict(list)
    for text in texts():
        for finding in findings(text) if text.place.startswith(place) else ():
            by_package[finding.place.rpartition("/")[0] or finding.place.partition(":")[0]].append(finding)
    for package, found in sorted(by_package.items()):
        print(f"{package} ({len(found)})", *(f"  {finding}" for finding in found), sep="\n")
    print(sum(map(len, by_package.values())), "phrases")
    return bool(by_package)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
