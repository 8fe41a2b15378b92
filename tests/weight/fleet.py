"""Nodes as real processes, each with a modelled disk, and a watch over them.

Every process is started here and ended by its process id. Ports are below those that the system
gives to outgoing connections, and free when they are chosen.
"""

import asyncio
import contextlib
import ctypes
import os
import pathlib
import signal
import socket
import subprocess

from rest import LOST, Connection, now

PORTS = range(18000, 32000)
MB = 1_000_000
LEAST_LEFT_MB = 3000
PR_SET_PDEATHSIG = 1


def free_ports(count):
    """Ports of the loopback address that no process listens on."""
    found = []
    start = PORTS.start + os.getpid() * 37 % (len(PORTS) - 2000)
    for port in range(start, PORTS.stop):
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                trial.bind(("127.0.0.1", port))
                found.append(port)
        if len(found) == count:
            return found
    raise SystemExit("no free ports below 32000")


def compile_disk(scratch):
    """Compiles the library that models the disk; returns its path."""
    source = pathlib.Path(__file__).parent.parent / "slow-disk" / "slow_disk.c"
    library = scratch / "slow_disk.so"
    flags = ["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread"]
    subprocess.run(["cc", *flags, "-o", library, source], check=True)
    return library


def end_with_parent():
    """Lets the kernel end a node if this process dies without doing so."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Node:
    """A member: its process, its disk and what can be read of it."""

    def __init__(self, fleet, number):
        self.fleet, self.number = fleet, number
        self.port, self.peer_port = free_ports_of(fleet)
        self.url = f"http://127.0.0.1:{self.peer_port}"
        self.dir = fleet.scratch / f"node-{number}"
        self.control = fleet.scratch / f"control-{number}"
        self.log = fleet.scratch / f"node-{number}.log"
        self.control.mkdir()
        self.dir.mkdir(mode=0o700)
        self.process = None
        self.seen = {}
        self.connection = Connection(self.port)

    def start(self, members, join=False):
        """Starts the process; `members` are those that `--cluster` lists."""
        cluster = ",".join(f"{member.number}={member.url}" for member in members)
        arguments = ["--id", str(self.number), "--cluster", cluster, "--port", str(self.port)]
        arguments += ["--data-dir", str(self.dir), *map(str, self.fleet.flags)]
        environment = {
            **os.environ,
            "LD_PRELOAD": str(self.fleet.library),
            "SLOW_DISK_DIR": str(self.dir),
            "SLOW_DISK_CONTROL": str(self.control),
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [self.fleet.binary, *arguments, *(["--join"] if join else [])],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=end_with_parent,
            )

    def kill(self):
        """Ends the process as kill -9 does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
            self.seen = {}

    @property
    def has_ended(self):
        """The process has ended unasked."""
        return self.process is not None and self.process.poll() is not None

    @property
    def is_up(self):
        """The process was started and has not ended."""
        return self.process is not None and self.process.poll() is None

    def set_disk(self, **settings):
        """Sets `bytes_per_s`, `capacity` or `hang` (True or False) of its disk."""
        for name, value in settings.items():
            path = self.control / name
            if value is False:
                path.unlink(missing_ok=True)
            else:
                # Exchanged at once, or the node might read an empty file.
                new = path.with_suffix(".new")
                new.write_text(str(int(value)))
                new.rename(path)

    def memory(self, name):
        """A line of /proc/PID/status in MB: VmRSS now, or VmHWM, its peak."""
        if not self.is_up:
            return 0.0
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        lines = [line for line in text.splitlines() if line.startswith(name + ":")]
        return int(lines[0].split()[1]) * 1024 / MB if lines else 0.0

    def reset_peak(self):
        """Lets VmHWM begin anew."""
        pathlib.Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def written_mb(self):
        """MB that the process has written so far, to files and sockets."""
        if not self.is_up:
            return 0.0
        text = pathlib.Path(f"/proc/{self.process.pid}/io").read_text()
        return int(text.split("wchar: ")[1].split()[0]) / MB

    def disk_mb(self):
        """The lengths of its files."""
        total = 0
        for path in self.dir.iterdir():
            with contextlib.suppress(FileNotFoundError):
                total += path.stat().st_size
        return total / MB

    async def look(self):
        """Refreshes `seen`, the node's own status; empty while it does not answer."""
        try:
            _, self.seen = await self.connection.json("GET", "/v1/status", patience=1.0)
        except LOST:
            self.seen = {}


