// Draws messages: arrows from lane to lane, by type; a cross where one was lost, dashes for a copy, pale
// if it told its receiver nothing that still counts.

import { COPY, End, GROUPS, REJECT, type Run, STALE } from "./run";
import { type Arrow, SMALL, type Scene, band, rowOf } from "./stage";
import { content } from "./words";

/** Above this many messages in the window, what falls on the same pixels is drawn once. */
const MANY = 1500;
/** Below this many, each says what it is. */
const FEW = 70;

/** How far a message goes that is lost at once, or has not arrived: a part of the way. */
const STUB = 0.3;

/** Where a message is drawn; null if one of its ends has no lane. */
export function arrow(scene: Scene, row: number): Arrow | null {
    const { app } = scene;
    const { run, axis } = app;
    const { from, to, op } = run.block.messages;
    // What a client is sent is on the row of the operation that it is for.
    const source = rowOf(scene, from[row], run.sent[row]);
    const target =
        op[row] > 0 && !run.isNode(to[row])
            ? scene.clientRows[app.clients.ofOp[op[row] - 1]]
            : rowOf(scene, to[row], run.sent[row]);
    if (source === undefined || target === undefined || source === target) return null;
    const down = target.y > source.y;
    const edge = (lane: typeof source, lower: boolean) => {
        if (lane.kind !== "node") return lane.y + (lower ? lane.height - 3 : 3);
        const { top, bottom } = band(lane);
        return lower ? bottom : top;
    };
    const x1 = axis.xOf(run.sent[row]);
    const y1 = edge(source, down);
    const y2 = edge(target, !down);
    switch (run.ending[row]) {
        case End.LostAtOnce:
        case End.UnderWay: {
            // The one that all is about is not to be missed.
            const part = row === run.broken ? 0.7 : STUB;
            return { x1, y1, x2: x1 + Math.min(Math.abs(y2 - y1) * 0.4 * part, 14), y2: y1 + (y2 - y1) * part };
        }
        default:
            return { x1, y1, x2: axis.xOf(run.end[row]), y2 };
    }
}

/** Finds the shown messages that have a part in the window. */
function find(scene: Scene): void {
    const { run, axis, shown } = scene.app;
    const [first, last] = axis.steps;
    const right = axis.left + axis.width;
    scene.arrows = [];
    for (let row = 0; row < run.messages && run.sent[row] <= last; row++) {
        const end = run.end[row] === 0 ? run.sent[row] : run.end[row];
        if (shown.messages[row] === 0 || end < first) continue;
        const line = arrow(scene, row);
        if (line !== null && line.x2 >= axis.left && line.x1 <= right) scene.arrows.push([row, line]);
    }
}

function isLost(run: Run, row: number): boolean {
    return run.ending[row] === End.LostAtOnce || run.ending[row] === End.LostLater;
}

/** Of those that fall on the same pixels one, and rather a lost one. */
function thinned(scene: Scene): [number, Arrow][] {
    const { run, axis } = scene.app;
    if (scene.arrows.length <= MANY) return scene.arrows;
    const { from, to } = run.block.messages;
    const lanes = run.block.lanes.name.length;
    const columns = Math.ceil(axis.width / 2) + 2;
    const taken = new Uint8Array(lanes * lanes * columns);
    return scene.arrows.filter(([row, line]) => {
        if (line.x2 - line.x1 >= 4) return true;
        const column = Math.min(Math.max(Math.round((line.x1 - axis.left) / 2), 0), columns - 1);
        const place = (from[row] * lanes + to[row]) * columns + column;
        const rank = isLost(run, row) ? 2 : 1;
        if (taken[place] >= rank) return false;
        taken[place] = rank;
        return true;
    });
}

interface Style {
    colour: string;
    alpha: number;
    dashed: boolean;
    lines: Arrow[];
    heads: Path2D;
}

