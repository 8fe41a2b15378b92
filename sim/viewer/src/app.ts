// What the page is showing: the cursor, the window, the filters, what is selected. The parts of the
// page draw what they find here, and change it through these methods; nothing else holds state that
// two of them need.

import { Axis, type Mode } from "./axis";
import type { Block } from "./block";
import { type Clients, type Split, type Spell, clients, faultLines, spells, splits } from "./layout";
import { type Lane, Run, type Step } from "./run";
import { type Filter, Shown, effects } from "./shown";
import { type History, histories } from "./state";
import { type Theme, apply, chosen, other } from "./theme";

/** Something that can be pointed at, apart from an event. */
export type Thing = { what: "message"; row: number } | { what: "op"; row: number } | { what: "fault"; row: number };

/** What has changed since something was drawn. */
export interface Changes {
    /** The window, the filters, the theme or the size. */
    scene: boolean;
    /** The cursor, the lane or the selection. */
    cursor: boolean;
    /** What is pointed at. */
    hover: boolean;
}

type Part = (changes: Changes) => void;

/** Where the share of failing continuations rises for good, between neighbouring forks. */
export interface Jump {
    before: Step;
    after: Step;
    from: number;
    to: number;
}

/** What a button or a key zooms by. */
const ZOOM = 1.6;

const SPEEDS = [1, 2, 5, 10, 25, 100];

export class App {
    readonly run: Run;
    readonly histories: Map<Lane, History>;
    readonly spells: Map<Lane, Spell[]>;
    readonly splits: Split[];
    readonly clients: Clients;
    readonly faultLines: { lines: number[]; count: number };
    readonly axis: Axis;
    readonly jump: Jump | null;
    private readonly effects: Uint16Array;
    shown: Shown;
    theme: Theme = chosen();
    /** The event that everything is told as of. */
    cursor: Step = 1;
    /** The lane whose node is told, and that the keyboard moves along. */
    lane: Lane;
    selected: Thing | null = null;
    hovered: Thing | null = null;
    /** Events a second. */
    speed = 5;
    private player: number | null = null;
    private readonly parts: { part: Part; hovers: boolean }[] = [];
    private pending: Changes | null = null;

    constructor(block: Block) {
        this.run = new Run(block);
        this.histories = histories(this.run);
        this.spells = new Map([...this.histories].map(([lane, history]) => [lane, spells(history)]));
        this.splits = splits(this.run, this.histories);
        this.clients = clients(this.run);
        this.faultLines = faultLines(this.run);
        this.effects = effects(this.run);
        const violation = block.violation;
        this.shown = new Shown(this.run, this.effects, {
            past: block.past !== null,
            hiddenNodes: new Set(),
            hiddenGroups: new Set(["idle"]),
            key: "",
        });
        this.axis = new Axis(this.run, this.shown, violation === null ? "time" : "order");
        this.lane = violation !== null && this.run.isNode(violation.lane) ? violation.lane : (this.run.nodes[0] ?? 0);
        // How it ended is where a look at a run begins.
        this.cursor = violation?.step ?? Math.max(this.shown.steps.at(-1) ?? 1, 1);
        this.jump = jump(block);
        apply(this.theme);
    }

    /** A part of the page that wants to draw itself when something has changed; `hovers` if also for what is pointed at. */
    add(part: Part, hovers = false): void {
        this.parts.push({ part, hovers });
    }

    changed(changes: Partial<Changes>): void {
        if (this.pending === null) {
            this.pending = { scene: false, cursor: false, hover: false };
            requestAnimationFrame(() => this.draw());
        }
        this.pending.scene ||= changes.scene ?? false;
        this.pending.cursor ||= changes.cursor ?? false;
        this.pending.hover ||= changes.hover ?? false;
    }

    private draw(): void {
        const changes = this.pending;
        this.pending = null;
        if (changes === null) return;
        for (const { part, hovers } of this.parts) if (hovers || changes.scene || changes.cursor) part(changes);
    }

    /** Goes to an event, shown or not, and brings it into the window. */
    goto(step: Step, lane?: Lane): void {
        const [from, to] = [this.axis.from, this.axis.to];
        this.point(step, lane);
        this.axis.reveal(this.cursor);
        this.changed({ scene: from !== this.axis.from || to !== this.axis.to });
    }

    /** Goes to an event that is under the pointer: the window stays. */
    point(step: Step, lane?: Lane): void {
        this.cursor = Math.min(Math.max(Math.round(step), 1), Math.max(this.run.steps, 1));
        const own = lane ?? this.run.lane[this.cursor];
        if (this.run.isNode(own)) this.lane = own;
        this.changed({ cursor: true });
    }

    /** Goes on by so many events that are shown. */
    step(by: number): void {
        this.goto(this.shown.move(this.cursor, by));
    }

    toFirst(): void {
        this.goto(this.shown.from(1));
    }

    toLast(): void {
        this.goto(this.shown.steps.at(-1) ?? this.run.steps);
    }

