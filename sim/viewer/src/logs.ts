// The logs of all nodes at the cursor, one above the other: a cell is an entry, its colour and number are
// its term. Full cells are committed as far as the node knows, pale ones are not; a line under a cell
// says that it is durable, a triangle marks what was applied last. Entries that were cut off last stay
// as ghosts above their places.

import type { App } from "./app";
import { fitCanvas } from "./canvas";
import { BOLD, SMALL } from "./stage";
import { type Lane } from "./run";
import { type Ghosts, termAt } from "./state";
import { hatching, termColours } from "./theme";
import { GUTTER } from "./timeline";
import type { Tip } from "./tip";
import * as words from "./words";

const CELL = 26;
const HEAD = 18;

export class Logs {
    private readonly canvas: HTMLCanvasElement;
    /** The first index to be seen; null follows the end of the logs. */
    private first: number | null = null;
    private scale = 1;

    constructor(
        private readonly app: App,
        private readonly box: HTMLElement,
        private readonly tip: Tip,
    ) {
        this.canvas = document.createElement("canvas");
        box.append(this.canvas);
        new ResizeObserver(() => this.draw()).observe(box);
        box.style.setProperty("--nodes", String(app.run.nodes.length));
        app.add(() => this.draw());
        this.listen();
    }

    private get lanes(): Lane[] {
        return this.app.run.nodes.filter((lane) => !this.app.shown.filter.hiddenNodes.has(lane));
    }

    private get cells(): number {
        return Math.max(Math.floor((this.box.clientWidth - GUTTER - 12) / CELL), 1);
    }

    /** Height of a node's line. */
    private get line(): number {
        return Math.min(Math.max((this.box.clientHeight - HEAD - 2) / Math.max(this.lanes.length, 1), 18), 36);
    }

    /** The index in the first column: the ends of the logs are in the window, with a free place behind them. */
    private begin(): number {
        if (this.first !== null) return this.first;
        let last = 0;
        for (const lane of this.lanes)
            last = Math.max(last, this.app.histories.get(lane)?.logAt(this.app.cursor).last ?? 0);
        return Math.max(last + 3 - this.cells, 1);
    }

    private draw(): void {
        const { app, canvas, box } = this;
        const { theme } = app;
        const height = HEAD + this.line * this.lanes.length + 2;
        const width = box.clientWidth;
        this.scale = fitCanvas(canvas, width, Math.max(height, box.clientHeight));
        const pen = canvas.getContext("2d") as CanvasRenderingContext2D;
        pen.fillStyle = theme.paper;
        pen.fillRect(0, 0, width, Math.max(height, box.clientHeight));
        const begin = this.begin();
        const cells = this.cells;
        pen.font = SMALL;
        pen.textBaseline = "middle";
        pen.textAlign = "left";
        pen.fillStyle = theme.dim;
        pen.fillText("log index", 8, 9);
        pen.textAlign = "center";
        for (let index = begin; index < begin + cells; index++) {
            if (index % 5 === 0 || index === 1) pen.fillText(String(index), this.x(index, begin) + CELL / 2, 9);
        }
        this.lanes.forEach((lane, i) => this.drawLog(pen, lane, HEAD + i * this.line, begin, cells));
    }

    private x(index: number, begin: number): number {
        return GUTTER + 4 + (index - begin) * CELL;
    }

