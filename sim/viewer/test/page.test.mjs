// The page in a real browser: it opens, scrubs, links, filters, and says what the run was.
//
// What it says is compared with the data block, read here by other code than the page's own.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { drawn, launch, make, open, sim } from "./browser.mjs";

let browser;
const made = {};

before(async () => {
    browser = await launch();
    made.failing = make("failing", "--continuations", "3");
    made.rising = make("rising", "--continuations", "3");
    made.split = make("split", "--continuations", "0");
    made.healthy = make("healthy");
    made.promise = make("promise", "--continuations", "0");
    made.oneway = make("oneway");
    made.replaced = make("replaced");
});

after(() => browser?.close());

/** Opens a page, and checks in the end that it had nothing to complain about. */
async function on(name, act, { hash = "", ...options } = {}) {
    const { url, block } = made[name];
    const page = await open(browser, url + hash, options);
    try {
        await act(page, block);
        assert.deepEqual(page.complaints, []);
    } finally {
        await page.context().close();
    }
}

const cursor = (page) => page.evaluate(() => storm.cursor);
const shown = (page) => page.evaluate(() => storm.shown.steps.length);
const value = (page, selector) => page.locator(selector).inputValue();

async function pressed(page, selector) {
    await drawn(page);
    return page.locator(selector).getAttribute("aria-pressed");
}

function summed(deltas) {
    let sum = 0;
    return deltas.map((delta) => (sum += delta));
}

/** What every node is after an event, straight from the definition of the block. */
function nodesAt(block, step) {
    const { states, names, lanes } = block;
    const steps = summed(states.step_delta);
    const nodes = new Map();
    lanes.kind.forEach((kind, lane) => {
        if (names.lane[kind] === "node")
            nodes.set(lane, { ...Object.fromEntries(names.state.map((name) => [name, 0])), log: [] });
    });
    let at = 0;
    states.lane.forEach((lane, row) => {
        const node = nodes.get(lane);
        names.state.forEach((name, bit) => {
            if (!(states.mask[row] & (1 << bit))) return;
            if (name !== "log") {
                if (steps[row] <= step) node[name] = states.values[at];
                at += 1;
                return;
            }
            let index = states.values[at++];
            const runs = states.values[at++];
            const log = node.log.filter((entry) => entry.index < index);
            for (let i = 0; i < runs; i++) {
                for (let n = states.values[at]; n > 0; n--) log.push({ index: index++, term: states.values[at + 1] });
                at += 2;
            }
            if (steps[row] <= step) node.log = log;
        });
    });
    for (const node of nodes.values()) node.log = node.log.filter((entry) => entry.index >= node.first);
    return nodes;
}

function pastOf(block) {
    const past = new Set();
    let step = 1;
    block.past.forEach((count, i) => {
        if (i % 2 === 1) for (let n = 0; n < count; n++) past.add(step + n);
        step += count;
    });
    return past;
}

/** How many pixels of a part of the timeline have nearly this colour. */
function pixels(page, colour, { x, y, width, height }) {
    return page.evaluate(
        ({ colour, x, y, width, height }) => {
            const canvas = document.querySelector("#timeline canvas");
            const data = canvas.getContext("2d").getImageData(x, y, width, height).data;
            const wanted = [1, 3, 5].map((at) => Number.parseInt(colour.slice(at, at + 2), 16));
            let count = 0;
            for (let i = 0; i < data.length; i += 4)
                if (wanted.every((part, j) => Math.abs(data[i + j] - part) < 12)) count++;
            return count;
        },
        { colour, x: Math.round(x), y: Math.round(y), width, height },
    );
}

