// What the tests and the measurements share: pages made by the real program, in a real browser.

import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const root = new URL("../../..", import.meta.url).pathname;

/** The simulator; its build must have the bugs: cargo build --release -p stormkv-sim --features bugs */
export const SIM = process.env.STORM_SIM ?? join(root, "target/release/stormkv-sim");

/** What the pages are made of. */
export const RUNS = {
    failing: ["--seed", "0", "--bug", "read-not-awaited"],
    // Some of its continuations pass.
    rising: ["--seed", "6", "--bug", "read-not-awaited"],
    split: [join(root, "scenarios/bugs/conflict-not-truncated.toml")],
    promise: [join(root, "scenarios/bugs/messages-before-sync.toml")],
    oneway: [join(root, "scenarios/network/one-way-partition-of-the-leader.toml")],
    replaced: [join(root, "scenarios/membership/replace-a-member-behind-a-partition.toml")],
    healthy: ["--seed", "21"],
    long: ["--seed", "520"],
};

export const scratch = mkdtempSync(join(tmpdir(), "stormkv-viewer-"));
process.on("exit", () => rmSync(scratch, { recursive: true, force: true }));

/** What the simulator prints and how it exits. */
export function sim(...args) {
    try {
        return { code: 0, out: execFileSync(SIM, args, { encoding: "utf8", stdio: "pipe", maxBuffer: 1 << 28 }) };
    } catch (error) {
        if (error.status === undefined) throw error;
        return { code: error.status, out: error.stdout };
    }
}

/** Makes the page of a run, and its block beside it. */
export function make(name, ...options) {
    const page = join(scratch, `${name}.html`);
    const json = join(scratch, `${name}.json`);
    sim("view", ...RUNS[name], ...options, "-o", page);
    sim("view", ...RUNS[name], ...options, "--format", "json", "-o", json);
    return {
        url: pathToFileURL(page).href,
        block: JSON.parse(readFileSync(json, "utf8")),
        bytes: readFileSync(page).length,
    };
}

export function launch() {
    return chromium.launch({
        executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
        args: [
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ],
    });
}

/** Opens a page without a network; whatever it complains about is in `complaints`. */
export async function open(browser, url, options = {}) {
    const context = await browser.newContext({
        viewport: { width: 1440, height: 900 },
        offline: true,
        permissions: ["clipboard-read", "clipboard-write"],
        ...options,
    });
    const page = await context.newPage();
    page.complaints = [];
    page.on("console", (message) => {
        if (["error", "warning"].includes(message.type())) page.complaints.push(message.text());
    });
    page.on("pageerror", (error) => page.complaints.push(error.message));
    page.on("request", (request) => {
        if (!/^(file|data|blob):/.test(request.url())) page.complaints.push(`asks for ${request.url()}`);
    });
    await page.goto(url);
    await page.waitForSelector("body[data-ready]");
    return page;
}

/** Waits until what has changed is drawn. */
export function drawn(page) {
    return page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
}
