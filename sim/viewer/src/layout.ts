// Which lanes there are and how high each is: the faults on top, the nodes, then the clients.

import { type Lane, type Run, type Step, upperBound } from "./run";
import type { History } from "./state";

export interface Row {
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

/** During a time, who is on which side of a partition. */
export interface Split {
    from: Step;
    to: Step;
    /** By lane: 0 is the largest side, others are not in the map unless their links are cut in part: -1. */
    sides: Map<Lane, number>;
    /** What is cut, in words. */
    text: string;
}

export function splits(run: Run): Split[] {
    const { step, pairs } = run.block.cuts;
    const found: Split[] = [];
    for (let i = 0; i < step.length; i++) {
        if (pairs[i].length === 0) continue;
        found.push({ from: step[i], to: step[i + 1] ?? 0, ...sides(run, pairs[i]) });
    }
    return found;
}

function sides(run: Run, pairs: number[]): { sides: Map<Lane, number>; text: string } {
    const cut = new Set<string>();
    for (let i = 0; i < pairs.length; i += 2) cut.add(`${pairs[i]} ${pairs[i + 1]}`);
    // A side is made of nodes that reach each other, if only through others of it.
    const side = new Map<Lane, Lane[]>();
    for (const start of run.nodes) {
        if (side.has(start)) continue;
        const members = [start];
        side.set(start, members);
        for (const lane of members) {
            for (const next of run.nodes) {
                if (side.has(next) || cut.has(`${lane} ${next}`) || cut.has(`${next} ${lane}`)) continue;
                members.push(next);
                side.set(next, members);
            }
        }
    }
    const groups = [...new Set(side.values())].sort((a, b) => b.length - a.length);
    const found = new Map<Lane, number>();
    groups.forEach((members, i) => {
        if (i > 0) for (const lane of members) found.set(lane, i);
    });
    const words: string[] = [];
    for (let i = 0; i < pairs.length; i += 2) {
        const [from, to] = [pairs[i], pairs[i + 1]];
        for (const lane of [from, to]) {
            const inside = !run.isNode(from) || !run.isNode(to) || side.get(from) === side.get(to);
            if (inside && !found.has(lane)) found.set(lane, -1);
        }
        if (!run.isNode(from) || !run.isNode(to) || side.get(from) === side.get(to)) {
            words.push(`${run.laneName(from)} ↛ ${run.laneName(to)}`);
        }
    }
    const names = (lanes: Lane[]) => lanes.map((lane) => run.laneName(lane)).join(" ");
    if (groups.length > 1) words.unshift(groups.map(names).join(" | "));
    const text = words.length > 8 ? `${words.slice(0, 8).join(", ")}, and ${words.length - 8} more` : words.join(", ");
    return { sides: found, text };
}

/** The split at an event, if there is one. */
export function splitAt(all: Split[], step: Step): Split | undefined {
    const at = upperBound(
        all.map((split) => split.from),
        step,
    );
    const split = all[at - 1];
    return split !== undefined && (split.to === 0 || step < split.to) ? split : undefined;
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
    const lines = stacked(spans, 5);
    return { lines, count: Math.max(0, ...lines.map((line) => line + 1)) };
}

/** The clients that do something in this run; first those whose operations prove the violation. */
export function busyClients(run: Run): Lane[] {
    const proof = new Set(run.block.violation?.ops.map((op) => run.block.ops.lane[op]));
    const busy = new Set<Lane>(run.block.ops.lane);
    for (let row = 0; row < run.messages; row++) {
        busy.add(run.block.messages.from[row]);
        busy.add(run.block.messages.to[row]);
    }
    const clients = run.clients.filter((lane) => busy.has(lane));
    return [...clients.filter((lane) => proof.has(lane)), ...clients.filter((lane) => !proof.has(lane))];
}

export const RULER = 26;
export const FAULT_LINE = 15;

/** The rows from top to bottom, and the height of all. As high as there is room, within limits. */
export function rows(
    run: Run,
    hidden: ReadonlySet<Lane>,
    clients: Lane[],
    lines: number,
    room: number,
): { rows: Row[]; height: number } {
    const nodes = run.nodes.filter((lane) => !hidden.has(lane));
    const storm = lines > 0 ? lines * FAULT_LINE + 6 : 0;
    const left = room - RULER - storm - 4;
    // Clients get what they need, but of a crowd of them the nodes leave only a part in sight.
    const clientHeight = Math.min(Math.max((left * 0.3) / Math.max(clients.length, 1), 13), 22);
    const forClients = Math.min(clients.length * clientHeight, left * 0.4);
    const nodeHeight = Math.min(Math.max((left - forClients) / Math.max(nodes.length, 1), 36), 150);
    const all: Row[] = [];
    let y = RULER;
    if (storm > 0) {
        all.push({ lane: 0, kind: "storm", y, height: storm });
        y += storm;
    }
    for (const lane of nodes) {
        all.push({ lane, kind: "node", y, height: nodeHeight });
        y += nodeHeight;
    }
    y += 4;
    for (const lane of clients) {
        all.push({ lane, kind: "client", y, height: clientHeight });
        y += clientHeight;
    }
    return { rows: all, height: Math.max(y + 2, room) };
}
