"""The acceptance cases. Each starts a cluster of its own and checks figures against limits.

The short form of a case has a smaller state on a disk that is slower in proportion, so that what
takes time takes the same time; limits in seconds are the same in both forms.
"""

import asyncio
import itertools
from collections import Counter
from dataclasses import dataclass, replace

from fleet import MB, TooLarge
from rest import (
    LOST,
    UNSETTLED,
    Connection,
    Load,
    Probe,
    Stalls,
    key,
    load_state,
    now,
    open_session,
    until_put,
)

# The node's default of `max_log_bytes`, which no flag sets.
MAX_LOG_MB = (256 << 20) / MB


@dataclass
class Scale:
    """How large a run is."""

    name: str
    state_mb: int
    disk_mb_s: float
    # A snapshot after so many commands, and so many kept behind it.
    snapshot_every: int
    keep_entries: int
    # How long a measured phase lasts, in seconds.
    phase_s: int

    def flags(self, rate=None):
        """Arguments of the nodes. A transfer takes as long in the short form as in the full one."""
        rate = rate or max(1, round(64 * self.state_mb / 500))
        segment = 16 if self.state_mb >= 500 else 2
        return [
            *("--snapshot-every", self.snapshot_every, "--keep-entries", self.keep_entries),
            *("--snapshot-rate-mib", rate, "--segment-mib", segment, "--log-level", "info"),
        ]

    @property
    def is_full(self):
        """The full form, of whatever size."""
        return self.name == "full"

    @property
    def disk(self):
        """Bandwidth of a disk in bytes per second."""
        return int(self.disk_mb_s * MB)


FULL = Scale("full", 500, 125.0, 20_000, 10_000, 45)
SHORT = Scale("short", 50, 12.5, 5_000, 1_000, 12)


class Report:
    """Figures of a case, printed as they come."""

    def __init__(self, name):
        self.name = name
        self.figures = {}
        self.failed = []

    def note(self, what, value, unit=""):
        """A figure without a limit."""
        self.figures[what] = value
        shown = f"{value:.2f}" if isinstance(value, float) else value
        print(f"    {what}: {shown} {unit}".rstrip(), flush=True)

    def check(self, what, value, limit, unit="", least=False):
        """A figure that must be below its limit, or at least the limit."""
        passed = value is not None and (value >= limit if least else value < limit)
        self.figures[what] = value
        shown = f"{value:.2f}" if isinstance(value, float) else value
        rule = f"{'at least' if least else 'below'} {limit:g}"
        verdict = "PASS" if passed else "FAIL"
        print(f"  {verdict} {what}: {shown} {unit} (limit: {rule})", flush=True)
        if not passed:
            self.failed.append(what)


def ports(fleet):
    """The ports for clients, the leader's first."""
    leader = fleet.leader_now()
    return [node.port for node in sorted(fleet.nodes, key=lambda node: node is not leader)]


async def filled(fleet, count, scale, value_bytes=16 << 10, state_mb=None):
    """Founds a cluster and gives it a state, on fast disks, which then become slow."""
    await fleet.found(count)
    total = int((state_mb or scale.state_mb) * MB)
    begin = now()
    keys = await load_state(ports(fleet), total, value_bytes)
    await fleet.settle()
    fleet.set_disks(bytes_per_s=scale.disk)
    await asyncio.sleep(0.5)
    print(f"    {total / MB:.0f} MB in {keys} keys after {now() - begin:.1f} s", flush=True)
    return keys


def small_key(number):
    """Keys beside those of the state, for small commands."""
    return f"/v1/kv/small-{number:05}"


