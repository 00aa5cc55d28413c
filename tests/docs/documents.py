"""The documents of the repository, taken apart for the tests."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "quant_explorer"
GUIDE = ROOT / "docs" / "README.md"

_FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<content>.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block: the words after the opening fence, and the lines inside."""

    info: str
    content: str

    @property
    def file(self) -> str | None:
        """The file that the block is (or changes), as its `file=` says."""
        found = re.search(r"\bfile=(\S+)", self.info)
        return found[1] if found else None


def documents() -> list[Path]:
    """Every Markdown file that belongs to the repository."""
    folders = [ROOT / name for name in ("docs", "results", ".github") if (ROOT / name).is_dir()]
    return sorted([*ROOT.glob("*.md"), *(path for folder in folders for path in folder.rglob("*.md"))])


def blocks(document: Path) -> list[Block]:
    return [Block(match["info"], match["content"]) for match in _FENCE.finditer(document.read_text())]


def prose(document: Path) -> str:
    """The text without fenced blocks."""
    return _FENCE.sub("", document.read_text())


def code_words(document: Path) -> list[str]:
    """What stands between backticks."""
    return _INLINE.findall(prose(document))


def links(document: Path) -> list[str]:
    return _LINK.findall(_INLINE.sub("", prose(document)))


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives to the headings."""
    headings = re.findall(r"^#+ (.+)$", prose(document), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def command_lines(document: Path, program: str) -> Iterator[list[str]]:
    """Yield the arguments of each call of `program` in a fenced or indented block."""
    fenced = [block.content for block in blocks(document) if block.file is None]
    indented = re.findall(r"^ {4}.*$", prose(document), flags=re.MULTILINE)
    for content in (*fenced, "\n".join(indented)):
        for line in content.replace("\\\n", " ").splitlines():
            words = shlex.split(line.strip().removeprefix("$ "), comments=True) if program in line else []
            if words and Path(words[0]).name == program:
                yield words[1:]


def source_file(name: str) -> Path | None:
    """Find a file that a document names, below the package or the repository."""
    return next((folder / name for folder in (PACKAGE, ROOT) if (folder / name).is_file()), None)


def defines(path: Path, name: str) -> bool:
    """Say whether a Python file defines `function`, `Class`, `Class.member` or `CONSTANT`."""
    body: list[ast.stmt] = ast.parse(path.read_text()).body
    for part in name.split("."):
        owner = next((statement for statement in body if part in _names(statement)), None)
        if owner is None:
            return False
        body = owner.body if isinstance(owner, ast.ClassDef) else []
    return True


def _names(statement: ast.stmt) -> set[str]:
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
        case ast.Assign(targets=targets):
            return {target.id for target in targets if isinstance(target, ast.Name)}
        case _:
            return set()