describe("a failing run", () => {
    test("opens at its violation, with the sentence, the proof and the red line", async () => {
        await on("failing", async (page, block) => {
            const { violation } = block;
            assert.equal(await cursor(page), violation.step);
            assert.equal(await page.locator("#verdict").innerText(), violation.checker);
            assert.equal(await page.locator("#sentence").innerText(), violation.sentence);
            assert.match(
                await page.locator("#inspector .violation").innerText(),
                new RegExp(`event ${violation.step.toLocaleString("en")}`),
            );
            assert.equal(await page.locator("#inspector .violation li").count(), violation.ops.length);
            assert.equal(await pressed(page, "#past"), "true");
            const { x, colour, height } = await page.evaluate(() => ({
                x: storm.axis.xOf(storm.run.block.violation.step),
                colour: storm.theme.violation,
                height: document.querySelector("#timeline").clientHeight,
            }));
            const line = await pixels(page, colour, { x: x - 4, y: 24, width: 8, height: height - 30 });
            assert.ok(line > height, `${line} red pixels are no line of ${height}`);
        });
    });

    test("hides by default what the violation does not follow from", async () => {
        await on("failing", async (page, block) => {
            const past = pastOf(block);
            const steps = await page.evaluate(() => Array.from(storm.shown.steps));
            assert.ok(steps.length > 100 && steps.every((step) => past.has(step)));
            await page.click("[data-chip=group-idle]");
            assert.equal(await shown(page), past.size);
            await page.click("#past");
            assert.equal(await shown(page), block.about.steps);
            assert.equal(await pressed(page, "#past"), "false");
        });
    });

    test("shows the curve, and where it rises most", async () => {
        await on("rising", async (page, block) => {
            const { curve } = block;
            assert.equal(curve.runs, 3);
            assert.ok(await page.locator("#curve .uplot canvas").isVisible());
            await page.keyboard.press("0");
            await page.keyboard.press("t");
            await drawn(page);
            const box = await page.locator("#curve .u-over").boundingBox();
            await page.mouse.click(box.x + box.width * 0.4, box.y + 20);
            const at = await cursor(page);
            assert.ok(at > 1 && at < block.violation.step, `event ${at}`);
            // The share never falls again below what it is there.
            const least = curve.failed.map((_, i) => Math.min(...curve.failed.slice(i)));
            const rises = least.map((share, i) => (i === 0 ? 0 : share - least[i - 1]));
            const place = rises.indexOf(Math.max(...rises));
            const said = await page.locator("#inspector .violation").innerText();
            assert.match(said, new RegExp(`after event ${curve.step[place].toLocaleString("en")}: from there on`));
        });
    });

    test("shows the message that breaks a promise, in red", async () => {
        await on("promise", async (page, block) => {
            const row = block.violation.message - 1;
            assert.ok(row >= 0);
            assert.equal(summed(block.messages.sent_delta)[row], block.violation.step);
            const names = [block.messages.from, block.messages.to].map((lanes) => block.lanes.name[lanes[row]]);
            const card = await page.locator("#inspector .violation").innerText();
            assert.ok(card.includes(`${names[0]} → ${names[1]} `), card);
            // Beside the line of the violation, where nothing else is.
            const { x, colour, height } = await page.evaluate(() => ({
                x: storm.axis.xOf(storm.run.block.violation.step),
                colour: storm.theme.violation,
                height: document.querySelector("#timeline").clientHeight,
            }));
            const red = await pixels(page, colour, { x: x + 4, y: 30, width: 20, height: height - 30 });
            assert.ok(red > 60, `${red} red pixels`);
        });
    });

    test("is left out without continuations", async () => {
        await on("split", async (page, block) => {
            assert.equal(block.curve, null);
            assert.ok(await page.locator("#curve").isHidden());
        });
    });

    test("copies the line that replays it up to here, and that line works", async () => {
        await on("failing", async (page, block) => {
            await page.locator("#step").fill("500");
            await page.keyboard.press("Enter");
            await page.click("#copy-replay");
            const line = await page.evaluate(() => navigator.clipboard.readText());
            assert.equal(line, `${block.about.replay} --until 500`);
            const words = line.split(" ");
            assert.deepEqual(words.slice(0, 2), ["cargo", "sim"]);
            const { code, out } = sim(...words.slice(2));
            assert.equal(code, 0);
            assert.match(out, /500/);
        });
    });
});

