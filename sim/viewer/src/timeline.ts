// The timeline: the scene, over it a layer with the cursor, and what the pointer does to them.
//
// A click goes to an event, a drag moves the window, the wheel zooms, a drag on the ruler scrubs. What
// lies under the pointer is told in a tip.

import type { App, Changes, Thing } from "./app";
import { RULER, type Row, rows, splitAt } from "./layout";
import { arrow, drawOne } from "./messages";
import { type Lane, type Step, GROUPS, upperBound } from "./run";
import { drawScene, faultBox, opBox } from "./scene";
import { type Arrow, BOLD, FONT, LARGE, SMALL, type Scene, band, clip, rowOf } from "./stage";
import { fitCanvas } from "./canvas";
import type { Tip } from "./tip";
import * as words from "./words";

export const GUTTER = 132;

/** How near, in pixels, the pointer has to be. */
const NEAR = 6;

export class Timeline {
    private readonly ground: HTMLCanvasElement;
    private readonly overlay: HTMLCanvasElement;
    private scene: Scene;

    constructor(
        private readonly app: App,
        private readonly box: HTMLElement,
        private readonly tip: Tip,
    ) {
        this.ground = document.createElement("canvas");
        this.overlay = document.createElement("canvas");
        this.overlay.className = "overlay";
        box.append(this.ground, this.overlay);
        this.scene = {
            app,
            context: this.ground.getContext("2d", { alpha: false }) as CanvasRenderingContext2D,
            rows: [],
            byNode: new Map(),
            clientRows: [],
            arrows: [],
            height: 0,
            scale: 1,
        };
        new ResizeObserver(() => app.changed({ scene: true, cursor: true })).observe(box);
        app.add((changes) => this.draw(changes), true);
        this.listen();
    }

    private lane: Lane | null = null;

    private draw(changes: Changes): void {
        const { app, scene, box } = this;
        if (changes.scene) {
            const room = box.clientHeight;
            const layout = rows(app.run, app.shown.filter.hiddenNodes, app.clients.rows, app.faultLines.count, room);
            scene.rows = layout.rows;
            scene.height = layout.height;
            scene.byNode = new Map(layout.rows.filter((row) => row.kind === "node").map((row) => [row.lane, row]));
            scene.clientRows = layout.rows.filter((row) => row.kind === "client");
            const width = box.clientWidth;
            scene.scale = fitCanvas(this.ground, width, layout.height);
            fitCanvas(this.overlay, width, layout.height);
            app.axis.left = GUTTER;
            app.axis.width = Math.max(width - GUTTER - 8, 50);
            drawScene(scene);
        }
        // A lane that is chosen comes into sight.
        const row = scene.byNode.get(app.lane);
        if (this.lane !== app.lane && this.lane !== null && row !== undefined) {
            const hidden = row.y + row.height - box.clientHeight - box.scrollTop;
            if (row.y < box.scrollTop + RULER) box.scrollTop = row.y - RULER;
            else if (hidden > 0) box.scrollTop += hidden;
        }
        this.lane = app.lane;
        this.drawOverlay();
    }

