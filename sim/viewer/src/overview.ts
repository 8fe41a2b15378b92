// The whole run in a strip: who leads, faults, how much happens, the violation, and the window as a frame
// that can be dragged and widened.

import type { App, Changes } from "./app";
import { fitCanvas } from "./canvas";
import { SMALL } from "./stage";
import { GUTTER } from "./timeline";

const HEIGHT = 46;
/** How near, in pixels, an edge of the frame can be taken. */
const EDGE = 7;

export class Overview {
    private readonly ground = document.createElement("canvas");
    private readonly overlay = document.createElement("canvas");

    constructor(
        private readonly app: App,
        private readonly box: HTMLElement,
    ) {
        this.overlay.className = "overlay";
        box.append(this.ground, this.overlay);
        new ResizeObserver(() => app.changed({ scene: true })).observe(box);
        app.add((changes) => this.draw(changes));
        this.listen();
    }

    private x(place: number): number {
        return GUTTER + (place / this.app.axis.length) * this.width;
    }

    private place(x: number): number {
        return ((x - GUTTER) / this.width) * this.app.axis.length;
    }

    private width = 50;
    private drawn = "";
    private shown: unknown = null;

    private draw(changes: Changes): void {
        const { app, box } = this;
        const { axis, theme } = app;
        this.width = Math.max(box.clientWidth - GUTTER - 8, 50);
        // The ground depends on less than the scene does.
        const needed = [box.clientWidth, axis.mode, axis.length, theme.dark, devicePixelRatio].join(" ");
        if (changes.scene && (needed !== this.drawn || app.shown !== this.shown)) {
            this.drawn = needed;
            this.shown = app.shown;
            this.drawGround();
        }
        fitCanvas(this.overlay, box.clientWidth, HEIGHT);
        const pen = this.overlay.getContext("2d") as CanvasRenderingContext2D;
        pen.clearRect(0, 0, box.clientWidth, HEIGHT);
        const from = this.x(Math.max(axis.from, 0));
        const to = Math.max(this.x(Math.min(axis.to, axis.length)), from + 3);
        pen.fillStyle = theme.paper;
        pen.globalAlpha = 0.62;
        pen.fillRect(GUTTER, 0, from - GUTTER, HEIGHT);
        pen.fillRect(to, 0, GUTTER + this.width - to, HEIGHT);
        pen.globalAlpha = 1;
        pen.strokeStyle = theme.accent;
        pen.lineWidth = 2;
        pen.strokeRect(from, 1, to - from, HEIGHT - 2);
        pen.fillStyle = theme.ink;
        pen.fillRect(this.x(axis.place(app.cursor)) - 0.75, 0, 1.5, HEIGHT);
    }

    private drawGround(): void {
        const { app, box } = this;
        const { axis, theme, run } = app;
        fitCanvas(this.ground, box.clientWidth, HEIGHT);
        const pen = this.ground.getContext("2d") as CanvasRenderingContext2D;
        pen.fillStyle = theme.paper;
        pen.fillRect(0, 0, box.clientWidth, HEIGHT);
        pen.font = SMALL;
        pen.fillStyle = theme.dim;
        pen.textBaseline = "middle";
        pen.fillText("the whole run", 8, HEIGHT / 2);
        if (axis.mode === "time") this.drawDensity(pen);
        this.drawLeaders(pen);
        this.drawCurve(pen);
        pen.fillStyle = theme.fault;
        const { start, end } = run.block.faults;
        start.forEach((step, i) => {
            const from = this.x(axis.place(step));
            const to = this.x(axis.placeOfEnd(end[i]));
            pen.fillRect(from, 16, Math.max(to - from, 2), 3);
        });
        const violation = run.block.violation;
        if (violation !== null) {
            pen.fillStyle = theme.violation;
            pen.fillRect(this.x(axis.place(violation.step)) - 1.5, 0, 3, HEIGHT);
        }
    }

