"""MkDocs hook: files of the repository that a page names come into the site, below `repository/`.

The pages link as they do in the repository (`../examples/x.py`), so that they read the same there. A folder that is
linked to becomes a page that lists it, Markdown and source code become pages, any other file is copied; links follow.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#|/)([^)\s#]+)")
INTO = "repository"
CODE = {".py": "python", ".slurm": "sh", ".toml": "toml"}
HIDDEN = "---\nsearch: {exclude: true}\n---\n\n"
PAGES = ("CONTRIBUTING.md", "CHANGELOG.md")  # of the repository's root, in the navigation


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what the pages link to outside of `docs/`."""
    root = _root(config)
    waiting = [File.generated(config, f"{INTO}/{name}", abs_src_path=str(root / name)) for name in PAGES]
    waiting += [file for file in files if file.is_documentation_page()]
    while waiting:
        page = waiting.pop()
        if files.get_file_from_path(page.src_uri) is None:
            files.append(page)
        for link in LINK.findall(_without_code(page.content_string)):
            path = _in_repository(page.src_uri, link)
            uri = _in_site(path, root)
            if path.startswith("docs/") or files.get_file_from_path(uri) or not (root / path).exists():
                continue  # a link to nothing is left for mkdocs to report
            added = _added(config, uri, path, root)
            files.append(added)
            if added.is_documentation_page():
                waiting.append(added)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with its links as they are in the site."""
    root, here = _root(config), page.file.src_uri

    def moved(link: re.Match[str]) -> str:
        path = _in_repository(here, link[1])
        if here.startswith(f"{INTO}/") or not path.startswith("docs/"):
            return posixpath.relpath(_in_site(path, root), posixpath.dirname(here) or ".")
        return link[1]

    return LINK.sub(moved, markdown)


def _root(config: MkDocsConfig) -> Path:
    return Path(config.docs_dir).parent


def _in_repository(page: str, link: str) -> str:
    """The path in the repository that a link on a page of the site stands for."""
    inside = page.startswith(f"{INTO}/")
    source = page.removeprefix(f"{INTO}/").removesuffix("/index.md") if inside else f"docs/{page}"
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


def _in_site(path: str, root: Path) -> str:
    """Where the site has a path of the repository."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if (root / path).is_dir():
        return f"{INTO}/{path}/index.md"
    return f"{INTO}/{path}" + (".md" if Path(path).suffix in CODE else "")


def _added(config: MkDocsConfig, uri: str, path: str, root: Path) -> File:
    """A file of the repository for the site."""
    place = root / path
    if place.is_dir():
        names = sorted(item.name for item in place.iterdir() if item.is_file())
        listing = "".join(f"- [{name}]({place.name}/{name})\n" for name in names)
        return File.generated(config, uri, content=f"# {path}\n\n{listing}")
    if place.suffix in CODE:
        code = place.read_text(encoding="utf-8")
        return File.generated(config, uri, content=f"{HIDDEN}# {path}\n\n````{CODE[place.suffix]}\n{code}````\n")
    return File.generated(config, uri, abs_src_path=str(place))


def _without_code(markdown: str) -> str:
    return re.sub(r"```.*?```|`[^`\n]*`", "", markdown, flags=re.DOTALL)
