// A canvas is as sharp as the screen.

/** Gives a canvas a size in CSS pixels; returns how many device pixels each has. Keeps it if it has that size. */
export function fitCanvas(canvas: HTMLCanvasElement, width: number, height: number): number {
    const scale = Math.max(window.devicePixelRatio, 1);
    const [w, h] = [Math.round(width * scale), Math.round(height * scale)];
    if (canvas.width !== w || canvas.height !== h) {
        canvas.width = w;
        canvas.height = h;
        canvas.style.width = `${width}px`;
        canvas.style.height = `${height}px`;
    }
    canvas.getContext("2d")?.setTransform(scale, 0, 0, scale, 0, 0);
    return scale;
}
