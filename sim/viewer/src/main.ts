// Opens the page: takes the run out of it, builds the parts and lets them draw.

import { App } from "./app";
import { NoRun, load } from "./block";
import { Curve } from "./curve";
import { GLYPHS, drawGlyph } from "./glyphs";
import { Inspector } from "./inspector";
import { KEYS, listen } from "./keys";
import { follow } from "./link";
import { Logs } from "./logs";
import { Overview } from "./overview";
import { Timeline } from "./timeline";
import { Tip } from "./tip";
import { Toolbar } from "./toolbar";
import * as words from "./words";

function part(id: string): HTMLElement {
    return document.getElementById(id) as HTMLElement;
}

/** What the help says besides the keys: the signs. */
function legend(app: App): void {
    part("keys-list").replaceChildren(
        ...KEYS.flatMap(([keys, what]) => {
            const term = document.createElement("dt");
            term.append(
                ...keys.split(" ").map((key) => {
                    const cap = document.createElement("kbd");
                    cap.textContent = key;
                    return cap;
                }),
            );
            const text = document.createElement("dd");
            text.textContent = what;
            return [term, text];
        }),
    );
    part("signs").replaceChildren(
        ...GLYPHS.flatMap(([kind, what]) => {
            const canvas = document.createElement("canvas");
            canvas.width = canvas.height = 40;
            const pen = canvas.getContext("2d") as CanvasRenderingContext2D;
            pen.scale(2, 2);
            drawGlyph(pen, app.theme, kind, 10, 10);
            const sign = document.createElement("dt");
            sign.append(canvas);
            const text = document.createElement("dd");
            text.textContent = what;
            return [sign, text];
        }),
    );
}

function heading(app: App): void {
    const { about, violation } = app.run.block;
    part("title").textContent = about.title.split("/").at(-1) ?? about.title;
    part("title").title = about.title;
    const badge = part("verdict");
    badge.textContent = violation === null ? about.verdict : violation.checker;
    badge.className = `badge ${violation === null ? "clean" : "failed"}`;
    part("sentence").textContent = violation?.sentence ?? "every property held";
    const facts = [
        about.bug === null ? "" : `bug ${about.bug}`,
        app.run.nodes.length === 1 ? "1 node" : `${app.run.nodes.length} nodes`,
        `${words.thousands(about.steps)} events`,
        `${words.thousands(app.run.messages)} messages`,
        words.duration(about.sim_ns),
        `plan ${about.plan_hash}`,
        about.build,
    ];
    part("facts").textContent = facts.filter((fact) => fact !== "").join(" · ");
}

function fail(error: unknown): void {
    const box = part("failure");
    box.hidden = false;
    box.textContent = error instanceof Error ? error.message : String(error);
    if (!(error instanceof NoRun)) console.error(error);
}

async function open(): Promise<void> {
    const app = new App(await load());
    const tip = new Tip(document.body);
    heading(app);
    legend(app);
    new Timeline(app, part("timeline"), tip);
    new Curve(app, part("curve"));
    new Overview(app, part("overview"));
    const logs = new Logs(app, part("logs"), tip);
    const inspector = new Inspector(app, part("inspector"));
    // A failure is best seen from close by, a whole run from far.
    if (app.run.block.violation !== null) app.closeUp(60);
    const link = follow(app);
    listen(app, new Toolbar(app, link), inspector, logs);
    app.changed({ scene: true, cursor: true });
    // For tests, and for whoever wants to ask more.
    Object.assign(window, { storm: app });
    requestAnimationFrame(() =>
        requestAnimationFrame(() => {
            document.body.dataset["ready"] = String(Math.round(performance.now()));
        }),
    );
}

open().catch(fail);
