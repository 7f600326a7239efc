// The page's elements. Whatever comes from a resource becomes text here, never markup.

/** The element with an id, which the page has. */
export const byId = (id) => document.getElementById(id);

/** A new element with attributes and children; a child that is no node becomes text. */
export function element(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** The same in SVG. */
export function shape(name, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function filled(made, attributes, children) {
  for (const [attribute, value] of Object.entries(attributes)) {
    if (value !== undefined) made.setAttribute(attribute, value);
  }
  made.append(...children.filter((child) => child !== undefined));
  return made;
}

/** Sets the text of an element, and leaves it alone if it has it. */
export function write(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

/** A button that copies the text of an element, and says so. */
export function copies(button, source) {
  const label = button.textContent;
  let back;
  button.addEventListener("click", async () => {
    const copied = await copy(source);
    button.textContent = copied ? "Copied" : "Press Ctrl+C";
    clearTimeout(back);
    back = setTimeout(() => (button.textContent = label), 2000);
  });
}

/** Elsewhere than on this machine a page without TLS has no clipboard: then the text is selected. */
async function copy(source) {
  try {
    await navigator.clipboard.writeText(source.dataset.whole ?? source.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(source);
    return false;
  }
}
