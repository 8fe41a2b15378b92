// The keyboard does all that the mouse does.

import type { App } from "./app";
import type { Inspector } from "./inspector";
import type { Logs } from "./logs";
import type { Toolbar } from "./toolbar";

/** What the help says: keys, and what they do. */
export const KEYS: [string, string][] = [
    ["← →", "the event before, the next (with Shift: ten)"],
    ["↑ ↓", "the node above, below"],
    [", .", "the event before, the next, on the chosen node"],
    ["Home End", "the first event, the last"],
    ["Space", "play, stop"],
    ["s", "play faster"],
    ["v", "to the violation"],
    ["m", "along a message: from its arrival to where it was sent, or back"],
    ["f", "to the next fault (with Shift: the one before)"],
    ["+ −", "closer, wider"],
    ["0", "the whole run"],
    ["[ ]", "move the window"],
    ["t", "simulated time, or order"],
    ["p", "only the causal past of the violation, or all"],
    ["/", "filter by key"],
    ["i", "into the side, whose links Tab and Enter follow"],
    ["{ }", "move along the logs"],
    ["1 … 9", "show or hide a node"],
    ["r", "copy the line that replays up to here"],
    ["l", "copy a link to here"],
    ["d", "dark, light"],
    ["Esc", "deselect, leave a field"],
    ["?", "this help"],
];

/** A message that this event received or sent, and its other end. */
function followMessage(app: App): void {
    const { run, cursor } = app;
    const back = run.endedIn(cursor).find((row) => app.shown.messages[row] === 1);
    const selected = app.selected?.what === "message" ? app.selected.row : null;
    if (selected !== null && run.sent[selected] === cursor && run.end[selected] > cursor) {
        app.goto(run.end[selected]);
        return;
    }
    if (back !== undefined) {
        app.select({ what: "message", row: back });
        app.goto(run.sent[back]);
        return;
    }
    const [first, end] = run.sentIn(cursor);
    for (let row = first; row < end; row++) {
        if (app.shown.messages[row] === 0 || run.end[row] <= cursor) continue;
        app.select({ what: "message", row });
        app.goto(run.end[row]);
        return;
    }
}

function toFault(app: App, by: 1 | -1): void {
    const starts = [...app.run.block.faults.start].sort((a, b) => a - b);
    const found = by > 0 ? starts.find((step) => step > app.cursor) : starts.findLast((step) => step < app.cursor);
    if (found !== undefined) app.goto(found);
}

function moveLane(app: App, by: 1 | -1): void {
    const lanes = app.run.nodes.filter((lane) => !app.shown.filter.hiddenNodes.has(lane));
    const at = lanes.indexOf(app.lane) + by;
    if (lanes[at] !== undefined) app.chooseLane(lanes[at]);
}

export function listen(app: App, toolbar: Toolbar, inspector: Inspector, logs: Logs): void {
    addEventListener("keydown", (event) => {
        const target = event.target as HTMLElement;
        if (target instanceof HTMLInputElement) {
            if (event.key === "Escape" || event.key === "Enter") target.blur();
            return;
        }
        if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]") !== null) {
            if (event.key === "?") toolbar.help();
            return;
        }
        const many = event.shiftKey ? 10 : 1;
        const actions: Record<string, () => void> = {
            ArrowLeft: () => app.step(-many),
            ArrowRight: () => app.step(many),
            ArrowUp: () => moveLane(app, -1),
            ArrowDown: () => moveLane(app, 1),
            ",": () => app.stepOnLane(-1),
            ".": () => app.stepOnLane(1),
            Home: () => app.toFirst(),
            End: () => app.toLast(),
            " ": () => app.play(!app.playing),
            s: () => app.faster(),
            v: () => toolbar.toViolation(),
            m: () => followMessage(app),
            f: () => toFault(app, 1),
            F: () => toFault(app, -1),
            "+": () => app.closer(),
            "=": () => app.closer(),
            "-": () => app.wider(),
            "0": () => app.fit(),
            "[": () => app.pan(-0.25),
            "]": () => app.pan(0.25),
            t: () => app.setMode(app.axis.mode === "time" ? "order" : "time"),
            p: () => app.togglePast(),
            "/": () => toolbar.focusKey(),
            i: () => inspector.focus(),
            "{": () => logs.scroll(-5),
            "}": () => logs.scroll(5),
            r: () => toolbar.copyReplay(),
            l: () => toolbar.copyLink(),
            d: () => app.switchTheme(),
            Escape: () => app.select(null),
            "?": () => toolbar.help(),
        };
        for (let i = 1; i <= 9; i++) {
            const name = app.run.nodes[i - 1] === undefined ? "" : app.run.laneName(app.run.nodes[i - 1]);
            actions[String(i)] = () => document.querySelector<HTMLElement>(`[data-chip="node-${name}"]`)?.click();
        }
        // A button that has the focus is pressed with the space bar, and nothing else is.
        if (event.key === " " && target instanceof HTMLButtonElement) return;
        // Caps Lock changes nothing.
        const letter = event.shiftKey ? event.key.toUpperCase() : event.key.toLowerCase();
        const action = actions[event.key.length === 1 ? letter : event.key];
        if (action === undefined) return;
        event.preventDefault();
        action();
    });
}