    private drawOverlay(): void {
        const { app, scene } = this;
        const { axis, theme, run, cursor } = app;
        const pen = this.overlay.getContext("2d") as CanvasRenderingContext2D;
        pen.clearRect(0, 0, this.box.clientWidth, scene.height);
        this.drawGutter(pen);
        pen.save();
        pen.beginPath();
        pen.rect(axis.left, 0, axis.width, scene.height);
        pen.clip();
        const x = axis.xOf(cursor);
        pen.fillStyle = theme.ink;
        pen.globalAlpha = 0.75;
        pen.fillRect(x - 0.75, RULER - 6, 1.5, scene.height);
        pen.globalAlpha = 1;
        // What this event sent and received stands out, and with it what is selected.
        const [first, end] = run.sentIn(cursor);
        for (let row = first; row < end; row++) this.trace(pen, row, 2.6);
        for (const row of run.endedIn(cursor)) this.trace(pen, row, 2.6);
        this.drawUnderWay(pen);
        for (const thing of [app.selected, app.hovered]) this.outline(pen, thing);
        const own = rowOf(scene, run.lane[cursor], cursor);
        if (own !== undefined && own.kind !== "storm") {
            const y = own.kind === "node" ? (band(own).top + band(own).bottom) / 2 : own.y + own.height / 2;
            pen.beginPath();
            pen.arc(x, y, 5, 0, 2 * Math.PI);
            pen.fillStyle = theme.ink;
            pen.fill();
            pen.strokeStyle = theme.paper;
            pen.lineWidth = 2;
            pen.stroke();
        }
        const top = this.box.scrollTop;
        if (top > 0) {
            const { scale } = scene;
            const width = axis.width;
            pen.drawImage(
                this.ground,
                axis.left * scale,
                0,
                width * scale,
                RULER * scale,
                axis.left,
                top,
                width,
                RULER,
            );
        }
        const label = words.thousands(cursor);
        pen.font = BOLD;
        pen.textBaseline = "middle";
        pen.textAlign = "center";
        const width = pen.measureText(label).width + 12;
        const violation = run.block.violation?.step === cursor;
        const left = Math.min(Math.max(x - width / 2, axis.left), axis.left + axis.width - width);
        if (!violation) {
            pen.fillStyle = theme.ink;
            pen.beginPath();
            pen.roundRect(left, top + 1, width, 18, 4);
            pen.fill();
            pen.fillStyle = theme.paper;
            pen.fillText(label, left + width / 2, top + 10.5);
        }
        pen.restore();
    }

    /** A dot where the cursor crosses each message that is under way. */
    private drawUnderWay(pen: CanvasRenderingContext2D): void {
        const { app } = this;
        const { axis, theme, run, cursor } = app;
        const x = axis.xOf(cursor);
        if (x < axis.left || x > axis.left + axis.width) return;
        let drawn = 0;
        for (const [row, line] of this.scene.arrows) {
            if (run.sent[row] >= cursor || run.end[row] <= cursor || line.x2 - line.x1 < 2 || drawn > 300) continue;
            const share = (x - line.x1) / (line.x2 - line.x1);
            if (share < 0 || share > 1) continue;
            drawn++;
            pen.beginPath();
            pen.arc(x, line.y1 + (line.y2 - line.y1) * share, 3.2, 0, 2 * Math.PI);
            pen.fillStyle = theme.groups[GROUPS[run.messageGroup[row]]];
            pen.fill();
            pen.strokeStyle = theme.paper;
            pen.lineWidth = 1.2;
            pen.stroke();
        }
    }

    /** A message again, above all others, in the way that it is drawn. */
    private trace(pen: CanvasRenderingContext2D, row: number, width: number): void {
        const { app, scene } = this;
        if (app.shown.messages[row] === 0) return;
        const line = arrow(scene, row);
        if (line === null) return;
        pen.save();
        // It passes behind the bars, as before.
        pen.beginPath();
        pen.rect(app.axis.left, 0, app.axis.width, scene.height);
        for (const other of scene.rows) {
            if (other.kind !== "node") continue;
            const { top, bottom } = band(other);
            pen.rect(app.axis.left, top, app.axis.width, bottom - top);
        }
        pen.clip("evenodd");
        drawOne(pen, scene, row, line, width);
        pen.restore();
    }

    private outline(pen: CanvasRenderingContext2D, thing: Thing | null): void {
        const { app, scene } = this;
        if (thing === null) return;
        if (thing.what === "message") {
            this.trace(pen, thing.row, 3.4);
            return;
        }
        const box = thing.what === "op" ? opBox(scene, thing.row) : { height: 13, ...faultBox(scene, thing.row) };
        if (box === null || box.x === undefined || box.y === undefined || box.width === undefined) return;
        pen.strokeStyle = app.theme.ink;
        pen.lineWidth = 2;
        pen.strokeRect(box.x, box.y, box.width, box.height);
    }

