"""The reference of the Python interface: a page for each folder of the package, made of docstrings; nothing is
imported."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_WIDTH = 100  # of a signature in one line


def pages(package: Path) -> Iterator[tuple[str, str]]:
    """api/index.md, and a page for each folder with its modules and their public functions and classes."""
    folders = sorted({path.parent for path in package.rglob("*.py")})
    names = {folder: _dotted(folder, package) for folder in folders}
    listed = [f"- [`{name}`]({name}.md){_first(folder / '__init__.py')}" for folder, name in names.items()]
    head = "What is public, by folder, with its docstring. Names that begin with an underscore are internal."
    yield "api/index.md", "\n".join(["# Python interface", "", head, "", *listed, ""])
    for folder, name in names.items():
        yield f"api/{name}.md", _page(folder, name, package)


def symbols(package: Path) -> Iterator[tuple[str, str]]:
    """(dotted name of the page, dotted name of the symbol) of every public function and class."""
    for path in sorted(package.rglob("*.py")):
        module = _module(path, package)
        for node in _public(ast.parse(path.read_text(encoding="utf-8"))):
            yield _dotted(path.parent, package), f"{module}.{node.name}"


def _page(folder: Path, name: str, package: Path) -> str:
    lines = [f"# {name}", ""]
    for path in sorted(folder.glob("*.py"), key=lambda path: (path.name != "__init__.py", path.name)):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        module, own = _module(path, package), list(_public(tree))
        if path.name == "__init__.py":
            lines += [_text(ast.get_docstring(tree)), ""]
        elif own:
            lines += [f"## {module}", "", _text(ast.get_docstring(tree)), ""]
        for node in own:
            lines += _entry(node, f"{module}.{node.name}")
    return "\n".join(lines)


def _entry(node: Definition, name: str) -> Iterator[str]:
    yield from (f"### `{node.name}` {{ #{name} }}", "", "```python", _signature(node), "```", "")
    yield from (_text(ast.get_docstring(node)), "")
    if isinstance(node, ast.ClassDef):
        for method in _public(node):
            if isinstance(method, ast.ClassDef):
                continue
            yield from (f"**`{method.name}`**", "", "```python", _signature(method), "```", "")
            yield from (_text(ast.get_docstring(method)), "")


def _public(tree: ast.Module | ast.ClassDef) -> Iterator[Definition]:
    """Definitions by the names that others may use; of overloaded ones that with the docstring."""
    found: dict[str, Definition] = {}
    for node in tree.body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            found[node.name] = node
    yield from found.values()


def _signature(node: Definition) -> str:
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(map(ast.unparse, node.bases))
        fields = [
            f"    {ast.unparse(line)}"
            for line in node.body
            if isinstance(line, ast.AnnAssign) and not ast.unparse(line.target).startswith("_")
        ]
        return "\n".join([f"class {node.name}({bases}):" if bases else f"class {node.name}:", *(fields or ["    ..."])])
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    line = f"def {node.name}({ast.unparse(node.args)}){returns}"
    if len(line) <= _WIDTH:
        return line
    parts = re.split(r", (?![^\[(]*[\])])", ast.unparse(node.args))
    return "\n".join([f"def {node.name}(", *(f"    {part}," for part in parts), f"){returns}"])


def _text(docstring: str | None) -> str:
    """A docstring as Markdown: what is no code stays as it was typed."""
    lines = (docstring or "").splitlines()
    return "\n".join(line if line.startswith("    ") else _escaped(line) for line in lines)


def _escaped(line: str) -> str:
    parts = re.split(r"(`[^`]*`)", line)
    kept = (part if part.startswith("`") else re.sub(r"([*<\[])", r"\\\1", part) for part in parts)
    return "".join(kept)


def _first(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) if path.exists() else None
    return f": {_escaped(docstring.splitlines()[0])}" if docstring else ""


def _dotted(folder: Path, package: Path) -> str:
    return ".".join(["rebus", *folder.relative_to(package).parts])


def _module(path: Path, package: Path) -> str:
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(["rebus", *(part for part in parts if part != "__init__")])
