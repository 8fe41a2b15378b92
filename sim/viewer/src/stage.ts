// What all that is drawn on the timeline has in common: where the lanes are, fonts, how a text is cut.

import type { App } from "./app";
import { type Row, clientRow } from "./layout";
import type { Lane, Step } from "./run";

export const FONT = '12px ui-sans-serif, system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';
export const SMALL = FONT.replace("12px", "11px");
export const BOLD = `600 ${FONT}`;
export const LARGE = BOLD.replace("12px", "15px");
const BAND = 20;

/** A message as a line from (x1, y1) to (x2, y2). */
export interface Arrow {
    x1: number;
    y1: number;
    x2: number;
    y2: number;
}

export interface Scene {
    app: App;
    context: CanvasRenderingContext2D;
    rows: Row[];
    byNode: Map<Lane, Row>;
    clientRows: Row[];
    /** The shown messages in the window by their rows, drawn or under others. */
    arrows: [number, Arrow][];
    height: number;
    /** Device pixels in a pixel. */
    scale: number;
}

/** Where what happens to somebody in an event is drawn. */
export function rowOf(scene: Scene, lane: Lane, step: Step): Row | undefined {
    const node = scene.byNode.get(lane);
    if (node !== undefined) return node;
    const row = clientRow(scene.app.clients, lane, step);
    return row === undefined ? undefined : scene.clientRows[row];
}

/** The bar of a node's lane that says its role. */
export function band(row: Row): { top: number; bottom: number } {
    const height = Math.min(BAND, row.height * 0.4);
    const middle = row.y + row.height * 0.52;
    return { top: middle - height / 2, bottom: middle + height / 2 };
}

/** As much of a text as there is room for. */
export function clip(context: CanvasRenderingContext2D, text: string, room: number): string {
    if (context.measureText(text).width <= room) return text;
    let length = Math.floor((room / context.measureText(text).width) * text.length);
    while (length > 0 && context.measureText(`${text.slice(0, length)}…`).width > room) length--;
    return length > 0 ? `${text.slice(0, length)}…` : "";
}
