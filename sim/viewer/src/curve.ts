// The bug-probability curve, below the timeline and on its axis: the share of continuations that fail, by
// the event after which the run was forked. Where it jumps, the bug was sealed.

import uPlot from "uplot";
import type { App, Changes } from "./app";
import { upperBound } from "./run";
import { GUTTER } from "./timeline";

export class Curve {
    private plot: uPlot | null = null;
    private drawn: unknown[] = [];
    private readonly caption = document.createElement("div");

    constructor(
        private readonly app: App,
        private readonly box: HTMLElement,
    ) {
        const curve = app.run.block.curve;
        box.hidden = curve === null;
        if (curve === null) return;
        this.caption.className = "caption";
        box.append(this.caption);
        app.add((changes) => this.draw(changes));
        box.addEventListener("click", (event) => {
            const over = this.plot?.over.getBoundingClientRect();
            if (over === undefined || this.plot === null) return;
            const place = this.plot.posToVal(event.clientX - over.left, "x");
            // The nearest fork, if one is near; these are what the curve is made of.
            const places = curve.step.map((step) => app.axis.place(step));
            const nearest = places.reduce(
                (best, _, i) => (Math.abs(places[i] - place) < Math.abs(places[best] - place) ? i : best),
                0,
            );
            const near = Math.abs(places[nearest] - place) * app.axis.scale < 12;
            app.goto(near ? Math.max(curve.step[nearest], 1) : app.axis.stepAt(place));
        });
    }

    /** What the curve says at the cursor: by the last fork up to it. */
    private value(): string {
        const { curve } = this.app.run.block;
        if (curve === null) return "";
        const at = Math.max(upperBound(curve.step, this.app.cursor) - 1, 0);
        const share = Math.round((100 * curve.failed[at]) / curve.runs);
        return `${share} % of continuations fail`;
    }

    private data(): uPlot.AlignedData {
        const { app } = this;
        const curve = app.run.block.curve;
        if (curve === null) return [[]];
        const share = (counts: number[]) => counts.map((count) => (100 * count) / curve.runs);
        return [curve.step.map((step) => app.axis.place(step)), share(curve.failed), share(curve.same)];
    }

    private draw(changes: Changes): void {
        const { app, box } = this;
        const { axis, theme } = app;
        if (box.clientWidth === 0) return;
        // A plot keeps its colours, and its points if the axis means the same.
        if (this.plot === null || this.drawn[0] !== theme) {
            this.plot?.destroy();
            this.plot = new uPlot(this.options(), this.data(), box);
            this.drawn = [theme, axis.mode, app.shown];
        } else if (this.drawn[1] !== axis.mode || this.drawn[2] !== app.shown) {
            this.plot.setData(this.data(), false);
            this.drawn = [theme, axis.mode, app.shown];
        }
        if (changes.scene) {
            if (this.plot.width !== box.clientWidth || this.plot.height !== box.clientHeight - 1)
                this.plot.setSize({ width: box.clientWidth, height: box.clientHeight - 1 });
            this.plot.setScale("x", { min: axis.from, max: axis.to });
        }
        this.caption.textContent = this.value();
        const x = axis.xOf(app.cursor) - GUTTER;
        const line = this.plot.over.querySelector<HTMLElement>(".cursor-line") ?? document.createElement("div");
        if (!line.isConnected) {
            line.className = "cursor-line";
            this.plot.over.append(line);
        }
        line.style.left = `${x}px`;
        line.hidden = x < 0 || x > axis.width;
    }

    private options(): uPlot.Options {
        const { app, box } = this;
        const { theme } = app;
        const font = "11px ui-sans-serif, system-ui, sans-serif";
        return {
            width: box.clientWidth,
            height: box.clientHeight - 1,
            padding: [8, 8, 8, 0],
            legend: { show: false },
            cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 } },
            scales: {
                x: { time: false, auto: false, range: (_, min, max) => [min, max] },
                y: { auto: false, range: [0, 104] },
            },
            axes: [
                { show: false },
                {
                    size: GUTTER,
                    gap: 4,
                    font,
                    stroke: theme.dim,
                    values: (_, values) => values.map((value) => `${value} %`),
                    splits: [0, 50, 100],
                    grid: { stroke: theme.line, width: 1 },
                    ticks: { show: false },
                },
            ],
            series: [
                {},
                {
                    label: "fail",
                    stroke: theme.violation,
                    width: 2,
                    fill: theme.dark ? "rgba(255, 93, 108, 0.14)" : "rgba(200, 16, 46, 0.10)",
                    points: { show: true, size: 5, fill: theme.violation },
                },
                { label: "fail in the same way", stroke: theme.dim, width: 1.5, dash: [5, 4], points: { show: false } },
            ],
        };
    }
}
