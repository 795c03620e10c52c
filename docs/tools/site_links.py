"""A hook of MkDocs: links from the docs to files of the repository work in the site, too.

On a code host `../examples/pmap.py` is a file beside `docs/`. The site has `docs/` alone, so a file
that a page links to is copied into it; of a link to a folder only the text stays. CHANGELOG.md and
CONTRIBUTING.md are pages of the site. A link to what is not there stays as it is: MkDocs then
reports it, and a strict build fails.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
COPIES = "repository"
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
_CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)
# The link's text may itself be code, so such links are looked for before code is left alone.
_LINK_OR_CODE = re.compile(f"{_LINK.pattern}|{_CODE.pattern}", re.DOTALL)


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that lie beside `docs/`."""
    for source, target in PAGES.items():
        files.append(File.generated(config, target, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Points the links of a page to where their targets are in the site."""
    sources = {target: source for source, target in PAGES.items()}
    here = sources.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def moved(match: re.Match[str]) -> str:
        if match[3] is None or ":" in match[3] or match[3].startswith("#"):
            return match[0]
        path, mark, anchor = match[3].partition("#")
        target = posixpath.normpath(posixpath.join(posixpath.dirname(here), path))
        if (ROOT / target).is_dir():
            return match[2]
        uri = _place(target, config, files)
        if uri is None:
            return match[0]
        start = posixpath.dirname(page.file.src_uri) or "."
        return f"{match[1]}[{match[2]}]({posixpath.relpath(uri, start)}{mark}{anchor})"

    return _LINK_OR_CODE.sub(moved, markdown)


def _place(target: str, config: Any, files: Any) -> str | None:
    """Where a file of the repository is in the site, put there if need be."""
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    if target in PAGES:
        return PAGES[target]
    if target == "README.md":
        return "index.md"
    if target.startswith("..") or not (ROOT / target).is_file():
        return None
    uri = f"{COPIES}/{target}"
    if files.get_file_from_path(uri) is None:
        # A Markdown file becomes a page only while files are collected; as a copy it is plain text.
        content = (ROOT / target).read_bytes()
        files.append(File.generated(config, uri, content=content))
    return uri
