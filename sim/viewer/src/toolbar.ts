// The bar of buttons: moving, the axis, filters, what can be copied.

import type { App } from "./app";
import { GROUPS } from "./run";
import * as words from "./words";

function need<T extends HTMLElement>(id: string): T {
    const found = document.getElementById(id);
    if (found === null) throw new Error(`the page has no #${id}`);
    return found as T;
}

/** Puts a text where it can be pasted; says so in the button. */
async function copy(text: string, button: HTMLElement): Promise<void> {
    let done = false;
    try {
        await navigator.clipboard.writeText(text);
        done = true;
    } catch {
        // A page from a file may not; the old way may.
        const area = document.createElement("textarea");
        area.value = text;
        document.body.append(area);
        area.select();
        done = document.execCommand("copy");
        area.remove();
    }
    const before = button.dataset["label"] ?? button.textContent;
    button.dataset["label"] = before;
    button.textContent = done ? "copied" : "copy it by hand: see the console";
    if (!done) console.log(text);
    setTimeout(() => {
        button.textContent = before;
    }, 1500);
}

export class Toolbar {
    constructor(
        private readonly app: App,
        private readonly link: () => string,
    ) {
        const act = (id: string, action: () => void) => need(id).addEventListener("click", action);
        act("first", () => app.toFirst());
        act("back", () => app.step(-1));
        act("play", () => app.play(!app.playing));
        act("forward", () => app.step(1));
        act("last", () => app.toLast());
        act("speed", () => app.faster());
        act("closer", () => app.closer());
        act("wider", () => app.wider());
        act("fit", () => app.fit());
        act("time", () => app.setMode("time"));
        act("order", () => app.setMode("order"));
        act("past", () => app.togglePast());
        act("theme", () => app.switchTheme());
        act("copy-replay", () => this.copyReplay());
        act("copy-link", () => this.copyLink());
        act("to-violation", () => this.toViolation());
        act("help", () => this.help());
        need<HTMLDialogElement>("legend").addEventListener("click", (event) => {
            if (event.target === event.currentTarget) need<HTMLDialogElement>("legend").close();
        });
        const step = need<HTMLInputElement>("step");
        step.max = String(app.run.steps);
        step.addEventListener("change", () => {
            const wanted = Number(step.value);
            if (Number.isFinite(wanted) && wanted >= 1) app.goto(wanted);
            step.value = String(app.cursor);
        });
        const key = need<HTMLInputElement>("key");
        const keys = new Set(app.run.block.ops.keys.flatMap((text) => app.run.text(text).split(" ")));
        keys.delete("");
        need("keys").replaceChildren(
            ...[...keys].sort().map((name) => {
                const option = document.createElement("option");
                option.value = name;
                return option;
            }),
        );
        key.addEventListener("input", () => app.filter({ key: key.value.trim() }));
        this.chips();
        need("past").hidden = app.run.block.past === null;
        need("to-violation").hidden = app.run.block.violation === null;
        app.add(() => this.draw());
        // After a click the keyboard is the page's again, and the space bar plays.
        addEventListener("click", (event) => {
            if (event.detail > 0 && event.target instanceof HTMLButtonElement) event.target.blur();
        });
    }

    /** A button for each node and each group that there is. */
    private chips(): void {
        const { app } = this;
        for (const lane of app.run.nodes) {
            const chip = this.chip("nodes", app.run.laneName(lane), `node-${app.run.laneName(lane)}`);
            chip.addEventListener("click", () => {
                const hidden = new Set(app.shown.filter.hiddenNodes);
                if (!hidden.delete(lane)) hidden.add(lane);
                // Without any node there is nothing to look at.
                if (hidden.size < app.run.nodes.length) app.filter({ hiddenNodes: hidden });
            });
        }
        for (const group of GROUPS) {
            const chip = this.chip("groups", group, `group-${group}`);
            chip.style.setProperty("--chip", `var(--group-${group})`);
            chip.addEventListener("click", () => {
                const hidden = new Set(app.shown.filter.hiddenGroups);
                if (!hidden.delete(group)) hidden.add(group);
                app.filter({ hiddenGroups: hidden });
            });
        }
    }

    private chip(parent: string, text: string, name: string): HTMLButtonElement {
        const chip = document.createElement("button");
        chip.type = "button";
        chip.className = "chip";
        chip.textContent = text;
        chip.dataset["chip"] = name;
        need(parent).append(chip);
        return chip;
    }

    toViolation(): void {
        const { app } = this;
        const found = app.run.block.violation;
        if (found === null) return;
        app.goto(found.step, found.lane);
        app.closeUp(60);
    }

    help(): void {
        const dialog = need<HTMLDialogElement>("legend");
        if (dialog.open) dialog.close();
        else dialog.showModal();
    }

    focusKey(): void {
        need<HTMLInputElement>("key").select();
    }

    copyReplay(): void {
        void copy(this.app.replayLine, need("copy-replay"));
    }

    copyLink(): void {
        void copy(this.link(), need("copy-link"));
    }

    private draw(): void {
        const { app } = this;
        const { filter } = app.shown;
        const press = (id: string, on: boolean) => need(id).setAttribute("aria-pressed", String(on));
        press("time", app.axis.mode === "time");
        press("order", app.axis.mode === "order");
        press("past", filter.past);
        press("play", app.playing);
        need("play").textContent = app.playing ? "❚❚" : "▶";
        need("speed").textContent = `${app.speed}/s`;
        const step = need<HTMLInputElement>("step");
        if (document.activeElement !== step) step.value = String(app.cursor);
        const key = need<HTMLInputElement>("key");
        if (document.activeElement !== key) key.value = filter.key;
        need("steps").textContent = `of ${words.thousands(app.run.steps)}`;
        need("now").textContent = words.time(app.run.time[app.cursor]);
        need("count").textContent =
            app.shown.steps.length === 0
                ? "nothing is left by these filters"
                : `${words.thousands(app.shown.steps.length)} events shown`;
        for (const lane of app.run.nodes)
            this.pressChip(`node-${app.run.laneName(lane)}`, !filter.hiddenNodes.has(lane));
        for (const group of GROUPS) this.pressChip(`group-${group}`, !filter.hiddenGroups.has(group));
        need("copy-replay").title = app.replayLine;
        need("spoken").textContent =
            `event ${app.cursor}, ${app.run.laneName(app.run.lane[app.cursor])}: ${words.step(app.run, app.cursor)}`;
    }

    private pressChip(name: string, on: boolean): void {
        document.querySelector(`[data-chip="${CSS.escape(name)}"]`)?.setAttribute("aria-pressed", String(on));
    }
}
