// Draws what stands still while the cursor moves: ruler, faults, partitions, lanes, messages, operations.
//
// However much is in the window, little is drawn: what falls on the same pixels is drawn once.

import { FAULT_LINE, PART, type Row } from "./layout";
import { drawMessages } from "./messages";
import { drawMarks } from "./marks";
import { type Lane, type Step, lowerBound, upperBound } from "./run";
import { BOLD, SMALL, type Scene, band, clip, rowOf } from "./stage";
import { type Theme, hatching } from "./theme";
import { thousands } from "./words";

export function drawScene(scene: Scene): void {
    const { app, context } = scene;
    const { axis, theme } = app;
    context.save();
    context.fillStyle = theme.paper;
    context.fillRect(0, 0, axis.left + axis.width + 100, scene.height);
    context.beginPath();
    context.rect(axis.left, 0, axis.width, scene.height);
    context.clip();
    lanes(scene);
    ruler(scene);
    faults(scene);
    partitions(scene);
    // Messages pass behind the bars of the nodes that they are not for.
    drawMessages(scene);
    for (const row of scene.rows) if (row.kind === "node") roles(scene, row);
    disks(scene);
    ticks(scene);
    operations(scene);
    drawMarks(scene);
    violation(scene);
    context.restore();
}

/** Where something that begins and ends in events stands on the screen, within the window. */
function span(scene: Scene, from: Step, to: Step): [number, number] {
    const { axis } = scene.app;
    const begin = Math.max(axis.xOf(from), axis.left - 20);
    const end = Math.min(axis.x(axis.placeOfEnd(to)), axis.left + axis.width + 20);
    return [begin, end];
}

function lanes({ app, context, rows }: Scene): void {
    const { axis, theme } = app;
    rows.forEach((row, i) => {
        if (row.kind === "node" && i % 2 === 0) {
            context.fillStyle = theme.stripe;
            context.fillRect(axis.left, row.y, axis.width, row.height);
        }
        if (row.kind === "client") {
            context.fillStyle = theme.line;
            context.fillRect(axis.left, Math.round(row.y + row.height / 2), axis.width, 1);
        }
    });
}

function ruler({ app, context, height }: Scene): void {
    const { axis, theme } = app;
    context.font = SMALL;
    context.textBaseline = "middle";
    context.textAlign = "center";
    const least = 100 / axis.scale;
    const power = 10 ** Math.floor(Math.log10(least));
    const gap = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= least) ?? least;
    const unit = axis.mode === "order" ? Math.max(Math.round(gap), 1) : gap;
    context.fillStyle = theme.dim;
    context.strokeStyle = theme.line;
    context.lineWidth = 1;
    for (
        let place = Math.ceil(Math.max(axis.from, 0) / unit) * unit;
        place <= Math.min(axis.to, axis.length);
        place += unit
    ) {
        const x = Math.round(axis.x(place)) + 0.5;
        context.beginPath();
        context.moveTo(x, 18);
        context.lineTo(x, height);
        context.stroke();
        if (axis.mode === "time") {
            context.fillText(place === 0 ? "0" : moment(place, unit), x, 10);
        } else if (place > 0 && place <= axis.shown.steps.length) {
            context.fillText(thousands(axis.shown.steps[place - 1]), x, 10);
        }
    }
}

/** A time on a ruler that has a mark every `unit` nanoseconds: with as many digits as tell two marks apart. */
function moment(ns: number, unit: number): string {
    const [size, name] = ns >= 1e9 ? [1e9, "s"] : ns >= 1e6 ? [1e6, "ms"] : [1e3, "µs"];
    const digits = Math.max(Math.ceil(Math.log10(size) - Math.log10(unit) - 1e-9), 0);
    return `${(ns / size).toFixed(digits)} ${name}`;
}

/** Where a fault is drawn; null if it is outside of the window. */
export function faultBox(scene: Scene, i: number): { x: number; y: number; width: number } | null {
    const row = scene.rows[0];
    if (row?.kind !== "storm") return null;
    const { start, end } = scene.app.run.block.faults;
    const [from, to] = span(scene, start[i], end[i]);
    if (to < scene.app.axis.left || from > scene.app.axis.left + scene.app.axis.width) return null;
    return { x: from, y: row.y + 3 + scene.app.faultLines.lines[i] * FAULT_LINE, width: Math.max(to - from, 4) };
}