async def snapshots(fleet, scale, report):
    """Periodic snapshots of a large state depose no leader and do not interrupt puts."""
    await filled(fleet, 3, scale)
    rate = scale.snapshot_every / 10
    load = Load(ports(fleet), 16, 1000, 128, rate=rate, name=small_key)
    probe, stalls = Probe(ports(fleet)), Stalls()
    leader = fleet.leader_now()
    for job in (load, probe, stalls):
        fleet.spawn(job.run())
    await fleet.wait(1)
    term, begin = fleet.term, now()
    taken, index = 0, leader.seen["snapshot"]["index"]
    while now() < begin + 2 * scale.phase_s and (taken < 3 or now() < begin + scale.phase_s):
        await fleet.wait(0.2)
        newest = leader.seen.get("snapshot", {}).get("index", index)
        taken, index = taken + (newest != index), newest
    end = now()
    report.note("commands", load.times.count(begin, end) / (end - begin), "per second")
    report.note("longest stall of this script", stalls.longest, "s")
    report.note("snapshots of the first leader", taken)
    report.check("snapshots were taken", taken, 2, least=True)
    report.check("elections", fleet.term - term, 1)
    report.check(
        "longest gap without an accepted put", probe.times.longest_gap(begin, end), 0.5, "s"
    )


async def hang(fleet, scale, report):
    """A leader whose disk hangs without an error is replaced."""
    rounds = 3 if scale.is_full else 2
    await filled(fleet, 3, scale, state_mb=5)
    load = Load(ports(fleet), 8, 1000, 128, name=small_key)
    probe = Probe(ports(fleet))
    for job in (load, probe):
        fleet.spawn(job.run())
    gaps, again = [], []
    for _ in range(rounds):
        await fleet.wait(3)
        leader, begin = await fleet.leader(), now()
        leader.set_disk(hang=True)
        await fleet.wait(max(6, scale.phase_s / 4))
        end = now()
        gaps.append(probe.times.longest_gap(begin, end))
        report.note("puts accepted while it hung", probe.times.count(begin, end))
        report.note("the node still leads", fleet.leader_now() is leader)
        leader.set_disk(hang=False)

        def all_near():
            return all(is_near(node, fleet.leader_now()) for node in fleet.nodes)

        again.append(await fleet.until(all_near, 10, "all members have caught up"))
    report.note("answers of the probe", dict(probe.times.others))
    report.note("gaps", ", ".join(f"{gap:.2f}" for gap in gaps), "s")
    report.check("longest gap without an accepted put", max(gaps), 2, "s")
    report.check("times that the member caught up", rounds - again.count(None), rounds, least=True)


def is_near(node, leader, slack=500):
    """The member has applied nearly all that the leader has committed."""
    if not node.seen or leader is None or not leader.seen:
        return False
    return node.seen["applied"]["index"] + slack >= leader.seen["commit"]


async def catchup(fleet, scale, report):
    """A member that needs a snapshot catches up while the others write at full speed."""
    # An election ends a transfer and with it what it pins, so a busy machine must not cause one.
    # For the same reason the disks stay fast.
    # A small state is sent slowly: the log must outgrow its limit during the transfer.
    fleet.flags = scale.flags(None if scale.is_full else 2)
    fleet.flags += ["--election-ms", "2000", "--heartbeat-ms", "100"]
    await fleet.found(3)
    leader = fleet.leader_now()
    away = next(node for node in fleet.nodes if node is not leader)
    away.kill()
    keys = await load_state(ports(fleet)[:1], scale.state_mb * MB, 64 << 10)
    await fleet.settle()
    load = Load([leader.port], 32, keys, 64 << 10)
    probe = Probe([node.port for node in fleet.nodes if node is not away])
    for job in (load, probe):
        fleet.spawn(job.run())
    await fleet.wait(3)
    report.note("leader RSS before", leader.memory("VmRSS"), "MB")
    leader.reset_peak()
    term, begin, written = fleet.term, now(), leader.written_mb()
    away.start(fleet.nodes)
    # Where the leader was two seconds ago is near enough, at any rate of writing.
    commits, caught_up, log_entries, limit = [], None, 0, max(2 * scale.phase_s, 45)
    while caught_up is None and now() < begin + limit:
        await fleet.wait(0.2)
        seen = leader.seen or {"commit": 0, "first": 0, "last": {"index": 0}}
        log_entries = max(log_entries, seen["last"]["index"] - seen["first"])
        commits.append((now(), seen["commit"]))
        past = [commit for at, commit in commits if at <= now() - 2]
        if past and away.seen.get("applied", {}).get("index", 0) >= past[-1] > 0:
            caught_up = now() - begin
    end = now()
    puts = load.times.count(begin, end)
    report.note("puts meanwhile", puts / (end - begin), "per second of 64 KiB")
    report.note("puts meanwhile had", puts * (64 << 10) / MB, "MB")
    report.note("the leader wrote", leader.written_mb() - written, "MB to disk and peers")
    report.note("its log had at most", log_entries * (64 << 10) / MB, "MB")
    report.note("elections", fleet.term - term)
    report.note("longest gap", probe.times.longest_gap(begin, end), "s")
    report.check("caught up", caught_up, limit, "s")
    most = 2 * (scale.state_mb + MAX_LOG_MB)
    report.check("peak RSS of the leader", leader.memory("VmHWM"), most, "MB")


