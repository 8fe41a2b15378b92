#!/usr/bin/env python3
"""Runs the console blocks of README.md and docs/ as a reader would type them, in order.

A block begins with ```console. A line that begins with `$ ` is a command (it goes on in the next line after a
`\\`), and what follows is what it prints on standard output; a line `...` stands for any lines. Numbers, hashes and
what follows from them (units of time, the width of columns), may differ. All blocks of one file are typed into
one shell in the root of the project. Files that this leaves there are removed.

Comments before a block, which no reader sees, say what is special:
    <!-- exit 0 1 -->      the codes with which its commands end, the last one for all that follow; 0 unless given
    <!-- interrupt -->     its last command runs until it is interrupted, after it has printed what is shown
    <!-- file NAME -->     the block (of any language) is the content of this file
    <!-- skip: REASON -->  it is not run
A command `cat NAME` for a file that does not exist writes what is shown into the file.
"""

import argparse
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Builds included.
LIMIT_S = 900
# Builds of the program, and how they are made quicker here: that they work and what they make is what counts.
BUILDS = ("cargo run --release --features tcp", "cargo install")
QUICKER = "CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_DEBUG=false "
# What a reader takes to type the next command, after one that begins a process.
PACE_S = 2
DIRECTIVE = re.compile(r"<!--\s*(exit|interrupt|file|skip)\b:?\s*(.*?)\s*-->")
HEX = re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{12,16}\b")
NUMBER = re.compile(r"\d[\d,]*(\.\d+)?")
UNIT = re.compile(r"\bN (ns|us|µs|ms|s|min|h|KiB|MiB|GiB)\b")


@dataclass
class Command:
    line: int
    text: str
    output: list = field(default_factory=list)
    exit: int = 0
    interrupt: bool = False


def blocks(path):
    """The fenced blocks of a Markdown file: line, language, directives, lines."""
    directives, fence = {}, None
    for number, text in enumerate(path.read_text().splitlines(), 1):
        if fence is None:
            for name, value in DIRECTIVE.findall(text):
                directives[name] = value
            if text.startswith("```"):
                fence = (number, text[3:].strip(), directives, [])
            elif text.strip() and not text.strip().startswith("<!--"):
                directives = {}
        elif text.startswith("```"):
            yield fence
            directives, fence = {}, None
        else:
            fence[3].append(text)


def commands(path):
    """The commands of a file; a file to be written is a command, too."""
    for line, language, directives, lines in blocks(path):
        if "skip" in directives:
            continue
        if "file" in directives:
            name = directives["file"]
            yield Command(line, "cat >%s <<'END OF FILE'\n%s\nEND OF FILE" % (name, "\n".join(lines)))
        if language != "console":
            continue
        found = []
        for number, text in enumerate(lines, line + 1):
            if found and not found[-1].output and found[-1].text.endswith("\\"):
                found[-1].text += "\n" + text
            elif text.startswith("$ "):
                found.append(Command(number, text[2:]))
            elif not found:
                sys.exit(f"{path}:{number}: output without a command before it")
            else:
                found[-1].output.append(text)
        if found:
            codes = [int(code) for code in directives.get("exit", "0").split()]
            for at, command in enumerate(found):
                command.exit = codes[min(at, len(codes) - 1)]
            found[-1].interrupt = "interrupt" in directives
        yield from found


def shape(line):
    """A line without what may differ from run to run."""
    line = NUMBER.sub("N", HEX.sub("N", line.strip()))
    line = UNIT.sub("N", line)
    return re.sub(r"[\s-]*(N\b[\s-]*)+", " N ", re.sub(r"\s+", " ", line)).strip()


def matches(shown, printed):
    """Whether the printed lines are those that are shown, `...` being any lines."""
    shown, printed = [shape(line) for line in shown], [shape(line) for line in printed]
    reached = {0}
    for want in shown:
        if want == "...":
            reached = set(range(min(reached), len(printed) + 1)) if reached else set()
        else:
            reached = {at + 1 for at in reached if at < len(printed) and printed[at] == want}
    return len(printed) in reached


