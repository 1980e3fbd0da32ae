// What is looked for inside the page; each function is sent there as text and uses nothing but the page.

/** Text that overlaps other text, is cut off, or leaves the page. */
export function layout() {
  const name = (node) => `${node.parentElement.tagName.toLowerCase()} "${node.textContent.trim().slice(0, 50)}"`;
  const scrolling = (element) => {
    const found = element.closest(".scroll");
    return found && getComputedStyle(found).overflowX === "auto" ? found : null; // printed, nothing scrolls
  };
  const hidden = (element) => !element.checkVisibility({ visibilityProperty: true, opacityProperty: true });
  const texts = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode;
    const home = node.parentElement;
    if (!node.textContent.trim() || home.closest("script, style, .skip") || hidden(home)) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const box of range.getClientRects()) if (box.width > 1 && box.height > 1) texts.push({ node, home, box });
  }
  const overlaps = [];
  const byTop = [...texts].sort((a, b) => a.box.top - b.box.top);
  for (let i = 0; i < byTop.length; i += 1) {
    for (let j = i + 1; j < byTop.length && byTop[j].box.top < byTop[i].box.bottom - 2; j += 1) {
      const [a, b] = [byTop[i], byTop[j]];
      if (a.node === b.node) continue;
      const wide = Math.min(a.box.right, b.box.right) - Math.max(a.box.left, b.box.left);
      const high = Math.min(a.box.bottom, b.box.bottom) - Math.max(a.box.top, b.box.top);
      const scrolls = scrolling(a.home) !== scrolling(b.home);
      if (wide > 2 && high > 3 && !scrolls) overlaps.push(`${name(a.node)} and ${name(b.node)}`);
    }
  }
  const cut = [];
  for (const { node, home, box } of texts) {
    const scroll = scrolling(home);
    const svg = home.closest("svg");
    if (svg) {
      const frame = svg.getBoundingClientRect();
      if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1) cut.push(`chart: ${name(node)}`);
    }
    if (!scroll && (box.right > document.documentElement.clientWidth + 1 || box.left < -1)) cut.push(name(node));
    for (let one = home; one && one !== document.body; one = one.parentElement) {
      const style = getComputedStyle(one);
      if (one === scroll || one.namespaceURI.endsWith("svg")) break;
      if (style.overflowX === "hidden" && one.scrollWidth > one.clientWidth + 1) cut.push(name(node));
    }
  }
  return { overlaps: [...new Set(overlaps)], cut: [...new Set(cut)], wide: document.documentElement.scrollWidth - document.documentElement.clientWidth, texts: texts.length };
}

/** Numbers on the page that are not those of the record in it. */
export function numbers() {
  const record = JSON.parse(document.getElementById("ghostdeploy-report").textContent);
  const wrong = [];
  const shown = document.querySelectorAll("data[data-json]");
  const digits = { "−": "-", "\u202f": "", ",": "" };
  for (const element of shown) {
    const place = element.dataset.json;
    const value = place.split(".").reduce((found, part) => found?.[part], record);
    if (value !== JSON.parse(element.value)) wrong.push(`${place}: ${value} and ${element.value}`);
    const text = element.textContent.replace(/[−\u202f,]/g, (one) => digits[one]).replace(/ %$/, "").replace(/^1 - /, "off ");
    const number = text.startsWith("off ") ? 1 - Number(text.slice(4)) : Number(text);
    const near = [1, 100, 1e-3, 1e-6, 1e-9, 2 ** -30].some((scale) => Math.abs(number - value * scale) <= 0.06 * Math.abs(value * scale) + 0.0501);
    if (Number.isNaN(number) || !near) wrong.push(`${place}: ${value} is shown as ${element.textContent}`);
  }
  return { shown: shown.length, wrong };
}