    private drawGutter(pen: CanvasRenderingContext2D): void {
        const { app, scene } = this;
        const { theme, run, cursor } = app;
        pen.fillStyle = theme.paper;
        pen.fillRect(0, 0, GUTTER, scene.height);
        pen.textAlign = "left";
        pen.textBaseline = "middle";
        pen.font = SMALL;
        pen.fillStyle = theme.dim;
        pen.fillText(app.axis.mode === "time" ? "time" : "event", 8, 10.5);
        let above: Lane[] = [];
        for (const row of scene.rows) {
            if (row.kind === "storm") {
                pen.font = SMALL;
                pen.fillStyle = theme.dim;
                pen.fillText("faults", 8, row.y + row.height / 2);
                continue;
            }
            if (row.kind === "client") {
                pen.font = SMALL;
                pen.fillStyle = theme.dim;
                // Further rows of the same client have no name.
                if (row.lanes !== above) pen.fillText(run.who(row.lane), 8, row.y + row.height / 2 + 0.5);
                above = row.lanes;
                continue;
            }
            this.drawNode(pen, row, cursor);
        }
        pen.fillStyle = theme.line;
        pen.fillRect(GUTTER - 1, 0, 1, scene.height);
        const bottom = this.box.scrollTop + this.box.clientHeight;
        const below = scene.rows.filter((row) => row.y + row.height > bottom + 4).length;
        if (below > 0) {
            pen.fillStyle = theme.paper;
            pen.fillRect(0, bottom - 19, GUTTER - 1, 19);
            pen.fillStyle = theme.accent;
            pen.font = SMALL;
            pen.fillText(`▾ ${below} more ${below === 1 ? "lane" : "lanes"}`, 8, bottom - 9);
        }
    }

    /** The name of a node, and what it is at the cursor. */
    private drawNode(pen: CanvasRenderingContext2D, row: Row, cursor: Step): void {
        const { app } = this;
        const { theme, run } = app;
        const history = app.histories.get(row.lane);
        const middle = (band(row).top + band(row).bottom) / 2;
        if (row.lane === app.lane) {
            pen.fillStyle = theme.accent;
            pen.fillRect(0, row.y + 4, 3, row.height - 8);
        }
        pen.font = LARGE;
        pen.fillStyle = theme.ink;
        pen.fillText(run.laneName(row.lane), 10, middle - 8);
        const left = 18 + pen.measureText(run.laneName(row.lane)).width;
        if (history === undefined || history.row(cursor) < 0) return;
        const state = history.at(cursor);
        const up = run.is(state.condition, "up");
        const paused = run.is(state.condition, "paused");
        const gone = run.is(state.condition, "gone");
        const role = gone ? "gone" : !up ? "down" : paused ? "paused" : run.block.names.role[state.role];
        pen.font = FONT;
        pen.fillStyle = up && !paused ? theme.roles[state.role][0] : theme.down;
        const label = clip(pen, role, GUTTER - left - 16);
        pen.beginPath();
        pen.roundRect(left, middle - 16, pen.measureText(label).width + 10, 16, 4);
        pen.fill();
        pen.fillStyle = up && !paused ? theme.roles[state.role][1] : theme.dim;
        pen.fillText(label, left + 5, middle - 7.5);
        pen.font = SMALL;
        pen.fillStyle = theme.dim;
        pen.fillText(`term ${state.term} · commit ${state.commit}`, 10, middle + 9);
    }

    // ---- the pointer ----

