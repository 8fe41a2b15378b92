// What the page says of an event, a message, a change: short sentences in the terms of the traces.

import { COPY, End, REJECT, type Run, STALE, type Step, type TermRun } from "./run";
import { FIELDS, type History, type NodeState } from "./state";

/** `1,234`. */
export function thousands(n: number): string {
    return n.toLocaleString("en");
}

/** Simulated time: `12.034 ms`, `3.195743 s`. */
export function time(ns: number): string {
    if (ns < 1e9) return `${(ns / 1e6).toFixed(3)} ms`;
    return `${(ns / 1e9).toFixed(6)} s`;
}

/** A length of time, with as many digits as help: `340 ns`, `1.2 ms`. */
export function duration(ns: number): string {
    if (ns < 1e3) return `${ns} ns`;
    if (ns < 1e6) return `${trim(ns / 1e3)} µs`;
    if (ns < 1e9) return `${trim(ns / 1e6)} ms`;
    return `${trim(ns / 1e9)} s`;
}

function trim(value: number): string {
    return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

/** `4@2`, `4..7@2`. */
export function entries(run: TermRun): string {
    const last = run.from + run.count - 1;
    return run.count === 1 ? `${run.from}@${run.term}` : `${run.from}..${last}@${run.term}`;
}

/** What a message carries, in brackets: `prev 3@1 [4@2] commit 3`. */
export function content(run: Run, row: number): string {
    const m = run.block.messages;
    const kind = run.block.names.message[m.kind[row]];
    const parts: string[] = [];
    const index = m.index[row];
    const position = `${index}@${m.log_term[row]}`;
    switch (kind) {
        case "Append":
            parts.push(`prev ${position}`);
            parts.push(`[${run.entriesOf(row).map(entries).join(" ")}]`);
            parts.push(`commit ${m.commit[row]}`);
            break;
        case "AppendResp":
            parts.push(m.flags[row] & REJECT ? "rejects" : `match ${index}`);
            break;
        case "Heartbeat":
            parts.push(`commit ${m.commit[row]}`);
            break;
        case "Vote":
        case "PreVote":
            parts.push(`last ${position}`);
            break;
        case "VoteResp":
        case "PreVoteResp":
            parts.push(m.flags[row] & REJECT ? "no" : "yes");
            break;
        case "Chunk":
            parts.push(`snapshot ${position}`);
            break;
        case "ReadIndexAnswer":
            parts.push(`index ${index}`);
            break;
    }
    if (m.text[row] > 0) parts.push(run.text(m.text[row]));
    return parts.join(" ");
}

/** `n1 → n2 Append term 2 prev 3@1 [4@2] commit 3`. */
export function message(run: Run, row: number): string {
    const m = run.block.messages;
    const kind = run.block.names.message[m.kind[row]];
    const term = m.term[row] > 0 ? ` term ${m.term[row]}` : "";
    return `${run.laneName(m.from[row])} → ${run.laneName(m.to[row])} ${kind}${term} ${content(run, row)}`.trimEnd();
}

const FATES: Record<string, string> = {
    "under-way": "still under way when the run ends",
    delivered: "delivered",
    loss: "lost by chance when it was sent",
    weather: "lost in bad weather",
    partition: "lost: there was no way",
    exception: "lost: the plan says so",
    "queue-full": "lost: too much waited for its connection",
    broken: "lost: its connection was broken, and its sender did not know",
    cut: "lost on the way: a partition began",
    reset: "lost on the way, with its connection",
    down: "lost at its end: the receiver was down",
    forgotten: "lost at its end: the receiver went down before it took it",
    "inbox-full": "lost at its end: too much waited for a slow node",
    garbled: "damaged on the way, and the receiver noticed",
};

/** What became of a message. */
export function fate(run: Run, row: number): string {
    const name = run.block.names.fate[run.block.messages.fate[row]];
    const said = FATES[name] ?? name;
    const flags = run.block.messages.flags[row];
    const extra = [];
    if (flags & COPY) extra.push("a copy that the network made");
    if (flags & STALE) extra.push("stale: it told its receiver nothing that still counts");
    if (run.ending[row] === End.Delivered) {
        const took = duration(run.time[run.end[row]] - run.time[run.sent[row]]);
        return [`${said} after ${took}`, ...extra].join("; ");
    }
    return [said, ...extra].join("; ");
}

/** What a disk operation did: `writes wal-1 112..208`. */
export function disk(run: Run, row: number): string {
    const d = run.block.disk;
    const file = run.text(d.file[row]);
    const range = `${thousands(d.offset[row])}..${thousands(d.offset[row] + d.len[row])}`;
    const failed = run.diskFailed.has(row) ? " and fails" : "";
    switch (run.block.names.disk[d.verb[row]]) {
        case "create":
            return `creates ${file}${failed}`;
        case "write":
            return `writes ${file} ${range}${failed}`;
        case "sync":
            return `syncs ${file}${failed}`;
        case "rename":
            return `renames to ${file}${failed}`;
        case "remove":
            return `removes ${file}${failed}`;
        case "sync-dir":
            return `syncs the directory${failed}`;
        default:
            return `${run.block.names.disk[d.verb[row]]} ${file}${failed}`;
    }
}

/** Names of the bits that are set; what is not `up` is `down`. */
export function condition(run: Run, bits: number): string {
    const names = run.block.names.condition.filter((_, i) => bits & (1 << i));
    if (!names.includes("up")) names.unshift("down");
    else if (names.length > 1) names.shift();
    return names.join(", ");
}

/** The role of a node, or the one that it had. */
function role(run: Run, state: NodeState): string {
    const name = run.block.names.role[state.role];
    return run.is(state.condition, "up") && !run.is(state.condition, "gone") ? name : `was ${name}`;
}

/** What a node is, in a few words; what one that is down was. */
export function situation(run: Run, state: NodeState): string {
    return `${condition(run, state.condition)}, ${role(run, state)} of term ${state.term}`;
}

/** What the log has of an operation; empty if nothing. */
export function index(run: Run, op: number): string {
    const at = run.block.ops.index[op];
    if (at === 0) return "";
    return run.reads(op) ? `has seen the log up to ${thousands(at)}` : `entry ${thousands(at)}`;
}

/** The value of a part of a node. */
export function value(run: Run, name: keyof NodeState, state: NodeState): string {
    const raw = state[name];
    switch (name) {
        case "condition":
            return condition(run, raw);
        case "role":
            return role(run, state);
        case "vote":
        case "leader":
            return raw === 0 ? "none" : run.laneName(raw);
        case "members":
            return run.text(raw);
        default:
            return thousands(raw);
    }
}

export interface Difference {
    name: string;
    before: string;
    after: string;
}

/** What an event changed of a node. */
export function differences(run: Run, history: History, step: Step): Difference[] {
    const row = history.row(step);
    if (row < 0 || history.steps[row] !== step) return [];
    const before = history.at(step - 1);
    const after = history.at(step);
    const found: Difference[] = [];
    for (const name of FIELDS) {
        if (before[name] === after[name]) continue;
        found.push({ name, before: value(run, name, before), after: value(run, name, after) });
    }
    const had = history.logAt(step - 1);
    const has = history.logAt(step);
    if (had !== has) {
        found.push({ name: "log", before: log(had.runs, before.first), after: log(has.runs, after.first) });
        if (has.ghosts !== had.ghosts && has.ghosts !== null) {
            found.push({ name: "cut off", before: "", after: has.ghosts.runs.map(entries).join(" ") });
        }
    }
    return found;
}

/** A log, run by run: `1..3@1 4@2`. */
export function log(runs: TermRun[], first: number): string {
    const kept = runs.filter((run) => run.from + run.count > first);
    const clipped = kept.map((run) => {
        const from = Math.max(run.from, first);
        return entries({ ...run, from, count: run.from + run.count - from });
    });
    if (clipped.length === 0) return "empty";
    return clipped.length > 4 ? `… ${clipped.slice(-3).join(" ")}` : clipped.join(" ");
}

const STEPS: Record<string, string> = {
    "put-off": "nothing: put off, for the node is paused or busy, or its disk hangs",
    tick: "a timer fires",
    deliver: "a message arrives",
    request: "a request arrives",
    reply: "an answer arrives",
    notice: "hears that messages were lost",
    client: "the client's timer fires",
    "client-restart": "the client's process is replaced",
    disk: "the disk works",
    read: "the disk has read",
    flush: "acts on its inputs",
    complete: "hears from its disk",
    serve: "looks for its next input",
    "crash-again": "crashes again",
    start: "starts",
    fault: "a fault strikes",
    mend: "a fault ends",
    heal: "all faults end",
    rest: "has the cluster come to rest?",
};

/** What an event is, in a few words. */
export function step(run: Run, number: Step): string {
    return STEPS[run.stepKind(number)] ?? run.stepKind(number);
}

/** How an operation ended: `→ ok`. */
export function outcome(run: Run, op: number): string {
    const ops = run.block.ops;
    const name = run.block.names.outcome[ops.outcome[op]];
    const answer = run.text(ops.answer[op]);
    switch (name) {
        case "open":
            return "→ no answer yet";
        case "unknown":
            return answer === "" ? "→ unknown" : `→ unknown (${answer})`;
        default:
            return `→ ${answer === "" ? name : answer}`;
    }
}
