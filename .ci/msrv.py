#!/usr/bin/env python3
"""Fails if a dependency needs a newer Rust than `rust-version` in Cargo.toml.

Development dependencies count, too: the tests run with that version. Those of other platforms are left out, because
cargo would fetch them for that.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def version(text):
    return tuple(int(part) for part in (text + ".0.0").split(".")[:3])


def main():
    about = subprocess.run(("rustc", "-vV"), stdout=subprocess.PIPE, text=True, check=True).stdout
    host = next(line.split()[1] for line in about.splitlines() if line.startswith("host:"))
    command = ("cargo", "metadata", "--locked", "--all-features", "--format-version=1", f"--filter-platform={host}")
    text = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    packages = json.loads(text)["packages"]
    ours = next(package["rust_version"] for package in packages if package["name"] == "stormkv")
    others = [package for package in packages if package["source"] and package["rust_version"]]
    newer = [package for package in others if version(package["rust_version"]) > version(ours)]
    for package in newer:
        print(f"{package['name']} {package['version']} needs Rust {package['rust_version']}", file=sys.stderr)
    if newer:
        sys.exit(f"rust-version is {ours}: take older versions of these (`cargo update --precise`), or raise it")
    highest = max(others, key=lambda package: version(package["rust_version"]))
    print(f"    rust-version {ours}; of {len(others)} dependencies, {highest['name']} needs the newest, {highest['rust_version']}")


if __name__ == "__main__":
    main()
