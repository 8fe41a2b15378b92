// Deep links: what the page shows is in its address, `#step=1234&axis=time`, so that a link or a reload
// shows it again. What is as it was at first is left out, but for the event.

import type { App } from "./app";
import type { Mode } from "./axis";
import { GROUPS, type Group } from "./run";
import type { Filter } from "./shown";

/** What is left out of a link: how the page opens. */
export interface Opening {
    filter: Filter;
    mode: Mode;
}

/** The part of the address after `#`. */
export function write(app: App, opening: Opening): string {
    const { filter } = app.shown;
    const first = opening.filter;
    const parts = [`step=${app.cursor}`];
    if (app.axis.mode !== opening.mode) parts.push(`axis=${app.axis.mode}`);
    if (filter.past !== first.past) parts.push(`past=${filter.past ? 1 : 0}`);
    if (filter.key !== "") parts.push(`key=${encodeURIComponent(filter.key)}`);
    if (filter.hiddenNodes.size > 0) {
        parts.push(`without=${[...filter.hiddenNodes].map((lane) => app.run.laneName(lane)).join(",")}`);
    }
    const hidden = GROUPS.filter((group) => filter.hiddenGroups.has(group)).join(",");
    if (hidden !== GROUPS.filter((group) => first.hiddenGroups.has(group)).join(",")) parts.push(`hide=${hidden}`);
    return `#${parts.join("&")}`;
}

/** Shows what an address says, as far as it can be understood. False if it names no event. */
export function read(app: App, hash: string, opening: Opening): boolean {
    const asked = new URLSearchParams(hash.replace(/^#/, ""));
    const axis = asked.get("axis");
    const change: Filter = { ...opening.filter };
    if (asked.has("past")) change.past = asked.get("past") === "1" && app.run.block.past !== null;
    if (asked.has("key")) change.key = asked.get("key") ?? "";
    if (asked.has("without")) {
        const names = (asked.get("without") ?? "").split(",");
        const lanes = app.run.nodes.filter((lane) => names.includes(app.run.laneName(lane)));
        change.hiddenNodes = new Set(lanes.length < app.run.nodes.length ? lanes : []);
    }
    if (asked.has("hide")) {
        const names = (asked.get("hide") ?? "").split(",");
        change.hiddenGroups = new Set(GROUPS.filter((group): group is Group => names.includes(group)));
    }
    const step = Number(asked.get("step"));
    if (!Number.isInteger(step) || step < 1) return false;
    app.filter(change);
    app.setMode(axis === "time" || axis === "order" ? axis : opening.mode);
    app.goto(step);
    app.closeUp(60);
    return true;
}

/** Keeps the address and the page the same, each following the other. Returns what makes a link to here. */
export function follow(app: App): () => string {
    const opening: Opening = { filter: app.shown.filter, mode: app.axis.mode };
    read(app, location.hash, opening);
    let pending: ReturnType<typeof setTimeout> | null = null;
    const update = () => {
        pending = null;
        const hash = write(app, opening);
        if (hash !== location.hash) history.replaceState(null, "", hash);
    };
    app.add(() => {
        // A browser allows some two hundred changes of an address in half a minute.
        if (pending === null) pending = setTimeout(update, 250);
    });
    addEventListener("hashchange", () => read(app, location.hash, opening));
    return () => location.href.replace(/#.*$/, "") + write(app, opening);
}
