// The side: what is wrong, what this event did and changed, and all that its node is.
//
// Whatever names an event, a message or an operation is a button that goes there.

import type { App } from "./app";
import { End, type Group, GROUPS, type Lane, type Step, lowerBound, upperBound } from "./run";
import { FIELDS, termAt } from "./state";
import * as words from "./words";

type Child = Node | string;

function element<K extends keyof HTMLElementTagNameMap>(
    name: K,
    className: string,
    ...children: Child[]
): HTMLElementTagNameMap[K] {
    const made = document.createElement(name);
    if (className !== "") made.className = className;
    made.append(...children);
    return made;
}

/** How many messages or entries are told one by one. */
const MOST = 40;

export class Inspector {
    constructor(
        private readonly app: App,
        private readonly box: HTMLElement,
    ) {
        app.add(() => this.draw());
        // What is pressed stays where it is until it is let go, or it would not be clicked.
        box.addEventListener("pointerdown", () => {
            this.held = true;
        });
        for (const name of ["pointerup", "pointercancel"]) {
            addEventListener(name, () => {
                if (!this.held) return;
                this.held = false;
                // After the click, which comes next.
                setTimeout(() => this.draw());
            });
        }
    }

    private held = false;
    private drawn = "";

    /** The keyboard goes to the first button. */
    focus(): void {
        this.box.querySelector<HTMLElement>("button")?.focus();
    }

