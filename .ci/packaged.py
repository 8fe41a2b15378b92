#!/usr/bin/env python3
"""Builds the crate of sim/README.md against stormkv and stormkv-sim as a registry would have them.

Both packages are made, unpacked in a temporary folder and judged by what is in them. The blocks of sim/README.md
become a crate beside them, which names the packages by version alone, and its tests run. All this lies in a git
repository of another project: the revision in a failure must be that of the packages.

The versions of dependencies are those of Cargo.lock, and the target directory is that of the workspace, so that
only the packages are built anew. Without a network, set CARGO_NET_OFFLINE=true.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from pathlib import Path

from console import ROOT, blocks

PACKAGES = ("stormkv", "stormkv-sim")
# In each package, beside the sources.
REQUIRED = ("Cargo.toml", "README.md", "LICENSE-MIT", "LICENSE-APACHE")
# The tests of the repository need the repository, and the page is built already.
FOREIGN = ("tests/", "benches/", "viewer/src", "viewer/package", "viewer/test")
# The features with programs, which the crate of the README leaves out.
FEATURES = {"stormkv": "tcp", "stormkv-sim": "cli,harness"}
# Dependencies as in the workspace, so that they are built once. What is built here runs for seconds only.
PROFILE = (
    "profile.dev.opt-level=1",
    "profile.dev.debug=false",
    *(f"profile.dev.package.{name}.opt-level=0" for name in (*PACKAGES, "tally")),
)
REVISION = """
#[test]
fn revision_is_that_of_the_package() {{
    assert_eq!(stormkv_sim::version::REVISION, "{}");
}}
"""


def run(*words, cwd, **variables):
    shown = " ".join(word for word in map(str, words) if "=" not in word and word not in ("--config", "-c"))
    print(f"    $ {shown}", flush=True)
    if code := subprocess.run(words, cwd=cwd, env=os.environ | variables).returncode:
        sys.exit(f"exit code {code} in {cwd}")


def package(folder):
    """Makes the packages, and returns where each is unpacked."""
    names = [word for name in PACKAGES for word in ("--package", name)]
    run("cargo", "package", "--quiet", "--no-verify", "--allow-dirty", "--target-dir", folder, *names, cwd=ROOT)
    crates = {}
    for path in sorted((folder / "package").glob("*.crate")):
        with tarfile.open(path) as archive:
            # All files of a package have one old date, by which cargo would take a build of others for theirs.
            members = [member.replace(mtime=time.time()) for member in archive.getmembers()]
            archive.extractall(folder, members, filter="data")
        crates[path.stem.rsplit("-", 1)[0]] = folder / path.stem
    if sorted(crates) != sorted(PACKAGES):
        sys.exit(f"these were packaged: {', '.join(crates)}")
    return crates


def judge(crate):
    """Returns what is wrong with the files of an unpacked package."""
    files = [str(path.relative_to(crate)) for path in crate.rglob("*") if not path.is_dir()]
    wrong = [f"{name} is missing" for name in REQUIRED if name not in files]
    wrong += [f"{name} is a link" for name in files if (crate / name).is_symlink()]
    wrong += [f"{name} does not belong there" for name in files if name.startswith(FOREIGN)]
    return [f"{crate.name}: {what}" for what in wrong]


def revision(crate):
    """The revision that cargo recorded in a package, as the simulator shows it."""
    record = crate / ".cargo_vcs_info.json"
    if not record.exists():
        return "unknown"
    git = json.loads(record.read_text())["git"]
    return git["sha1"][:12] + ("-dirty" if git.get("dirty") else "")


def write_crate(folder, recorded):
    """Writes the files that sim/README.md shows."""
    for _, _, directives, lines in blocks(ROOT / "sim/README.md"):
        if name := directives.get("file"):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(lines) + "\n")
    (folder / "tests/revision.rs").write_text(REVISION.format(recorded))
    shutil.copy(ROOT / "Cargo.lock", folder)


def main():
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
    # One for each checkout, because cargo keeps a build for each path.
    scratch = Path(tempfile.gettempdir()) / f"stormkv-packaged-{zlib.crc32(str(ROOT).encode()):08x}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        crates = package(scratch / "target")
        if wrong := [what for crate in crates.values() for what in judge(crate)]:
            sys.exit("\n".join(wrong))
        write_crate(scratch / "tally", revision(crates["stormkv-sim"]))
        git = ("git", "-c", "user.name=x", "-c", "user.email=x@example.org")
        run("git", "init", "--quiet", cwd=scratch)
        run(*git, "commit", "--quiet", "--allow-empty", "--message", "Begin another project", cwd=scratch)
        patches = [f'patch.crates-io.{name}.path="{path}"' for name, path in crates.items()]
        options = [word for option in (*patches, *PROFILE) for word in ("--config", option)]
        build = {"CARGO_TARGET_DIR": str(target), "STORM_SEEDS": "20"}
        run("cargo", "test", "--quiet", *options, cwd=scratch / "tally", **build)
        for name, crate in crates.items():
            features = ("--features", FEATURES[name])
            run("cargo", "check", "--quiet", *features, *options, cwd=crate, **build)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
