// The data block as it stands in the page: its shape, and how it is got out.
//
// What the fields mean is said where they are written: `sim/src/view/block.rs`.

/** A column of a table: element `i` belongs to row `i`. */
export type Column = number[];

export interface Block {
    format: string;
    version: number;
    about: {
        build: string;
        title: string;
        replay: string;
        plan_hash: string;
        trace_hash: string;
        bug: string | null;
        verdict: string;
        steps: number;
        sim_ns: number;
    };
    names: Record<
        "lane" | "step" | "message" | "fate" | "disk" | "mark" | "role" | "condition" | "outcome" | "state",
        string[]
    >;
    strings: string[];
    lanes: { name: string[]; kind: Column };
    steps: { time_delta: Column; lane: Column; kind: Column };
    messages: {
        sent_delta: Column;
        from: Column;
        to: Column;
        kind: Column;
        flags: Column;
        fate: Column;
        took: Column;
        term: Column;
        index: Column;
        log_term: Column;
        commit: Column;
        text: Column;
        op: Column;
        entries: number[][];
    };
    disk: {
        step_delta: Column;
        lane: Column;
        verb: Column;
        file: Column;
        offset: Column;
        len: Column;
        failed: Column;
    };
    marks: { step_delta: Column; lane: Column; kind: Column; text: Column };
    states: { step_delta: Column; lane: Column; mask: Column; values: Column };
    ops: {
        lane: Column;
        call_delta: Column;
        ret: Column;
        what: Column;
        keys: Column;
        answer: Column;
        outcome: Column;
        index: Column;
        point: Column;
    };
    faults: { number: Column; kind: Column; what: Column; start: Column; end: Column; victims: number[][] };
    cuts: { step: Column; pairs: number[][] };
    entries: { index: Column; term: Column; text: Column };
    commits: { index_delta: Column; step_delta: Column };
    violation: {
        class: string;
        checker: string;
        sentence: string;
        detail: string;
        step: number;
        time: number;
        lane: number;
        ops: Column;
        /** The row of the message that it is about, plus one; not in blocks of earlier builds. */
        message?: number;
    } | null;
    past: Column | null;
    /** Not in blocks of earlier builds. */
    curve: { runs: number; step: Column; failed: Column; same: Column } | null;
}

/** What stands in the page instead of a run, if it was opened without one. */
export class NoRun extends Error {}

/** Takes the block out of the page: gzip, as base64, in `<script id="run">`. */
export async function load(): Promise<Block> {
    const holder = document.getElementById("run");
    if (holder === null) {
        throw new NoRun("This page has no run in it. Make one that has: cargo sim view --seed 7 -o run.html");
    }
    const packed = Uint8Array.from(atob(holder.textContent.trim()), (letter) => letter.charCodeAt(0));
    // It is needed no more, and it is large.
    holder.remove();
    const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const block = (await new Response(unpacked).json()) as Block;
    if (block.format !== "stormkv-view" || block.version !== 1) {
        throw new Error(
            `This page shows stormkv-view of version 1, but the run in it is ${block.format} of version ${block.version}. ` +
                "Make the page again with the program that made the run.",
        );
    }
    block.curve ??= null;
    return block;
}
