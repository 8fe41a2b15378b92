// Draws what happened to nodes and clients apart from messages: a sign for each thing, none hidden by
// another of more importance.

import { drawGlyph } from "./glyphs";
import { type Lane, lowerBound, upperBound } from "./run";
import { SMALL, type Scene, band } from "./stage";

/** The most telling first: where there is room for one, it is that. */
const PRIORITY = [
    "panic",
    "torn",
    "damage",
    "disk-error",
    "refused",
    "lost",
    "crash",
    "kill",
    "stop",
    "clock",
    "whole",
    "client-restart",
    "start",
    "healed",
];

/** Pixels between two signs. */
const APART = 15;

interface Sign {
    x: number;
    kind: string;
}

/** The signs in the window, by lane and from left to right. */
function signs({ app }: Scene): Map<Lane, Sign[]> {
    const { run, axis } = app;
    const { marks, faults, names } = run.block;
    const [first, last] = axis.steps;
    const found = new Map<Lane, Sign[]>();
    const add = (lane: Lane, sign: Sign) => {
        const own = found.get(lane);
        if (own === undefined) found.set(lane, [sign]);
        else own.push(sign);
    };
    const end = upperBound(run.markStep, last);
    for (let i = lowerBound(run.markStep, first); i < end; i++) {
        add(marks.lane[i], { x: axis.xOf(run.markStep[i]), kind: names.mark[marks.kind[i]] });
    }
    faults.kind.forEach((text, i) => {
        if (!run.text(text).startsWith("clock-") || faults.start[i] < first || faults.start[i] > last) return;
        for (const victim of faults.victims[i]) add(victim, { x: axis.xOf(faults.start[i]), kind: "clock" });
    });
    for (const own of found.values()) own.sort((a, b) => a.x - b.x);
    return found;
}

/** Signs that would lie on each other, together. */
function heaps(own: Sign[]): Sign[][] {
    const found: Sign[][] = [];
    for (const sign of own) {
        const heap = found.at(-1);
        if (heap !== undefined && sign.x - heap[0].x < APART) heap.push(sign);
        else found.push([sign]);
    }
    return found;
}

export function drawMarks(scene: Scene): void {
    const { app, context, byLane } = scene;
    context.font = SMALL;
    context.textAlign = "left";
    context.textBaseline = "middle";
    for (const [lane, own] of signs(scene)) {
        const row = byLane.get(lane);
        if (row === undefined) continue;
        const y = row.kind === "node" ? band(row).top - 10 : row.y + row.height / 2;
        const all = heaps(own);
        all.forEach((heap, i) => {
            const kinds = [...new Set(heap.map((sign) => sign.kind))];
            kinds.sort((a, b) => PRIORITY.indexOf(a) - PRIORITY.indexOf(b));
            const { x } = heap[0];
            const room = (all[i + 1]?.[0].x ?? Number.POSITIVE_INFINITY) - x;
            // Side by side as far as there is room, the most telling at its place.
            const drawn = kinds.slice(0, Math.max(Math.floor(room / APART), 1));
            for (let j = drawn.length - 1; j >= 0; j--) drawGlyph(context, app.theme, drawn[j], x + j * APART, y);
            const right = x + drawn.length * APART - 5;
            const label = `×${heap.length}`;
            if (heap.length > kinds.length && right + context.measureText(label).width < x + room - 6) {
                context.fillStyle = app.theme.dim;
                context.fillText(label, right, y);
            }
        });
    }
}