describe("going through a run", () => {
    test("by keys: one by one, by ten, to the ends, along a node, to the violation", async () => {
        await on("failing", async (page, block) => {
            await page.keyboard.press("Home");
            const steps = await page.evaluate(() => Array.from(storm.shown.steps));
            assert.equal(await cursor(page), steps[0]);
            await page.keyboard.press("ArrowRight");
            assert.equal(await cursor(page), steps[1]);
            await page.keyboard.press("Shift+ArrowRight");
            assert.equal(await cursor(page), steps[11]);
            await page.keyboard.press("ArrowLeft");
            assert.equal(await cursor(page), steps[10]);
            await page.keyboard.press("End");
            assert.equal(await cursor(page), steps.at(-1));
            await page.keyboard.press("ArrowRight");
            assert.equal(await cursor(page), steps.at(-1));
            await page.keyboard.press("v");
            assert.equal(await cursor(page), block.violation.step);
            const lane = await page.evaluate(() => storm.lane);
            await page.keyboard.press(",");
            assert.ok((await cursor(page)) < block.violation.step);
            assert.equal(await page.evaluate(() => storm.run.lane[storm.cursor]), lane);
            await page.keyboard.press(".");
            assert.equal(await cursor(page), block.violation.step);
        });
    });

    test("by dragging on the ruler, and a click", async () => {
        await on("healthy", async (page, block) => {
            await page.keyboard.press("0");
            await drawn(page);
            const box = await page.locator("#timeline").boundingBox();
            await page.mouse.move(box.x + 200, box.y + 10);
            await page.mouse.down();
            const seen = [];
            for (let x = 200; x <= 800; x += 100) {
                await page.mouse.move(box.x + x, box.y + 10);
                await drawn(page);
                seen.push(await cursor(page));
            }
            await page.mouse.up();
            assert.deepEqual(
                seen,
                [...seen].sort((a, b) => a - b),
            );
            assert.ok(seen[0] > 1 && seen.at(-1) < block.about.steps && new Set(seen).size === seen.length, `${seen}`);
            // Time goes by evenly under the pointer.
            const times = summed(block.steps.time_delta);
            const [first, last] = [times[seen[0] - 1], times[seen.at(-1) - 1]];
            const middle = times[seen[3] - 1];
            assert.ok(Math.abs(middle - (first + last) / 2) < (last - first) * 0.02);
        });
    });

    test("by playing, which stops at the end", async () => {
        await on("split", async (page) => {
            await page.keyboard.press("End");
            await page.keyboard.press("Shift+ArrowLeft");
            const from = await cursor(page);
            for (let i = 0; i < 4; i++) await page.click("#speed");
            await page.click("#play");
            assert.equal(await page.evaluate(() => storm.playing), true);
            await page.waitForFunction(() => !storm.playing);
            assert.ok((await cursor(page)) > from);
            assert.equal(await cursor(page), await page.evaluate(() => storm.shown.steps.at(-1)));
        });
    });

    test("zooms with the wheel around the pointer, and moves by dragging", async () => {
        await on("healthy", async (page) => {
            await page.keyboard.press("0");
            const box = await page.locator("#timeline").boundingBox();
            const x = 600;
            const place = await page.evaluate((x) => storm.axis.placeAt(x), x);
            await page.mouse.move(box.x + x, box.y + 200);
            for (let i = 0; i < 60; i++) await page.mouse.wheel(0, -240);
            await drawn(page);
            const near = await page.evaluate(
                (x) => ({ place: storm.axis.placeAt(x), span: storm.axis.to - storm.axis.from }),
                x,
            );
            assert.ok(Math.abs(near.place - place) < 2000, "what is under the pointer stays there");
            assert.ok(near.span <= 1_000_000, `${near.span} ns is close enough for a single message`);
            await page.mouse.down();
            await page.mouse.move(box.x + x + 150, box.y + 200, { steps: 5 });
            await page.mouse.up();
            const moved = await page.evaluate((x) => storm.axis.placeAt(x), x + 150);
            assert.ok(Math.abs(moved - near.place) < near.span * 0.01);
            await page.click("#fit");
            assert.equal(await page.evaluate(() => storm.axis.from), 0);
        });
    });

    test("in order and in time", async () => {
        await on("failing", async (page) => {
            assert.equal(await pressed(page, "#order"), "true");
            const at = await cursor(page);
            await page.keyboard.press("t");
            await drawn(page);
            assert.equal(await pressed(page, "#time"), "true");
            assert.equal(await cursor(page), at);
            const x = await page.evaluate(() => storm.axis.xOf(storm.cursor));
            assert.ok(x > 130 && x < 1100, "the cursor stays in sight");
        });
    });
});

describe("in time", () => {
    test("a filter leaves the window as it is", async () => {
        await on("failing", async (page) => {
            await page.keyboard.press("t");
            await page.evaluate(() => storm.zoom(1000));
            const window = () => page.evaluate(() => [storm.axis.from, storm.axis.to]);
            const before = await window();
            await page.click("[data-chip=group-heartbeat]");
            await page.locator("#key").fill("k1");
            await page.locator("#key").fill("");
            assert.deepEqual(await window(), before);
        });
    });
});