    /** Goes to the next event (the one before, if negative) that is shown and happens to the chosen lane. */
    stepOnLane(by: 1 | -1): void {
        const { steps } = this.shown;
        let i = steps.indexOf(this.shown.move(this.cursor, by));
        while (i >= 0 && i < steps.length && this.run.lane[steps[i]] !== this.lane) i += by;
        if (i >= 0 && i < steps.length) this.goto(steps[i]);
    }

    select(thing: Thing | null): void {
        this.selected = thing;
        this.changed({ cursor: true });
    }

    hover(thing: Thing | null): void {
        const same = thing?.what === this.hovered?.what && thing?.row === this.hovered?.row;
        this.hovered = thing;
        if (!same) this.changed({ hover: true });
    }

    chooseLane(lane: Lane): void {
        this.lane = lane;
        this.changed({ cursor: true });
    }

    filter(change: Partial<Filter>): void {
        this.shown = new Shown(this.run, this.effects, { ...this.shown.filter, ...change });
        this.axis.rearrange(this.axis.mode, this.shown, this.cursor);
        this.axis.reveal(this.cursor);
        this.changed({ scene: true, cursor: true });
    }

    /** Only the causal past of the violation, or all; without one there is nothing to choose. */
    togglePast(): void {
        if (this.run.block.past !== null) this.filter({ past: !this.shown.filter.past });
    }

    setMode(mode: Mode): void {
        this.axis.rearrange(mode, this.shown, this.cursor);
        this.axis.reveal(this.cursor);
        this.changed({ scene: true, cursor: true });
    }

    /** By a factor, around the cursor if no place is given. */
    zoom(factor: number, around?: number): void {
        this.axis.zoom(factor, around ?? this.axis.place(this.cursor));
        this.changed({ scene: true });
    }

    closer(): void {
        this.zoom(ZOOM);
    }

    wider(): void {
        this.zoom(1 / ZOOM);
    }

    pan(part: number): void {
        this.axis.pan(part);
        this.changed({ scene: true });
    }

    fit(): void {
        this.axis.fit();
        this.changed({ scene: true });
    }

    /** So close that this many shown events around the cursor fill the window. */
    closeUp(events: number): void {
        const steps = this.shown.steps;
        if (steps.length > 0) {
            const rank = Math.max(this.shown.rank[this.cursor], 1);
            const first = Math.max(rank - 1 - Math.round(events * 0.8), 0);
            const last = Math.min(first + events, steps.length - 1);
            const [from, to] = [this.axis.place(steps[first]), this.axis.place(steps[last])];
            const margin = (to - from) * 0.06 + (this.axis.mode === "order" ? 1 : 1_000);
            this.axis.set(from - margin, to + margin);
        }
        this.changed({ scene: true });
    }

    switchTheme(): void {
        this.theme = other(this.theme);
        apply(this.theme);
        this.changed({ scene: true, cursor: true });
    }

    get playing(): boolean {
        return this.player !== null;
    }

    /** Plays from here on, or stops. At the end it begins again. */
    play(on: boolean): void {
        if (this.player !== null) cancelAnimationFrame(this.player);
        this.player = null;
        if (on) {
            const last = this.shown.steps.at(-1) ?? 0;
            if (this.cursor >= last) this.toFirst();
            let due = performance.now() + 1000 / this.speed;
            const frame = (now: number) => {
                // A page that was out of sight goes on where it was.
                const steps = Math.min(Math.floor(((now - due) * this.speed) / 1000) + 1, this.speed);
                if (steps > 0) {
                    due = Math.max(due + (steps * 1000) / this.speed, now - 1000);
                    this.step(steps);
                }
                if (this.cursor >= last) {
                    this.play(false);
                    return;
                }
                this.player = requestAnimationFrame(frame);
            };
            this.player = requestAnimationFrame(frame);
        }
        this.changed({ cursor: true });
    }

    /** The next speed; the first after the last. */
    faster(): void {
        this.speed = SPEEDS[(SPEEDS.indexOf(this.speed) + 1) % SPEEDS.length];
        if (this.playing) this.play(true);
        this.changed({ cursor: true });
    }

    /** The command that runs it again up to the cursor. */
    get replayLine(): string {
        return `${this.run.block.about.replay} --until ${this.cursor}`;
    }
}

/**
 * Where it was sealed: where the share rises most without ever falling below that again.
 */
function jump(block: Block): Jump | null {
    const curve = block.curve;
    if (curve === null) return null;
    // The least share from each fork on.
    const least = [...curve.failed];
    for (let i = least.length - 2; i >= 0; i--) least[i] = Math.min(least[i], least[i + 1]);
    let best = 0;
    for (let i = 1; i < least.length; i++) {
        if (least[i] - least[i - 1] > (best === 0 ? 0 : least[best] - least[best - 1])) best = i;
    }
    if (best === 0) return null;
    const share = (i: number) => curve.failed[i] / curve.runs;
    return { before: curve.step[best - 1], after: curve.step[best], from: share(best - 1), to: share(best) };
}
