// Draws what happened to nodes and clients apart from messages: a sign for each thing, none hidden by
// another of more importance.

import { drawGlyph } from "./glyphs";
import type { Row } from "./layout";
import { type Lane, type Step, lowerBound, upperBound } from "./run";
import { SMALL, type Scene, band, rowOf } from "./stage";

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

/** The signs in the window, by row and from left to right. */
function signs(scene: Scene): Map<Row, Sign[]> {
    const { run, axis } = scene.app;
    const { marks, faults, names } = run.block;
    const [first, last] = axis.steps;
    const found = new Map<Row, Sign[]>();
    const add = (lane: Lane, step: Step, kind: string) => {
        const row = lane === 0 ? scene.rows.find((row) => row.kind === "storm") : rowOf(scene, lane, step);
        if (row === undefined) return;
        const sign = { x: axis.xOf(step), kind };
        const own = found.get(row) ?? [];
        found.set(row, own);
        // All hands of a client are replaced at the same time: that is one thing.
        for (let i = own.length - 1; i >= 0 && own[i].x === sign.x; i--) if (own[i].kind === kind) return;
        own.push(sign);
    };
    const end = upperBound(run.markStep, last);
    for (let i = lowerBound(run.markStep, first); i < end; i++) {
        add(marks.lane[i], run.markStep[i], names.mark[marks.kind[i]]);
    }
    faults.kind.forEach((text, i) => {
        if (!run.text(text).startsWith("clock-") || faults.start[i] < first || faults.start[i] > last) return;
        for (const victim of faults.victims[i]) add(victim, faults.start[i], "clock");
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
    const { app, context } = scene;
    context.font = SMALL;
    context.textAlign = "left";
    context.textBaseline = "middle";
    for (const [row, own] of signs(scene)) {
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
