"""Clients of a stormkv cluster: one connection, an open-loop probe, and a closed-loop load.

All run on one asyncio loop. The probe measures availability: it sends a small put every few
milliseconds whether or not earlier ones were answered, and records when puts are accepted, so a
pause of the service shows with its true length and does not slow down its own measurement.
"""

import asyncio
import itertools
import json
import random
import time
from collections import Counter

# What a broken, refused or silent connection raises.
LOST = (OSError, EOFError, asyncio.TimeoutError, asyncio.IncompleteReadError, ValueError)

# Answers, or none, after which a command is to be sent again.
UNSETTLED = ("lost", 429, 503, 504)


def now():
    """Seconds of the monotonic clock."""
    return time.monotonic()


class Connection:
    """One keep-alive HTTP/1.1 connection to a node on this machine."""

    def __init__(self, port):
        self.port = port
        self.streams = None

    async def ask(self, method, path, body=b"", headers=(), patience=15.0, discard=False):
        """Sends a request and returns its status and body (empty if it is large and discarded)."""
        try:
            async with asyncio.timeout(patience):
                return await self._exchange(method, path, body, headers, discard)
        except BaseException:
            # The answer may still come, and would be taken for that of the next request.
            self.close()
            raise

    async def _exchange(self, method, path, body, headers, discard):
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 18)
        reader, writer = self.streams
        lines = [f"{method} {path} HTTP/1.1", f"host: 127.0.0.1:{self.port}", *headers]
        lines.append(f"content-length: {len(body)}")
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
        status = int(head[0].split()[1])
        lengths = [line.split(":")[1] for line in head if line.startswith("content-length:")]
        left = int(lengths[0]) if lengths else 0
        if not discard or left <= 1 << 16:
            return status, await reader.readexactly(left)
        while left > 0:
            piece = await reader.read(min(left, 1 << 16))
            if not piece:
                raise EOFError("the answer was cut short")
            left -= len(piece)
        return status, b""

    async def json(self, method, path, document=None, **options):
        """Sends and receives JSON documents."""
        body = b"" if document is None else json.dumps(document).encode()
        status, answer = await self.ask(method, path, body, **options)
        return status, json.loads(answer or b"null")

    def close(self):
        """Drops the connection; the next request opens another one."""
        if self.streams is not None:
            self.streams[1].transport.abort()
            self.streams = None


class Times:
    """When operations succeeded, and how many failed with which status."""

    def __init__(self):
        self.accepted = []
        self.others = Counter()

    def count(self, begin, end):
        """Operations accepted in a period."""
        return sum(begin <= at < end for at in self.accepted)

    def longest_gap(self, begin, end):
        """The longest time without an accepted operation in a period, in seconds."""
        inside = [begin, *sorted(at for at in self.accepted if begin < at < end), end]
        return max(after - before for before, after in itertools.pairwise(inside))


class Stalls:
    """How late this process itself was: a gap is only the cluster's if it is longer."""

    def __init__(self):
        self.longest = 0.0

    async def run(self):
        """Measures until it is cancelled."""
        while True:
            before = now()
            await asyncio.sleep(0.01)
            self.longest = max(self.longest, now() - before - 0.01)


class Probe:
    """Puts of a few bytes, open loop, to each node in turn."""

    # More requests than this are not left open; far above what a healthy cluster needs.
    MOST_OPEN = 3000

    def __init__(self, ports, period=0.01):
        self.times = Times()
        self.ports = itertools.cycle(ports)
        self.period = period
        self.idle = {port: [] for port in ports}
        self.open = set()

    async def run(self):
        """Probes until it is cancelled."""
        due = now()
        try:
            for number in itertools.count():
                due = max(due + self.period, now() - 0.1)
                await asyncio.sleep(max(0.0, due - now()))
                if len(self.open) < self.MOST_OPEN:
                    task = asyncio.create_task(self._put(next(self.ports), number))
                    self.open.add(task)
                    task.add_done_callback(self.open.discard)
        finally:
            for task in list(self.open):
                task.cancel()

    async def _put(self, port, number):
        idle = self.idle[port]
        connection = idle.pop() if idle else Connection(port)
        try:
            status, _ = await connection.ask("PUT", f"/v1/kv/probe-{number % 1000}", b"x")
        except LOST:
            self.times.others["lost"] += 1
            return
        idle.append(connection)
        if status == 204:
            self.times.accepted.append(now())
        else:
            self.times.others[status] += 1


def key(number):
    """The name of a key of the state."""
    return f"/v1/kv/state-{number:08}"


async def load_state(ports, total_bytes, value_bytes, clients=16):
    """Puts keys until the state has this many bytes; returns how many keys there are."""
    keys = max(1, total_bytes // value_bytes)
    numbers = iter(range(keys))
    value = b"s" * value_bytes

    async def client(port):
        connection = Connection(port)
        for number in numbers:
            await until_put(connection, key(number), value)
        connection.close()

    await asyncio.gather(*(client(ports[0]) for _ in range(clients)))
    return keys


async def until_put(connection, path, value, headers=()):
    """Puts a value, again and again until it is accepted."""
    while True:
        try:
            status, _ = await connection.ask("PUT", path, value, headers)
            if status == 204:
                return
        except LOST:
            pass
        await asyncio.sleep(0.05)


class Load:
    """Closed-loop clients that overwrite keys; `rate` bounds all of them together, per second.

    With `sessions`, each command has a number and is repeated until it is answered for good, as
    the Rust client does, so that one command counts once however often it is sent.
    """

    def __init__(self, ports, clients, keys, value_bytes, rate=None, sessions=False, name=key):
        self.times = Times()
        self.ports = ports
        self.clients = clients
        self.keys = keys
        self.value = b"v" * value_bytes
        self.rate = rate
        self.sessions = sessions
        self.name = name
        self.due = now()

    async def run(self):
        """Loads until it is cancelled."""
        await asyncio.gather(*(self._client(number) for number in range(self.clients)))

    async def _pace(self):
        if self.rate:
            # What was missed in a pause is not made up for.
            self.due = max(self.due + 1 / self.rate, now() - 0.05)
            await asyncio.sleep(max(0.0, self.due - now()))

    async def _client(self, number):
        dice = random.Random(number)
        turn = number
        connection = Connection(self.ports[turn % len(self.ports)])
        session = await open_session(connection) if self.sessions else None
        for sequence in itertools.count(1):
            await self._pace()
            path = self.name(dice.randrange(self.keys))
            headers = [f"idempotency-key: {session}-{sequence}"] if session else ()
            status = await self._put(connection, path, headers)
            while status in UNSETTLED:
                self.times.others[status] += 1
                if status != 429:
                    turn += 1
                    connection.close()
                    connection = Connection(self.ports[turn % len(self.ports)])
                await asyncio.sleep(0.05 + 0.1 * dice.random())
                if not session:
                    break
                status = await self._put(connection, path, headers)
            if status == 204:
                self.times.accepted.append(now())
            elif status not in UNSETTLED:
                self.times.others[status] += 1
            if status == 410:
                session = await open_session(connection)

    async def _put(self, connection, path, headers):
        try:
            return (await connection.ask("PUT", path, self.value, headers))[0]
        except LOST:
            return "lost"


async def open_session(connection):
    """Opens a session, however long it takes."""
    while True:
        try:
            status, answer = await connection.json("POST", "/v1/sessions")
            if status == 201:
                return answer["session"]
        except LOST:
            pass
        await asyncio.sleep(0.1)
