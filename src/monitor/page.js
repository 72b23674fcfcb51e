"use strict";
// Renews the content every few seconds, without moving the reader.
(() => {
  // Changes only what differs, so that the focus, and where a screen reader is, stay.
  const update = (old, next) => {
    if (old.isEqualNode(next)) return;
    const [children, others] = [[...old.childNodes], [...next.childNodes]];
    if (old.nodeName !== next.nodeName || children.length !== others.length || children.length === 0) {
      old.replaceWith(next);
      return;
    }
    for (const { name, value } of next.attributes) old.setAttribute(name, value);
    children.forEach((child, index) => update(child, others[index]));
  };
  const stale = document.getElementById("stale");
  const renew = async () => {
    if (!document.hidden && String(getSelection()) === "") {
      try {
        const answer = await fetch("/", { cache: "no-store" });
        const next = new DOMParser().parseFromString(await answer.text(), "text/html");
        const [state, content] = ["state", "content"].map((id) => next.getElementById(id));
        if (!answer.ok || !state || !content) throw new Error("no status page");
        const shown = document.getElementById("state");
        // A screen reader reads this aloud, so it is only touched when it says something new.
        if (shown.innerHTML !== state.innerHTML) shown.innerHTML = state.innerHTML;
        update(document.getElementById("content"), content);
        document.title = next.title;
        stale.hidden = true;
      } catch {
        stale.hidden = false;
      }
    }
    setTimeout(renew, 5000);
  };
  setTimeout(renew, 5000);
})();
