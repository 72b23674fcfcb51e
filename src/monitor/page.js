"use strict";
// Renews the content every few seconds, without moving the reader.
(() => {
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
        document.getElementById("content").innerHTML = content.innerHTML;
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