export function drawMessages(scene: Scene): void {
    const { app, context } = scene;
    const { run, theme } = app;
    find(scene);
    const drawn = thinned(scene);
    const flags = run.block.messages.flags;
    const styles = new Map<string, Style>();
    const crosses: Arrow[] = [];
    const heads = scene.arrows.length < 900;
    const crowd = drawn.length < 250 ? 0.95 : Math.max(0.95 * Math.sqrt(250 / drawn.length), 0.14);
    for (const [row, line] of drawn) {
        const group = GROUPS[run.messageGroup[row]];
        const lost = isLost(run, row);
        const pale = (flags[row] & STALE) !== 0;
        const dashed = (flags[row] & COPY) !== 0;
        const name = `${group} ${lost} ${pale} ${dashed}`;
        let style = styles.get(name);
        if (style === undefined) {
            let alpha = group === "heartbeat" ? crowd * 0.8 : crowd;
            if (lost) alpha = Math.max(crowd, 0.5);
            if (pale) alpha = crowd * 0.4;
            style = { colour: theme.groups[group], alpha, dashed, lines: [], heads: new Path2D() };
            styles.set(name, style);
        }
        style.lines.push(line);
        if (lost) crosses.push(line);
        else if (heads && run.ending[row] === End.Delivered) head(style.heads, line);
    }
    for (const style of styles.values()) {
        context.globalAlpha = style.alpha;
        context.strokeStyle = style.colour;
        context.fillStyle = style.colour;
        context.lineWidth = drawn.length < 250 ? 1.6 : 1.1;
        context.setLineDash(style.dashed ? [5, 4] : []);
        // One by one: many lines in one path cost much more, for each of its crossings is looked for.
        for (const { x1, y1, x2, y2 } of style.lines) {
            context.beginPath();
            context.moveTo(x1, y1);
            context.lineTo(x2, y2);
            context.stroke();
        }
        context.setLineDash([]);
        context.fill(style.heads);
    }
    context.globalAlpha = Math.max(crowd, 0.6);
    context.strokeStyle = theme.loss;
    context.lineWidth = 1.8;
    const crossed = new Set<number>();
    for (const { x2, y2 } of crosses) {
        // In a crowd of them, one for some pixels.
        const place = Math.round(x2 / 5) * 10_000 + Math.round(y2 / 5);
        if (crosses.length > 100 && crossed.has(place)) continue;
        crossed.add(place);
        cross(context, x2, y2);
    }
    context.globalAlpha = 1;
    const broken = scene.arrows.find(([row]) => row === run.broken);
    if (broken !== undefined) drawOne(context, scene, ...broken, 3);
    if (drawn.length <= FEW) {
        const places: { x: number; y: number; width: number }[] = [];
        // What comes all the time gets what room is left.
        const rare = ([row]: [number, Arrow]) => (GROUPS[run.messageGroup[row]] === "heartbeat" ? 1 : 0);
        for (const [row, line] of drawn.toSorted((a, b) => rare(a) - rare(b))) label(scene, row, line, places);
    }
}

/** A single message, in its own way: with its cross, its dashes, its head. */
export function drawOne(
    context: CanvasRenderingContext2D,
    scene: Scene,
    row: number,
    line: Arrow,
    width: number,
): void {
    const { run, theme } = scene.app;
    const flags = run.block.messages.flags[row];
    const colour = row === run.broken ? theme.violation : theme.groups[GROUPS[run.messageGroup[row]]];
    const stroke = (style: string, thick: number) => {
        context.strokeStyle = style;
        context.lineWidth = thick;
        context.beginPath();
        context.moveTo(line.x1, line.y1);
        context.lineTo(line.x2, line.y2);
        context.stroke();
    };
    stroke(theme.paper, width + 3);
    context.setLineDash(flags & COPY ? [6, 4] : []);
    stroke(colour, width);
    context.setLineDash([]);
    if (isLost(run, row)) {
        context.strokeStyle = theme.loss;
        context.lineWidth = 2.4;
        cross(context, line.x2, line.y2);
    } else if (run.ending[row] === End.Delivered) {
        const tip = new Path2D();
        head(tip, line);
        context.fillStyle = colour;
        context.fill(tip);
    }
    label(scene, row, line, [], context);
}