async def refused_swap(connection, statuses):
    """One session, and in it one compare-and-swap that is answered with a large value.

    It is repeated until its outcome is known, for 20 s. Returns whether it is.
    """
    session = await open_session(connection)
    headers = [f"idempotency-key: {session}-1"]
    document = {"key": "large", "expected": "other", "new": "n"}
    end = now() + 20
    while now() < end:
        try:
            status, answer = await connection.json(
                "POST", "/v1/cas", document, headers=headers, discard=True
            )
        except LOST:
            status, answer = "lost", None
        # It was applied, once, and its answer was too large to be kept.
        is_applied = status == 504 and answer["code"] == "answer_not_kept"
        statuses["504 applied" if is_applied else status] += 1
        if is_applied or status not in UNSETTLED:
            return True
        await asyncio.sleep(0.2)
    return False


async def answers(fleet, scale, report):
    """Sessions with a large answer each do not keep those answers, in memory or on disk."""
    await swaps(fleet, report, 3000 if scale.is_full else 600, 16)


async def answers_at_once(fleet, scale, report):
    """Many large answers at the same time depose no leader."""
    sessions = 2000 if scale.is_full else 400
    await swaps(fleet, report, sessions, sessions)


async def swaps(fleet, report, sessions, clients):
    """So many sessions, spread over so many clients."""
    await fleet.found(3)
    port = fleet.leader_now().port
    await until_put(Connection(port), "/v1/kv/large", b"L" * (1 << 20))
    await fleet.wait(1)
    term, begin, statuses = fleet.term, now(), Counter()
    waiting = iter(range(sessions))
    known = 0

    async def client():
        nonlocal known
        connection = Connection(port)
        for _ in waiting:
            is_known = await refused_swap(connection, statuses)
            known += is_known
        connection.close()

    try:
        await run_watched(fleet, asyncio.gather(*(client() for _ in range(clients))))
        await fleet.wait(2)
    except TooLarge as error:
        print(f"    stopped to protect the machine: {error}", flush=True)
    report.note(f"answers to {clients} clients", dict(statuses))
    report.note("which took", now() - begin, "s")
    largest = max(node.memory("VmHWM") for node in fleet.nodes)
    report.check("peak RSS of the largest node", largest, 300, "MB")
    report.check("elections", fleet.term - term, 1)
    report.check("outcomes that became known", known, sessions, least=True)


async def run_watched(fleet, job):
    """Waits for a job, with an eye on memory."""
    try:
        while not job.done():
            fleet.check_memory()
            await asyncio.wait([job], timeout=0.2)
        await job
    finally:
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)


async def overload(fleet, scale, report):
    """Forty times the clients get at least 80 % of the answers, and it is over when they are."""
    # More than this disk lets answer within 5 s, the node's time limit of a request.
    few, many = 10, 400
    value_bytes = 64 << 10
    await fleet.found(3)
    fleet.set_disks(bytes_per_s=8 * MB)

    async def goodput(clients, seconds):
        load = Load(ports(fleet), clients, 100, value_bytes, sessions=True)
        task = fleet.spawn(load.run())
        # Sessions are opened, and what came before is over within seconds.
        await fleet.wait(min(5, scale.phase_s / 3))
        begin = now()
        await fleet.wait(seconds)
        end = now()
        half = (begin + end) / 2
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        rates = [
            load.times.count(a, b) / (b - a) for a, b in itertools.pairwise([begin, half, end])
        ]
        shown = ", ".join(f"{rate:.1f}" for rate in rates)
        print(
            f"    {clients} clients: {shown} commands/s (halves), {dict(load.times.others)}",
            flush=True,
        )
        return rates

    base = sum(await goodput(few, scale.phase_s / 2)) / 2
    term = fleet.term
    first, second = await goodput(many, scale.phase_s)
    report.note("elections under overload", fleet.term - term)
    after = sum(await goodput(few, scale.phase_s / 3)) / 2
    report.note("goodput with 10 clients", base, "per second")
    report.check(
        "goodput with many clients", (first + second) / 2 / base * 100, 80, "%", least=True
    )
    report.check("of which in the second half", second / base * 100, 80, "%", least=True)
    report.check("goodput with 10 clients afterwards", after / base * 100, 80, "%", least=True)


