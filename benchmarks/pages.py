"""Puts a measured table into a page, between two comments that mark its place."""

from __future__ import annotations

import re
from pathlib import Path


def write_between(page: Path, name: str, text: str) -> None:
    """Replace what stands between ``<!-- NAME: begin -->`` and ``<!-- NAME: end -->``."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    pattern = re.compile(re.escape(begin) + ".*" + re.escape(end), re.DOTALL)
    replaced, count = pattern.subn(lambda _: f"{begin}\n{text}\n{end}", page.read_text(encoding="utf-8"))
    if count != 1:
        raise SystemExit(f"{page}: expected the comments {begin} and {end} once, found them {count} times")
    page.write_text(replaced, encoding="utf-8")
