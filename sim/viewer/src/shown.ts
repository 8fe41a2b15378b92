// Filters: which events, messages and operations are shown, by node, kind, key and causal past.
//
// An event is shown for what it does. One that does nothing that can be seen (a timer that fires in
// vain, a node that looks at an empty inbox) is `idle`, and hidden at first: of most runs that is the
// larger part.

import { End, GROUPS, type Group, type Lane, type Run, type Step, lowerBound, upperBound } from "./run";

export interface Filter {
    /** Only what the violation may follow from. */
    past: boolean;
    hiddenNodes: ReadonlySet<Lane>;
    hiddenGroups: ReadonlySet<Group>;
    /** Only what is about this key; empty for all. */
    key: string;
}

/** A bit for each group, and this one for what no group hides: faults, and changes of a node. */
const ALWAYS = 1 << GROUPS.length;
const bit = (group: Group) => 1 << GROUPS.indexOf(group);

const CLIENT_STEPS = ["request", "reply", "client-restart"];
const ALWAYS_STEPS = ["fault", "mend", "heal", "start", "crash-again"];

/** By step: what it does, as bits. */
export function effects(run: Run): Uint16Array {
    const bits = new Uint16Array(run.steps + 1);
    for (let row = 0; row < run.messages; row++) {
        const group = 1 << run.messageGroup[row];
        bits[run.sent[row]] |= group;
        if (run.end[row] > 0) bits[run.end[row]] |= group;
    }
    for (const step of run.diskStep) bits[step] |= bit("disk");
    for (const step of run.markStep) bits[step] |= ALWAYS;
    for (const step of run.stateStep) bits[step] |= ALWAYS;
    for (const step of run.opCall) bits[step] |= bit("client");
    for (const step of run.opsByReturn.keys()) bits[step] |= bit("client");
    const byKind = run.block.names.step.map((name) => {
        if (ALWAYS_STEPS.includes(name)) return ALWAYS;
        return CLIENT_STEPS.includes(name) ? bit("client") : 0;
    });
    for (let step = 1; step <= run.steps; step++) {
        bits[step] |= byKind[run.kind[step]];
        if (bits[step] === 0) bits[step] = bit("idle");
    }
    const violation = run.block.violation;
    if (violation !== null) bits[violation.step] |= ALWAYS;
    return bits;
}

/** What is about a key: operations and when they take effect, their messages, and those that carry what they wrote. */
interface About {
    steps: Set<Step>;
    messages: Set<number>;
    ops: Set<number>;
}

/** Whether an operation is about a key: `k1`, or a prefix that ends in `*`. */
function touches(keys: string, wanted: string): boolean {
    const prefix = wanted.endsWith("*") ? wanted.slice(0, -1) : null;
    return keys.split(" ").some((key) => {
        if (key === "") return false;
        if (key.endsWith("*") && wanted.startsWith(key.slice(0, -1))) return true;
        return prefix === null ? key === wanted : key.startsWith(prefix);
    });
}

function about(run: Run, key: string): About {
    const { ops, messages } = run.block;
    const found: About = { steps: new Set(), messages: new Set(), ops: new Set() };
    const entries = new Set<number>();
    for (let op = 0; op < run.opCall.length; op++) {
        if (!touches(run.text(ops.keys[op]), key)) continue;
        found.ops.add(op);
        found.steps.add(run.opCall[op]);
        if (ops.ret[op] > 0) found.steps.add(ops.ret[op]);
        if (ops.point[op] > 0) found.steps.add(ops.point[op]);
        if (ops.index[op] > 0 && !run.reads(op)) entries.add(ops.index[op]);
    }
    const indices = Int32Array.from(entries).sort();
    for (let row = 0; row < run.messages; row++) {
        const op = messages.op[row] - 1;
        const carries = run.entriesOf(row).some((part) => {
            const at = lowerBound(indices, part.from);
            return at < indices.length && indices[at] < part.from + part.count;
        });
        if (!carries && !found.ops.has(op)) continue;
        found.messages.add(row);
        found.steps.add(run.sent[row]);
        if (run.end[row] > 0) found.steps.add(run.end[row]);
    }
    return found;
}

/** What a filter lets through. */
export class Shown {
    /** Ascending. */
    readonly steps: Int32Array;
    /** By step: how many of those up to it are shown. */
    readonly rank: Int32Array;
    /** By row: 1 if it is shown. */
    readonly messages: Uint8Array;
    readonly ops: Uint8Array;

    constructor(
        run: Run,
        bits: Uint16Array,
        readonly filter: Filter,
    ) {
        const key = filter.key === "" ? null : about(run, filter.key);
        let wanted = ALWAYS;
        for (const group of GROUPS) if (!filter.hiddenGroups.has(group)) wanted |= bit(group);
        const laneHidden = new Uint8Array(run.block.lanes.name.length);
        for (const lane of filter.hiddenNodes) laneHidden[lane] = 1;

        // Whatever is hidden, the violation is not.
        const violation = run.block.violation?.step ?? 0;
        const chosen = new Int32Array(run.steps);
        this.rank = new Int32Array(run.steps + 1);
        let count = 0;
        for (let step = 1; step <= run.steps; step++) {
            const visible =
                step === violation ||
                ((bits[step] & wanted) !== 0 &&
                    laneHidden[run.lane[step]] === 0 &&
                    (!filter.past || run.past[step] === 1) &&
                    (key === null || key.steps.has(step)));
            if (visible) chosen[count++] = step;
            this.rank[step] = count;
        }
        this.steps = chosen.slice(0, count);

        this.messages = new Uint8Array(run.messages);
        const { from, to } = run.block.messages;
        for (let row = 0; row < run.messages; row++) {
            if ((wanted & (1 << run.messageGroup[row])) === 0) continue;
            if (laneHidden[from[row]] || laneHidden[to[row]]) continue;
            if (filter.past) {
                if (run.past[run.sent[row]] === 0) continue;
                const ending = run.ending[row];
                if (ending === End.UnderWay) continue;
                if (ending === End.Delivered && run.past[run.end[row]] === 0) continue;
            }
            if (key !== null && !key.messages.has(row)) continue;
            this.messages[row] = 1;
        }
        if (run.broken >= 0) this.messages[run.broken] = 1;
        this.ops = new Uint8Array(run.opCall.length);
        for (let op = 0; op < this.ops.length; op++) {
            const inPast = !filter.past || run.past[run.opCall[op]] === 1;
            this.ops[op] = inPast && (key === null || key.ops.has(op)) ? 1 : 0;
        }
        for (const op of run.block.violation?.ops ?? []) this.ops[op] = 1;
    }

    /** The shown event at an event or after it; the last one if there is none. 0 if nothing is shown. */
    from(step: Step): Step {
        const at = Math.min(lowerBound(this.steps, step), this.steps.length - 1);
        return at < 0 ? 0 : this.steps[at];
    }

    /** The shown event that is `by` events after this one (before, if negative), or as far as there are any. */
    move(step: Step, by: number): Step {
        if (this.steps.length === 0) return step;
        const here = by > 0 ? upperBound(this.steps, step) - 1 : lowerBound(this.steps, step);
        return this.steps[Math.min(Math.max(here + by, 0), this.steps.length - 1)];
    }
}
