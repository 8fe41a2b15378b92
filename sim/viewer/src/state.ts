// What a node is and what its log holds after any event, rebuilt from the changes that the block has.

import { type Lane, Run, type Step, type TermRun, upperBound } from "./run";

/** The parts of a node, in the order of the bits of a mask; the log comes after them. */
export interface NodeState {
    condition: number;
    role: number;
    term: number;
    vote: Lane;
    leader: Lane;
    commit: number;
    applied: number;
    first: number;
    durable: number;
    snapshot: number;
    members: number;
}

export const FIELDS = [
    "condition",
    "role",
    "term",
    "vote",
    "leader",
    "commit",
    "applied",
    "first",
    "durable",
    "snapshot",
    "members",
] as const satisfies readonly (keyof NodeState)[];

/** Entries that a log has lost again. */
export interface Ghosts {
    step: Step;
    runs: TermRun[];
}

export interface Log {
    /** Ascending, without gaps. May begin before `first` of the state: those have left the log. */
    runs: TermRun[];
    last: number;
    /** What was cut off last. */
    ghosts: Ghosts | null;
}

interface LogChange {
    step: Step;
    from: number;
    runs: TermRun[];
}

/** How many changes of a log are applied one by one at most. */
const STRIDE = 64;

const EMPTY: Log = { runs: [], last: 0, ghosts: null };

function lastOf(runs: TermRun[]): number {
    const run = runs.at(-1);
    return run === undefined ? 0 : run.from + run.count - 1;
}

/** The parts of runs from `from` on, or before it. */
function cut(runs: TermRun[], from: number): { kept: TermRun[]; gone: TermRun[] } {
    const kept: TermRun[] = [];
    const gone: TermRun[] = [];
    for (const run of runs) {
        const before = Math.min(Math.max(from - run.from, 0), run.count);
        if (before > 0) kept.push({ ...run, count: before });
        if (before < run.count) gone.push({ ...run, from: run.from + before, count: run.count - before });
    }
    return { kept, gone };
}

/** What of some entries is not there again, with the same term. */
function without(gone: TermRun[], back: TermRun[]): TermRun[] {
    let left = gone;
    for (const { from, count, term } of back) {
        left = left.flatMap((run) => {
            if (run.term !== term) return [run];
            const { kept, gone: rest } = cut([run], from);
            return [...kept, ...cut(rest, from + count).gone];
        });
    }
    return left;
}

function changed(log: Log, change: LogChange): Log {
    const { kept, gone } = cut(log.runs, change.from);
    const lost = without(gone, change.runs);
    const ghosts = lost.length > 0 ? { step: change.step, runs: lost } : log.ghosts;
    const runs = kept;
    for (const run of change.runs) {
        const end = runs.at(-1);
        if (end !== undefined && end.term === run.term && end.from + end.count === run.from) {
            runs[runs.length - 1] = { ...end, count: end.count + run.count };
        } else {
            runs.push(run);
        }
    }
    return { runs, last: runs.length > 0 ? lastOf(runs) : change.from - 1, ghosts };
}

/** All that one node ever was. */
export class History {
    /** The events that changed it, ascending. */
    readonly steps: Int32Array;
    private readonly values: Float64Array;
    private readonly changes: LogChange[] = [];
    private readonly changeSteps: Int32Array;
    /** The log before change `i * STRIDE`. */
    private readonly marks: Log[] = [];
    private latest: { count: number; log: Log } = { count: 0, log: EMPTY };

    constructor(changes: { step: Step; mask: number; values: number[] }[]) {
        const width = FIELDS.length;
        this.steps = Int32Array.from(changes, (change) => change.step);
        this.values = new Float64Array((changes.length + 1) * width);
        changes.forEach(({ step, mask, values }, row) => {
            const before = row * width;
            const after = before + width;
            this.values.copyWithin(after, before, after);
            let at = 0;
            for (let field = 0; field < width; field++) {
                if (mask & (1 << field)) this.values[after + field] = values[at++];
            }
            if (mask & (1 << width)) {
                const from = values[at++];
                const runs: TermRun[] = [];
                let next = from;
                for (let n = values[at++]; n > 0; n--) {
                    runs.push({ from: next, count: values[at], term: values[at + 1] });
                    next += values[at];
                    at += 2;
                }
                this.changes.push({ step, from, runs });
            }
        });
        this.changeSteps = Int32Array.from(this.changes, (change) => change.step);
        let log = EMPTY;
        for (let i = 0; i <= this.changes.length; i++) {
            if (i % STRIDE === 0) this.marks.push(log);
            if (i < this.changes.length) log = changed(log, this.changes[i]);
        }
    }

    /** Its row of changes at an event: -1 before the first. */
    row(step: Step): number {
        return upperBound(this.steps, step) - 1;
    }

    field(row: number, field: number): number {
        return this.values[(row + 1) * FIELDS.length + field];
    }

    /** What it was after an event. */
    at(step: Step): NodeState {
        const row = this.row(step);
        const state = {} as NodeState;
        FIELDS.forEach((name, field) => {
            state[name] = this.field(row, field);
        });
        return state;
    }

    /** What its log was after an event. */
    logAt(step: Step): Log {
        const count = upperBound(this.changeSteps, step);
        if (this.latest.count === count) return this.latest.log;
        let at = count - (count % STRIDE);
        let log = this.marks[at / STRIDE];
        // What was asked for last is nearer than the mark, if one goes through a run forwards.
        if (this.latest.count > at && this.latest.count < count) {
            at = this.latest.count;
            log = this.latest.log;
        }
        for (; at < count; at++) log = changed(log, this.changes[at]);
        this.latest = { count, log };
        return log;
    }
}

/** The term of an entry in a list of runs; 0 if it is in none. */
export function termAt(runs: TermRun[], index: number): number {
    return runs.find((run) => index >= run.from && index < run.from + run.count)?.term ?? 0;
}

/** The histories of all nodes, by lane. */
export function histories(run: Run): Map<Lane, History> {
    const { lane, mask, values } = run.block.states;
    const byLane = new Map<Lane, { step: Step; mask: number; values: number[] }[]>();
    for (const node of run.nodes) byLane.set(node, []);
    const log = 1 << FIELDS.length;
    let at = 0;
    for (let row = 0; row < lane.length; row++) {
        let width = 0;
        for (let bits = mask[row] & (log - 1); bits !== 0; bits &= bits - 1) width++;
        if (mask[row] & log) width += 2 + 2 * values[at + width + 1];
        const change = { step: run.stateStep[row], mask: mask[row], values: values.slice(at, at + width) };
        byLane.get(lane[row])?.push(change);
        at += width;
    }
    return new Map([...byLane].map(([node, changes]) => [node, new History(changes)]));
}