function faults(scene: Scene): void {
    const { app, context } = scene;
    const { theme, run, axis } = app;
    const { what } = run.block.faults;
    const { lines } = app.faultLines;
    context.textBaseline = "middle";
    context.textAlign = "left";
    context.font = SMALL;
    const taken: number[] = [];
    const boxes = what.map((_, i) => faultBox(scene, i));
    boxes.forEach((box, i) => {
        if (box === null) return;
        context.fillStyle = theme.fault;
        context.globalAlpha = 0.22;
        context.fillRect(box.x, box.y, box.width, 13);
        context.globalAlpha = 1;
        context.fillRect(box.x, box.y, 2.5, 13);
        const from = Math.max(box.x, axis.left) + 6;
        // A name may go beyond its bar, but not over the next one, nor over another name.
        const next = boxes.find((other, j) => other !== null && lines[j] === lines[i] && other.x > box.x);
        const room = (next ? Math.max(next.x, axis.left) : axis.left + axis.width) - from - 4;
        if (room > 24 && from >= (taken[lines[i]] ?? 0)) {
            const label = clip(context, run.text(what[i]), room);
            context.fillStyle = theme.ink;
            context.fillText(label, from, box.y + 7);
            taken[lines[i]] = from + context.measureText(label).width + 4;
        }
    });
}

function partitions(scene: Scene): void {
    const { app, context } = scene;
    const { theme, axis } = app;
    for (const split of app.splits) {
        const [from, to] = span(scene, split.from, split.to);
        if (to < axis.left || from > axis.left + axis.width) continue;
        for (const row of scene.rows) {
            const side = row.lanes.map((lane) => split.sides.get(lane)).find((found) => found !== undefined);
            if (side === undefined) continue;
            const width = Math.max(to - from, 1);
            if (side !== PART) {
                context.fillStyle = theme.cuts[(side - 1) % theme.cuts.length];
                context.fillRect(from, row.y + 1, width, row.height - 2);
            } else {
                // Some of its links are cut, or in one direction: a frame instead of a shade.
                context.fillStyle = theme.cuts[0];
                context.fillRect(from, row.y + 1, width, 4);
                context.fillRect(from, row.y + row.height - 5, width, 4);
            }
        }
    }
}

function roles(scene: Scene, row: Row): void {
    const { app, context, scale } = scene;
    const { theme, run, axis } = app;
    const names = run.block.names;
    const { top, bottom } = band(row);
    const height = bottom - top;
    context.font = BOLD;
    context.textBaseline = "middle";
    context.textAlign = "left";
    const middle = Math.round((top + bottom) / 2) + 0.5;
    context.strokeStyle = theme.line;
    context.beginPath();
    context.moveTo(axis.left, middle);
    context.lineTo(axis.left + axis.width, middle);
    context.stroke();
    let drawnTo = Number.NEGATIVE_INFINITY;
    for (const spell of app.spells.get(row.lane) ?? []) {
        const [from, to] = span(scene, spell.from, spell.to);
        if (to < axis.left || from > axis.left + axis.width || to - drawnTo < 0.5) continue;
        drawnTo = to;
        const width = Math.max(to - from, 1);
        const is = (name: string) => run.is(spell.condition, name);
        const up = is("up");
        const stopped = !up || is("paused") || is("disk-hangs");
        const [colour, ink] = up ? theme.roles[spell.role] : [theme.down, theme.dim];
        context.fillStyle = colour;
        context.fillRect(from, top, width, height);
        if (stopped) {
            context.fillStyle = hatching(context, theme.hatch, scale);
            // A disk that hangs is the lower half of a node.
            const onlyDisk = up && !is("paused");
            context.fillRect(from, onlyDisk ? (top + bottom) / 2 : top, width, onlyDisk ? height / 2 : height);
        }
        if (up && is("damaged")) {
            context.fillStyle = theme.loss;
            context.fillRect(from, top - 3, width, 3);
        }
        context.fillStyle = theme.paper;
        if (width > 3) context.fillRect(to - 1, top, 1, height);
        const begin = Math.max(from, axis.left) + 5;
        const room = Math.min(to, axis.left + axis.width) - begin - 4;
        if (room < 8) continue;
        const role = names.role[spell.role];
        const state = !up
            ? is("gone")
                ? "gone"
                : "down"
            : [
                  is("gone") ? `gone, was ${role}` : role,
                  is("paused") ? "paused" : "",
                  is("disk-hangs") ? "disk hangs" : "",
                  is("slow") ? "slow" : "",
                  is("damaged") ? "damaged" : "",
              ]
                  .filter((word) => word !== "")
                  .join(", ");
        const long = up ? `${state} · term ${spell.term}` : state;
        const short = up ? `${role[0].toUpperCase()}${spell.term}` : "";
        const label = [long, short].find((text) => context.measureText(text).width <= room);
        if (label === undefined || label === "") continue;
        if (stopped) {
            // Over a hatching, a text needs a ground.
            context.fillStyle = colour;
            context.fillRect(begin - 3, top + 2, context.measureText(label).width + 6, height - 4);
        }
        context.fillStyle = up ? ink : theme.dim;
        context.fillText(label, begin, (top + bottom) / 2 + 0.5);
    }
}