def free_ports_of(fleet):
    """Two ports that no other member has."""
    if len(fleet.ports) < 2:
        raise SystemExit("more nodes than ports were reserved for")
    return fleet.ports.pop(), fleet.ports.pop()


class TooLarge(Exception):
    """A node needs more memory than this machine should give."""


class Fleet:
    """A cluster of nodes. `async with` it: at the end each process is gone."""

    def __init__(self, scratch, binary, library, flags=(), ceiling_mb=4000):
        self.scratch, self.binary, self.library = scratch, binary, library
        self.flags = list(flags)
        self.ceiling_mb = ceiling_mb
        self.ports = free_ports(12)
        self.nodes = []
        # Jobs to be ended with the case.
        self.tasks = []
        # The highest term seen, and when it rose: (seconds, term).
        self.terms = [(now(), 0)]
        self.watching = None

    async def __aenter__(self):
        self.watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_):
        await self.stop_tasks()
        self.watching.cancel()
        for node in self.nodes:
            node.connection.close()
            node.kill()

    def add(self):
        """A further member, not started."""
        self.nodes.append(Node(self, len(self.nodes) + 1))
        return self.nodes[-1]

    async def found(self, count):
        """Starts the founders and waits for a leader."""
        founders = [self.add() for _ in range(count)]
        for node in founders:
            node.start(founders)
        await self.leader()

    def spawn(self, job):
        """Runs a job (a coroutine) until the end of the case, or of `stop_tasks`."""
        self.tasks.append(asyncio.create_task(job))
        return self.tasks[-1]

    async def stop_tasks(self):
        """Ends the jobs."""
        tasks, self.tasks = self.tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self):
        while True:
            await asyncio.gather(*(node.look() for node in self.nodes if node.is_up))
            term = max((node.seen.get("term", 0) for node in self.nodes), default=0)
            if term > self.terms[-1][1]:
                self.terms.append((now(), term))
            await asyncio.sleep(0.1)

    def check_memory(self):
        """Raises `TooLarge` above the ceiling, or if others need the memory of the machine."""
        text = pathlib.Path("/proc/meminfo").read_text()
        left = int(text.split("MemAvailable:")[1].split()[0]) * 1024 / MB
        if left < LEAST_LEFT_MB:
            raise TooLarge(f"the machine has only {left:.0f} MB left")
        for node in self.nodes:
            size = node.memory("VmRSS")
            if size > self.ceiling_mb:
                raise TooLarge(f"node {node.number} has {size:.0f} MB")

    async def wait(self, seconds):
        """Waits, with an eye on memory."""
        end = now() + seconds
        while now() < end:
            self.check_memory()
            await asyncio.sleep(min(0.2, max(0.0, end - now())))

    async def until(self, condition, seconds, what):
        """Waits for a condition; says how long it took, or None if it does not come."""
        begin = now()
        while not condition():
            self.check_memory()
            if now() - begin > seconds:
                print(f"    not within {seconds} s: {what}", flush=True)
                return None
            await asyncio.sleep(0.05)
        return now() - begin

    @property
    def term(self):
        """The highest term that was seen."""
        return self.terms[-1][1]

    def leader_now(self):
        """The node that says it leads in the highest term, or None."""
        leading = [n for n in self.nodes if n.is_up and n.seen.get("role") == "leader"]
        return max(leading, key=lambda node: node.seen["term"], default=None)

    async def leader(self, seconds=30):
        """The leader; waits for one."""
        await self.until(lambda: self.leader_now() is not None, seconds, "a leader")
        leader = self.leader_now()
        if leader is None:
            raise RuntimeError("there is no leader: see the logs of the nodes (--keep)")
        return leader

    def set_disks(self, **settings):
        """Sets the disks of all members."""
        for node in self.nodes:
            node.set_disk(**settings)

    async def settle(self, seconds=60):
        """Waits until all members have applied the same and none saves a snapshot."""

        def settled():
            up = [node for node in self.nodes if node.is_up]
            applied = {node.seen.get("applied", {}).get("index") for node in up}
            saving = any(path.suffix == ".part" for node in up for path in node.dir.iterdir())
            return len(applied) == 1 and None not in applied and not saving

        for _ in range(3):  # A snapshot may begin between two looks.
            await self.until(settled, seconds, "members agree and no snapshot is being saved")
            await asyncio.sleep(0.3)
