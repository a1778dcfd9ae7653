// Takes what the server renders each second and puts in place the parts that have changed.
"use strict";
const live = document.getElementById("live");
const connection = document.getElementById("connection");
let pressed = false; // a button must not be replaced between press and release: the click would be lost
let waiting = null;

function show(html) {
  if (pressed) { waiting = html; return; }
  const fresh = document.createElement("template");
  fresh.innerHTML = html; // the server's own rendering, in which every value is escaped; scripts in it do not run
  const focused = document.activeElement && live.contains(document.activeElement) ? document.activeElement.id : "";
  const parts = [...fresh.content.querySelectorAll("[data-part]")];
  if (parts.map((part) => part.id).join() !== [...live.querySelectorAll("[data-part]")].map((part) => part.id).join()) {
    live.replaceChildren(fresh.content);
  } else {
    for (const part of parts) {
      const old = document.getElementById(part.id);
      if (old.innerHTML !== part.innerHTML) old.replaceChildren(...part.childNodes);
    }
  }
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

addEventListener("pointerdown", () => { pressed = true; });
addEventListener("keydown", (event) => { if (event.key === " " || event.key === "Enter") pressed = true; });
for (const over of ["pointerup", "pointercancel", "keyup"]) {
  addEventListener(over, () => setTimeout(() => {
    pressed = false;
    if (waiting !== null) { const html = waiting; waiting = null; show(html); }
  }, 0));
}

const source = new EventSource(document.currentScript.dataset.live);
source.addEventListener("open", () => { connection.textContent = "Live"; });
source.addEventListener("error", () => { connection.textContent = "Not connected: these figures are old. Sign in again if this stays."; });
source.addEventListener("live", (event) => show(event.data));
