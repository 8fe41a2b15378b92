// The horizontal axis: where an event stands, in simulated time or in order, and the window on it.
//
// In order, only events that are shown take a place, one each; so a filter brings what it leaves
// closer together.

import { type Run, type Step, lowerBound } from "./run";
import type { Shown } from "./shown";

export type Mode = "time" | "order";

/** The narrowest window: nanoseconds, or events. */
const NARROWEST = { time: 1_000, order: 2 };

export class Axis {
    /** The window, in nanoseconds or places. */
    from = 0;
    to = 1;
    /** Pixels: where the window begins on the screen, and how wide it is. */
    left = 0;
    width = 1;
    /** The window that was left when the mode was changed, and what made it. */
    private other: { from: number; to: number; shown: Shown; anchor: Step } | null = null;

    constructor(
        readonly run: Run,
        public shown: Shown,
        public mode: Mode,
    ) {
        this.fit();
    }

    /** The whole axis: from 0 to this. */
    get length(): number {
        return this.mode === "time" ? Math.max(this.run.time[this.run.steps], 1) * 1.02 : this.shown.steps.length + 1;
    }

    /** Where an event stands, in the unit of the axis. */
    place(step: Step): number {
        return this.mode === "time" ? this.run.time[step] : this.shown.rank[step];
    }

    /** Where something stands that is not over: 0 stands for the end. */
    placeOfEnd(step: Step): number {
        return step === 0 ? this.length : this.place(step);
    }

    x(place: number): number {
        return this.left + ((place - this.from) / (this.to - this.from)) * this.width;
    }

    xOf(step: Step): number {
        return this.x(this.place(step));
    }

    placeAt(x: number): number {
        return this.from + ((x - this.left) / this.width) * (this.to - this.from);
    }

    /** The shown event that is nearest to a place; 0 if nothing is shown. */
    stepAt(place: number): Step {
        const steps = this.shown.steps;
        if (steps.length === 0) return 0;
        if (this.mode === "order") {
            return steps[Math.min(Math.max(Math.round(place) - 1, 0), steps.length - 1)];
        }
        const after = this.shown.rank[Math.max(lowerBound(this.run.time, place) - 1, 0)];
        const next = Math.min(after, steps.length - 1);
        const before = Math.max(next - 1, 0);
        const nearer = place - this.run.time[steps[before]] <= this.run.time[steps[next]] - place;
        return steps[nearer ? before : next];
    }

    /** The first and the last event in the window, shown or not. */
    get steps(): [Step, Step] {
        if (this.mode === "time") {
            const first = lowerBound(this.run.time, this.from);
            return [Math.max(first, 1), Math.min(lowerBound(this.run.time, this.to), this.run.steps)];
        }
        const steps = this.shown.steps;
        const first = Math.max(Math.floor(this.from) - 1, 0);
        const last = Math.min(Math.ceil(this.to), steps.length - 1);
        return [steps[first] ?? 1, Math.max(steps[last] ?? 0, steps[first] ?? 0)];
    }

    /** Pixels that a place takes. */
    get scale(): number {
        return this.width / (this.to - this.from);
    }

    fit(): void {
        this.from = 0;
        this.to = this.length;
    }

    set(from: number, to: number): void {
        const length = this.length;
        const span = this.span(to - from);
        // A little beyond the ends may be seen, so that these can be brought to the middle.
        const margin = span * 0.05;
        const begin = Math.min(Math.max(from, -margin), length - span + margin);
        this.from = span >= length ? 0 : begin;
        this.to = this.from + span;
    }

    /** By a factor (greater than 1 comes closer), while a place stays where it is. */
    zoom(factor: number, around: number): void {
        const span = this.span((this.to - this.from) / factor);
        const share = (around - this.from) / (this.to - this.from);
        this.set(around - share * span, around + (1 - share) * span);
    }

    /** The nearest width that a window can have. */
    private span(wanted: number): number {
        const { length } = this;
        return Math.min(Math.max(wanted, Math.min(NARROWEST[this.mode], length)), length);
    }

    /** By a part of the window. */
    pan(part: number): void {
        const by = (this.to - this.from) * part;
        this.set(this.from + by, this.to + by);
    }

    /** Brings an event into the window, if it is not there. */
    reveal(step: Step): void {
        const place = this.place(step);
        const span = this.to - this.from;
        const margin = span * 0.06;
        if (place < this.from + margin || place > this.to - margin) {
            this.set(place - span / 2, place + span / 2);
        }
    }

    /** Changes how things are placed; the event stays where it was on the screen, and about as much is seen. */
    rearrange(mode: Mode, shown: Shown, anchor: Step): void {
        // Time does not change by what is shown of it.
        if (mode === "time" && this.mode === "time") {
            this.shown = shown;
            return;
        }
        const whole = this.to - this.from >= this.length * 0.999;
        const left = { from: this.from, to: this.to, shown: this.shown, anchor };
        const [first, last] = this.steps;
        const share = (this.place(anchor) - this.from) / (this.to - this.from);
        const before = this.mode;
        this.mode = mode;
        this.shown = shown;
        const kept = this.other;
        if (mode !== before) this.other = left;
        if (whole) {
            this.fit();
        } else if (mode !== before && kept !== null && kept.shown === shown && kept.anchor === anchor) {
            // There and back again is where it was.
            this.set(kept.from, kept.to);
        } else {
            const span = Math.max(this.place(last) - this.place(first), mode === "order" ? 20 : 1);
            const at = Math.min(Math.max(share, 0.05), 0.95);
            const from = this.place(anchor) - span * at;
            this.set(from, from + span);
        }
    }
}