def begins(shown, printed):
    """Whether what was printed so far shows all of it."""
    return any(matches(shown, printed[:end]) for end in range(len(printed) + 1))


class Shell:
    """One bash, into which commands are typed."""

    def __init__(self, folder):
        self.errors = open(folder / "stderr", "w+b")
        environment = dict(os.environ, CARGO_TERM_COLOR="never", CARGO_INSTALL_ROOT=str(folder / "installed"))
        environment["PATH"] = f"{folder / 'installed' / 'bin'}:{environment['PATH']}"
        # Nothing that is set here must decide what a reader sees.
        for name in [name for name in environment if name.startswith(("STORM_", "STORMKV_"))]:
            del environment[name]
        self.process = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            start_new_session=True,
        )
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.process.stdout, selectors.EVENT_READ)
        os.set_blocking(self.process.stdout.fileno(), False)
        # `kill %2` needs jobs.
        self.type("set -m\n")

    def type(self, text):
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def run(self, command):
        """Types a command and waits for its end. Returns its code and what it printed."""
        mark = f"END-{time.monotonic_ns()}"
        quicker = QUICKER if command.text.startswith(BUILDS) else ""
        self.type(quicker + command.text + f"\nprintf '\\n%s %d\\n' {mark} $?\n")
        text, interrupted, until = "", False, time.monotonic() + LIMIT_S
        while True:
            end = re.search(rf"\n?{mark} (\d+)\n", text)
            if end:
                return int(end.group(1)), text[: end.start()].splitlines()
            if command.interrupt and not interrupted and begins(command.output, text.splitlines()):
                interrupted = True
                self.interrupt()
            if time.monotonic() > until or self.process.poll() is not None:
                return None, text.splitlines()
            if self.selector.select(timeout=0.2):
                text += (self.process.stdout.read() or b"").decode(errors="replace")

    def children(self):
        found = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True)
        return [int(pid) for pid in found.stdout.split()]

    def interrupt(self):
        """Ctrl-C: each job of the shell is a group of its own."""
        for pid in self.children():
            os.killpg(pid, signal.SIGINT)

    def close(self):
        for pid in self.children():
            try:
                os.killpg(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.kill()
        self.process.wait()

    def said(self):
        self.errors.flush()
        self.errors.seek(0)
        return self.errors.read().decode(errors="replace")


def untracked():
    listed = ["git", "-C", str(ROOT), "ls-files", "--others", "--directory", "-z"]
    names = subprocess.run(listed, capture_output=True, check=True).stdout.decode().split("\0")
    return {name for name in names if name}


def run_file(path, folder):
    failed, before = False, untracked()
    shell = Shell(folder)
    try:
        for command in commands(path):
            place = f"{path.relative_to(ROOT)}:{command.line}"
            first = command.text.splitlines()[0]
            print(f"    {place}: {first}", flush=True)
            writes = re.fullmatch(r"cat ([\w.-]+)", command.text)
            if writes and not (ROOT / writes.group(1)).exists():
                (ROOT / writes.group(1)).write_text("\n".join(command.output) + "\n")
            code, printed = shell.run(command)
            if code != command.exit:
                what = "did not end in time" if code is None else f"ended with {code}"
                print(f"{place}: `{first}` {what}, instead of with {command.exit}", file=sys.stderr)
                failed = True
            elif not command.interrupt and not matches(command.output, printed):
                print(f"{place}: `{first}` printed something else than what is shown", file=sys.stderr)
                failed = True
            if failed:
                print("--- it printed\n" + "\n".join(printed), file=sys.stderr)
                print("--- on standard error\n" + shell.said()[-4000:], file=sys.stderr)
                break
            if command.text.rstrip().endswith("&"):
                time.sleep(PACE_S)
    finally:
        shell.close()
        for name in untracked() - before:
            left = ROOT / name
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    return not failed


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("file", nargs="*", type=Path, help="README.md and all of docs/ unless given")
    files = arguments.parse_args().file or [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    with tempfile.TemporaryDirectory() as folder:
        results = [run_file(path.resolve(), Path(folder)) for path in files]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
