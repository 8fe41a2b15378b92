#!/usr/bin/env python3
"""Compares the public items of both libraries with the listings in docs/api.

An item that is removed, renamed or declared otherwise breaks the builds of users, and the diff of a listing shows
that in a review. A listing has each item with its declaration, its own functions and its implementations of traits,
as rustdoc shows them with all features. It is read from HTML that `cargo doc --workspace --no-deps --all-features`
has written. cargo-semver-checks and cargo-public-api know more of Rust, but are built for minutes, belong to one
format of rustdoc's unstable JSON each, and the first also needs a published version to compare with.

Not listed: re-exports, what an implementation makes of a provided method, automatic traits such as Send.
"""

import argparse
import difflib
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LISTINGS = ROOT / "docs/api"
CRATES = ("stormkv", "stormkv_sim")
# Constants whose values each build has for itself.
VARIES = ("version::BUILD", "version::REVISION", "version::SOURCES", "version::VERSION")
VOID = {"br", "hr", "img", "input", "link", "meta", "wbr"}
REMEDY = """
If the change is meant: `cargo doc --workspace --no-deps --all-features && .ci/api.py --write`, commit docs/api with
it, and say in CHANGELOG.md what users have to change. Another version of rustdoc may show items otherwise."""


class Page(HTMLParser):
    """The declarations on the page of an item."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.depth, self.skipped = [], None, 0, 0
        self.found = []

    def handle_starttag(self, tag, attributes):
        if tag in VOID:
            return
        attributes = {name: value or "" for name, value in attributes}
        kinds = attributes.get("class", "").split()
        self.open.append(attributes.get("id") or attributes.get("class", ""))
        # The line that folds a long declaration, and references to the source.
        if self.text is not None and (tag == "summary" or "rightside" in kinds or self.skipped):
            self.skipped += 1
        wanted = "item-decl" in kinds or ("code-header" in kinds and self.is_own(tag))
        if wanted and self.text is None:
            self.text, self.depth = "", len(self.open)
        if self.text and "where" in kinds:
            self.text += " "

    def is_own(self, tag):
        """Functions of the item itself, and the heads of implementations of traits for it."""
        lists = {name for name in self.open if name.endswith("implementations-list")}
        return lists == {"implementations-list"} or (tag == "h3" and lists == {"trait-implementations-list"})

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        if self.text is not None and "code-attribute" in self.open[-1]:
            self.text += "\n"
        if self.text is not None and len(self.open) == self.depth:
            self.found.append(self.text)
            self.text = None
        self.skipped = max(0, self.skipped - 1)
        self.open.pop()

    def handle_data(self, data):
        if self.text is not None and not self.skipped:
            self.text += data


def read(path):
    page = Page()
    page.feed(path.read_text())
    return page


def listing(folder):
    """The lines of one crate."""
    everything = (folder / "all.html").read_text()
    items = re.findall(r'<li><a href="([^"]+)">([^<]+)</a></li>', everything)
    lines = []
    for link, name in sorted(items, key=lambda item: (item[1], item[0])):
        lines.append(f"\n{name}")
        declaration, *others = read(folder / link).found
        shown = [line.rstrip() for line in declaration.splitlines() if line.strip()]
        if name in VARIES:
            shown = [re.sub(r" = .*;", ";", line) for line in shown]
        others = [re.sub(r"\s+", " ", other).strip() for other in others]
        # The page of an alias shows the type behind it, too.
        functions = [other for other in others if not re.match(r"impl\b|pub (struct|enum|union)\b", other)]
        heads = sorted(other for other in others if re.match(r"impl\b.* for ", other))
        plain = [re.fullmatch(r"impl (\S+) for [\w:]+", head) for head in heads]
        names = ", ".join(head[1] for head in plain if head and head[1] != "StructuralPartialEq")
        rest = [head for head, is_plain in zip(heads, plain) if not is_plain]
        lines += [f"    {line}" for line in shown + functions + [f"impl {names}"] * bool(names) + rest]
    return lines


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--write", action="store_true", help="write the listings instead")
    write = arguments.parse_args().write
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    differ = False
    for crate in CRATES:
        now = "\n".join(listing(target / "doc" / crate)).lstrip() + "\n"
        path = LISTINGS / f"{crate}.txt"
        if write:
            path.parent.mkdir(exist_ok=True)
            path.write_text(now)
            continue
        before = path.read_text()
        name = str(path.relative_to(ROOT))
        diff = difflib.unified_diff(before.splitlines(), now.splitlines(), name, "the present sources", lineterm="", n=1)
        for line in diff:
            print(line)
            differ = True
    if differ:
        sys.exit(REMEDY)


if __name__ == "__main__":
    main()
