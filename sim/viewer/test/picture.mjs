// Takes the picture of the README: `npm run picture`.

import { fileURLToPath } from "node:url";
import { drawn, launch, make, open } from "./browser.mjs";

const { url } = make("failing");
const browser = await launch();
const page = await open(browser, url, { colorScheme: "light" });
// The whole run, in time.
await page.keyboard.press("t");
await page.keyboard.press("0");
await page.keyboard.press("Escape");
await drawn(page);
await page.screenshot({ path: fileURLToPath(new URL("../picture.png", import.meta.url)) });
await browser.close();