    private drawLog(pen: CanvasRenderingContext2D, lane: Lane, top: number, begin: number, cells: number): void {
        const { app } = this;
        const { theme, run, cursor } = app;
        const history = app.histories.get(lane);
        const middle = top + this.line / 2;
        pen.textAlign = "left";
        pen.font = BOLD;
        pen.fillStyle = theme.ink;
        pen.fillText(run.laneName(lane), 10, middle);
        if (history === undefined || history.row(cursor) < 0) return;
        const state = history.at(cursor);
        const log = history.logAt(cursor);
        pen.font = SMALL;
        pen.fillStyle = theme.dim;
        pen.fillText(`applied ${state.applied}`, 36, middle);
        const up = run.is(state.condition, "up");
        const end = begin + cells;
        const roomy = this.line >= 26;
        const high = this.line - (roomy ? 12 : 6);
        const y = top + (roomy ? 6 : 2);
        pen.globalAlpha = up ? 1 : 0.45;
        // What only a snapshot has.
        const gone = Math.min(state.first, end);
        if (gone > begin && state.first > 1) {
            const to = this.x(gone, begin) - 2;
            pen.fillStyle = theme.down;
            pen.fillRect(this.x(begin, begin), y, to - this.x(begin, begin), high);
            pen.fillStyle = hatching(pen, theme.hatch, this.scale);
            pen.fillRect(this.x(begin, begin), y, to - this.x(begin, begin), high);
            const label = `snapshot of ${state.snapshot}`;
            const width = pen.measureText(label).width;
            if (width + 8 < to - this.x(begin, begin)) {
                pen.fillStyle = theme.paper;
                pen.fillRect(to - width - 10, y, width + 8, high);
                pen.fillStyle = theme.dim;
                pen.fillText(label, to - width - 6, y + high / 2 + 0.5);
            }
        }
        pen.textAlign = "center";
        if (log.ghosts !== null) this.drawGhosts(pen, log.ghosts, y, high, Math.max(begin, state.first), end);
        for (const part of log.runs) {
            const from = Math.max(part.from, state.first, begin);
            const to = Math.min(part.from + part.count, end);
            const [colour, ink] = termColours(theme, part.term);
            for (let index = from; index < to; index++) {
                const x = this.x(index, begin);
                const committed = index <= state.commit;
                pen.fillStyle = theme.paper;
                pen.fillRect(x, y, CELL - 2, high);
                pen.fillStyle = colour;
                pen.globalAlpha = (up ? 1 : 0.45) * (committed ? 1 : 0.3);
                pen.fillRect(x, y, CELL - 2, high);
                pen.globalAlpha = up ? 1 : 0.45;
                if (!committed) {
                    pen.strokeStyle = colour;
                    pen.lineWidth = 1.5;
                    pen.strokeRect(x + 0.75, y + 0.75, CELL - 3.5, high - 1.5);
                }
                pen.fillStyle = committed ? ink : theme.ink;
                pen.fillText(String(part.term), x + CELL / 2 - 1, y + high / 2 + 0.5);
                if (index <= state.durable) {
                    pen.fillStyle = theme.ink;
                    pen.fillRect(x, y + high + 1, CELL - 2, 1.5);
                }
            }
        }
        pen.globalAlpha = 1;
        const mark = this.x(state.applied + 1, begin) - 1;
        if (state.applied >= begin - 1 && state.applied < end) {
            pen.fillStyle = theme.ink;
            pen.beginPath();
            pen.moveTo(mark, y + high - 1);
            pen.lineTo(mark + 4.5, y + high + 6);
            pen.lineTo(mark - 4.5, y + high + 6);
            pen.fill();
        }
        pen.textAlign = "left";
        pen.font = SMALL;
        if (log.last < begin && state.first <= begin) {
            pen.fillStyle = theme.dim;
            pen.fillText(log.last === 0 ? "empty" : `◂ ends at ${log.last}`, this.x(begin, begin), y + high / 2);
        }
    }

    /** Frames behind the cells, somewhat higher, so that what replaced them covers the most of them. */
    private drawGhosts(
        pen: CanvasRenderingContext2D,
        ghosts: Ghosts,
        y: number,
        high: number,
        begin: number,
        end: number,
    ): void {
        pen.setLineDash([3, 2]);
        pen.lineWidth = 1.5;
        for (const part of ghosts.runs) {
            const [colour] = termColours(this.app.theme, part.term);
            pen.strokeStyle = colour;
            pen.fillStyle = this.app.theme.dim;
            for (let index = Math.max(part.from, begin); index < Math.min(part.from + part.count, end); index++) {
                const x = this.x(index, begin);
                pen.strokeRect(x + 3.5, y - 4, CELL - 4, high);
                pen.fillText(String(part.term), x + CELL / 2 - 1, y + high / 2 + 0.5);
            }
        }
        pen.setLineDash([]);
    }

