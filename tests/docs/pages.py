"""Read the code blocks of the documentation, with what a comment above a block says about it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

LANGUAGES = {"bash", "python", "text", "csv", "javascript", "json", "toml", "yaml"}
"""What a block may be. `text` right after a `bash` or `python` block is what that block prints."""

_BLOCK = re.compile(
    r"^(?P<indent> *)(?:<!-- (?P<comment>[^\n]*) -->\n(?P=indent))?"
    r"```(?P<language>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str
    start: int
    """Where its text starts in the page, in characters."""

    not_run: str | None = None
    """Why the test cannot run it: `<!-- not run: REASON -->`."""

    exit_code: int = 0
    """What its last command ends with: `<!-- exit: 1 -->`."""

    file: str | None = None
    """The file that it is: `<!-- file: NAME -->`."""

    output: Block | None = None
    """What it prints, where the page shows it."""

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """Return every page with blocks to test: the README and all of docs, but what is generated."""
    docs = [path for path in (ROOT / "docs").rglob("*.md") if not {"generated", "_build"} & set(path.parts)]
    names = [path.relative_to(ROOT).as_posix() for path in docs]
    return ["README.md", *sorted(names)]


def blocks(page: str) -> list[Block]:
    """Return the blocks of a page in order; output is attached to the block that prints it."""
    content = (ROOT / page).read_text("utf-8")
    result: list[Block] = []
    end = 0
    for match in _BLOCK.finditer(content):
        language = match["language"].strip()
        if language.startswith("{"):  # a directive of the site
            continue
        block = _block(page, content, match)
        follows = not content[end : match.start()].strip() and result and end
        if language == "text" and follows and not match["comment"] and result[-1].language in {"bash", "python"}:
            last = result.pop()
            result.append(
                Block(
                    last.page, last.line, last.language, last.text, last.start,
                    last.not_run, last.exit_code, last.file, block,
                )
            )  # fmt: skip
        else:
            result.append(block)
        end = match.end()
    return result


def _block(page: str, content: str, match: re.Match[str]) -> Block:
    line = content.count("\n", 0, match.start("language")) + 1
    indent = match["indent"]
    text = "".join(row.removeprefix(indent) for row in match["body"].splitlines(keepends=True))
    kind, _, value = (match["comment"] or "").partition(": ")
    if kind not in {"", "not run", "exit", "file"}:
        raise ValueError(f"{page}:{line}: unknown comment above a block: {kind!r}")
    return Block(
        page,
        line,
        match["language"].strip(),
        text,
        match.start("body"),
        not_run=value if kind == "not run" else None,
        exit_code=int(value) if kind == "exit" else 0,
        file=value if kind == "file" else None,
    )


def commands(text: str) -> list[str]:
    """Return the commands of a bash block: comments removed, continued lines and here-documents joined."""
    result: list[str] = []
    pending, marker = "", ""
    for line in text.splitlines():
        if marker:
            pending += f"\n{line}"
            if line == marker:
                result.append(pending)
                pending, marker = "", ""
            continue
        stripped = re.sub(r"(^|\s+)#.*$", "", line).rstrip()
        if not stripped:
            continue
        pending += stripped.removesuffix("\\")
        here = re.search(r"<<'?(\w+)'?$", stripped)
        if here:
            marker = here[1]
        elif not stripped.endswith("\\"):
            result.append(pending.strip())
            pending = ""
    return result