async def full(fleet, scale, report):
    """On disks of 1.5 times the state reads and deletes go on; after deletes writes do."""
    # The log must fit beside one copy of the state, or the disk would be full from the beginning.
    # The default reserve is for larger disks than those of the short form.
    reserve = 48 if scale.state_mb >= 500 else 6
    fleet.flags = [*replace(scale, keep_entries=1000).flags(), "--reserve-mib", reserve]
    keys = await filled(fleet, 3, scale)

    def largest():
        return max(node.disk_mb() for node in fleet.nodes)

    # Two snapshots behind the filling make its log short.
    load = Load(ports(fleet), 8, 1000, 128, name=small_key)
    task, begin, enough = fleet.spawn(load.run()), now(), 2 * scale.snapshot_every
    while len(load.times.accepted) < enough and now() < begin + 30:
        await fleet.wait(0.2)
    task.cancel()
    await fleet.settle()
    await fleet.until(lambda: largest() < 1.3 * scale.state_mb, 30, "the log becomes short")
    report.note("disk used by the largest node", largest(), "MB")
    fleet.set_disks(capacity=int(1.5 * scale.state_mb * MB))
    # Enough to make a second copy of the state due, twice.
    load = Load(ports(fleet), 8, 1000, 128, name=small_key)
    task, begin, enough = fleet.spawn(load.run()), now(), 2 * scale.snapshot_every
    while len(load.times.accepted) < enough and now() < begin + 2 * scale.phase_s:
        await fleet.wait(0.2)
    await fleet.wait(scale.phase_s / 4)
    task.cancel()
    report.note("writes accepted on the full disk", len(load.times.accepted))
    report.note("their refusals", dict(load.times.others))
    report.note("disk used by the largest node", largest(), "MB")
    up = sum(node.is_up and not node.seen.get("stopped") for node in fleet.nodes)
    report.check("members that run", up, 3, least=True)
    # One that comes back on a full disk must not need room for that.
    for node in fleet.nodes[:1] if up == 3 else fleet.nodes:
        node.kill()
        node.start(fleet.nodes)
    await fleet.wait(8)
    up = sum(node.is_up and not node.seen.get("stopped") for node in fleet.nodes)
    report.check("members that run after a restart", up, 3, least=True)
    some = list(range(0, keys, max(1, keys // 100)))
    read = await attempts(fleet, "GET", some, (200,))
    report.check(f"reads of {len(some)}", read, len(some), least=True)
    # What is left must fit beside the old copy, the log and the reserve.
    most = list(range(keys * 9 // 10))
    deleted = await attempts(fleet, "DELETE", most, (204, 404))
    report.check(f"deletes of {len(most)}", deleted, len(most), least=True)
    begin = now()
    written = 0
    while written < 100 and now() < begin + 30:
        written = await attempts(fleet, "PUT", range(100), (204,), b"w" * 1024)
        fleet.check_memory()
    report.check("writes of 100 after the deletes", written, 100, least=True)
    report.note("which took", now() - begin, "s")


async def attempts(fleet, method, numbers, good, body=b""):
    """How many requests succeed, of which each may be tried for 8 s at one member after another."""
    waiting = iter(numbers)
    done = 0

    async def one(number, turn):
        end, status = now() + 8, None
        while status not in good and now() < end:
            connection = Connection(fleet.nodes[turn % len(fleet.nodes)].port)
            try:
                status, _ = await connection.ask(method, key(number), body, patience=6)
            except LOST:
                await asyncio.sleep(0.2)
            connection.close()
            turn += 1
        return status in good

    async def client(turn):
        nonlocal done
        for number in waiting:
            if not await one(number, turn):
                return  # The others would fail in the same way.
            done += 1

    await asyncio.gather(*(client(turn) for turn in range(8)))
    return done


async def grow(fleet, scale, report, learner=False):
    """One voter with a large state gets a second one without a pause of the service."""
    await filled(fleet, 1, scale)
    voter, new = fleet.nodes[0], fleet.add()
    new.set_disk(bytes_per_s=scale.disk)
    load = Load([voter.port], 8, 1000, 128, rate=500, name=small_key)
    probe, stalls = Probe([voter.port]), Stalls()
    for job in (load, probe, stalls):
        fleet.spawn(job.run())
    await fleet.wait(2)
    term, begin, limit = fleet.term, now(), 2 * scale.phase_s
    admin = Connection(voter.port)
    await change(admin, "POST", "/v1/members", {"id": 2, "url": new.url, "learner": learner})
    new.start(fleet.nodes, join=True)
    if learner:
        await fleet.until(lambda: is_near(new, voter), scale.phase_s, "the learner catches up")
        await change(admin, "POST", "/v1/members/2/promote", None)

    async def has_two_voters():
        while True:
            try:
                _, answer = await admin.json("GET", "/v1/members?consistency=stale", patience=2)
                voters = [m for m in answer["members"] if m["role"] == "voter"]
                if len(voters) == 2 and is_near(new, fleet.leader_now()):
                    return
            except (*LOST, KeyError, TypeError):
                pass
            await asyncio.sleep(0.1)

    try:
        await asyncio.wait_for(has_two_voters(), limit)
        took = now() - begin
    except TimeoutError:
        took = None
    await fleet.wait(3)
    end = now()
    report.note("longest stall of this script", stalls.longest, "s")
    report.note("elections", fleet.term - term)
    report.note("answers of the probe", dict(probe.times.others))
    report.check("the second voter has the state", took, limit, "s")
    report.check("longest pause of the service", probe.times.longest_gap(begin, end), 1, "s")


async def grow_by_learner(fleet, scale, report):
    """The same, as a careful operator does it: a learner first, promoted when it has the state."""
    await grow(fleet, scale, report, learner=True)


async def change(admin, method, path, document):
    """Changes the membership; repeats what was refused for the moment."""
    for _ in range(20):
        try:
            status, answer = await admin.json(method, path, document)
        except LOST:
            status, answer = "lost", None
        if status == 200:
            return
        print(f"    {method} {path}: {status} {answer}", flush=True)
        # An answer that was lost may still have been a success; a repetition does no harm.
        await asyncio.sleep(0.5)


async def large(fleet, scale, report):
    """A state above the former limit of a snapshot, 4 GiB, reaches a new member."""
    keys = await filled(fleet, 1, scale, value_bytes=1 << 20)
    voter, new = fleet.nodes[0], fleet.add()
    admin = Connection(voter.port)
    await change(admin, "POST", "/v1/members", {"id": 2, "url": new.url, "learner": True})
    new.start(fleet.nodes, join=True)
    limit = 30 + scale.state_mb / 10
    took = await fleet.until(
        lambda: is_near(new, voter, slack=0), limit, "the new member has the state"
    )
    status, value = 0, b""
    if took is not None:
        reader, path = Connection(new.port), key(keys - 1) + "?consistency=stale"
        status, value = await reader.ask("GET", path, patience=30)
    report.note("state", scale.state_mb, "MB")
    report.note("peak RSS of the sender", voter.memory("VmHWM"), "MB")
    report.note("peak RSS of the new member", new.memory("VmHWM"), "MB")
    report.check("the new member has the state", took, limit, "s")
    report.check("bytes of its last value", len(value) if status == 200 else 0, 1 << 20, least=True)


# The case, and how long it may take at most in the full form, in seconds.
CASES = {
    "snapshots": (snapshots, 300),
    "hang": (hang, 120),
    "catchup": (catchup, 300),
    "answers": (answers, 180),
    "answers-at-once": (answers_at_once, 180),
    "overload": (overload, 240),
    "full": (full, 300),
    "grow": (grow, 240),
    "grow-by-learner": (grow_by_learner, 240),
    "large": (large, 900),
}