/** One thing for each pixel of each lane. */
class Pixels {
    private readonly taken = new Set<number>();

    constructor(private readonly size: number) {}

    take(lane: Lane, x: number): boolean {
        const place = lane * 100_000 + Math.round(x / this.size) + 50_000;
        if (this.taken.has(place)) return false;
        this.taken.add(place);
        return true;
    }
}

function disks({ app, context, byNode }: Scene): void {
    const { theme, run, axis, shown } = app;
    if (shown.filter.hiddenGroups.has("disk") || shown.filter.key !== "") return;
    const { lane, verb } = run.block.disk;
    const sync = run.block.names.disk.indexOf("sync");
    const syncDir = run.block.names.disk.indexOf("sync-dir");
    const [first, last] = axis.steps;
    const pixels = new Pixels(1.5);
    const end = upperBound(run.diskStep, last);
    const near = axis.scale > (axis.mode === "order" ? 5 : 0.0004);
    for (let row = lowerBound(run.diskStep, first); row < end; row++) {
        const own = byNode.get(lane[row]);
        const step = run.diskStep[row];
        if (own === undefined || (shown.filter.past && run.past[step] === 0)) continue;
        const isSync = verb[row] === sync || verb[row] === syncDir;
        const x = axis.xOf(step);
        if (!pixels.take(lane[row] * 2 + (isSync ? 1 : 0), x)) continue;
        const { bottom } = band(own);
        context.fillStyle = run.diskFailed.has(row) ? theme.violation : isSync ? theme.ink : theme.dim;
        if (isSync && near) {
            // A diamond: what was written is safe from here on.
            context.beginPath();
            context.moveTo(x, bottom + 2);
            context.lineTo(x + 3.5, bottom + 5.5);
            context.lineTo(x, bottom + 9);
            context.lineTo(x - 3.5, bottom + 5.5);
            context.fill();
        } else {
            context.globalAlpha = isSync ? 0.8 : 0.5;
            context.fillRect(x - 0.5, bottom + 2, 1, isSync ? 7 : 4);
            context.globalAlpha = 1;
        }
    }
}

/** A tick for each event, once there is room for them. */
function ticks(scene: Scene): void {
    const { app, context } = scene;
    const { theme, run, axis, shown } = app;
    const [first, last] = axis.steps;
    const begin = shown.rank[Math.max(first - 1, 0)];
    const end = shown.rank[last];
    if ((end - begin) * 4 > axis.width) return;
    context.fillStyle = theme.ink;
    context.globalAlpha = 0.55;
    for (let i = begin; i < end; i++) {
        const step = shown.steps[i];
        const row = rowOf(scene, run.lane[step], step);
        if (row === undefined) continue;
        const x = axis.xOf(step);
        if (row.kind === "node") context.fillRect(x - 0.75, band(row).bottom - 4, 1.5, 4);
        else if (row.kind === "client") context.fillRect(x - 0.75, row.y + row.height / 2 - 2, 1.5, 4);
    }
    context.globalAlpha = 1;
}

/** Where an operation is drawn; null if it is outside of the window. */
export function opBox(scene: Scene, op: number): { x: number; y: number; width: number; height: number } | null {
    const { run, axis } = scene.app;
    const row = scene.clientRows[scene.app.clients.ofOp[op]];
    if (row === undefined) return null;
    const [from, to] = span(scene, run.opCall[op], run.block.ops.ret[op]);
    if (to < axis.left || from > axis.left + axis.width) return null;
    return { x: from, y: row.y + 2, width: Math.max(to - from, 3), height: row.height - 4 };
}

