// A run as the page asks for it: typed columns, and for each event which rows of the tables are its own.

import type { Block, Column } from "./block";

/** The number of an event, from 1; 0 is none. */
export type Step = number;
/** A row of `lanes`; 0 is the storm. */
export type Lane = number;

/** The first place in an ascending array whose value is at least `value`. */
export function lowerBound(array: ArrayLike<number>, value: number): number {
    let low = 0;
    let high = array.length;
    while (low < high) {
        const middle = (low + high) >> 1;
        if (array[middle] < value) low = middle + 1;
        else high = middle;
    }
    return low;
}

/** The first place in an ascending array whose value is greater than `value`. */
export function upperBound(array: ArrayLike<number>, value: number): number {
    return lowerBound(array, value + 1);
}

function summed(deltas: Column): Int32Array {
    const sums = new Int32Array(deltas.length);
    let sum = 0;
    for (let i = 0; i < deltas.length; i++) {
        sum += deltas[i];
        sums[i] = sum;
    }
    return sums;
}

/** Bits of `messages.flags`. */
export const COPY = 1;
export const REJECT = 2;
export const STALE = 4;

/** How a message ended, coarsely: what it is drawn by. */
export const enum End {
    Delivered,
    /** It never left its sender. */
    LostAtOnce,
    /** It was lost on the way or where it arrived. */
    LostLater,
    UnderWay,
}

/** Entries that a message carries, or a log holds: `count` of `term`, the first at `from`. */
export interface TermRun {
    from: number;
    count: number;
    term: number;
}

/** What a kind of message, or of event, is shown and hidden with. */
export const GROUPS = [
    "append",
    "heartbeat",
    "election",
    "snapshot",
    "read",
    "client",
    "other",
    "disk",
    "idle",
] as const;
export type Group = (typeof GROUPS)[number];

const GROUP_OF_MESSAGE: Record<string, Group> = {
    Append: "append",
    AppendResp: "append",
    Heartbeat: "heartbeat",
    HeartbeatResp: "heartbeat",
    Vote: "election",
    VoteResp: "election",
    PreVote: "election",
    PreVoteResp: "election",
    TimeoutNow: "election",
    Chunk: "snapshot",
    ChunkAck: "snapshot",
    ReadIndex: "read",
    ReadIndexAnswer: "read",
    Request: "client",
    Reply: "client",
    Forward: "client",
    Answer: "client",
};

export class Run {
    readonly steps: number;
    /** Nanoseconds, by step; 0 for step 0. */
    readonly time: Float64Array;
    /** By step. */
    readonly lane: Uint16Array;
    readonly kind: Uint8Array;
    /** By step: whether the violation may follow from it. All 0 without one. */
    readonly past: Uint8Array;
    readonly nodes: Lane[] = [];
    readonly clients: Lane[] = [];

    readonly messages: number;
    readonly sent: Int32Array;
    /** The step in which its fate was decided: `sent` if it never left. 0 if it is under way. */
    readonly end: Int32Array;
    readonly ending: Uint8Array;
    /** Places in `GROUPS`. */
    readonly messageGroup: Uint8Array;
    /** Rows of messages by `end`, and their ends. */
    readonly byEnd: Int32Array;
    readonly ends: Int32Array;
    private readonly carried = new Map<number, TermRun[]>();

    readonly diskStep: Int32Array;
    readonly diskFailed: Set<number>;
    readonly markStep: Int32Array;
    readonly stateStep: Int32Array;
    readonly opCall: Int32Array;
    /** Operations by the event in which they ended. */
    readonly opsByReturn = new Map<Step, number[]>();
    readonly opsByPoint = new Map<Step, number[]>();
    readonly commitIndex: Int32Array;
    readonly commitStep: Int32Array;
    private readonly entryText = new Map<string, number>();