    /** Who leads: two at the same time, one above the other. */
    private drawLeaders(pen: CanvasRenderingContext2D): void {
        const { axis, theme, run, spells } = this.app;
        const leader = run.block.names.role.indexOf("leader");
        const [colour, ink] = theme.roles[leader];
        const led = [...spells].flatMap(([lane, all]) =>
            all
                .filter((spell) => spell.role === leader && run.is(spell.condition, "up"))
                .map((spell) => ({
                    from: this.x(axis.place(spell.from)),
                    to: this.x(axis.placeOfEnd(spell.to)),
                    name: `${run.laneName(lane)} · ${spell.term}`,
                    lane,
                })),
        );
        for (const { from, to, name, lane } of led) {
            const rivals = led.filter((other) => other.lane !== lane && other.from < to - 1 && other.to > from + 1);
            const height = rivals.length > 0 ? 6 : 13;
            const y = rivals.some((other) => other.from < from || (other.from === from && other.lane < lane)) ? 9 : 2;
            pen.fillStyle = colour;
            pen.fillRect(from, y, Math.max(to - from - 1, 1), height);
            if (height === 13 && pen.measureText(name).width + 8 < to - from) {
                pen.fillStyle = ink;
                pen.fillText(name, from + 4, 9);
            }
        }
    }

    /** The curve of the whole run, small. */
    private drawCurve(pen: CanvasRenderingContext2D): void {
        const { axis, theme, run } = this.app;
        const { curve } = run.block;
        if (curve === null) return;
        pen.strokeStyle = theme.violation;
        pen.lineWidth = 1.5;
        pen.beginPath();
        curve.step.forEach((step, i) => {
            pen.lineTo(this.x(axis.place(step)), HEIGHT - 3 - (curve.failed[i] / curve.runs) * (HEIGHT - 25));
        });
        pen.stroke();
    }

    /** How many shown events fall on each column. In order, that is the same everywhere. */
    private drawDensity(pen: CanvasRenderingContext2D): void {
        const { axis, theme, shown } = this.app;
        const columns = new Uint32Array(Math.ceil(this.width));
        let most = 1;
        for (const step of shown.steps) {
            const column = Math.min(Math.floor(this.x(axis.place(step)) - GUTTER), columns.length - 1);
            most = Math.max(most, ++columns[Math.max(column, 0)]);
        }
        pen.fillStyle = theme.dim;
        pen.globalAlpha = 0.5;
        columns.forEach((count, i) => {
            // By its root: a burst leaves something of the rest to be seen.
            const height = Math.sqrt(count / most) * (HEIGHT - 22);
            pen.fillRect(GUTTER + i, HEIGHT - 2 - height, 1, height);
        });
        pen.globalAlpha = 1;
    }

    private listen(): void {
        const { overlay, app } = this;
        let drag: { grip: "from" | "to" | "all"; offset: number } | null = null;
        const local = (event: PointerEvent) => event.clientX - overlay.getBoundingClientRect().left;
        const grip = (x: number): "from" | "to" | "all" => {
            const from = this.x(Math.max(app.axis.from, 0));
            const to = this.x(Math.min(app.axis.to, app.axis.length));
            if (to - from > 3 * EDGE) {
                if (Math.abs(x - from) < EDGE) return "from";
                if (Math.abs(x - to) < EDGE) return "to";
            } else {
                if (x < from && from - x < EDGE) return "from";
                if (x > to && x - to < EDGE) return "to";
            }
            return "all";
        };
        overlay.addEventListener("pointerdown", (event) => {
            const x = local(event);
            if (x < GUTTER || event.button !== 0) return;
            const { axis } = app;
            const place = this.place(x);
            const taken = grip(x);
            if (taken === "all" && (place < axis.from || place > axis.to)) {
                const span = axis.to - axis.from;
                axis.set(place - span / 2, place + span / 2);
                app.changed({ scene: true });
            }
            drag = { grip: taken, offset: place - axis.from };
            overlay.setPointerCapture(event.pointerId);
        });
        overlay.addEventListener("pointermove", (event) => {
            const x = local(event);
            if (drag === null) {
                overlay.style.cursor = x < GUTTER ? "default" : grip(x) === "all" ? "grab" : "ew-resize";
                return;
            }
            const { axis } = app;
            const place = this.place(x);
            if (drag.grip === "from") axis.set(Math.min(place, axis.to), axis.to);
            else if (drag.grip === "to") axis.set(axis.from, Math.max(place, axis.from));
            else axis.set(place - drag.offset, place - drag.offset + axis.to - axis.from);
            app.changed({ scene: true });
        });
        for (const name of ["pointerup", "pointercancel"]) {
            overlay.addEventListener(name, () => {
                drag = null;
            });
        }
        overlay.addEventListener("dblclick", () => app.fit());
    }
}