describe("deep links", () => {
    test("open where they say, with what they say", async () => {
        await on(
            "failing",
            async (page) => {
                assert.equal(await cursor(page), 1234);
                assert.equal(await value(page, "#step"), "1234");
                assert.match(await page.locator("#inspector").innerText(), /Event 1,234 of/);
                assert.equal(await pressed(page, "#time"), "true");
                assert.equal(await pressed(page, "#past"), "false");
                assert.equal(await pressed(page, "[data-chip=node-n2]"), "false");
                assert.equal(await pressed(page, "[data-chip=node-n1]"), "true");
                assert.equal(await pressed(page, "[data-chip=group-idle]"), "true");
                assert.equal(await pressed(page, "[data-chip=group-disk]"), "false");
            },
            { hash: "#step=1234&axis=time&past=0&without=n2&hide=disk" },
        );
    });

    test("follow what is shown, and are followed", async () => {
        await on("failing", async (page) => {
            await page.locator("#step").fill("777");
            await page.keyboard.press("Enter");
            await page.click("#past");
            await page.locator("#key").fill("k1");
            await page.waitForFunction(() => location.hash === "#step=777&past=0&key=k1");
            await page.reload();
            await page.waitForSelector("body[data-ready]");
            assert.equal(await cursor(page), 777);
            assert.equal(await value(page, "#key"), "k1");
            await page.evaluate(() => {
                location.hash = "#step=42";
            });
            await page.waitForFunction(() => storm.cursor === 42);
            // What a link leaves out is as it was when the page was opened without one.
            assert.equal(await pressed(page, "#past"), "true");
            assert.equal(await value(page, "#key"), "");
            await page.locator("body").click({ position: { x: 5, y: 895 } });
            await page.keyboard.press("ArrowRight");
            await page.keyboard.press("l");
            const [link, at] = await page.evaluate(async () => [await navigator.clipboard.readText(), storm.cursor]);
            assert.match(link, new RegExp(`html#step=${at}$`));
        });
    });

    for (const hash of ["#step=99999999", "#step=-3", "#step=x&key=%FF&without=n1,n2,n3,n4,n5&hide=all&axis=w", "#"]) {
        test(`that make no sense do no harm: ${hash}`, async () => {
            await on(
                "failing",
                async (page, block) => {
                    const at = await cursor(page);
                    assert.ok(at >= 1 && at <= block.about.steps);
                    assert.ok(await page.locator("#failure").isHidden());
                },
                { hash },
            );
        });
    }
});

describe("filters", () => {
    test("by node: its lane, its events and its messages go", async () => {
        await on("healthy", async (page, block) => {
            await page.click("[data-chip=node-n2]");
            await drawn(page);
            const lane = block.lanes.name.indexOf("n2");
            const { steps, messages } = await page.evaluate(() => ({
                steps: Array.from(storm.shown.steps),
                messages: Array.from(storm.shown.messages),
            }));
            assert.ok(steps.length > 100 && steps.every((step) => block.steps.lane[step - 1] !== lane));
            messages.forEach((kept, row) => {
                const own = block.messages.from[row] === lane || block.messages.to[row] === lane;
                assert.equal(kept === 1, !own, `message ${row}`);
            });
            await page.keyboard.press("2");
            assert.equal(await pressed(page, "[data-chip=node-n2]"), "true");
            // The last one stays: without any there would be nothing to see.
            for (const key of ["1", "2", "3"]) await page.keyboard.press(key);
            assert.equal(await pressed(page, "[data-chip=node-n3]"), "true");
        });
    });

    test("by kind: its messages go", async () => {
        await on("healthy", async (page, block) => {
            await page.click("[data-chip=group-heartbeat]");
            const messages = await page.evaluate(() => Array.from(storm.shown.messages));
            messages.forEach((kept, row) => {
                const kind = block.names.message[block.messages.kind[row]];
                assert.equal(kept === 1, !kind.startsWith("Heartbeat"), `message ${row}: ${kind}`);
            });
        });
    });

    test("by key: what is about it stays", async () => {
        await on("failing", async (page, block) => {
            await page.click("#past");
            await page.keyboard.press("/");
            await page.keyboard.type("k3");
            const ops = await page.evaluate(() => Array.from(storm.shown.ops));
            const proof = new Set(block.violation.ops);
            let some = 0;
            ops.forEach((kept, op) => {
                const keys = block.strings[block.ops.keys[op]].split(" ");
                const about = keys.some(
                    (key) => key === "k3" || (key.endsWith("*") && "k3".startsWith(key.slice(0, -1))),
                );
                if (about) some++;
                assert.equal(kept === 1, about || proof.has(op), `operation ${op} is about ${keys}`);
            });
            assert.ok(some > 10);
            await page.keyboard.press("Control+A");
            await page.keyboard.type("zz");
            const left = await page.evaluate(() => Array.from(storm.shown.ops));
            left.forEach((kept, op) => {
                const keys = block.strings[block.ops.keys[op]].split(" ");
                const scans = keys.some((key) => key.endsWith("*") && "zz".startsWith(key.slice(0, -1)));
                assert.equal(kept === 1, scans || proof.has(op), "only what scans, and the proof, is left");
            });
            assert.ok((await shown(page)) > 0, "the violation stays");
            await page.keyboard.press("Escape");
        });
    });
});