    constructor(readonly block: Block) {
        const { steps, lanes, messages } = block;
        const names = block.names;
        this.steps = steps.lane.length;
        this.time = new Float64Array(this.steps + 1);
        this.lane = new Uint16Array(this.steps + 1);
        this.kind = new Uint8Array(this.steps + 1);
        for (let i = 0; i < this.steps; i++) {
            this.time[i + 1] = this.time[i] + steps.time_delta[i];
            this.lane[i + 1] = steps.lane[i];
            this.kind[i + 1] = steps.kind[i];
        }
        lanes.kind.forEach((kind, lane) => {
            if (names.lane[kind] === "node") this.nodes.push(lane);
            if (names.lane[kind] === "client") this.clients.push(lane);
        });

        this.past = new Uint8Array(this.steps + 1);
        let at = 1;
        const ranges = block.past ?? [];
        for (let i = 0; i < ranges.length; i += 2) {
            at += ranges[i];
            this.past.fill(1, at, at + ranges[i + 1]);
            at += ranges[i + 1];
        }

        this.messages = messages.from.length;
        this.sent = summed(messages.sent_delta);
        this.end = new Int32Array(this.messages);
        this.ending = new Uint8Array(this.messages);
        this.messageGroup = new Uint8Array(this.messages);
        const delivered = names.fate.indexOf("delivered");
        const underWay = names.fate.indexOf("under-way");
        const groups = names.message.map((name) => GROUPS.indexOf(GROUP_OF_MESSAGE[name] ?? "other"));
        for (let row = 0; row < this.messages; row++) {
            const fate = messages.fate[row];
            const took = messages.took[row];
            this.messageGroup[row] = groups[messages.kind[row]];
            this.end[row] = fate === underWay ? 0 : this.sent[row] + took;
            if (fate === delivered) this.ending[row] = End.Delivered;
            else if (fate === underWay) this.ending[row] = End.UnderWay;
            else this.ending[row] = took === 0 ? End.LostAtOnce : End.LostLater;
        }
        this.byEnd = Int32Array.from({ length: this.messages }, (_, row) => row);
        this.byEnd.sort((a, b) => this.end[a] - this.end[b] || a - b);
        this.ends = this.byEnd.map((row) => this.end[row]);
        for (const [row, ...counts] of messages.entries) {
            const runs: TermRun[] = [];
            let from = messages.index[row] + 1;
            for (let i = 0; i < counts.length; i += 2) {
                runs.push({ from, count: counts[i], term: counts[i + 1] });
                from += counts[i];
            }
            this.carried.set(row, runs);
        }

        this.diskStep = summed(block.disk.step_delta);
        this.diskFailed = new Set(block.disk.failed);
        this.markStep = summed(block.marks.step_delta);
        this.stateStep = summed(block.states.step_delta);
        this.opCall = summed(block.ops.call_delta);
        const remember = (map: Map<Step, number[]>, step: Step, op: number) => {
            if (step === 0) return;
            const ops = map.get(step);
            if (ops === undefined) map.set(step, [op]);
            else ops.push(op);
        };
        for (let op = 0; op < this.opCall.length; op++) {
            remember(this.opsByReturn, block.ops.ret[op], op);
            remember(this.opsByPoint, block.ops.point[op], op);
        }
        this.commitIndex = summed(block.commits.index_delta);
        this.commitStep = summed(block.commits.step_delta);
        block.entries.index.forEach((index, i) => {
            this.entryText.set(`${index}@${block.entries.term[i]}`, block.entries.text[i]);
        });
    }

    /** The message that the violation is about; -1 if it is about none. */
    get broken(): number {
        return (this.block.violation?.message ?? 0) - 1;
    }

    text(number: number): string {
        return this.block.strings[number];
    }

    laneName(lane: Lane): string {
        return this.block.lanes.name[lane];
    }

    isNode(lane: Lane): boolean {
        return this.block.names.lane[this.block.lanes.kind[lane]] === "node";
    }

    /** Whether the bits of a node's condition have this one, for example `up`. */
    is(condition: number, name: string): boolean {
        return (condition & (1 << this.block.names.condition.indexOf(name))) !== 0;
    }

    /** Whether an operation only reads: its index is then how much of the log it has seen. */
    reads(op: number): boolean {
        return /^(get|scan)\b/.test(this.text(this.block.ops.what[op]));
    }

    /** What a lane is called in a sentence. */
    who(lane: Lane): string {
        const name = this.laneName(lane);
        return name.replace(/^c0\b/, "operator");
    }

    stepKind(step: Step): string {
        return this.block.names.step[this.kind[step]];
    }

    /** The rows of messages that were sent in an event: `[first, last)`. */
    sentIn(step: Step): [number, number] {
        return [lowerBound(this.sent, step), upperBound(this.sent, step)];
    }

    /** The rows of messages that arrived or were lost in an event after they had been sent. */
    endedIn(step: Step): number[] {
        const rows = this.byEnd.subarray(lowerBound(this.ends, step), upperBound(this.ends, step));
        return Array.from(rows).filter((row) => this.ending[row] !== End.LostAtOnce);
    }

    /** The entries that a message carries. */
    entriesOf(row: number): TermRun[] {
        return this.carried.get(row) ?? [];
    }

    /** What an entry says; empty if nobody has seen its content. */
    entry(index: number, term: number): string {
        const text = this.entryText.get(`${index}@${term}`);
        return text === undefined ? "" : this.text(text);
    }

    /** The event in which an index was committed for the first time anywhere; 0 if it was not. */
    committedIn(index: number): Step {
        const at = lowerBound(this.commitIndex, index);
        return this.commitIndex[at] === index ? this.commitStep[at] : 0;
    }
}
