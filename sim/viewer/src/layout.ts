// Which lanes there are and how high each is: the faults on top, the nodes, then the clients.

import { type Lane, type Run, type Step, upperBound } from "./run";
import type { History } from "./state";

export interface Row {
    /** Of a client, all its hands. */
    lanes: Lane[];
    /** The first of them. */
    lane: Lane;
    kind: "storm" | "node" | "client";
    y: number;
    height: number;
}

/** A time during which a node had the same role, term and condition. */
export interface Spell {
    from: Step;
    /** The first event after it; 0 if it lasts to the end. */
    to: Step;
    condition: number;
    role: number;
    term: number;
}

/** The spells of a node, in order. */
export function spells(history: History): Spell[] {
    const found: Spell[] = [];
    const CONDITION = 0;
    const ROLE = 1;
    const TERM = 2;
    for (let row = 0; row < history.steps.length; row++) {
        const condition = history.field(row, CONDITION);
        const role = history.field(row, ROLE);
        const term = history.field(row, TERM);
        const last = found.at(-1);
        if (last !== undefined && last.condition === condition && last.role === role && last.term === term) continue;
        const step = history.steps[row];
        if (last !== undefined) last.to = step;
        found.push({ from: step, to: 0, condition, role, term });
    }
    return found;
}

/** A time during which links are cut. */
export interface Split {
    from: Step;
    /** The first event after it; 0 if it lasts to the end. */
    to: Step;
    /** By lane: on which side apart from the largest it is, from 1; `PART` if only some of its links are
     * cut, or in one direction only. Those on the largest side are not in it. */
    sides: Map<Lane, number>;
    /** What is cut, in words. */
    text: string;
}

export const PART = -1;

export function splits(run: Run, histories: Map<Lane, History>): Split[] {
    const { step, pairs } = run.block.cuts;
    const found: Split[] = [];
    for (let i = 0; i < step.length; i++) {
        if (pairs[i].length === 0) continue;
        // Who has never been started is on no side.
        const nodes = run.nodes.filter((lane) => (histories.get(lane)?.row(step[i]) ?? -1) >= 0);
        found.push({ from: step[i], to: step[i + 1] ?? 0, ...sides(run, nodes, pairs[i]) });
    }
    return found;
}

function sides(run: Run, nodes: Lane[], pairs: number[]): { sides: Map<Lane, number>; text: string } {
    const cuts = new Set<string>();
    for (let i = 0; i < pairs.length; i += 2) cuts.add(`${pairs[i]} ${pairs[i + 1]}`);
    const isCut = (from: Lane, to: Lane) => cuts.has(`${from} ${to}`);
    const apart = (one: Lane, other: Lane) => isCut(one, other) || isCut(other, one);
    // A side is made of nodes that reach each other, if only through others of it.
    const groups: Lane[][] = [];
    const side = new Map<Lane, Lane[]>();
    for (const start of nodes) {
        if (side.has(start)) continue;
        const members = [start];
        groups.push(members);
        side.set(start, members);
        for (const lane of members) {
            for (const next of nodes) {
                if (side.has(next) || apart(lane, next)) continue;
                members.push(next);
                side.set(next, members);
            }
        }
    }
    groups.sort((a, b) => b.length - a.length);
    const found = new Map<Lane, number>();
    const words: string[] = [];
    const names = (lanes: Lane[]) => lanes.map((lane) => run.laneName(lane)).join(" ");
    const all = (from: Lane[], to: Lane[]) => from.every((one) => to.every((other) => isCut(one, other)));
    const whole: Lane[][] = groups.slice(0, 1);
    groups.slice(1).forEach((members, i) => {
        const rest = groups.filter((group) => group !== members).flat();
        const [out, back] = [all(members, rest), all(rest, members)];
        for (const lane of members) found.set(lane, out && back ? i + 1 : PART);
        if (out && back) whole.push(members);
        else if (out) words.push(`${names(members)} ↛ ${names(rest)}`);
        else if (back) words.push(`${names(rest)} ↛ ${names(members)}`);
        else words.push(...pairsBetween(run, members, rest, isCut));
    });
    for (const members of groups) {
        const inside = pairsBetween(run, members, members, isCut);
        words.push(...inside);
        for (const lane of members) {
            if (!found.has(lane) && members.some((other) => apart(lane, other))) found.set(lane, PART);
        }
    }
    // A client is where the nodes are that it reaches; it is cut off if it reaches none of the largest side.
    const beside = new Map<Lane[], Lane[]>(groups.map((members) => [members, []]));
    const alone: Lane[] = [];
    for (const client of run.clients) {
        const reached = groups.findIndex((members) => members.some((node) => !apart(client, node)));
        if (reached === 0 || nodes.length === 0) continue;
        found.set(client, reached < 0 ? groups.length : reached);
        // Hands go with their client.
        if (!run.laneName(client).includes(".")) (beside.get(groups[reached]) ?? alone).push(client);
    }
    const sideNames = (members: Lane[]) => names([...members, ...(beside.get(members) ?? [])]);
    if (whole.length > 1) words.unshift(whole.map(sideNames).join(" | "));
    if (alone.length > 0) words.push(`${names(alone)} reach nobody`);
    const text = words.length > 8 ? `${words.slice(0, 8).join(", ")}, and ${words.length - 8} more` : words.join(", ");
    return { sides: found, text };
}

/** The single links that are cut, in words. */
function pairsBetween(run: Run, some: Lane[], others: Lane[], isCut: (from: Lane, to: Lane) => boolean): string[] {
    const words: string[] = [];
    for (const one of some) {
        for (const other of others) {
            if (some === others && other <= one) continue;
            const [there, back] = [isCut(one, other), isCut(other, one)];
            const sign = there && back ? "⇎" : there ? "↛" : back ? "↚" : "";
            if (sign !== "") words.push(`${run.laneName(one)} ${sign} ${run.laneName(other)}`);
        }
    }
    return words;
}