function cross(context: CanvasRenderingContext2D, x: number, y: number): void {
    context.beginPath();
    context.moveTo(x - 3.5, y - 3.5);
    context.lineTo(x + 3.5, y + 3.5);
    context.moveTo(x + 3.5, y - 3.5);
    context.lineTo(x - 3.5, y + 3.5);
    context.stroke();
}

function head(path: Path2D, { x1, y1, x2, y2 }: Arrow): void {
    const angle = Math.atan2(y2 - y1, x2 - x1);
    const wing = (by: number) => [x2 - 8 * Math.cos(angle + by), y2 - 8 * Math.sin(angle + by)] as const;
    path.moveTo(x2, y2);
    path.lineTo(...wing(0.38));
    path.lineTo(...wing(-0.38));
    path.closePath();
}

/** A few letters along an arrow: what it carries; nothing where another label is. */
function label(
    scene: Scene,
    row: number,
    line: Arrow,
    places: { x: number; y: number; width: number }[],
    context = scene.context,
): void {
    const { app } = scene;
    const { run, theme } = app;
    const length = Math.hypot(line.x2 - line.x1, line.y2 - line.y1);
    const m = run.block.messages;
    const kind = run.block.names.message[m.kind[row]];
    const text = short(kind, content(run, row), (m.flags[row] & REJECT) !== 0);
    context.font = SMALL;
    const width = context.measureText(text).width;
    if (width > length - 26) return;
    let angle = Math.atan2(line.y2 - line.y1, line.x2 - line.x1);
    // Rather near its sender, where lines are apart; in the middle they cross. Never over a bar.
    const reach = (Math.abs(Math.sin(angle)) * width) / 2 + 8;
    const bars = scene.rows.map((row) =>
        row.kind === "node" ? band(row) : { top: row.y, bottom: row.y + row.height },
    );
    const free = [0.36, 0.5, 0.64, 0.25, 0.75, 0.17, 0.83]
        .map((at) => ({ x: line.x1 + (line.x2 - line.x1) * at, y: line.y1 + (line.y2 - line.y1) * at, at }))
        .find(
            ({ x, y, at }) =>
                Math.min(at, 1 - at) * length > width / 2 + 6 &&
                x - width / 2 > scene.app.axis.left &&
                bars.every((bar) => y + reach < bar.top || y - reach > bar.bottom) &&
                places.every(
                    (other) => Math.abs(other.x - x) > (width + other.width) / 2 + 8 || Math.abs(other.y - y) > 15,
                ),
        );
    if (free === undefined) return;
    places.push({ ...free, width });
    const { x, y } = free;
    if (Math.abs(angle) > Math.PI / 2) angle += Math.PI;
    context.save();
    context.translate(x, y);
    context.rotate(angle);
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillStyle = theme.paper;
    context.globalAlpha = 0.82;
    context.fillRect(-width / 2 - 2, -7, width + 4, 13);
    context.globalAlpha = 1;
    context.fillStyle = row === run.broken ? theme.violation : theme.groupInks[GROUPS[run.messageGroup[row]]];
    context.fillText(text, 0, 0);
    context.restore();
}

function short(kind: string, content: string, reject: boolean): string {
    const carried = /\[(.+)\]/.exec(content)?.[1];
    if (kind === "Append") return carried === undefined ? "Append" : `Append ${carried}`;
    if (kind.endsWith("Resp") && kind !== "HeartbeatResp")
        return `${kind} ${reject ? "no" : kind === "AppendResp" ? content : "yes"}`;
    if (kind === "Request" || kind === "Reply") return content.length > 28 ? `${content.slice(0, 27)}…` : content;
    return kind;
}