describe("what it says", () => {
    test("of nodes and logs, after any event", async () => {
        for (const name of ["failing", "split", "healthy"]) {
            await on(name, async (page, block) => {
                const { steps } = block.about;
                const asked = Array.from({ length: 40 }, (_, i) => 1 + ((i * 7919) % steps)).concat([1, steps]);
                for (const step of asked) {
                    const said = await page.evaluate((step) => {
                        const of = (history) => ({ ...history.at(step), log: history.logAt(step) });
                        return [...storm.histories].map(([lane, history]) => [lane, of(history)]);
                    }, step);
                    const known = nodesAt(block, step);
                    for (const [lane, { log, ...state }] of said) {
                        const { log: entries, ...wanted } = known.get(lane);
                        assert.deepEqual(state, wanted, `lane ${lane} after event ${step}`);
                        const flat = log.runs.flatMap((run) =>
                            Array.from({ length: run.count }, (_, i) => ({ index: run.from + i, term: run.term })),
                        );
                        assert.deepEqual(
                            flat.filter((entry) => entry.index >= state.first),
                            entries,
                            `log of lane ${lane} after event ${step}`,
                        );
                    }
                }
            });
        }
    });

    test("of the node, in the side", async () => {
        await on("split", async (page, block) => {
            const lane = block.lanes.name.indexOf("n3");
            for (const step of [100, 599, 842]) {
                await page.locator("#step").fill(String(step));
                await page.keyboard.press("Enter");
                await page.click('#inspector [data-name="node 3"]');
                await drawn(page);
                const node = nodesAt(block, step).get(lane);
                const text = await page.locator("#inspector .card").last().innerText();
                for (const [name, wanted] of [
                    ["term", node.term],
                    ["commit", node.commit],
                    ["role", block.names.role[node.role]],
                    ["members", block.strings[node.members]],
                ]) {
                    assert.match(text, new RegExp(`${name}\\s+${wanted}(\\n|$)`), `event ${step}`);
                }
            }
        });
    });

    test("of what a log lost: the ghosts", async () => {
        await on("split", async (page) => {
            const cut = await page.evaluate(() => storm.histories.get(3).logAt(600).ghosts);
            assert.deepEqual(cut, { step: 599, runs: [{ from: 5, count: 2, term: 3 }] });
            await page.locator("#step").fill("599");
            await page.keyboard.press("Enter");
            await drawn(page);
            assert.match(await page.locator("#inspector").innerText(), /cut off 5\.\.6@3/);
        });
    });

    test("of a message, under the pointer and when it is clicked", async () => {
        await on("failing", async (page) => {
            const box = await page.locator("#timeline").boundingBox();
            let found = null;
            for (let y = 80; y < box.height && found === null; y += 7) {
                for (let x = 200; x < box.width - 40; x += 23) {
                    await page.mouse.move(box.x + x, box.y + y);
                    if (await page.evaluate(() => storm.hovered?.what === "message")) {
                        found = { x, y };
                        break;
                    }
                }
            }
            assert.ok(found !== null, "there is no message to point at");
            assert.match(await page.locator(".tip b").innerText(), /^[nc]\d[\d.]* → [nc]\d/);
            await page.mouse.click(box.x + found.x, box.y + found.y);
            await drawn(page);
            const card = await page.locator("#inspector .selected").innerText();
            assert.match(card, /sent\s+event/);
            assert.match(card, /fate/);
            // Its button goes to where it was sent.
            await page.locator("#inspector .selected .link:has-text(',')").first().click();
            assert.equal(await cursor(page), await page.evaluate(() => storm.run.sent[storm.selected.row]));
            await page.keyboard.press("Escape");
            await drawn(page);
            assert.equal(await page.locator("#inspector .selected").count(), 0);
        });
    });

    test("of an event: message, changes, disk, operation", async () => {
        await on("split", async (page) => {
            await page.locator("#step").fill("599");
            await page.keyboard.press("Enter");
            await drawn(page);
            const text = await page.locator("#inspector .effects").innerText();
            assert.match(text, /n2 → n3 Append term 4 prev 4@3 \[5@4\] commit 3/);
            assert.match(text, /role leader → follower/);
            await page.keyboard.press("m");
            const sent = await page.evaluate(() => storm.run.sent[storm.selected.row]);
            assert.equal(await cursor(page), sent);
            await page.keyboard.press("m");
            assert.equal(await cursor(page), 599);
        });
    });

    test("of partitions: who is on which side, and in which direction", async () => {
        const said = (page) =>
            page.evaluate(() =>
                storm.splits.map(({ sides, text }) => ({
                    text,
                    sides: [...sides].map(([lane, side]) => `${storm.run.laneName(lane)} ${side}`),
                })),
            );
        await on("oneway", async (page) => {
            assert.deepEqual(await said(page), [{ text: "n1 ↛ n2 n3", sides: ["n1 -1"] }]);
        });
        await on("replaced", async (page) => {
            // At first n4 is not there, so it is no bridge between them.
            const splits = await said(page);
            assert.deepEqual(splits[0], { text: "n1 n2 | n3", sides: ["n3 1"] });
            assert.deepEqual(splits[1], { text: "n1 n2 n4 | n3", sides: ["n3 1"] });
        });
    });

    test("of operations: each has a place of its own, on as few rows as there can be", async () => {
        await on("healthy", async (page, block) => {
            const { rows, ofOp } = await page.evaluate(() => ({
                rows: storm.clients.rows,
                ofOp: Array.from(storm.clients.ofOp),
            }));
            const call = summed(block.ops.call_delta);
            const ret = block.ops.ret.map((step) => step || block.about.steps);
            const client = block.ops.lane.map((lane) => block.lanes.name[lane].split(".")[0]);
            for (const name of new Set(client)) {
                const own = ofOp.map((_, op) => op).filter((op) => client[op] === name);
                for (const op of own) {
                    assert.ok(rows[ofOp[op]].includes(block.ops.lane[op]));
                    const beside = own.filter((other) => call[other] <= call[op] && ret[other] >= call[op]);
                    assert.equal(new Set(beside.map((other) => ofOp[other])).size, beside.length, `operation ${op}`);
                }
                const used = new Set(own.map((op) => ofOp[op]));
                const peak = Math.max(
                    ...own.map((op) => own.filter((other) => call[other] <= call[op] && ret[other] >= call[op]).length),
                );
                assert.equal(used.size, peak, name);
            }
        });
    });

    test("of an event, while it plays: its links can be pressed", async () => {
        await on("split", async (page, block) => {
            await page.keyboard.press("Home");
            for (let i = 0; i < 2; i++) await page.keyboard.press("s");
            await page.keyboard.press("Space");
            const link = page.locator("#inspector .violation .link").first();
            // While it plays, the link is drawn anew with each event, and has no box in between.
            let box = null;
            for (let i = 0; i < 50 && box === null; i++) box = await link.boundingBox();
            await page.mouse.move(box.x + 5, box.y + 5);
            await page.mouse.down();
            const before = await cursor(page);
            await page.waitForFunction((before) => storm.cursor > before, before);
            await page.mouse.up();
            await page.waitForFunction((step) => storm.cursor === step, block.violation.step);
            await page.waitForFunction(() => !storm.playing);
        });
    });

    test("of the logs, under the pointer", async () => {
        await on("healthy", async (page) => {
            const box = await page.locator("#logs").boundingBox();
            await page.mouse.move(box.x + 300, box.y + box.height - 16);
            const text = await page.locator(".tip").innerText();
            assert.match(text, /^n3 \d+/);
            assert.match(text, /committed|in the snapshot of \d+/);
        });
    });
});

