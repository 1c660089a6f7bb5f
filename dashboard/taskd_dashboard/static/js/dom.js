// Elements from data, and one tree made like another.
//
// Text gets in as text nodes alone: nothing here, or anywhere in the page, reads a string as markup.
// A handler is a property of its element (`onclick`), so a redrawn tree carries the newest one; a style is set
// through its object, which a strict policy allows where it forbids the attribute.

const SVG = "http://www.w3.org/2000/svg";

/** Make an element. Props: `class`, `style` (an object), `key`, `onx` (a function), else attributes; null leaves out. */
export function h(tag, props, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** The same for SVG. */
export function s(tag, props, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "key") element._key = value;
    else if (name === "style") for (const [rule, set] of Object.entries(value)) element.style.setProperty(rule, set);
    else if (name.startsWith("on")) (element._on ??= {})[name] = element[name] = value;
    else if (name === "value" || name === "checked" || name === "indeterminate") element[name] = value;
    else element.setAttribute(name === "class" ? "class" : name, value === true ? "" : value);
  }
  add(element, children);
  return element;
}

function add(element, children) {
  for (const child of children) {
    if (Array.isArray(child)) add(element, child);
    else if (child !== null && child !== undefined && child !== false) {
      element.append(child instanceof Node ? child : String(child));
    }
  }
}

/** A place for an element that lives on by itself, such as a chart: a redraw moves it, and leaves it alone. */
export function keep(element) {
  const place = document.createElement("span");
  place._keep = element;
  place._key = element;
  return place;
}

/** Make `root`'s children like these, changing as little as can be: focus, selection and scrolling stay. */
export function render(root, ...children) {
  const fresh = document.createDocumentFragment();
  add(fresh, children);
  children_alike(root, fresh);
}

function children_alike(old, fresh) {
  const keyed = new Map();
  for (const child of old.childNodes) if (child._key !== undefined) keyed.set(child._key, child);
  let at = old.firstChild;
  for (const wanted of [...fresh.childNodes]) {
    let match = null;
    if (wanted._key !== undefined) match = keyed.get(wanted._key) ?? wanted._keep ?? null;
    else if (at && at._key === undefined && alike(at, wanted)) match = at;
    if (match && !wanted._keep && !alike(match, wanted)) match = null;
    if (match === null) {
      old.insertBefore(unkept(wanted), at);
      continue;
    }
    if (match === at) at = at.nextSibling;
    else old.insertBefore(match, at);
    match._key = wanted._key;
    keyed.delete(wanted._key);
    if (!wanted._keep) same(match, wanted);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

// A tree that is put in whole may hold places for elements that live on.
function unkept(node) {
  if (node._keep) {
    node._keep._key = node._key;
    return node._keep;
  }
  for (const child of [...node.childNodes]) {
    const put = unkept(child);
    if (put !== child) child.replaceWith(put);
  }
  return node;
}

function alike(a, b) {
  return a.nodeType === b.nodeType && a.nodeName === b.nodeName && a._key === b._key;
}

function same(old, fresh) {
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
    return;
  }
  for (const { name, value } of [...fresh.attributes]) {
    if (name === "style") {
      if (old.style.cssText !== fresh.style.cssText) old.style.cssText = fresh.style.cssText;
    } else if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const { name } of [...old.attributes]) {
    // What a person has opened stays open.
    if (!fresh.hasAttribute(name) && !(name === "open" && old.nodeName === "DETAILS")) {
      if (name === "style") old.style.cssText = "";
      else old.removeAttribute(name);
    }
  }
  for (const name of Object.keys(old._on ?? {})) if (!fresh._on?.[name]) old[name] = null;
  for (const [name, handler] of Object.entries(fresh._on ?? {})) old[name] = handler;
  old._on = fresh._on;
  if (["INPUT", "SELECT", "TEXTAREA"].includes(old.nodeName) && old !== document.activeElement) {
    if (fresh.type === "checkbox") {
      old.checked = fresh.checked;
      old.indeterminate = fresh.indeterminate;
    }
  }
  children_alike(old, fresh);
  if (["INPUT", "SELECT", "TEXTAREA"].includes(old.nodeName) && old !== document.activeElement && fresh.type !== "checkbox") {
    if (old.value !== fresh.value) old.value = fresh.value;
  }
}
