// A few lines next to the pointer.

export class Tip {
    private readonly box: HTMLElement;

    constructor(parent: HTMLElement) {
        this.box = document.createElement("div");
        this.box.className = "tip";
        this.box.hidden = true;
        parent.append(this.box);
    }

    show(title: string, lines: string[], at: MouseEvent): void {
        const heading = document.createElement("b");
        heading.textContent = title;
        this.box.replaceChildren(
            heading,
            ...lines.map((line) => {
                const part = document.createElement("div");
                part.textContent = line;
                return part;
            }),
        );
        this.box.hidden = false;
        const { width, height } = this.box.getBoundingClientRect();
        const left = at.clientX + 16 + width > innerWidth ? at.clientX - width - 12 : at.clientX + 16;
        const top = at.clientY + 18 + height > innerHeight ? at.clientY - height - 12 : at.clientY + 18;
        this.box.style.left = `${Math.max(left, 4)}px`;
        this.box.style.top = `${Math.max(top, 4)}px`;
    }

    hide(): void {
        this.box.hidden = true;
    }
}
