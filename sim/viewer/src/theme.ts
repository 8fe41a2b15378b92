// Colours, light and dark, and the hatchings. Both themes are made of Okabe and Ito's palette, which
// people who confuse colours can tell apart; nothing is said by colour alone.

import type { Group } from "./run";

export interface Theme {
    dark: boolean;
    paper: string;
    panel: string;
    ink: string;
    dim: string;
    line: string;
    /** Every second lane. */
    stripe: string;
    accent: string;
    violation: string;
    loss: string;
    /** By role, and the ink on it. */
    roles: [string, string][];
    down: string;
    hatch: string;
    /** By group of messages. */
    groups: Record<Group, string>;
    /** The same, for text. */
    groupInks: Record<Group, string>;
    /** Terms take turns. */
    terms: [string, string][];
    ok: string;
    refused: string;
    unknown: string;
    fault: string;
    cuts: string[];
}

const LIGHT: Theme = {
    dark: false,
    paper: "#ffffff",
    panel: "#f5f7fa",
    ink: "#161b26",
    dim: "#5d687c",
    line: "#d8dee8",
    stripe: "#f7f9fc",
    accent: "#0b63c5",
    violation: "#c8102e",
    loss: "#c44e00",
    roles: [
        ["#cfd7e3", "#2b3547"],
        ["#f3e27a", "#4a3f00"],
        ["#f0a830", "#3d2600"],
        ["#0072b2", "#ffffff"],
    ],
    down: "#eceff4",
    hatch: "rgba(40, 50, 70, 0.42)",
    groups: {
        append: "#0072b2",
        heartbeat: "#8692a8",
        election: "#cf7a00",
        snapshot: "#b8508d",
        read: "#00855f",
        client: "#6b5fc7",
        other: "#5d687c",
        disk: "#5d687c",
        idle: "#8692a8",
    },
    groupInks: {
        append: "#00659d",
        heartbeat: "#5d687c",
        election: "#9a5b00",
        snapshot: "#a33f7b",
        read: "#00734f",
        client: "#5b4fb8",
        other: "#4a5468",
        disk: "#4a5468",
        idle: "#5d687c",
    },
    terms: [
        ["#0072b2", "#ffffff"],
        ["#e69f00", "#2e2000"],
        ["#00805d", "#ffffff"],
        ["#cc79a7", "#33101f"],
        ["#56b4e9", "#06283d"],
        ["#c9b92a", "#2c2800"],
        ["#8471cf", "#ffffff"],
    ],
    ok: "#00855f",
    refused: "#8a94a6",
    unknown: "#d98200",
    fault: "#8c5a00",
    cuts: ["rgba(213, 94, 0, 0.16)", "rgba(204, 121, 167, 0.20)", "rgba(0, 158, 115, 0.16)", "rgba(86, 180, 233, 0.2)"],
};

const DARK: Theme = {
    dark: true,
    paper: "#0e121a",
    panel: "#161b26",
    ink: "#e8ecf4",
    dim: "#95a1b5",
    line: "#2a3242",
    stripe: "#121722",
    accent: "#6cb6ff",
    violation: "#ff5d6c",
    loss: "#ff8a3d",
    roles: [
        ["#3a4558", "#dde4f0"],
        ["#a8962a", "#14110a"],
        ["#e69f00", "#1d1300"],
        ["#2f8fd0", "#04111c"],
    ],
    down: "#1a202c",
    hatch: "rgba(210, 220, 240, 0.34)",
    groups: {
        append: "#56b4e9",
        heartbeat: "#657086",
        election: "#f0a830",
        snapshot: "#e08abb",
        read: "#2fc79b",
        client: "#a499f5",
        other: "#95a1b5",
        disk: "#95a1b5",
        idle: "#657086",
    },
    groupInks: {
        append: "#6fc3f2",
        heartbeat: "#95a1b5",
        election: "#f0a830",
        snapshot: "#e9a0c9",
        read: "#43d3a9",
        client: "#b5acfa",
        other: "#a7b2c5",
        disk: "#a7b2c5",
        idle: "#95a1b5",
    },
    terms: [
        ["#2f8fd0", "#04111c"],
        ["#e69f00", "#1d1300"],
        ["#1fae83", "#00150e"],
        ["#d585b2", "#240815"],
        ["#8fd0f5", "#06283d"],
        ["#e5d64a", "#242000"],
        ["#a296ea", "#110a30"],
    ],
    ok: "#2fc79b",
    refused: "#7d8799",
    unknown: "#f0a830",
    fault: "#d9a441",
    cuts: [
        "rgba(255, 138, 61, 0.17)",
        "rgba(224, 138, 187, 0.20)",
        "rgba(47, 199, 155, 0.16)",
        "rgba(86, 180, 233, 0.2)",
    ],
};

const KEY = "stormkv-theme";

function kept(): string | null {
    try {
        return localStorage.getItem(KEY);
    } catch {
        // A page from a file may have no storage.
        return null;
    }
}

export function chosen(): Theme {
    const name = kept() ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    return name === "dark" ? DARK : LIGHT;
}

/** Puts the colours where the style sheet finds them. */
export function apply(theme: Theme): void {
    const style = document.documentElement.style;
    style.colorScheme = theme.dark ? "dark" : "light";
    for (const name of [
        "paper",
        "panel",
        "ink",
        "dim",
        "line",
        "accent",
        "violation",
        "loss",
        "ok",
        "unknown",
        "fault",
        "stripe",
    ] as const) {
        style.setProperty(`--${name}`, theme[name]);
    }
    for (const [name, colour] of Object.entries(theme.groups)) style.setProperty(`--group-${name}`, colour);
}

export function other(theme: Theme): Theme {
    const next = theme.dark ? LIGHT : DARK;
    try {
        localStorage.setItem(KEY, next.dark ? "dark" : "light");
    } catch {
        // Then it is for this time only.
    }
    return next;
}

const patterns = new Map<string, CanvasPattern>();

/** Slanted lines, to fill something with. */
export function hatching(context: CanvasRenderingContext2D, colour: string, scale: number): CanvasPattern {
    const name = `${colour} ${scale}`;
    let pattern = patterns.get(name);
    if (pattern === undefined) {
        const tile = document.createElement("canvas");
        const size = Math.round(7 * scale);
        tile.width = tile.height = size;
        const pen = tile.getContext("2d") as CanvasRenderingContext2D;
        pen.strokeStyle = colour;
        pen.lineWidth = 1.3 * scale;
        pen.beginPath();
        for (const offset of [-size, 0, size]) {
            pen.moveTo(offset - 1, size + 1);
            pen.lineTo(offset + size + 1, -1);
        }
        pen.stroke();
        pattern = context.createPattern(tile, "repeat") as CanvasPattern;
        pattern.setTransform(new DOMMatrix().scale(1 / scale));
        patterns.set(name, pattern);
    }
    return pattern;
}

/** The colours of a term: to fill with, and the ink on it. */
export function termColours(theme: Theme, term: number): [string, string] {
    return theme.terms[(term + theme.terms.length - 1) % theme.terms.length];
}
