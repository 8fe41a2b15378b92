// Deep links: what the page shows is in its address, `#step=1234&axis=time`, so that a link or a reload
// shows it again. What is as it was at first is left out, but for the event.

import type { App } from "./app";
import { GROUPS, type Group } from "./run";

/** The part of the address after `#`. */
export function write(app: App, first: App["shown"]["filter"], firstMode: string): string {
    const { filter } = app.shown;
    const parts = [`step=${app.cursor}`];
    if (app.axis.mode !== firstMode) parts.push(`axis=${app.axis.mode}`);
    if (filter.past !== first.past) parts.push(`past=${filter.past ? 1 : 0}`);
    if (filter.key !== "") parts.push(`key=${encodeURIComponent(filter.key)}`);
    if (filter.hiddenNodes.size > 0) {
        parts.push(`without=${[...filter.hiddenNodes].map((lane) => app.run.laneName(lane)).join(",")}`);
    }
    const hidden = GROUPS.filter((group) => filter.hiddenGroups.has(group)).join(",");
    if (hidden !== GROUPS.filter((group) => first.hiddenGroups.has(group)).join(",")) parts.push(`hide=${hidden}`);
    return `#${parts.join("&")}`;
}

/** Shows what an address says, as far as it can be understood. */
export function read(app: App, hash: string): boolean {
    const asked = new URLSearchParams(hash.replace(/^#/, ""));
    const axis = asked.get("axis");
    const change: Partial<App["shown"]["filter"]> = {};
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
    if (Object.keys(change).length > 0) app.filter(change);
    if ((axis === "time" || axis === "order") && axis !== app.axis.mode) app.setMode(axis);
    const step = Number(asked.get("step"));
    if (!Number.isInteger(step) || step < 1) return false;
    app.goto(step);
    return true;
}

/** Keeps the address and the page the same, each following the other. */
export function follow(app: App): void {
    const first = app.shown.filter;
    const firstMode = app.axis.mode;
    const found = location.hash !== "" && read(app, location.hash);
    if (found) app.closeUp(60);
    let pending: ReturnType<typeof setTimeout> | null = null;
    const update = () => {
        pending = null;
        const hash = write(app, first, firstMode);
        if (hash !== location.hash) history.replaceState(null, "", hash);
    };
    app.add(() => {
        // A browser allows some two hundred changes of an address in half a minute.
        if (pending === null) pending = setTimeout(update, 250);
    });
    addEventListener("hashchange", () => {
        read(app, location.hash);
        app.closeUp(60);
    });
}