describe("the page", () => {
    test("works with the keyboard alone", async () => {
        await on("failing", async (page) => {
            // Every button can be reached, and pressed.
            const reached = new Set();
            for (let i = 0; i < 60; i++) {
                await page.keyboard.press("Tab");
                reached.add(
                    await page.evaluate(
                        () => document.activeElement?.id || document.activeElement?.dataset?.chip || "",
                    ),
                );
            }
            const buttons = await page.evaluate(() =>
                [...document.querySelectorAll("header button, nav button, nav input")].map(
                    (button) => button.id || button.dataset.chip,
                ),
            );
            assert.deepEqual(
                buttons.filter((name) => !reached.has(name)),
                [],
            );
            await page.locator("#past").focus();
            await page.keyboard.press("Space");
            assert.equal(await pressed(page, "#past"), "false");
            assert.equal(await page.evaluate(() => storm.playing), false, "the space bar pressed one thing only");
            await page.keyboard.press("?");
            assert.ok(await page.locator("#legend").isVisible());
            await page.keyboard.press("Escape");
            assert.ok(await page.locator("#legend").isHidden());
            const said = await page.locator("#spoken").innerText();
            assert.match(said, /^event \d+, n\d/);
        });
    });

    test("can be read, light and dark", async () => {
        for (const colorScheme of ["light", "dark"]) {
            await on(
                "healthy",
                async (page) => {
                    const theme = await page.evaluate(() => storm.theme);
                    assert.equal(theme.dark, colorScheme === "dark");
                    const pairs = [
                        [theme.ink, theme.paper, 10],
                        [theme.ink, theme.panel, 10],
                        [theme.dim, theme.paper, 4.5],
                        [theme.dim, theme.panel, 4.5],
                        [theme.accent, theme.paper, 4.5],
                        [theme.violation, theme.paper, 4.5],
                        [theme.loss, theme.paper, 4.5],
                        [theme.dim, theme.down, 4.5],
                        ...theme.roles.map(([ground, ink]) => [ink, ground, 4.5]),
                        ...theme.terms.map(([ground, ink]) => [ink, ground, 3]),
                        ...Object.values(theme.groups).map((colour) => [colour, theme.paper, 2.4]),
                    ];
                    for (const [ink, ground, least] of pairs) {
                        const found = contrast(ink, ground);
                        assert.ok(
                            found >= least,
                            `${ink} on ${ground} has a contrast of ${found.toFixed(2)}, less than ${least}`,
                        );
                    }
                    await page.keyboard.press("d");
                    assert.notEqual(await page.evaluate(() => storm.theme.dark), theme.dark);
                },
                { colorScheme },
            );
        }
    });

    test("fits small screens and large ones", async () => {
        for (const viewport of [
            { width: 800, height: 600 },
            { width: 2560, height: 1440 },
        ]) {
            await on(
                "failing",
                async (page) => {
                    const wide = await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth);
                    assert.ok(wide, "nothing sticks out at the side");
                    const stage = await page.locator("#timeline").boundingBox();
                    assert.ok(stage.height >= 120 && stage.width > 500, JSON.stringify(stage));
                },
                { viewport },
            );
        }
    });

    test("says what to do if there is no run in it, or another kind of run", async () => {
        const bare = new URL("../dist/viewer.html", import.meta.url).href;
        const page = await (await browser.newContext()).newPage();
        await page.goto(bare);
        await page.waitForFunction(() => !document.getElementById("failure").hidden);
        assert.match(await page.locator("#failure").innerText(), /cargo sim view --seed 7 -o run\.html/);
        await page.context().close();
    });

    test("is one file, which asks for nothing", async () => {
        const { bytes } = made.failing;
        assert.ok(bytes < 3_000_000, `${bytes} bytes`);
    });
});

function contrast(one, other) {
    const [light, dark] = [one, other].map(luminance).sort((a, b) => b - a);
    return (light + 0.05) / (dark + 0.05);
}

function luminance(colour) {
    const [r, g, b] = [1, 3, 5].map((at) => {
        const part = Number.parseInt(colour.slice(at, at + 2), 16) / 255;
        return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
