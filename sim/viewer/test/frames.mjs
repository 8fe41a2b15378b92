// Measures, and checks nothing: how soon the page of a long run opens, and how long its frames take
// while it is zoomed, moved and gone through. `npm run frames`, five times; medians count.

import { statSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { launch, make, open } from "./browser.mjs";

const { url, block } = make("long");
const megabytes = statSync(fileURLToPath(url)).size / 1e6;
console.log(
    `${block.about.steps.toLocaleString("en")} events, ${block.messages.from.length.toLocaleString("en")} messages, ${megabytes.toFixed(2)} MB`,
);

const browser = await launch();
for (let i = 0; i < 5; i++) {
    const page = await open(browser, url);
    const ready = await page.evaluate(() => document.body.dataset.ready);
    const times = await page.evaluate(async () => {
        const frame = () => new Promise(requestAnimationFrame);
        const found = [];
        const measure = async (name, frames, act) => {
            const taken = [];
            await frame();
            let last = await frame();
            for (let i = 0; i < frames; i++) {
                act(i);
                const now = await frame();
                taken.push(now - last);
                last = now;
            }
            taken.sort((a, b) => a - b);
            const at = (share) => taken[Math.min(Math.floor(share * frames), frames - 1)].toFixed(1);
            found.push(`${name} ${at(0.5)}/${at(0.95)}`);
        };
        for (const mode of ["time", "order"]) {
            storm.setMode(mode);
            storm.fit();
            await measure(`${mode}: zoom`, 80, () => storm.zoom(1.08, storm.axis.length * 0.4));
            await measure("move", 60, () => storm.pan(0.02));
            storm.fit();
            await measure("move at 1/8", 60, (i) =>
                i === 0 ? storm.zoom(8, storm.axis.length * 0.3) : storm.pan(0.01),
            );
            storm.fit();
            await measure("scrub", 60, (i) => storm.goto(1 + i * 1900));
        }
        return found.join(", ");
    });
    console.log(`open ${ready} ms; frames in ms, median/p95: ${times}`);
    await page.context().close();
}
await browser.close();
