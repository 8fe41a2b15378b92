// A sign for each thing that happens to a node: each has a shape of its own, so that none depends on
// its colour.

import type { Theme } from "./theme";

const SIZE = 7.5;

/** What the signs mean, for the legend. */
export const GLYPHS: [string, string][] = [
    ["crash", "power loss"],
    ["kill", "process killed"],
    ["stop", "stopped by itself"],
    ["panic", "panicked"],
    ["start", "starts"],
    ["refused", "does not start"],
    ["torn", "torn write"],
    ["disk-error", "disk error"],
    ["damage", "silent damage"],
    ["whole", "repaired"],
    ["lost", "lost for good"],
    ["healed", "faults are over"],
    ["client-restart", "client replaced"],
    ["clock", "clock set, or runs wrong"],
];

function disc(context: CanvasRenderingContext2D, x: number, y: number, fill: string, edge: string): void {
    context.beginPath();
    context.arc(x, y, SIZE, 0, 2 * Math.PI);
    context.fillStyle = fill;
    context.fill();
    context.strokeStyle = edge;
    context.lineWidth = 1.5;
    context.stroke();
}

function strokes(context: CanvasRenderingContext2D, colour: string, width: number, ...lines: number[][]): void {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.lineCap = "round";
    context.lineJoin = "round";
    context.beginPath();
    for (const line of lines) {
        context.moveTo(line[0], line[1]);
        for (let i = 2; i < line.length; i += 2) context.lineTo(line[i], line[i + 1]);
    }
    context.stroke();
    context.lineCap = "butt";
    context.lineJoin = "miter";
}

/** The sign of a mark, its middle at (x, y). */
export function drawGlyph(context: CanvasRenderingContext2D, theme: Theme, kind: string, x: number, y: number): void {
    const cross = (colour: string) =>
        strokes(context, colour, 2, [x - 3.2, y - 3.2, x + 3.2, y + 3.2], [x + 3.2, y - 3.2, x - 3.2, y + 3.2]);
    switch (kind) {
        case "crash":
            disc(context, x, y, theme.loss, theme.paper);
            cross(theme.paper);
            break;
        case "kill":
            disc(context, x, y, theme.paper, theme.loss);
            cross(theme.loss);
            break;
        case "stop":
            disc(context, x, y, theme.paper, theme.dim);
            context.fillStyle = theme.dim;
            context.fillRect(x - 3, y - 3, 6, 6);
            break;
        case "panic":
            disc(context, x, y, theme.violation, theme.paper);
            strokes(context, theme.paper, 2.2, [x, y - 4, x, y + 0.5], [x, y + 3.6, x, y + 3.8]);
            break;
        case "start":
            disc(context, x, y, theme.paper, theme.ok);
            context.fillStyle = theme.ok;
            context.beginPath();
            context.moveTo(x - 2.4, y - 4);
            context.lineTo(x + 4.4, y);
            context.lineTo(x - 2.4, y + 4);
            context.fill();
            break;
        case "refused":
        case "lost":
            disc(context, x, y, kind === "lost" ? theme.dim : theme.paper, kind === "lost" ? theme.paper : theme.dim);
            strokes(context, kind === "lost" ? theme.paper : theme.dim, 2.2, [x - 4, y, x + 4, y]);
            break;
        case "torn":
            disc(context, x, y, theme.paper, theme.loss);
            strokes(context, theme.loss, 1.8, [
                x - 5,
                y + 1,
                x - 2.5,
                y - 2.5,
                x,
                y + 2,
                x + 2.5,
                y - 2.5,
                x + 5,
                y + 1,
            ]);
            break;
        case "disk-error":
            context.beginPath();
            context.moveTo(x, y - SIZE);
            context.lineTo(x + SIZE, y + SIZE - 1);
            context.lineTo(x - SIZE, y + SIZE - 1);
            context.closePath();
            context.fillStyle = theme.loss;
            context.fill();
            strokes(context, theme.paper, 2, [x, y - 2.5, x, y + 1.2], [x, y + 4, x, y + 4.1]);
            break;
        case "damage":
            context.beginPath();
            context.moveTo(x, y - SIZE);
            context.lineTo(x + SIZE, y);
            context.lineTo(x, y + SIZE);
            context.lineTo(x - SIZE, y);
            context.closePath();
            context.fillStyle = theme.loss;
            context.fill();
            strokes(context, theme.paper, 1.8, [x - 3, y - 1.5, x, y + 2, x + 3, y - 1.5]);
            break;
        case "whole":
            disc(context, x, y, theme.ok, theme.paper);
            strokes(context, theme.paper, 2, [x - 3.5, y + 0.3, x - 0.8, y + 3, x + 3.6, y - 2.6]);
            break;
        case "healed":
            disc(context, x, y, theme.ok, theme.paper);
            strokes(context, theme.paper, 2, [x - 3.6, y, x + 3.6, y], [x, y - 3.6, x, y + 3.6]);
            break;
        case "clock":
            disc(context, x, y, theme.paper, theme.fault);
            strokes(context, theme.fault, 1.8, [x, y - 4.4, x, y, x + 3.2, y + 1.6]);
            break;
        default:
            disc(context, x, y, theme.paper, theme.dim);
            context.beginPath();
            context.arc(x, y, 3.4, 0.6, 2 * Math.PI - 0.3);
            context.strokeStyle = theme.dim;
            context.lineWidth = 1.6;
            context.stroke();
            strokes(context, theme.dim, 1.6, [x + 1, y - 3.2, x + 3.8, y - 1.2, x + 4.2, y - 4.4]);
    }
}
