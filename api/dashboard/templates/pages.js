// Copies what a button says; and puts in place what has changed of a page that the server renders anew, and only that:
// what is read, chosen, focused or pressed stays where it is.
"use strict";
const live = document.getElementById("live");
const connection = document.getElementById("connection");
let pressed = false; // a button must not change between press and release: the click would be lost
let pointer = null;
let waiting = null;

function ready(root) {
  for (const each of root.querySelectorAll("button.copy[hidden]")) each.hidden = false;
}

addEventListener("click", async (event) => {
  const button = event.target.closest?.("button.copy");
  if (!button || button.textContent === "Copied") return;
  const text = button.dataset.copy.startsWith("/") ? location.origin + button.dataset.copy : button.dataset.copy;
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch { // over plain http, or not allowed: the old way, or else by hand
    const field = document.createElement("textarea");
    field.value = text;
    button.after(field);
    field.select();
    if (document.execCommand("copy")) button.textContent = "Copied";
    else prompt("Copy this", text);
    field.remove();
  }
  setTimeout(() => { button.textContent = label; }, 1500);
});

// Makes *old* say what *fresh* says. Children with an id are found again by it, all others by their place.
function patch(old, fresh) {
  for (const { name, value } of [...fresh.attributes]) {
    if (name !== "hidden" && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  }
  const staying = new Set([...fresh.children].map((each) => each.id).filter(Boolean));
  for (const each of [...old.children]) {
    if (each.id && !staying.has(each.id)) each.remove(); // first: what stays and is moved would lose the focus
  }
  let next = old.firstChild;
  for (const child of [...fresh.childNodes]) {
    const known = child.id ? [...old.children].find((each) => each.id === child.id) : null;
    if (known) { // what is between goes, so that what is known is moved only if others that stay have changed places
      while (next && next !== known && !staying.has(next.id ?? "")) {
        const gone = next;
        next = next.nextSibling;
        gone.remove();
      }
      if (known !== next) old.insertBefore(known, next);
    }
    const at = known ?? next;
    if (at && at.nodeType === child.nodeType && at.nodeName === child.nodeName && (at.id ?? "") === (child.id ?? "")) {
      if (child.nodeType === Node.ELEMENT_NODE) { if (!at.isEqualNode(child)) patch(at, child); }
      else if (at.nodeValue !== child.nodeValue) at.nodeValue = child.nodeValue;
      next = at.nextSibling;
    } else {
      old.insertBefore(child, next);
    }
  }
  while (next) {
    const gone = next;
    next = next.nextSibling;
    gone.remove();
  }
}

// What must not move: what has the focus, else what is under the pointer, else what is at the top of the window.
function held() {
  const focused = document.activeElement;
  if (focused && live.contains(focused)) return focused;
  const under = pointer && document.elementFromPoint(pointer.x, pointer.y);
  if (under && live.contains(under) && under !== live) return under;
  const rows = [...live.querySelectorAll("tr, h2, li, p")];
  return rows.find((each) => each.getBoundingClientRect().top >= 0) ?? rows.at(-1) ?? null;
}

function choosing() {
  const chosen = getSelection();
  return chosen && !chosen.isCollapsed && live.contains(chosen.anchorNode);
}

function show(html) {
  if (pressed || choosing()) { waiting = html; return; }
  waiting = null;
  const fresh = document.createElement("div");
  fresh.innerHTML = html; // the server's own rendering, in which every value is escaped; scripts in it do not run
  ready(fresh);
  fresh.id = live.id;
  const anchor = held();
  const before = anchor?.getBoundingClientRect().top;
  patch(live, fresh);
  if (anchor?.isConnected) scrollBy(0, anchor.getBoundingClientRect().top - before);
}

function late() { if (waiting !== null) show(waiting); }

ready(document);
if (document.currentScript.dataset.live) {
  addEventListener("pointermove", (event) => { pointer = { x: event.clientX, y: event.clientY }; });
  addEventListener("pointerdown", () => { pressed = true; });
  addEventListener("keydown", (event) => { if (event.key === " " || event.key === "Enter") pressed = true; });
  for (const over of ["pointerup", "pointercancel", "keyup"]) {
    addEventListener(over, () => setTimeout(() => { pressed = false; late(); }, 0));
  }
  document.addEventListener("selectionchange", late);
  const url = document.currentScript.dataset.live;
  let source = null;
  let over = false;
  const watch = () => {
    source?.close();
    if (document.hidden || over) return; // a browser has few connections for all its tabs
    source = new EventSource(url);
    source.addEventListener("open", () => { connection.textContent = "Live"; });
    source.addEventListener("error", () => { connection.textContent = "Not connected: these figures are old. Sign in again if this stays."; });
    source.addEventListener("live", (event) => show(event.data));
    source.addEventListener("over", () => { over = true; source.close(); connection.textContent = "It has ended."; });
  };
  document.addEventListener("visibilitychange", watch);
  watch();
}