    private listen(): void {
        const { overlay, app } = this;
        let drag: { x: number; y: number; from: number; to: number; moved: boolean; scrub: boolean } | null = null;
        overlay.addEventListener("pointerdown", (event) => {
            if (event.button !== 0) return;
            const { x, y } = this.local(event);
            const { from, to } = app.axis;
            const scrub = x >= GUTTER && y - this.box.scrollTop < RULER;
            drag = { x, y, from, to, moved: false, scrub };
            overlay.setPointerCapture(event.pointerId);
            if (scrub) app.point(app.axis.stepAt(app.axis.placeAt(x)));
        });
        overlay.addEventListener("pointermove", (event) => {
            const { x, y } = this.local(event);
            if (drag === null) {
                this.point(x, y, event);
                return;
            }
            if (Math.hypot(x - drag.x, y - drag.y) > 4) drag.moved = true;
            if (drag.scrub) {
                this.scrub(x);
            } else if (drag.moved && drag.x >= GUTTER) {
                const by = ((drag.x - x) / app.axis.width) * (drag.to - drag.from);
                app.axis.set(drag.from + by, drag.to + by);
                app.changed({ scene: true });
                this.tip.hide();
            }
        });
        overlay.addEventListener("pointerup", (event) => {
            const { x, y } = this.local(event);
            if (drag !== null && !drag.moved && !drag.scrub) this.click(x, y);
            drag = null;
        });
        overlay.addEventListener("pointercancel", () => {
            drag = null;
        });
        // The ruler stays in sight.
        this.box.addEventListener("scroll", () => app.changed({ hover: true }));
        overlay.addEventListener("pointerleave", () => {
            app.hover(null);
            this.tip.hide();
        });
        overlay.addEventListener("dblclick", (event) => {
            const { x } = this.local(event);
            if (x >= GUTTER) app.zoom(3, app.axis.placeAt(x));
        });
        overlay.addEventListener(
            "wheel",
            (event) => {
                const { x } = this.local(event);
                // Over the names, the wheel scrolls the lanes.
                if (x < GUTTER && !event.ctrlKey) return;
                event.preventDefault();
                this.tip.hide();
                const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
                if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
                    const by = event.shiftKey && event.deltaX === 0 ? event.deltaY : event.deltaX;
                    app.pan((by * lines) / app.axis.width);
                } else {
                    const by = Math.min(Math.max(event.deltaY * lines, -240), 240);
                    app.zoom(Math.exp(-by / 320), app.axis.placeAt(x));
                }
            },
            { passive: false },
        );
    }

    /** Follows the pointer; beyond an edge, the window follows it slowly. */
    private scrub(x: number): void {
        const { axis } = this.app;
        const right = axis.left + axis.width;
        if (x < axis.left || x > right) {
            axis.pan(x < axis.left ? -0.02 : 0.02);
            this.app.changed({ scene: true });
        }
        this.app.point(axis.stepAt(axis.placeAt(Math.min(Math.max(x, axis.left), right))));
    }

    private local(event: MouseEvent): { x: number; y: number } {
        const box = this.overlay.getBoundingClientRect();
        return { x: event.clientX - box.left, y: event.clientY - box.top };
    }

    private rowAt(y: number): Row | undefined {
        return this.scene.rows.find((row) => y >= row.y && y < row.y + row.height);
    }

    /** What lies under a place: the nearest message, an operation, a fault. */
    private hit(x: number, y: number): Thing | null {
        const row = this.rowAt(y);
        if (row?.kind === "storm") {
            for (let i = this.app.run.block.faults.start.length - 1; i >= 0; i--) {
                const box = faultBox(this.scene, i);
                if (box !== null && x >= box.x - 2 && x <= box.x + box.width + 2 && y >= box.y && y <= box.y + 14) {
                    return { what: "fault", row: i };
                }
            }
            return null;
        }
        if (row?.kind === "client") {
            const { run, shown, clients } = this.app;
            for (let op = upperBound(run.opCall, this.app.axis.steps[1]) - 1; op >= 0; op--) {
                if (shown.ops[op] === 0 || this.scene.clientRows[clients.ofOp[op]] !== row) continue;
                const box = opBox(this.scene, op);
                if (box !== null && x >= box.x - 1 && x <= box.x + box.width + 1) return { what: "op", row: op };
            }
        }
        let best: number | null = null;
        let nearest = NEAR;
        for (const [message, line] of this.scene.arrows) {
            const distance = distanceTo(line, x, y);
            if (distance < nearest) {
                nearest = distance;
                best = message;
            }
        }
        return best === null ? null : { what: "message", row: best };
    }

    private click(x: number, y: number): void {
        const { app } = this;
        const row = this.rowAt(y);
        if (x < GUTTER) {
            if (row?.kind === "node") app.chooseLane(row.lane);
            return;
        }
        const thing = this.hit(x, y);
        app.select(thing);
        if (thing?.what === "message") {
            // The end of the arrow that was clicked.
            const line = arrow(this.scene, thing.row) as Arrow;
            const { run } = app;
            const toEnd = run.end[thing.row] > 0 && Math.abs(x - line.x2) <= Math.abs(x - line.x1);
            app.point(toEnd ? run.end[thing.row] : run.sent[thing.row]);
            return;
        }
        app.point(this.eventAt(x, row === undefined || row.kind === "storm" ? [] : row.lanes));
        if (row?.kind === "node") app.chooseLane(row.lane);
    }

    /** The shown event nearest to a place; on these lanes, if one of them is near. */
    private eventAt(x: number, lanes: Lane[]): Step {
        const { axis, shown, run } = this.app;
        const nearest = axis.stepAt(axis.placeAt(x));
        if (lanes.length === 0) return nearest;
        const at = shown.rank[nearest] - 1;
        let best = nearest;
        let distance = 24;
        for (const by of [1, -1]) {
            for (let i = at; i >= 0 && i < shown.steps.length; i += by) {
                const away = Math.abs(axis.xOf(shown.steps[i]) - x);
                if (away > distance) break;
                if (!lanes.includes(run.lane[shown.steps[i]])) continue;
                best = shown.steps[i];
                distance = away;
                break;
            }
        }
        return best;
    }

    private point(x: number, y: number, event: MouseEvent): void {
        const { app } = this;
        const { run, axis } = app;
        const row = this.rowAt(y);
        if (x < GUTTER || row === undefined) {
            app.hover(null);
            this.tip.hide();
            this.overlay.style.cursor = "default";
            return;
        }
        const thing = this.hit(x, y);
        app.hover(thing);
        this.overlay.style.cursor = thing === null ? "default" : "pointer";
        const step = this.eventAt(x, row.kind === "node" ? row.lanes : []);
        const lines: string[] = [];
        let title = "";
        if (thing?.what === "message") {
            title = words.message(run, thing.row);
            lines.push(words.fate(run, thing.row));
            const { op } = run.block.messages;
            if (op[thing.row] > 0) lines.push(`for ${run.text(run.block.ops.what[op[thing.row] - 1])}`);
        } else if (thing?.what === "op") {
            title = `${run.laneName(run.block.ops.lane[thing.row])} ${run.text(run.block.ops.what[thing.row])}`;
            lines.push(words.outcome(run, thing.row));
            const seen = words.index(run, thing.row);
            if (seen !== "") lines.push(seen);
        } else if (thing?.what === "fault") {
            title = run.text(run.block.faults.what[thing.row]);
            const { start, end } = run.block.faults;
            lines.push(
                `from event ${words.thousands(start[thing.row])} ${end[thing.row] > 0 ? `to ${words.thousands(end[thing.row])}` : "on"}`,
            );
        } else if (row.kind === "node" && step > 0) {
            const history = app.histories.get(row.lane);
            if (history !== undefined && history.row(step) >= 0) {
                const state = history.at(step);
                title = `${run.laneName(row.lane)}: ${words.situation(run, state)}`;
                lines.push(`commit ${state.commit}, applied ${state.applied}, durable ${state.durable}`);
                lines.push(`log ${words.log(history.logAt(step).runs, state.first)}`);
            } else {
                title = `${run.laneName(row.lane)} has not started yet`;
            }
        }
        const split = splitAt(app.splits, axis.stepAt(axis.placeAt(x)));
        if (split !== undefined && row.lanes.some((lane) => split.sides.has(lane))) lines.push(`cut: ${split.text}`);
        if (step > 0) lines.push(`event ${words.thousands(step)}, ${words.time(run.time[step])}`);
        if (title === "" && split === undefined) this.tip.hide();
        else this.tip.show(title, lines, event);
    }
}

function distanceTo({ x1, y1, x2, y2 }: Arrow, x: number, y: number): number {
    const [dx, dy] = [x2 - x1, y2 - y1];
    const length = dx * dx + dy * dy;
    const share = length === 0 ? 0 : Math.min(Math.max(((x - x1) * dx + (y - y1) * dy) / length, 0), 1);
    return Math.hypot(x - x1 - share * dx, y - y1 - share * dy);
}