function operations(scene: Scene): void {
    const { app, context, scale } = scene;
    const { theme, run, axis, shown } = app;
    const ops = run.block.ops;
    const outcomes = run.block.names.outcome;
    const proof = new Set(run.block.violation?.ops ?? []);
    context.font = SMALL;
    context.textBaseline = "middle";
    context.textAlign = "left";
    const pixels = new Pixels(1);
    for (let op = 0; op < run.opCall.length; op++) {
        if (shown.ops[op] === 0) continue;
        const box = opBox(scene, op);
        if (box === null) continue;
        const proves = proof.has(op);
        if (!proves && box.width <= 3 && !pixels.take(ops.lane[op], box.x)) continue;
        const outcome = outcomes[ops.outcome[op]];
        const colour = outcome === "ok" ? theme.ok : outcome === "refused" ? theme.refused : theme.unknown;
        context.fillStyle = theme.paper;
        context.fillRect(box.x, box.y, box.width, box.height);
        context.globalAlpha = theme.dark ? 0.34 : 0.24;
        context.fillStyle = outcome === "open" || outcome === "unknown" ? hatching(context, colour, scale) : colour;
        if (outcome === "open" || outcome === "unknown") context.globalAlpha = 0.7;
        context.fillRect(box.x, box.y, box.width, box.height);
        context.globalAlpha = 1;
        context.strokeStyle = proves ? theme.violation : colour;
        context.lineWidth = proves ? 2 : 1;
        // What is not over has no right end.
        context.beginPath();
        const right = box.x + box.width;
        if (ops.ret[op] === 0) {
            context.moveTo(right, box.y);
            context.lineTo(box.x, box.y);
            context.lineTo(box.x, box.y + box.height);
            context.lineTo(right, box.y + box.height);
        } else {
            context.rect(box.x, box.y, box.width, box.height);
        }
        context.stroke();
        const middle = axis.xOf(ops.point[op]);
        const pointed = ops.point[op] > 0 && (box.width > 14 || proves);
        let begin = Math.max(box.x, axis.left) + 4;
        let room = Math.min(right, axis.left + axis.width) - begin - 4;
        // The text keeps clear of the point, on the side where there is more room.
        if (pointed && middle > begin && middle - begin > right - middle) room = Math.min(room, middle - begin - 8);
        else if (pointed && middle + 8 > begin) {
            room -= middle + 8 - begin;
            begin = middle + 8;
        }
        if (room > 22) {
            const text = run.text(ops.what[op]);
            const label = clip(context, text, room);
            if (outcome === "open" || outcome === "unknown") {
                context.fillStyle = theme.paper;
                context.fillRect(begin - 2, box.y + 2, context.measureText(label).width + 4, box.height - 4);
            }
            context.fillStyle = theme.ink;
            context.fillText(label, begin, box.y + box.height / 2 + 0.5);
        }
        if (pointed) {
            point(context, theme, middle, box.y + box.height / 2, proves ? theme.violation : colour);
        }
    }
}

/** The linearization point of an operation: where it takes effect for all. */
function point(context: CanvasRenderingContext2D, theme: Theme, x: number, y: number, colour: string): void {
    context.beginPath();
    context.moveTo(x, y - 6);
    context.lineTo(x + 5, y);
    context.lineTo(x, y + 6);
    context.lineTo(x - 5, y);
    context.closePath();
    context.fillStyle = colour;
    context.fill();
    context.strokeStyle = theme.paper;
    context.lineWidth = 1.5;
    context.stroke();
}

function violation(scene: Scene): void {
    const { app, context, height, byNode } = scene;
    const { theme, run, axis } = app;
    const found = run.block.violation;
    if (found === null) return;
    const x = axis.xOf(found.step);
    context.fillStyle = theme.violation;
    context.globalAlpha = 0.09;
    context.fillRect(x - 9, 20, 18, height);
    context.globalAlpha = 1;
    context.fillRect(x - 1.25, 20, 2.5, height);
    const row = byNode.get(found.lane);
    if (row !== undefined) {
        const { top, bottom } = band(row);
        context.strokeStyle = theme.violation;
        context.lineWidth = 2.5;
        context.beginPath();
        context.arc(x, (top + bottom) / 2, 15, 0, 2 * Math.PI);
        context.stroke();
    }
    const label = `violation: ${found.checker}`;
    context.font = BOLD;
    context.textBaseline = "middle";
    const width = context.measureText(label).width + 12;
    const left = Math.min(Math.max(x - width / 2, axis.left), axis.left + axis.width - width);
    if (x < axis.left || x > axis.left + axis.width) return;
    context.fillStyle = theme.violation;
    context.beginPath();
    context.roundRect(left, 1, width, 18, 4);
    context.fill();
    context.fillStyle = theme.paper;
    context.textAlign = "left";
    context.fillText(label, left + 6, 10.5);
}