/** The split at an event, if there is one. */
export function splitAt(all: Split[], step: Step): Split | undefined {
    return all.find((split) => step >= split.from && (split.to === 0 || step < split.to));
}

/** Spans on as few lines as possible without one over another. */
function stacked(spans: { from: number; to: number }[], most: number): number[] {
    const ends: number[] = [];
    return spans.map((span) => {
        let line = ends.findIndex((end) => end <= span.from);
        if (line < 0) line = ends.length < most ? ends.length : ends.indexOf(Math.min(...ends));
        ends[line] = span.to;
        return line;
    });
}

/** On which line each fault is drawn, and how many lines there are. */
export function faultLines(run: Run): { lines: number[]; count: number } {
    const { start, end } = run.block.faults;
    const spans = start.map((from, i) => {
        const to = end[i] === 0 ? run.steps + 1 : end[i];
        // Short ones get room for their name.
        return { from, to: Math.max(to, from + run.steps * 0.04) };
    });
    const lines = stacked(spans, 6);
    return { lines, count: Math.max(0, ...lines.map((line) => line + 1)) };
}

/** On which row each operation of a client is drawn. */
export interface Clients {
    /** A client has as many rows as it has operations under way at the same time; they belong to all its hands. */
    rows: Lane[][];
    /** By operation: a place in `rows`. */
    ofOp: Int32Array;
    /** For each hand, when it called its operations, and on which row each is. */
    calls: Map<Lane, { steps: Step[]; rows: number[] }>;
    /** The first row of each client that does anything, for all its hands. */
    first: Map<Lane, number>;
}

export function clients(run: Run): Clients {
    const { ops, messages } = run.block;
    const base = (lane: Lane) => run.laneName(lane).replace(/\..*/, "");
    const clients = new Set(run.clients);
    const hands = new Map<string, Lane[]>();
    for (const lane of run.clients) hands.set(base(lane), [...(hands.get(base(lane)) ?? []), lane]);
    const all: { name: string; last: Step; proves: boolean }[] = [];
    const proof = new Set(run.block.violation?.ops);
    // By call: each on the first row of its client that is free again.
    const taken = Array.from(run.opCall, (call, op) => {
        const name = base(ops.lane[op]);
        let row = all.find((row) => row.name === name && row.last < call);
        if (row === undefined) {
            row = { name, last: 0, proves: false };
            all.push(row);
        }
        row.last = ops.ret[op] === 0 ? run.steps : ops.ret[op];
        row.proves ||= proof.has(op);
        return row;
    });
    // Who talks, but has called nothing yet, has a row as well.
    const talks = new Set([...messages.from, ...messages.to].filter((lane) => clients.has(lane)).map(base));
    for (const name of talks) if (!all.some((row) => row.name === name)) all.push({ name, last: 0, proves: false });
    const order = [...hands.keys()];
    all.sort((a, b) => Number(b.proves) - Number(a.proves) || order.indexOf(a.name) - order.indexOf(b.name));
    const first = new Map<Lane, number>();
    for (const lane of run.clients) {
        const row = all.findIndex(({ name }) => name === base(lane));
        if (row >= 0) first.set(lane, row);
    }
    const ofOp = Int32Array.from(taken, (row) => all.indexOf(row));
    const calls = new Map(run.clients.map((lane) => [lane, { steps: [] as Step[], rows: [] as number[] }]));
    ops.lane.forEach((lane, op) => {
        calls.get(lane)?.steps.push(run.opCall[op]);
        calls.get(lane)?.rows.push(ofOp[op]);
    });
    return { rows: all.map(({ name }) => hands.get(name) ?? []), ofOp, calls, first };
}

/** The row of a hand at an event: that of what it does, or did last. */
export function clientRow({ calls, first }: Clients, lane: Lane, step: Step): number | undefined {
    const own = calls.get(lane);
    return own?.rows[upperBound(own.steps, step) - 1] ?? first.get(lane);
}

export const RULER = 26;
export const FAULT_LINE = 15;

/** The rows from top to bottom, and the height of all. As high as there is room, within limits. */
export function rows(
    run: Run,
    hidden: ReadonlySet<Lane>,
    clientRows: Lane[][],
    lines: number,
    room: number,
): { rows: Row[]; height: number } {
    const nodes = run.nodes.filter((lane) => !hidden.has(lane));
    const storm = lines > 0 ? lines * FAULT_LINE + 6 : 0;
    const left = room - RULER - storm - 4;
    // Clients get what they need, but of a crowd of them the nodes leave only a part in sight.
    const clientHeight = Math.min(Math.max((left * 0.3) / Math.max(clientRows.length, 1), 15), 24);
    const forClients = Math.min(clientRows.length * clientHeight, left * 0.4);
    const nodeHeight = Math.min(Math.max((left - forClients) / Math.max(nodes.length, 1), 32), 190);
    const all: Row[] = [];
    let y = RULER;
    if (storm > 0) {
        all.push({ lanes: [0], lane: 0, kind: "storm", y, height: storm });
        y += storm;
    }
    for (const lane of nodes) {
        all.push({ lanes: [lane], lane, kind: "node", y, height: nodeHeight });
        y += nodeHeight;
    }
    y += 4;
    for (const lanes of clientRows) {
        all.push({ lanes, lane: lanes[0], kind: "client", y, height: clientHeight });
        y += clientHeight;
    }
    return { rows: all, height: Math.max(y + 2, room) };
}