    private draw(): void {
        const { app } = this;
        const shows = JSON.stringify([app.cursor, app.lane, app.selected]);
        if (this.held || shows === this.drawn) return;
        this.drawn = shows;
        // What had the focus has it again, if it is still there.
        const focused = document.activeElement?.getAttribute("data-name") ?? "";
        const scroll = this.box.scrollTop;
        this.box.replaceChildren(
            ...[this.violation(), this.event(), this.selection(), this.node()].filter((part) => part !== null),
        );
        this.box.scrollTop = scroll;
        if (focused !== "")
            this.box.querySelector<HTMLElement>(`[data-name="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
    }

    private button(text: string, name: string, act: () => void, className = ""): HTMLElement {
        const made = element("button", `link ${className}`.trim(), text);
        made.type = "button";
        made.dataset["name"] = name;
        made.addEventListener("click", act);
        return made;
    }

    private toStep(step: Step, text = words.thousands(step)): HTMLElement {
        return this.button(text, `step ${step} ${text}`, () => this.app.goto(step));
    }

    /** An event and its time. */
    private when(step: Step): HTMLElement {
        return element("span", "", "event ", this.toStep(step), `, ${words.time(this.app.run.time[step])}`);
    }

    private toOp(op: number): HTMLElement {
        const { run } = this.app;
        const { ops } = run.block;
        const text = `${run.who(ops.lane[op])} ${run.text(ops.what[op])}`;
        return this.button(text, `op ${op}`, () => {
            this.app.select({ what: "op", row: op });
            this.app.goto(run.opCall[op]);
        });
    }

    private violation(): HTMLElement | null {
        const { app } = this;
        const found = app.run.block.violation;
        if (found === null) return null;
        const card = element("section", "card violation");
        const said = found.class === "unknown" ? "unknown" : `${found.class} violation`;
        card.append(element("h2", "", `${said}: ${found.checker}`));
        card.append(element("p", "sentence", found.sentence));
        if (found.detail !== "") card.append(element("pre", "", found.detail));
        card.append(element("p", "", "in event ", this.toStep(found.step), `, at ${words.time(found.time)}`));
        if (app.run.broken >= 0)
            card.append(element("h3", "", "the message that breaks it"), this.toMessage(app.run.broken, "sent"));
        if (found.ops.length > 0) {
            const list = element("ul", "");
            for (const op of found.ops) {
                list.append(element("li", "", this.toOp(op), element("span", "dim", ` ${words.outcome(app.run, op)}`)));
            }
            card.append(element("h3", "", "the operations that prove it"), list);
        }
        card.append(...this.sealed());
        return card;
    }

    /** What the curve says: when it was sealed that it fails. */
    private sealed(): HTMLElement[] {
        const { jump } = this.app;
        const curve = this.app.run.block.curve;
        if (curve === null || curve.step.length === 0) return [];
        const share = (part: number) => `${Math.round(part * 100)} %`;
        const heading = element("h3", "", "when it was sealed");
        if (Math.min(...curve.failed) === curve.runs) {
            const text = `All of ${curve.runs} other continuations fail, even from the beginning: it seems that the plan alone makes it fail, whatever chance does.`;
            return [heading, element("p", "", text)];
        }
        if (jump === null) return [];
        const text = element(
            "p",
            "",
            `Of ${curve.runs} other continuations ${share(jump.from)} fail after event `,
            this.toStep(Math.max(jump.before, 1), words.thousands(jump.before)),
            `, ${share(jump.to)} after event `,
            this.toStep(jump.after),
            ": from there on the share stays up.",
        );
        return [heading, text];
    }

    private event(): HTMLElement {
        const { app } = this;
        const { run, cursor } = app;
        const lane = run.lane[cursor];
        const card = element("section", "card");
        // Faults happen to nobody in particular.
        const where = lane === 0 ? [] : [element("b", "", run.who(lane)), " · "];
        card.append(
            element(
                "h2",
                "",
                `Event ${words.thousands(cursor)}`,
                element("span", "dim", ` of ${words.thousands(run.steps)}`),
            ),
        );
        card.append(
            element(
                "p",
                "",
                ...where,
                words.step(run, cursor),
                element("span", "dim", ` · ${words.time(run.time[cursor])}`),
            ),
        );
        const violation = run.block.violation;
        if (run.block.past !== null && cursor !== violation?.step) {
            card.append(
                element(
                    "p",
                    "dim",
                    run.past[cursor] ? "The violation may follow from it." : "The violation does not follow from it.",
                ),
            );
        }
        const list = element("ul", "effects");
        const add = (sign: string, ...children: Child[]) =>
            list.append(element("li", "", element("span", "sign", sign), element("span", "", ...children)));
        if (violation?.step === cursor)
            add("⚠", element("b", "bad", `The violation of ${violation.checker} is found.`));
        for (const row of run.endedIn(cursor))
            add(run.ending[row] === End.Delivered ? "↘" : "✕", this.toMessage(row, "sent"));
        const { marks, disk } = run.block;
        const other = (node: Lane) => (node === lane || node === 0 ? "" : `${run.who(node)} `);
        this.each(run.markStep, (row) => {
            const text = element("span", "dim", run.text(marks.text[row]));
            add("◆", `${other(marks.lane[row])}${run.block.names.mark[marks.kind[row]]} `, text);
        });
        const { faults } = run.block;
        faults.start.forEach((start, i) => {
            if (start === cursor) add("⚡", `${run.text(faults.what[i])} begins`);
            if (faults.end[i] === cursor) add("⚡", `${run.text(faults.what[i])} ends`);
        });
        this.each(run.opCall, (op) => add("▸", "calls ", this.toOp(op)));
        for (const op of run.opsByPoint.get(cursor) ?? []) add("◇", this.toOp(op), " takes effect");
        for (const op of run.opsByReturn.get(cursor) ?? []) add("◂", this.toOp(op), ` ${words.outcome(run, op)}`);
        for (const node of run.nodes) {
            const own = app.histories.get(node);
            if (own === undefined || (node !== lane && own.steps[own.row(cursor)] !== cursor)) continue;
            const changes = words.differences(run, own, cursor);
            for (const change of changes) {
                const who = other(node);
                const line =
                    change.before === ""
                        ? [`${who}${change.name} `, element("b", "", change.after)]
                        : [
                              `${who}${change.name} `,
                              element("span", "was", change.before),
                              " → ",
                              element("b", "", change.after),
                          ];
                add("±", ...line);
            }
        }
        this.each(run.diskStep, (row) => add("▤", `${other(disk.lane[row])}${words.disk(run, row)}`));
        const [first, end] = run.sentIn(cursor);
        for (let row = first; row < Math.min(end, first + MOST); row++) add("↗", this.toMessage(row, "end"));
        if (end - first > MOST) add("", `and ${end - first - MOST} more messages`);
        if (list.childElementCount === 0) list.append(element("li", "dim", "It changes nothing that can be seen."));
        card.append(list);
        return card;
    }

    private each(column: Int32Array, act: (row: number) => void): void {
        const { cursor } = this.app;
        const end = upperBound(column, cursor);
        for (let row = lowerBound(column, cursor); row < end; row++) act(row);
    }

    /** A message; the button goes to its other end. */
    private toMessage(row: number, end: "sent" | "end"): HTMLElement {
        const { app } = this;
        const { run } = app;
        const group: Group = GROUPS[run.messageGroup[row]];
        const made = this.button(
            words.message(run, row),
            `message ${row} ${end}`,
            () => {
                app.select({ what: "message", row });
                const to = end === "sent" ? run.sent[row] : run.end[row];
                if (to > 0) app.goto(to);
            },
            "message",
        );
        made.style.setProperty("--group", `var(--group-${group})`);
        made.title = words.fate(run, row);
        return made;
    }

    private selection(): HTMLElement | null {
        const { app } = this;
        const thing = app.selected;
        if (thing === null) return null;
        const { run } = app;
        const rows: [string, Child][] = [];
        let title = "";
        if (thing.what === "message") {
            const { row } = thing;
            const m = run.block.messages;
            title = `${run.block.names.message[m.kind[row]]} ${run.laneName(m.from[row])} → ${run.laneName(m.to[row])}`;
            rows.push(["sent", this.when(run.sent[row])]);
            if (run.end[row] > 0) rows.push(["ended", this.when(run.end[row])]);
            rows.push(["fate", words.fate(run, row)]);
            if (m.term[row] > 0) rows.push(["term", words.thousands(m.term[row])]);
            const content = words.content(run, row);
            if (content !== "") rows.push(["says", content]);
            const carried = run
                .entriesOf(row)
                .flatMap(({ from, count, term }) => Array.from({ length: count }, (_, i) => [from + i, term]));
            for (const [index, term] of carried.slice(0, MOST)) rows.push([`${index}@${term}`, run.entry(index, term)]);
            if (carried.length > MOST) rows.push(["", `and ${carried.length - MOST} more entries`]);
            if (m.op[row] > 0) rows.push(["for", this.toOp(m.op[row] - 1)]);
        } else if (thing.what === "op") {
            const { row } = thing;
            const { ops } = run.block;
            title = `${run.who(ops.lane[row])} ${run.text(ops.what[row])}`;
            rows.push(["called", this.when(run.opCall[row])]);
            if (ops.point[row] > 0) rows.push(["took effect", this.when(ops.point[row])]);
            if (ops.ret[row] > 0) rows.push(["ended", this.when(ops.ret[row])]);
            rows.push(["outcome", words.outcome(run, row).slice(2)]);
            const log = words.index(run, row);
            if (log !== "") rows.push(["log", log]);
            if (run.block.violation?.ops.includes(row)) rows.push(["", "part of the proof of the violation"]);
        } else {
            const { row } = thing;
            const { faults } = run.block;
            title = run.text(faults.what[row]);
            rows.push(["fault", `${faults.number[row]} of the plan`]);
            rows.push(["begins", element("span", "", "event ", this.toStep(faults.start[row]))]);
            if (faults.end[row] > 0) rows.push(["ends", element("span", "", "event ", this.toStep(faults.end[row]))]);
            if (faults.victims[row].length > 0)
                rows.push(["hits", faults.victims[row].map((lane) => run.laneName(lane)).join(" ")]);
        }
        const card = element("section", "card selected");
        const close = this.button("✕", "close", () => app.select(null), "close");
        close.setAttribute("aria-label", "close");
        card.append(close, element("h2", "", title), this.table(rows));
        return card;
    }

    private table(rows: [string, Child][]): HTMLElement {
        const table = element("table", "");
        for (const [name, value] of rows)
            table.append(element("tr", "", element("th", "", name), element("td", "", value)));
        return table;
    }

    private node(): HTMLElement | null {
        const { app } = this;
        const { run, cursor, lane } = app;
        const history = app.histories.get(lane);
        if (history === undefined) return null;
        const card = element("section", "card");
        const choice = element("div", "nodes");
        for (const node of run.nodes) {
            const made = this.button(
                run.laneName(node),
                `node ${node}`,
                () => app.chooseLane(node),
                node === lane ? "chosen" : "",
            );
            made.setAttribute("aria-pressed", String(node === lane));
            choice.append(made);
        }
        card.append(element("h2", "", `${run.laneName(lane)} after event ${words.thousands(cursor)}`), choice);
        if (history.row(cursor) < 0) {
            card.append(element("p", "dim", "It has not started yet."));
            return card;
        }
        const state = history.at(cursor);
        const changed = new Set(words.differences(run, history, cursor).map((change) => change.name));
        const rows: [string, Child][] = FIELDS.map((name) => [
            name,
            element(changed.has(name) ? "b" : "span", "", words.value(run, name, state)),
        ]);
        rows.push([
            "log",
            element(changed.has("log") ? "b" : "span", "", words.log(history.logAt(cursor).runs, state.first)),
        ]);
        const { runs, last } = history.logAt(cursor);
        for (let index = Math.max(last - 3, state.first); index <= last; index++) {
            const term = termAt(runs, index);
            rows.push([`${index}@${term}`, element("span", "dim", run.entry(index, term))]);
        }
        const ghosts = history.logAt(cursor).ghosts;
        if (ghosts !== null)
            rows.push([
                "cut off",
                element("span", "", ghosts.runs.map(words.entries).join(" "), " in event ", this.toStep(ghosts.step)),
            ]);
        card.append(this.table(rows));
        return card;
    }
}