    private listen(): void {
        const { canvas, app } = this;
        let drag: { x: number; first: number } | null = null;
        canvas.addEventListener("pointerdown", (event) => {
            if (event.button !== 0) return;
            drag = { x: event.clientX, first: this.begin() };
            canvas.setPointerCapture(event.pointerId);
        });
        canvas.addEventListener("pointermove", (event) => {
            if (drag === null) {
                this.point(event);
                return;
            }
            if (Math.abs(event.clientX - drag.x) < CELL / 2) return;
            this.scrollTo(drag.first - Math.round((event.clientX - drag.x) / CELL));
        });
        for (const name of ["pointerup", "pointercancel"]) {
            canvas.addEventListener(name, () => {
                drag = null;
            });
        }
        canvas.addEventListener("pointerleave", () => this.tip.hide());
        canvas.addEventListener("dblclick", () => {
            this.first = null;
            app.changed({ cursor: true });
        });
        canvas.addEventListener(
            "wheel",
            (event) => {
                // Over the names, the wheel scrolls the lanes.
                if (event.clientX - canvas.getBoundingClientRect().left < GUTTER) return;
                event.preventDefault();
                const by = Math.abs(event.deltaX) > Math.abs(event.deltaY) ? event.deltaX : event.deltaY;
                this.scrollTo(this.begin() + Math.sign(by) * Math.max(Math.round(Math.abs(by) / CELL), 1));
            },
            { passive: false },
        );
    }

    /** Goes on by so many places. */
    scroll(by: number): void {
        this.scrollTo(this.begin() + by);
    }

    /** Scrolls; beyond the end, it follows the end again. */
    private scrollTo(first: number): void {
        this.first = null;
        const follow = this.begin();
        this.first = first >= follow ? null : Math.max(first, 1);
        this.app.changed({ cursor: true });
    }

    private point(event: MouseEvent): void {
        const { app } = this;
        const box = this.canvas.getBoundingClientRect();
        const lane = this.lanes[Math.floor((event.clientY - box.top - HEAD) / this.line)];
        const index = this.begin() + Math.floor((event.clientX - box.left - GUTTER - 4) / CELL);
        const history = lane === undefined ? undefined : app.histories.get(lane);
        if (history === undefined || event.clientX - box.left < GUTTER || history.row(app.cursor) < 0) {
            this.tip.hide();
            return;
        }
        const state = history.at(app.cursor);
        const log = history.logAt(app.cursor);
        const term = index >= state.first ? termAt(log.runs, index) : 0;
        const ghost = termAt(log.ghosts?.runs ?? [], index);
        const lines: string[] = [];
        if (term > 0) {
            const says = app.run.entry(index, term);
            if (says !== "") lines.push(says);
            const known = index <= state.commit ? "committed" : "not known to be committed";
            const applied = index <= state.applied ? ", applied" : "";
            lines.push(`${known}${applied}, ${index <= state.durable ? "durable" : "not durable yet"}`);
            const step = app.run.committedIn(index);
            if (step > 0) lines.push(`committed for the first time in event ${words.thousands(step)}`);
        } else if (index < state.first && index > 0) {
            lines.push(`in the snapshot of ${state.snapshot}, no longer in the log`);
        }
        if (ghost > 0 && log.ghosts !== null) {
            const said = app.run.entry(index, ghost);
            lines.push(
                `was ${index}@${ghost}${said === "" ? "" : `: ${said}`}, cut off in event ${words.thousands(log.ghosts.step)}`,
            );
        }
        if (lines.length === 0) this.tip.hide();
        else this.tip.show(`${app.run.laneName(lane)} ${term > 0 ? `${index}@${term}` : index}`, lines, event);
    }
}
