"""MkDocs hooks: the repository's Markdown as a site.

The pages are written for the repository, where ``../tests/...`` and ``docs/...`` lead somewhere. Here README.md,
CHANGELOG.md and CONTRIBUTING.md become pages of the site, and the images that pages show are copied into it. A link to
any other file of the repository leads to DFKD_SOURCE_URL (a URL to which the file's path is appended), or, where that
is not set, to the file in this checkout. A link to a file that does not exist is a warning, and so ends the strict
build.
"""

from __future__ import annotations

import logging
import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).resolve().parents[1]
AT_TOP = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
CODE = re.compile(r"(^```.*?^```$|`[^`\n]*`)", flags=re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(!\[[^\]]*)?\]\(([^)\s]+)\)")
ELSEWHERE = "repository:"  # a scheme of our own, which MkDocs leaves alone when it checks links

log = logging.getLogger("mkdocs.hooks.site")


def on_files(files: Files, config: Any) -> Files:
    for source, page in AT_TOP.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    source = _source_of(page.file.src_uri)

    def replace(match: re.Match[str]) -> str:
        shown, target = match[1] or "", match[2]
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        path, _, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        there = _target(path, image=bool(shown), page=page, config=config, files=files)
        return f"{shown}]({there}{'#' + anchor if anchor else ''})"

    return "".join(part if CODE.fullmatch(part) else LINK.sub(replace, part) for part in CODE.split(markdown))


def _source_of(src_uri: str) -> str:
    """The path in the repository of a page of the site."""
    return next((source for source, page in AT_TOP.items() if page == src_uri), f"docs/{src_uri}")


def _target(path: str, *, image: bool, page: Any, config: Any, files: Files) -> str:
    """Where a link to this path of the repository leads from a page of the site."""
    here = posixpath.dirname(page.file.src_uri) or "."
    if path in AT_TOP:
        return posixpath.relpath(AT_TOP[path], here)
    if path.startswith("docs/") and path.endswith(".md"):
        return posixpath.relpath(path.removeprefix("docs/"), here)
    if path.startswith("..") or not (ROOT / path).exists():
        log.warning("%s: the link to %s leads nowhere", _source_of(page.file.src_uri), path)
        return f"{ELSEWHERE}{path}"
    if image:
        if files.get_file_from_path(path) is None:
            files.append(
                File.generated(config, path, abs_src_path=str(ROOT / path), inclusion=InclusionLevel.NOT_IN_NAV)
            )
        return posixpath.relpath(path, here)
    return f"{ELSEWHERE}{path}"


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:  # noqa: ARG001
    base = os.environ.get("DFKD_SOURCE_URL") or os.path.relpath(
        ROOT, (Path(config.site_dir) / page.file.dest_uri).parent
    )
    return html.replace(f'href="{ELSEWHERE}', f'href="{base.rstrip("/")}/')
