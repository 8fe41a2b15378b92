// Builds dist/viewer.html: the page, its style and its program in one file that needs nothing else.
//
// The file is committed, so that whoever has cargo needs no npm. `node build.mjs --check` fails if it
// is not what the sources make; the same sources make the same bytes.

import { readFile, writeFile } from "node:fs/promises";
import { build } from "esbuild";

const here = (path) => new URL(path, import.meta.url);
const target = here("dist/viewer.html");

const bundled = await build({
    absWorkingDir: here(".").pathname,
    entryPoints: ["src/main.ts"],
    bundle: true,
    minify: true,
    charset: "utf8",
    legalComments: "none",
    target: "es2022",
    format: "iife",
    write: false,
});
const script = bundled.outputFiles[0].text;
const style = await build({
    absWorkingDir: here(".").pathname,
    entryPoints: ["src/page.css"],
    bundle: true,
    minify: true,
    charset: "utf8",
    legalComments: "none",
    target: "es2022",
    write: false,
});
const licence = await readFile(here("node_modules/uplot/LICENSE"), "utf8");

// A function as the replacement: `$&` in a program is no pattern.
let page = await readFile(here("src/page.html"), "utf8");
const put = (placeholder, text) => {
    if (page.split(placeholder).length !== 2) {
        throw new Error(`src/page.html must have ${placeholder} once`);
    }
    page = page.replace(placeholder, () => text);
};
put("/* style */", style.outputFiles[0].text.trim());
put("/* program */", script.trim().replaceAll("</script", "<\\/script"));
put("<!-- notice -->", `<!--\nThis page contains uPlot, https://github.com/leeoniya/uPlot\n\n${licence.trim()}\n-->`);

if (process.argv.includes("--check")) {
    const kept = await readFile(target, "utf8").catch(() => "");
    if (kept !== page) {
        console.error(
            "dist/viewer.html is not what the sources make: run `npm ci && npm run build` in sim/viewer and commit it",
        );
        process.exit(1);
    }
    console.log(`dist/viewer.html is current: ${page.length.toLocaleString("en")} characters`);
} else {
    await writeFile(target, page);
    console.log(`dist/viewer.html: ${page.length.toLocaleString("en")} characters`);
}
