#!/usr/bin/env python3
"""Checks the model of slow_disk.c itself: tests/slow-disk/check.py; takes about 5 seconds.

Compiles the library, starts itself again under it, and compares times and errors with the model.
"""

import errno
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time


def took(operation, *arguments):
    """Seconds that an operation takes."""
    begin = time.monotonic()
    operation(*arguments)
    return time.monotonic() - begin


def expect(what, value, low, high):
    """A figure and where it must lie. A busy machine makes everything later, never earlier."""
    print(f"{what}: {value:.3f} ({low} to {high})")
    assert low <= value <= high, what


def refused(operation, *arguments):
    """The operation finds no room."""
    try:
        operation(*arguments)
    except OSError as error:
        return error.errno == errno.ENOSPC
    return False


def check(data, control, elsewhere):
    """Runs under the library: 10 MB/s, and a control directory."""
    large = os.open(data / "large", os.O_RDWR | os.O_CREAT)
    small = os.open(data / "small", os.O_RDWR | os.O_CREAT)
    other = os.open(elsewhere / "other", os.O_RDWR | os.O_CREAT)
    expect("a write goes into the cache", took(os.pwrite, large, b"x" * 10_000_000, 0), 0, 0.5)
    os.pwrite(small, b"y" * 100, 0)
    thread = threading.Thread(target=os.fdatasync, args=(large,))
    thread.start()
    time.sleep(0.1)
    os.pwrite(other, b"z" * 10_000_000, 0)
    expect("another file's sync beside it", took(os.fsync, other), 0, 0.6)
    expect("a small sync waits behind a large one", took(os.fsync, small), 0.1, 1.5)
    thread.join()
    expect("a sync of nothing", took(os.fsync, large), 0, 0.2)
    os.pwrite(large, b"x" * 5_000_000, 0)
    expect("a sync of 5 MB", took(os.fsync, large), 0.5, 1)

    (control / "capacity").write_text("10005000")
    time.sleep(0.05)
    assert os.pwrite(small, b"q" * 6000, 0) == 5000, "a write is cut short where the disk ends"
    assert refused(os.pwrite, small, b"q", 5000)
    assert refused(os.ftruncate, small, 20_000_000)
    assert refused(os.posix_fallocate, small, 0, 20_000_000)
    assert os.statvfs(data).f_bavail == 0
    assert os.pwrite(large, b"o" * 1000, 0) == 1000, "to overwrite needs no room"
    os.unlink(data / "large")
    assert os.pwrite(small, b"q" * 6000, 0) == 6000, "a file that is gone leaves room"
    print("capacity: as modelled")

    (control / "hang").touch()
    threading.Timer(0.5, (control / "hang").unlink).start()
    expect("another file's write beside a hang", took(os.pwrite, other, b"z", 0), 0, 0.3)
    expect("a write during a hang", took(os.pwrite, small, b"z", 0), 0.2, 1)

    (control / "capacity").write_text("0")
    (control / "cache_bytes").write_text("1000000")
    time.sleep(0.05)
    expect("a writer waits for a full cache", took(os.pwrite, small, b"x" * 6_000_000, 0), 0.5, 1)


def main():
    """Compiles, and starts the check under the library."""
    if len(sys.argv) == 4:
        check(*(pathlib.Path(path) for path in sys.argv[1:]))
        return
    source = pathlib.Path(__file__).with_name("slow_disk.c")
    with tempfile.TemporaryDirectory(prefix="slow-disk-") as scratch:
        paths = [os.path.join(scratch, name) for name in ("data", "control", "elsewhere")]
        for path in paths:
            os.mkdir(path)
        library = os.path.join(scratch, "slow_disk.so")
        flags = ["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread"]
        subprocess.run(["cc", *flags, "-o", library, source], check=True)
        environment = {
            **os.environ,
            "LD_PRELOAD": library,
            "SLOW_DISK_DIR": paths[0],
            "SLOW_DISK_CONTROL": paths[1],
            "SLOW_DISK_BYTES_PER_S": "10000000",
        }
        command = [sys.executable, __file__, *paths]
        subprocess.run(command, env=environment, check=True, timeout=60)


if __name__ == "__main__":
    main()
